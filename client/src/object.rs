//! What a recall gives: a handle that holds an object in place, and the values that can be made of it.

use crate::{
    codec::{
        self, CodecError, DESCRIBED, Json, Kind, Learn, Pickle, Table, TensorView, Text, decode_bool,
        decode_bytes, decode_f64, decode_i64, decode_json, decode_json_text, decode_pickle, decode_table,
        decode_tensor, decode_text,
    },
    error::{Error, Result},
    session::{Session, Slot},
};
use arrow_array::Array;
use arrow_buffer::Buffer;
use plasmon_protocol::{
    index::{Entry, NO_EXTENT},
    index_of,
    object::{Flags, Header},
};
use plasmon_shm::CopyOnWriteMapping;
use std::{
    borrow::Cow,
    fmt,
    ops::{Deref, DerefMut, Range},
    ptr::NonNull,
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

/// A recalled object, whatever its kind. It stays where it is, unchanged, until this handle and everything made from
/// it are dropped, even if its name is rebound or forgotten or the store ends.
///
/// ```
/// let brain = plasmon::testing::brain()?;
/// let version = brain.learn("answer", &42_i64)?;
/// let object: plasmon::Object = brain.recall("answer")?;
/// assert_eq!((object.version(), object.kind()), (version, plasmon::Kind::INT64));
/// # Ok::<(), plasmon::Error>(())
/// ```
#[derive(Clone)]
pub struct Object {
    entry: Entry,
    /// The bytes of the IPC file, over the pin; `None` where the value stands in the entry itself.
    file: Option<Buffer>,
    /// Whether its writer is believed: this user, or root.
    of_own_user: bool,
    trusted: bool,
}

/// Where the values of objects lie that stand in the index: nowhere in the arena.
static NOWHERE: LazyLock<Buffer> = LazyLock::new(Buffer::default);

/// The pin under a buffer: what Arrow drops when the last buffer over the object goes.
struct Pinned(#[expect(dead_code, reason = "it is held, and gives the slot back when dropped")] Slot);

// Nothing in a slot can be left half done by a panic: all of it is atomics.
impl std::panic::RefUnwindSafe for Pinned {}

impl Object {
    /// The object that `entry` names, which `slot` pins. `slot` is `None` where the value stands in the entry.
    pub(crate) fn new(session: &Session, entry: Entry, slot: Option<Slot>) -> Result<Object> {
        let of_own_user = session.trusts(entry.writer_uid);
        let trusted = entry.header.flags.has(Flags::OUR_ENCODER) && of_own_user;
        let file = slot.map(|slot| buffer_over(session, &entry, slot)).transpose()?;
        Ok(Object { entry, file, of_own_user, trusted })
    }

    /// An object of bytes that this process has encoded, and that no store has.
    pub(crate) fn of_this_process(header: Header, bytes: Buffer) -> Object {
        let in_header = header.inline();
        let len_bytes = in_header.map_or(bytes.len() as u64, |(_, len)| len as u64);
        let (version, created_ns, expires_ns, writer_uid) = (0, 0, 0, nix::unistd::getuid().as_raw());
        let entry =
            Entry { version, offset: NO_EXTENT, len_bytes, created_ns, expires_ns, writer_uid, header };
        let file = in_header.is_none().then_some(bytes);
        Object { entry, file, of_own_user: true, trusted: header.flags.has(Flags::OUR_ENCODER) }
    }

    /// For fuzz targets: an object as another user may have learned it, whatever its header says.
    #[cfg(fuzzing)]
    #[doc(hidden)]
    #[must_use]
    pub fn of_stranger(header: plasmon_protocol::object::Header, bytes: &[u8]) -> Object {
        let len_bytes = bytes.len() as u64;
        let entry =
            Entry { version: 1, offset: 0, len_bytes, created_ns: 0, expires_ns: 0, writer_uid: 1, header };
        let mut aligned = arrow_buffer::MutableBuffer::new(bytes.len()); // at a multiple of 64, as in the arena
        aligned.extend_from_slice(bytes);
        let file = (!header.flags.has(Flags::INLINE)).then(|| aligned.into());
        Object { entry, file, of_own_user: false, trusted: false }
    }

    /// Version of the binding that this object was recalled by.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.entry.version
    }

    /// What kind of value it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.entry.header.kind
    }

    /// Length of the object in the store, in bytes. A value of at most 32 bytes stands in the index, and has its own length
    /// there: 8 for an integer.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.entry.len_bytes
    }

    /// When it was learned, by the clock of the store's machine.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.entry.created_ns)
    }

    /// Uid of the process that learned it, as the store sees it.
    #[must_use]
    pub fn writer_uid(&self) -> u32 {
        self.entry.writer_uid
    }

    /// Whether this process's own user, as the store sees it, or root has learned it. A pickle of anybody else runs a
    /// stranger's code when it is unpickled.
    ///
    /// # Examples
    /// ```
    /// # let store = plasmon::testing::Store::start(8 << 20)?; let brain = store.connect()?;
    /// brain.learn("answer", &42)?;
    /// assert!(brain.recall::<plasmon::Object>("answer")?.is_of_own_user());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn is_of_own_user(&self) -> bool {
        self.of_own_user
    }

    /// Whether the bytes were made in place ([`Brain::create`](crate::Brain::create)): a buffer, rather than a value
    /// that was copied into the store.
    #[must_use]
    pub fn is_made_in_place(&self) -> bool {
        let header = &self.entry.header;
        header.kind == Kind::BYTES && header.ndim == 1 && !header.flags.has(Flags::INLINE)
    }

    /// The object as a value of its kind.
    ///
    /// # Errors
    /// [`Error::Codec`] with [`CodecError::WrongKind`] if the object is not a `T`, and if it is malformed.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("answer", &42)?;
    /// let object: plasmon::Object = brain.recall("answer")?;
    /// assert_eq!(object.to::<i64>()?, 42);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[inline]
    pub fn to<T: FromObject>(&self) -> Result<T> {
        Ok(T::from_object(self.clone())?)
    }

    /// The object as an Arrow IPC file. Borrowed from shared memory; a value of at most 32 bytes, which stands in the
    /// index itself, is encoded again.
    ///
    /// # Errors
    /// [`Error::Codec`] if a value in the index cannot be encoded.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("answer", &42)?;
    /// let object: plasmon::Object = brain.recall("answer")?;
    /// let reader = arrow_ipc::reader::FileReader::try_new(std::io::Cursor::new(object.as_ipc()?), None).unwrap();
    /// assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 1);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn as_ipc(&self) -> Result<Cow<'_, [u8]>> {
        match &self.file {
            Some(file) => Ok(Cow::Borrowed(file.as_slice())),
            None => Ok(Cow::Owned(self.encode_again()?)),
        }
    }

    /// The object as an Arrow IPC file, in place, if it need not be validated before others read it: it was written by
    /// an encoder of this product, in a process of this user, of root, or of a user that is trusted. `None` otherwise,
    /// and if the value stands in the index itself.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("text", &"x".repeat(1_000))?;
    /// let object: plasmon::Object = brain.recall("text")?;
    /// assert!(object.trusted_file().is_some_and(|file| file.starts_with(b"ARROW1")));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn trusted_file(&self) -> Option<&Buffer> {
        self.file.as_ref().filter(|_| self.trusted)
    }

    /// Of a table that was learned as blocks ([`BlockTable`](crate::BlockTable)), if its writer is trusted to have written
    /// what the description says: the description, which is JSON, and the bytes that the places in it refer to. `None` of
    /// all others. Neither is checked but to lie within the object.
    ///
    /// # Errors
    /// [`Error::Codec`] if they do not.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("answer", &42)?;
    /// assert!(brain.recall::<plasmon::Object>("answer")?.blocks()?.is_none());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn blocks(&self) -> Result<Option<(Buffer, Buffer)>> {
        let header = &self.entry.header;
        match self.trusted_file() {
            Some(file) if header.kind == Kind::TABLE && header.flags.has(Flags::BUFFER) => {
                Ok(Some(codec::decode_blocks(file, header)?))
            }
            _ => Ok(None),
        }
    }

    /// The IPC file of a value that stands in the index itself. It was never stored; it is the same each time, for our
    /// encoder is a function of the value.
    fn encode_again(&self) -> Result<Vec<u8>, CodecError> {
        let (nowhere, header) = (&*NOWHERE, &self.entry.header);
        match header.kind {
            Kind::NULL => ().prepare()?.to_vec(),
            Kind::BOOL => decode_bool(nowhere, header)?.prepare()?.to_vec(),
            Kind::INT64 => decode_i64(nowhere, header)?.prepare()?.to_vec(),
            Kind::FLOAT64 => decode_f64(nowhere, header)?.prepare()?.to_vec(),
            Kind::TEXT => decode_text(nowhere, header, false)?.prepare()?.to_vec(),
            Kind::JSON => decode_json_text(nowhere, header, false)?.prepare()?.to_vec(),
            Kind::PICKLE => decode_pickle(nowhere, header, false)?.prepare()?.to_vec(),
            _ => decode_bytes(nowhere, header)?.as_slice().prepare()?.to_vec(),
        }
    }

    /// The IPC file, for decoders, which do not look at it where the value stands in the header.
    fn file(&self) -> &Buffer {
        self.file.as_ref().unwrap_or(&NOWHERE)
    }

    /// Whether a Python client of a trusted user wrote a table together with the metadata that say what it was there.
    #[doc(hidden)]
    #[must_use]
    pub fn is_described(&self) -> bool {
        let header = &self.entry.header;
        self.trusted && header.kind == Kind::TABLE && header.ndim == DESCRIBED
    }

    /// The object as record batches, without copying a column. Every kind but pickles has such a form (docs/layout.md):
    /// the bytes of a pickle are not the value's data, and [`Pickle`] has them.
    ///
    /// # Errors
    /// [`Error::Codec`] with [`CodecError::WrongKind`] if it is a pickle; and if it is malformed, which can be only if
    /// another user or another encoder wrote it.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("answer", &42)?;
    /// let table = brain.recall::<plasmon::Object>("answer")?.table()?;
    /// assert_eq!(table.schema().field(0).name(), "value");
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn table(&self) -> Result<Table> {
        if self.kind() == Kind::PICKLE {
            return Err(CodecError::WrongKind { asked: Kind::TABLE, found: Kind::PICKLE }.into());
        }
        match &self.file {
            Some(file) => Ok(decode_table(file, self.trusted)?),
            None => Ok(decode_table(&Buffer::from_vec(self.encode_again()?), true)?),
        }
    }

    /// How many bytes of `table`'s columns lie outside this object's shared memory: 0 for what
    /// [`table`](Self::table) returns.
    #[must_use]
    pub fn copied_bytes(&self, table: &Table) -> usize {
        fn outside(data: &arrow_data::ArrayData, object: &Object) -> usize {
            let lies_outside = |buffer: &&Buffer| object.range_of(buffer).is_none();
            let nulls = data.nulls().map(|nulls| nulls.buffer());
            let own: usize = data.buffers().iter().chain(nulls).filter(lies_outside).map(Buffer::len).sum();
            own + data.child_data().iter().map(|child| outside(child, object)).sum::<usize>()
        }
        let columns = table.iter().flat_map(|batch| batch.columns());
        columns.map(|column| outside(&column.to_data(), self)).sum()
    }

    /// Where in the object's bytes, the IPC file, `buffer` lies; `None` if it lies elsewhere.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("raw", &[7_u8; 1000])?;
    /// let object: plasmon::Object = brain.recall("raw")?;
    /// let buffer = object.to::<plasmon::Blob>()?.into_buffer();
    /// let range = object.range_of(&buffer).expect("it was not copied");
    /// assert_eq!(object.as_ipc()?[range], [7; 1000]);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn range_of(&self, buffer: &Buffer) -> Option<Range<usize>> {
        let file = self.file.as_ref()?;
        let start = buffer.as_ptr().addr().checked_sub(file.as_ptr().addr())?;
        let end = start.checked_add(buffer.len())?;
        (end <= file.len()).then_some(start..end)
    }

    /// The object's bytes, the IPC file, such that this process can write to them and the store keeps what it has.
    /// `None` for a value of at most 32 bytes, which stands in the index itself.
    ///
    /// Nothing is copied until it is written, and then a page at a time. Each call gives bytes of its own.
    ///
    /// # Errors
    /// [`Error::Internal`] if the kernel refuses another mapping: a process may have some 65,000.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("raw", &[7_u8; 1000])?;
    /// let object: plasmon::Object = brain.recall("raw")?;
    /// let range = object.range_of(&object.to::<plasmon::Blob>()?.into_buffer()).expect("it was not copied");
    ///
    /// let mut own = object.copy_on_write()?.expect("it is larger than 32 bytes");
    /// own[range][0] = 8;
    /// assert!(brain.recall::<plasmon::Blob>("raw")?.iter().all(|&byte| byte == 7));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn copy_on_write(&self) -> Result<Option<CopyOnWrite>> {
        let Some(file) = &self.file else { return Ok(None) };
        let (offset, len_bytes) = (self.entry.offset, self.entry.len_bytes);
        // The session that has the bytes mapped here: its pin, which `file` owns, keeps it in this list. Recalls need
        // not pay for a reference to it.
        let has_it = |session: &&Arc<Session>| {
            let found = session.pointer(offset, len_bytes);
            found.is_some_and(|found| std::ptr::eq(found.as_ptr(), file.as_ptr()))
        };
        let sessions = Session::all();
        let Some(session) = sessions.iter().find(has_it) else {
            return Err(Error::internal("an object lies in the memory of no session".to_owned()));
        };
        Ok(Some(CopyOnWrite {
            mapping: session.map_copy_on_write(offset, len_bytes)?,
            _object: self.clone(),
        }))
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, version, len_bytes) = (self.kind(), self.version(), self.len_bytes());
        write!(f, "Object {{ kind: {kind}, version: {version}, len_bytes: {len_bytes} }}")
    }
}

