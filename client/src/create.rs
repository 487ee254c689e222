//! Writing an object in place: bytes of a known length, or a table batch by batch.

use crate::{
    batch::{Batch, SealedView},
    brain::Brain,
    codec::{CodecError, Dtype, InPlaceFrame, Learn, Table},
    connection::CallError,
    error::{Error, Result},
    lease::Lease,
    options::LearnOptions,
    session::Session,
};
use arrow_array::RecordBatch;
use arrow_ipc::{
    MetadataVersion,
    writer::{FileWriter, IpcWriteOptions},
};
use arrow_schema::{Schema, SchemaRef};
use plasmon_protocol::{
    index_of,
    object::{Flags, Header, Kind},
};
use std::{
    io::{self, Write},
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// Bytes being written in place, in shared memory that no other process sees yet. Made by [`Brain::create`].
///
/// Dereferences to the bytes, zero or left over from other objects at first. Dropped without [`seal`](Self::seal),
/// it leaves nothing behind.
///
/// ```
/// let brain = plasmon::testing::brain()?;
/// let mut image = brain.create("image", 1_000_000)?;
/// image.fill(7);
/// image.seal()?;
/// assert!(brain.recall::<plasmon::Blob>("image")?.iter().all(|&byte| byte == 7));
/// # Ok::<(), plasmon::Error>(())
/// ```
#[must_use = "dropped without `seal`, nothing is learned"]
#[derive(Debug)]
pub struct Writable {
    brain: Brain,
    name: String,
    frame: InPlaceFrame,
    lease: Lease,
}

impl Writable {
    fn data(&self) -> std::ops::Range<usize> {
        let start = index_of(self.frame.data_offset());
        start..start + index_of(self.frame.data_len())
    }

    /// Makes the bytes immutable and binds the name to them. Returns the binding's version.
    ///
    /// # Errors
    /// As [`Brain::learn`]; [`Error::StoreUnavailable`] if the store went away since [`Brain::create`], and the memory
    /// with it.
    pub fn seal(self) -> Result<u64> {
        self.seal_with(&LearnOptions::default())
    }

    /// As [`seal`](Self::seal), with a description, metadata or a condition.
    ///
    /// # Errors
    /// As [`Brain::learn_with`].
    pub fn seal_with(mut self, options: &LearnOptions) -> Result<u64> {
        self.write_frame();
        let Writable { brain, name, frame, lease } = self;
        Batch::bind_written(&brain, &name, options, frame.header(), lease, frame.len_bytes())
    }

    /// As [`seal_with`](Self::seal_with), for callers that have given out pointers to the bytes: these stay good for
    /// reading for as long as the [`SealedView`] lives. A write through one ends the process.
    ///
    /// Where there is no view, it could not be made: then an error says why, and nothing is learned.
    pub fn seal_in_place(mut self, options: &LearnOptions) -> (Result<u64>, Option<SealedView>) {
        self.write_frame();
        let Writable { brain, name, frame, lease } = self;
        Batch::bind_in_place(&brain, &name, options, frame.header(), lease, frame.len_bytes())
    }

    /// Writes what stands around the bytes.
    fn write_frame(&mut self) {
        let len = index_of(self.frame.len_bytes());
        let (prefix, suffix) = (self.frame.prefix(), self.frame.suffix());
        let bytes = &mut self.lease.bytes_mut()[..len];
        bytes[..prefix.len()].copy_from_slice(prefix);
        bytes[len - suffix.len()..].copy_from_slice(suffix);
    }
}

impl Deref for Writable {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.lease.bytes()[self.data()]
    }
}

impl DerefMut for Writable {
    fn deref_mut(&mut self) -> &mut [u8] {
        let data = self.data();
        &mut self.lease.bytes_mut()[data]
    }
}

