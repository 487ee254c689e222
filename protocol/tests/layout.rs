//! Where every word of the shared regions lies, held against a committed file.
#![cfg(not(loom))]

#[path = "support/golden.rs"]
mod golden;

use plasmon_protocol::{
    id::NameId,
    index::{Entry, IndexReader, IndexWriter},
    layout::{
        INDEX_MAGIC, IndexShape, LAYOUT_VERSION, SESSION_MAGIC, WORD_BYTES, bucket, entry, index_header,
        session,
    },
    message::VERSION,
    name::Namespace,
    object::{Dtype, Flags, Header, Kind},
    pins::{SessionRegion, offset_of, pin_for},
    sync::{AtomicU64, Ordering},
};

/// Client and daemon of different builds share these words: whoever moves one raises [`LAYOUT_VERSION`], and this
/// test then wants a file of the new version beside the old one.
#[test]
fn the_layout_is_that_of_its_version() {
    let text = [constants(), shapes(), written_index(), written_session()].join("\n");
    golden::assert_golden(&golden::folder(LAYOUT_VERSION).join("layout.txt"), &text);
}

/// These numbers are on the wire, in shared memory and in files, and are never reused.
#[test]
fn kinds_dtypes_and_flags_have_their_numbers() {
    let mut text = String::from("# Kinds: number, name\n");
    for number in 0..=u8::MAX {
        if let Some(name) = Kind::from_number(number).name() {
            text += &format!("{number:>3} {name}\n");
        }
    }
    text += "\n# Dtypes: number, name, width in bytes\n";
    for number in 0..=u8::MAX {
        let dtype = Dtype::from_number(number);
        if let Some(name) = dtype.name() {
            text += &format!("{number:>3} {name} {}\n", dtype.width_bytes().unwrap_or(0));
        }
    }
    text += "\n# Flags: bits, name\n";
    for (flag, name) in [
        (Flags::OUR_ENCODER, "our_encoder"),
        (Flags::INLINE, "inline"),
        (Flags::BUFFER, "buffer"),
        (Flags::COLUMN_MAJOR, "column_major"),
    ] {
        text += &format!("{:>3} {name}\n", flag.bits());
    }
    text += &format!("{:>3} all known\n", Flags::from_bits(u8::MAX).bits());
    golden::assert_golden(&golden::folder(VERSION.into()).join("KINDS.txt"), &text);
}

macro_rules! offsets {
    ($out:ident: $($module:ident { $($word:ident)* })*) => {
        $($( $out += &format!("{:<30} {}\n", concat!(stringify!($module), "::", stringify!($word)), $module::$word); )*)*
    };
}

fn constants() -> String {
    let mut text = format!("# Shared layout {LAYOUT_VERSION}: offsets in words of {WORD_BYTES} bytes\n");
    text += &format!("INDEX_MAGIC {INDEX_MAGIC:#018x}\nSESSION_MAGIC {SESSION_MAGIC:#018x}\n");
    offsets! { text:
        index_header {
            MAGIC LAYOUT_VERSION STORE_UUID_LOW STORE_UUID_HIGH BUCKET_COUNT ENTRY_COUNT CAPACITY_BYTES EPOCH CLOSED
            WORDS
        }
        bucket { SEQUENCE HEAD WORDS }
        entry {
            NAME_ID NEXT_AND_KIND VERSION OFFSET LEN CREATED EXPIRES WRITER_AND_BUFFER DIMS RESERVED WORDS
        }
        session { MAGIC LAYOUT_VERSION PIN_HIGH_WATER HAND_OVER ACCESS_PAGES LEASES PINS ACCESS_BITS }
    }
    text
}

fn shapes() -> String {
    let mut text =
        String::from("# Shapes: entries, buckets, first bucket, first entry, words of index and session\n");
    for entries in [1, 2, 3, 4, 5, 64, 65, 65_536, 1 << 20, IndexShape::ENTRIES_MAX] {
        let shape = IndexShape::for_entries(entries).unwrap();
        let (buckets, first) = (shape.bucket_count(), shape.entry(1).unwrap());
        let (index, session) = (shape.words(), session::words(entries));
        text += &format!("{entries} {buckets} {} {first} {index} {session}\n", shape.bucket(0));
    }
    text
}

fn written_index() -> String {
    let shape = IndexShape::for_entries(4).unwrap();
    let words = words(shape.words());
    let mut writer = IndexWriter::prepare(&words, shape, *b"the store's uuid", 50_000_000);
    let long = Namespace::new("a-namespace-of-more-than-16-bytes").unwrap();
    let tensor = Entry {
        version: 0x0101,
        offset: 0x0202 * 64,
        len_bytes: 0x0303,
        created_ns: 0x0404,
        expires_ns: 0x0505,
        writer_uid: 0x0606,
        header: Header {
            kind: Kind::TENSOR,
            dtype: Dtype::FLOAT64,
            ndim: 3,
            flags: Flags::OUR_ENCODER.with(Flags::BUFFER),
            buffer_offset: 0x0707,
            dims: [0x0808, 0x0909, 0x0a0a, 0x0b0b],
        },
    };
    let inline = Entry { header: Header::new(Kind::TEXT).with_inline(b"inline value").unwrap(), ..tensor };
    let prices = NameId::new(&Namespace::default(), "prices");
    let number = writer.insert(&words, &prices, &inline).unwrap();
    writer.insert(&words, &NameId::new(&long, "größen"), &tensor).unwrap();
    writer.insert(&words, &NameId::new(&long, "gone"), &tensor).unwrap();
    writer.replace(&words, &prices, number, &Entry { version: 0x1111, ..inline });
    writer.remove(&words, &NameId::new(&long, "gone")).unwrap();
    writer.open_epoch(&words);
    writer.close_epoch(&words);
    writer.close(&words);
    assert!(IndexReader::open(&words[..]).unwrap().is_closed());
    dump("An index of 4 entries: one inline, one tensor, one removed; one epoch; closed", &words)
}

fn written_session() -> String {
    let words = words(session::words(128));
    let region = SessionRegion::prepare(&words).unwrap();
    region.publish(0, pin_for(0));
    region.publish(2, pin_for(4_096));
    assert_eq!(offset_of(pin_for(4_096)), Some(4_096));
    let state = |slot: u32| region.lease(slot, 5).unwrap();
    [0, 1, 2].into_iter().for_each(|slot| state(slot).grant());
    [1, 2].into_iter().for_each(|slot| state(slot).lay_down());
    let _ = state(2).take();
    [1, 64, 65].into_iter().for_each(|number| region.note_access(number));
    dump(
        "A session of 128 entries: pins 0 and 2; lease 5 busy, idle and taken; accesses 1, 64 and 65",
        &words,
    )
}

/// The words that are not zero.
fn dump(title: &str, words: &[AtomicU64]) -> String {
    let mut text = format!("# {title}\n");
    for (at, word) in words.iter().map(|word| word.load(Ordering::Relaxed)).enumerate() {
        if word != 0 {
            text += &format!("{at:>5} {word:016x}\n");
        }
    }
    text
}

fn words(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}