/// One Arrow buffer over the object's bytes, which owns the pin.
#[expect(unsafe_code, reason = "the one place where shared memory becomes an Arrow buffer")]
fn buffer_over(session: &Session, entry: &Entry, slot: Slot) -> Result<Buffer> {
    let Some(pointer) = session.pointer(entry.offset, entry.len_bytes) else {
        let what =
            format!("the index names {} bytes at {}, outside the arena", entry.len_bytes, entry.offset);
        return Err(Error::internal(what));
    };
    let owner = Arc::new(Pinned(slot));
    // SAFETY: `Buffer::from_custom_allocation` asks that `pointer` be valid for reads of `len` bytes until `owner` is
    // dropped, and that they do not change:
    // - valid: `Session::pointer` checked that the bytes lie inside the read-only mapping of the arena, whose memfd is
    //   sealed against shrinking; the slot in `owner` holds the session, and so the mapping;
    // - unchanged: the slot's pin was published and the index re-read since (`IndexReader::lookup`), or stored by the
    //   daemon itself before it answered, so the daemon does not reuse the extent before `owner` is dropped
    //   (plasmon_protocol::pins). Trusted, not proven: a process of the daemon's own uid that holds the writable arena
    //   keeps its hands off sealed extents (docs/SECURITY.md).
    Ok(unsafe { Buffer::from_custom_allocation(pointer, index_of(entry.len_bytes), owner) })
}

