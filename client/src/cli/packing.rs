//! Files that are compressed as a whole: `flights.csv.gz`, `flights.jsonl.zst`.

use flate2::{Compression, bufread::MultiGzDecoder, write::GzEncoder};
use std::{
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

/// How a file is compressed as a whole, whatever format is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
}

impl Packing {
    /// The packing that the name of a file promises, and the name without it: `a.csv` of `a.csv.gz`.
    pub(super) fn of_path(path: &Path) -> Option<(Packing, PathBuf)> {
        let packing = match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "gz" => Packing::Gzip,
            "zst" => Packing::Zstd,
            _ => return None,
        };
        Some((packing, path.with_extension("")))
    }

    /// The packing that the first bytes of a file prove.
    pub(super) fn of_head(head: &[u8]) -> Option<Packing> {
        match head {
            [0x1f, 0x8b, ..] => Some(Packing::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::Zstd),
            _ => None,
        }
    }

    /// What is inside.
    pub(super) fn unpack(self, packed: impl Read + 'static) -> io::Result<Box<dyn Read>> {
        Ok(match self {
            Packing::Gzip => Box::new(MultiGzDecoder::new(BufReader::new(packed))),
            Packing::Zstd => Box::new(zstd::Decoder::new(packed)?),
        })
    }
}

/// A file that is written, compressed or not. [`finish`](Self::finish) writes the end of what is compressed.
pub(super) enum Packed<W: Write> {
    Not(W),
    Gzip(GzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Packed<W> {
    pub(super) fn new(inner: W, packing: Option<Packing>) -> io::Result<Packed<W>> {
        Ok(match packing {
            None => Packed::Not(inner),
            Some(Packing::Gzip) => Packed::Gzip(GzEncoder::new(inner, Compression::default())),
            Some(Packing::Zstd) => Packed::Zstd(zstd::Encoder::new(inner, zstd::DEFAULT_COMPRESSION_LEVEL)?),
        })
    }

    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Packed::Not(mut inner) => inner.flush(),
            Packed::Gzip(encoder) => encoder.finish()?.flush(),
            Packed::Zstd(encoder) => encoder.finish()?.flush(),
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Packed::Not(inner) => inner,
            Packed::Gzip(encoder) => encoder,
            Packed::Zstd(encoder) => encoder,
        }
    }
}

impl<W: Write> Write for Packed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_unpacked_by_what_it_begins_with() {
        let content = b"a,b\n1,2\n".repeat(1_000);
        for packing in [Packing::Gzip, Packing::Zstd] {
            let mut file = Vec::new();
            let mut packed = Packed::new(&mut file, Some(packing)).unwrap();
            packed.write_all(&content).unwrap();
            packed.finish().unwrap();
            assert!(file.len() < content.len() / 10, "{packing:?} does not compress");
            assert_eq!(Packing::of_head(&file), Some(packing));
            let mut found = Vec::new();
            packing.unpack(io::Cursor::new(file)).unwrap().read_to_end(&mut found).unwrap();
            assert_eq!(found, content);
        }
    }

    #[test]
    fn a_name_promises_a_packing_and_what_is_inside() {
        assert_eq!(Packing::of_path(Path::new("d/a.csv.GZ")), Some((Packing::Gzip, "d/a.csv".into())));
        assert_eq!(Packing::of_path(Path::new("a.zst")), Some((Packing::Zstd, "a".into())));
        assert_eq!(Packing::of_path(Path::new("a.csv")), None);
        assert_eq!(Packing::of_path(Path::new("gz")), None);
    }
}