/// A table being written in place, batch by batch, for tables whose length is not known or which should not be held
/// twice. Made by [`Brain::writer`]. Dropped without [`finish`](Self::finish), it leaves nothing behind.
///
/// ```
/// use arrow_array::{Int64Array, RecordBatch};
/// use std::sync::Arc;
///
/// let brain = plasmon::testing::brain()?;
/// let batch = |n: i64| {
///     let numbers = Int64Array::from_iter_values(n..n + 1_000);
///     RecordBatch::try_from_iter([("n", Arc::new(numbers) as _)]).unwrap()
/// };
/// let mut writer = brain.writer("numbers", &batch(0).schema())?;
/// for n in 0..10 {
///     writer.write(&batch(n * 1_000))?;
/// }
/// writer.finish()?;
/// assert_eq!(brain.recall::<plasmon::Table>("numbers")?.num_rows(), 10_000);
/// # Ok::<(), plasmon::Error>(())
/// ```
#[must_use = "dropped without `finish`, nothing is learned"]
pub struct TableWriter {
    brain: Brain,
    name: String,
    writer: FileWriter<LeaseSink>,
    schema: SchemaRef,
    batches: usize,
    rows: u64,
    /// A write failed half way, so what is written is no table.
    failed: bool,
}

impl TableWriter {
    /// Appends a batch, which must have the writer's schema.
    ///
    /// # Errors
    /// [`Error::Codec`] with a [`SchemaMismatch`](crate::CodecError::SchemaMismatch) if the batch has another schema;
    /// then nothing was written, and the next batch may follow.
    ///
    /// [`Error::StoreFull`] if the table does not fit, and [`Error::Codec`] if a dictionary of an earlier batch was
    /// replaced (only one dictionary for each column fits an IPC file). After these the batch may be written in part,
    /// so the table cannot be finished: every later call fails with [`Error::WriterFailed`].
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.check_whole()?;
        // arrow-ipc does not compare: it would write the columns of any batch, and readers would take them for others.
        if let Err(error) = Table::new(self.schema.clone(), vec![batch.clone()]) {
            return Err(Error::Codec(match error {
                CodecError::SchemaMismatch { asked, found, .. } => {
                    CodecError::SchemaMismatch { batch: self.batches, asked, found }
                }
                error => error,
            }));
        }
        self.failed = true; // also if it panics
        let result = self.writer.write(batch);
        self.explain(result)?;
        self.failed = false;
        self.batches += 1;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Rows written so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.writer.get_ref().written as u64
    }

    /// Makes the table immutable and binds the name to it. Returns the binding's version.
    ///
    /// # Errors
    /// As [`Brain::learn`]; [`Error::WriterFailed`] if a batch could not be written;
    /// [`Error::StoreUnavailable`] if the store went away since [`Brain::writer`], and the memory with it.
    pub fn finish(self) -> Result<u64> {
        self.finish_with(&LearnOptions::default())
    }

    /// As [`finish`](Self::finish), with a description, metadata or a condition.
    ///
    /// # Errors
    /// As [`Brain::learn_with`].
    pub fn finish_with(mut self, options: &LearnOptions) -> Result<u64> {
        self.check_whole()?;
        let result = self.writer.finish();
        self.explain(result)?;
        let LeaseSink { lease, written, .. } = self.writer.into_inner().map_err(codec_error)?;
        let lease = lease.ok_or_else(|| Error::internal("nothing was written"))?;
        let header = Header { flags: Flags::OUR_ENCODER, ..Header::new(Kind::TABLE) };
        Batch::bind_written(&self.brain, &self.name, options, header, lease, written as u64)
    }

    fn check_whole(&self) -> Result<()> {
        if self.failed {
            return Err(Error::WriterFailed { name: self.name.clone() });
        }
        Ok(())
    }

    /// The store's own words, where it was the store that refused.
    fn explain(&mut self, result: Result<(), arrow_schema::ArrowError>) -> Result<()> {
        match (result, self.writer.get_mut().refusal.take()) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(refusal)) => Err(refusal),
            (Err(error), None) => Err(codec_error(error)),
        }
    }
}

fn codec_error(error: arrow_schema::ArrowError) -> Error {
    Error::Codec(CodecError::Arrow { doing: "write the table", source: error })
}