/// An object's bytes that this process can write to without changing the object: whoever else recalls it, also in this
/// process, sees what was learned. Made by [`Object::copy_on_write`].
///
/// It holds the object as an [`Object`] does. A forked child inherits what was written so far, and from then on neither
/// sees what the other writes.
#[derive(Debug)]
pub struct CopyOnWrite {
    // Unmapped before the pin goes: fields are dropped in this order.
    mapping: CopyOnWriteMapping,
    _object: Object,
}

impl CopyOnWrite {
    /// The first byte. Reading and writing through it is for callers that share these bytes with code in another
    /// language; meanwhile no slice of them may be looked at.
    #[must_use]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.mapping.as_ptr()
    }
}

impl Deref for CopyOnWrite {
    type Target = [u8];

    #[expect(unsafe_code, reason = "the pin that it asks for is held here")]
    fn deref(&self) -> &[u8] {
        // SAFETY: `as_slice` asks that pins be held on all of the range, which is the object's: `_object` does, as
        // `buffer_over` says; and that nobody write through `as_ptr` meanwhile, which its documentation asks.
        unsafe { self.mapping.as_slice() }
    }
}

impl DerefMut for CopyOnWrite {
    #[expect(unsafe_code, reason = "the pin that it asks for is held here")]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `as_ptr` asks the same of those who read.
        unsafe { self.mapping.as_mut_slice() }
    }
}

