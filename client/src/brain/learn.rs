//! Learning: one commit, of one binding or of many.

use super::Brain;
#[cfg(doc)]
use crate::error::Error;
use crate::{
    batch::Batch,
    codec::{Learn, Table},
    error::Result,
    options::{LearnOptions, NamespaceOptions, checked_ttl},
};
use plasmon_protocol::message::Change;

impl Brain {
    /// Binds `name` to a new object made of `value`, and returns the binding's version.
    ///
    /// A value of up to 64 KiB encoded travels inside one request; a larger one is copied once, into shared memory.
    /// Other readers see the old binding or the new one, never a mixture. Blocks for one round trip, or two; longer
    /// only if memory has to be made first.
    ///
    /// # Errors
    /// [`Error::BadName`]; [`Error::Codec`] if the value cannot be encoded; [`Error::StoreFull`] if there is no room;
    /// then nothing has changed. [`Error::OutcomeUnknown`] if the store went away before it answered.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// let first = brain.learn("greeting", "hello")?;
    /// let second = brain.learn("greeting", "hello again")?;
    /// assert!(second > first);
    /// assert_eq!(brain.recall::<String>("greeting")?, "hello again");
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn learn<V: Learn + ?Sized>(&self, name: &str, value: &V) -> Result<u64> {
        self.learn_with(name, value, &LearnOptions::default())
    }

    /// As [`learn`](Self::learn), with a description, metadata or a condition.
    ///
    /// # Errors
    /// As [`learn`](Self::learn); [`Error::ConditionFailed`] if the condition did not hold.
    pub fn learn_with<V: Learn + ?Sized>(
        &self,
        name: &str,
        value: &V,
        options: &LearnOptions,
    ) -> Result<u64> {
        self.batch()?.learn_with(name, value, options)?.commit()
    }

    /// Binds `target` to the object that `source` is bound to, and returns the new binding's version. No bytes move, and
    /// both names count as one object: forgetting one leaves the other. `target` gets the description and the metadata of
    /// `source`, and lives as this namespace has declared. Blocks for one round trip.
    ///
    /// # Errors
    /// [`Error::NotBound`], [`Error::BadName`], [`Error::IndexFull`], [`Error::OutcomeUnknown`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("prices", "of today")?;
    /// brain.copy("prices", "prices of yesterday")?;
    /// brain.learn("prices", "of tomorrow")?;
    /// assert_eq!(brain.recall::<String>("prices of yesterday")?, "of today");
    /// assert!(brain.copy("no such name", "copy").unwrap_err().is_not_found());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn copy(&self, source: &str, target: &str) -> Result<u64> {
        self.batch()?.copy(source, target)?.commit()
    }

    /// As [`copy`](Self::copy), into another namespace, which is registered if it is new.
    ///
    /// # Errors
    /// As [`copy`](Self::copy).
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("prices", "of today")?;
    /// brain.copy_to("prices", "archive", "prices")?;
    /// assert_eq!(brain.in_namespace("archive")?.recall::<String>("prices")?, "of today");
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn copy_to(&self, source: &str, namespace: &str, target: &str) -> Result<u64> {
        self.batch()?.copy_to(source, namespace, target)?.commit()
    }

    /// Moves what `old` is bound to to `new`, at one moment, and returns the new binding's version. Description, metadata,
    /// time to live and deadline go with it. If `new` is bound, it is bound anew. Blocks for one round trip.
    ///
    /// # Errors
    /// [`Error::NotBound`], [`Error::BadName`], [`Error::OutcomeUnknown`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("draft", "text")?;
    /// brain.rename("draft", "final")?;
    /// assert!(!brain.exists("draft")?);
    /// assert_eq!(brain.recall::<String>("final")?, "text");
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn rename(&self, old: &str, new: &str) -> Result<u64> {
        self.batch()?.rename(old, new)?.commit()
    }

    /// Binds `name` to the table in `file`, an Arrow IPC file from anywhere. Its contents are validated once, now.
    ///
    /// # Errors
    /// [`Error::Codec`] if it is not a valid IPC file; else as [`learn`](Self::learn).
    ///
    /// # Examples
    /// ```
    /// use arrow_array::record_batch;
    ///
    /// let batch = record_batch!(("a", Int32, [1, 2, 3])).unwrap();
    /// let mut writer = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    /// writer.write(&batch).unwrap();
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn_ipc("table", &writer.into_inner().unwrap(), &plasmon::LearnOptions::new())?;
    /// assert_eq!(brain.recall::<plasmon::Table>("table")?[0], batch);
    /// assert!(matches!(brain.learn_ipc("no", b"no file", &Default::default()), Err(plasmon::Error::Codec(_))));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn learn_ipc(&self, name: &str, file: &[u8], options: &LearnOptions) -> Result<u64> {
        let table = Table::from_ipc(file.to_vec())?;
        self.learn_with(name, &table, options)
    }

    /// Declares what holds for this namespace, in the place of what was declared before, and registers it if it is new. It
    /// holds until the namespace is removed; a time to live, for what is learned from now on.
    ///
    /// # Errors
    /// [`Error::NoTimeToLive`]; [`Error::IdTaken`], [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// use plasmon::NamespaceOptions;
    /// use std::time::Duration;
    ///
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let cache = store.connect()?.in_namespace("results")?;
    /// cache.declare(&NamespaceOptions::new().cache().ttl(Duration::from_secs(3_600)))?;
    /// cache.learn("a", &1)?;
    /// assert_eq!(cache.metadata("a")?.and_then(|it| it.ttl), Some(Duration::from_secs(3_600)));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn declare(&self, options: &NamespaceOptions) -> Result<()> {
        let (namespace, is_cache) = (self.namespace.clone(), options.is_cache);
        let ttl = checked_ttl(options.ttl.as_ref())?;
        self.batch()?.change(Change::DeclareNamespace { namespace, is_cache, ttl }).commit().map(drop)
    }

    /// Begins a batch: many changes at one moment.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub fn batch(&self) -> Result<Batch> {
        Batch::new(self)
    }
}