/// Where a table's bytes go: a lease that grows.
#[derive(Debug)]
struct LeaseSink {
    session: Arc<Session>,
    lease: Option<Lease>,
    written: usize,
    refusal: Option<Error>,
}

/// Smallest lease of a growing table, in bytes.
const FIRST_LEASE_BYTES: u64 = 1 << 20;

impl LeaseSink {
    fn make_room(&mut self, more: usize) -> Result<()> {
        let needed = (self.written + more) as u64;
        let session = &self.session;
        match &mut self.lease {
            None => {
                let wanted = needed.max(FIRST_LEASE_BYTES);
                // The usual length first; if there is no room for that, what is needed now.
                let lease = match Lease::get(session, wanted) {
                    Err(CallError::Failed(failure)) if failure.no_room().is_some() => {
                        Lease::get(session, needed)
                    }
                    result => result,
                };
                self.lease = Some(lease.map_err(|error| session.explain(error))?);
            }
            Some(lease) if lease.len_bytes() < needed => {
                // Twice as long each time, so that a lease that cannot grow in place is copied seldom.
                let wanted = needed.max(lease.len_bytes() * 2);
                let written = self.written as u64;
                let result = match lease.extend(written, wanted) {
                    Err(CallError::Failed(failure)) if failure.no_room().is_some() => {
                        lease.extend(written, needed)
                    }
                    result => result,
                };
                result.map_err(|error| session.explain(error))?;
            }
            Some(_) => {}
        }
        Ok(())
    }
}