/// Bytes recalled without copying: a slice of shared memory.
///
/// ```
/// let brain = plasmon::testing::brain()?;
/// brain.learn("raw", &b"some bytes"[..])?;
/// let bytes: plasmon::Blob = brain.recall("raw")?;
/// assert_eq!(&*bytes, b"some bytes");
/// # Ok::<(), plasmon::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob(Buffer);

impl Blob {
    /// The Arrow buffer under it.
    #[must_use]
    pub fn into_buffer(self) -> Buffer {
        self.0
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// What a recalled object can become: the type parameter of [`Brain::recall`](crate::Brain::recall). Sealed.
///
/// | type | kinds | copies |
/// | --- | --- | --- |
/// | [`Object`] | all | nothing |
/// | [`Table`] | tables | nothing |
/// | [`Blob`] | bytes | nothing |
/// | [`Text`] | text | nothing |
/// | [`TensorView`] | tensors | nothing |
/// | [`Json`] | JSON, as its text | nothing |
/// | [`Pickle`] | pickled Python values | nothing |
/// | `Vec<u8>`, `String` | bytes, text | the value, once |
/// | `i64`, `f64`, `bool`, `()` | numbers, truth values, null | – |
/// | `serde_json::Value` | JSON | the value, parsed |
pub trait FromObject: sealed::Sealed + Sized {
    #[doc(hidden)]
    const ASKED: &'static str;
    #[doc(hidden)]
    fn is_kind(kind: Kind) -> bool;
    #[doc(hidden)]
    fn from_object(object: Object) -> Result<Self, CodecError>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! from_object {
    ($($type:ty, $asked:literal, $kind:pat, |$object:ident| $decode:expr;)*) => {$(
        impl sealed::Sealed for $type {}

        impl FromObject for $type {
            const ASKED: &'static str = $asked;

            fn is_kind(kind: Kind) -> bool {
                matches!(kind, $kind)
            }

            fn from_object($object: Object) -> Result<Self, CodecError> {
                $decode
            }
        }
    )*};
}
from_object! {
    Object, "an object", _, |object| Ok(object);
    Table, "a table", Kind::TABLE, |object| match object.kind() {
        Kind::TABLE => decode_table(object.file(), object.trusted),
        found => Err(CodecError::WrongKind { asked: Kind::TABLE, found }),
    };
    Blob, "bytes", Kind::BYTES, |object| decode_bytes(object.file(), &object.entry.header).map(Blob);
    Vec<u8>, "bytes", Kind::BYTES, |object| Ok(decode_bytes(object.file(), &object.entry.header)?.to_vec());
    Text, "text", Kind::TEXT, |object| decode_text(object.file(), &object.entry.header, object.trusted);
    String, "text", Kind::TEXT,
        |object| Ok(decode_text(object.file(), &object.entry.header, object.trusted)?.to_string());
    Json, "JSON", Kind::JSON, |object| decode_json_text(object.file(), &object.entry.header, object.trusted);
    Pickle, "a pickle", Kind::PICKLE,
        |object| decode_pickle(object.file(), &object.entry.header, object.trusted);
    TensorView, "a tensor", Kind::TENSOR,
        |object| decode_tensor(object.file(), &object.entry.header, object.trusted);
    serde_json::Value, "JSON", Kind::JSON, |object| decode_json(object.file(), &object.entry.header);
    i64, "an integer", Kind::INT64, |object| decode_i64(object.file(), &object.entry.header);
    f64, "a float", Kind::FLOAT64, |object| decode_f64(object.file(), &object.entry.header);
    bool, "a truth value", Kind::BOOL, |object| decode_bool(object.file(), &object.entry.header);
    (), "null", Kind::NULL, |object| codec::decode_null(&object.entry.header);
}