impl Write for LeaseSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(refusal) = self.make_room(bytes.len()) {
            let error = io::Error::other(refusal.to_string());
            self.refusal = Some(refusal);
            return Err(error);
        }
        let lease = self.lease.as_mut().expect("there is room now");
        lease.bytes_mut()[self.written..self.written + bytes.len()].copy_from_slice(bytes);
        self.written += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Brain {
    /// Gets `len_bytes` of shared memory to write bytes into, which become the object `name` when they are sealed.
    /// They are recalled as [`Blob`](crate::Blob).
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::StoreFull`].
    pub fn create(&self, name: &str, len_bytes: u64) -> Result<Writable> {
        self.in_place(name, InPlaceFrame::bytes(len_bytes)?)
    }

    /// As [`create`](Self::create), for a tensor whose elements are written in place. It is recalled as
    /// [`TensorView`](crate::TensorView).
    ///
    /// # Errors
    /// As [`create`](Self::create); [`Error::Codec`] if there can be no such tensor.
    ///
    /// # Examples
    /// ```
    /// use plasmon::{Dtype, TensorView};
    ///
    /// let brain = plasmon::testing::brain()?;
    /// let mut image = brain.create_tensor("image", Dtype::UINT8, &[480, 640, 3], false)?;
    /// image.fill(7);
    /// image.seal()?;
    /// assert_eq!(brain.recall::<TensorView>("image")?.shape(), [480, 640, 3]);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn create_tensor(
        &self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        column_major: bool,
    ) -> Result<Writable> {
        self.in_place(name, InPlaceFrame::tensor(dtype, shape, column_major)?)
    }

    fn in_place(&self, name: &str, frame: InPlaceFrame) -> Result<Writable> {
        plasmon_protocol::name::Name::check(name)?;
        let session = self.session()?;
        let lease =
            Lease::reserve_sparse(&session, frame.len_bytes()).map_err(|error| session.explain(error))?;
        Ok(Writable { brain: self.clone(), name: name.to_owned(), frame, lease })
    }

    /// Begins a table of `schema` that is written batch by batch, and becomes the object `name` when it is finished.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::StoreFull`]; [`Error::Codec`] if the schema has types that cannot be read back.
    pub fn writer(&self, name: &str, schema: &Schema) -> Result<TableWriter> {
        plasmon_protocol::name::Name::check(name)?;
        let schema = Arc::new(schema.clone());
        Table::new(schema.clone(), Vec::new())?.prepare()?; // the checks that every learned table passes
        let session = self.session()?;
        let options = IpcWriteOptions::try_new(64, false, MetadataVersion::V5).map_err(codec_error)?;
        let sink = LeaseSink { session, lease: None, written: 0, refusal: None };
        let writer = FileWriter::try_new_with_options(sink, &schema, options).map_err(codec_error)?;
        let (brain, name) = (self.clone(), name.to_owned());
        Ok(TableWriter { brain, name, writer, schema, batches: 0, rows: 0, failed: false })
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::{object::Blob, testing::Store};
    use arrow_array::{ArrayRef, BinaryArray, Int64Array, StringArray};
    use plasmon_store::testing::Running;

    fn batch(column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter([("c", column)]).unwrap()
    }

    /// What is recalled without validation must have been written as what its schema says.
    #[test]
    fn a_batch_of_another_schema_is_refused_and_the_next_one_may_follow() {
        let store = Store::start(8 << 20).unwrap();
        let brain = store.connect().unwrap();
        let text = batch(Arc::new(StringArray::from(vec!["a"])));
        let no_text = batch(Arc::new(BinaryArray::from(vec![&b"\xff\xfe"[..]])));
        let mut writer = brain.writer("t", &text.schema()).unwrap();
        writer.write(&text).unwrap();
        let refused = writer.write(&no_text);
        assert!(
            matches!(refused, Err(Error::Codec(CodecError::SchemaMismatch { batch: 1, .. }))),
            "{refused:?}"
        );
        writer.write(&text).unwrap();
        writer.finish().unwrap();
        assert_eq!(*brain.recall::<Table>("t").unwrap(), [text.clone(), text]);
    }

    /// Invariant 3: a name is bound to a whole object or not at all.
    #[test]
    fn a_table_that_did_not_fit_cannot_be_finished_and_leaves_nothing_behind() {
        let store = Store::start(8 << 20).unwrap();
        let brain = store.connect().unwrap();
        brain.learn("filler", &vec![0_u8; 5 << 20]).unwrap();
        let numbers = batch(Arc::new(Int64Array::from_iter_values(0..50_000)));
        let mut writer = brain.writer("t", &numbers.schema()).unwrap();
        let full = std::iter::repeat_with(|| writer.write(&numbers)).find_map(Result::err).unwrap();
        assert!(matches!(full, Error::StoreFull(_)), "{full}");
        brain.forget("filler").unwrap(); // there would be room now
        assert!(matches!(writer.write(&numbers), Err(Error::WriterFailed { .. })));
        assert!(matches!(writer.finish(), Err(Error::WriterFailed { .. })));
        assert!(!brain.exists("t").unwrap());
        let stats = brain.stats().unwrap();
        assert_eq!((stats.leases, stats.used_bytes), (0, 0));
    }

    /// Leases of two stores can have the same number: the memory of one must not be sealed in the other.
    #[test]
    fn what_was_written_for_one_store_is_not_sealed_in_its_successor() {
        let mut first = Running::start(16 << 20).unwrap();
        let socket = first.socket().to_owned();
        let brain = Brain::builder().path(&socket).connect().unwrap();
        let mut written = brain.create("image", 100_000).unwrap();
        written.fill(7);
        first.stop();
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let mut second =
            Running::start_with(16 << 20, |options| options.socket = Some(socket.clone())).unwrap();
        let mut other = loop {
            match brain.create("other", 100_000) {
                Ok(other) => break other,
                Err(error) => assert!(error.is_unavailable(), "{error}"), // until the lifeline is looked at again
            }
        };
        other.fill(9);
        let sealed = written.seal();
        assert!(matches!(sealed, Err(Error::StoreUnavailable { .. })), "{sealed:?}");
        assert!(!brain.exists("image").unwrap());
        other.seal().unwrap();
        assert!(brain.recall::<Blob>("other").unwrap().iter().all(|&byte| byte == 9));
        second.stop();
        let _ = std::fs::remove_dir_all(socket.parent().unwrap());
    }
}
