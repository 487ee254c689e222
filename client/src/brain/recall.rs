//! Recalling: one look at the shared index, and what becomes of what was found.

use super::Brain;
use crate::{
    error::{Error, Result},
    object::{FromObject, Object},
    session::{Session, Slot},
};
use plasmon_protocol::{
    id::NameId,
    index::{Entry, Lookup},
    limits::SNAPSHOT_TRIES_MAX,
    name::Name,
};
use plasmon_shm::{FaultPoint, fault_point};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

impl Brain {
    /// Recalls what is bound to `name`.
    ///
    /// Asks the store nothing: one look at the shared index, whatever the size of the object and the number of names.
    /// No column is copied. What is returned stays valid and unchanged until it is dropped, even if the name is
    /// rebound or forgotten or the store ends.
    ///
    /// # Errors
    /// [`Error::NameNotFound`]; [`Error::WrongKind`] if the object is not a `T`; [`Error::Codec`] if it is malformed;
    /// [`Error::StoreUnavailable`]; [`Error::TooMany`] if this process holds as many objects as it may.
    ///
    /// # Examples
    /// ```
    /// use arrow_array::{Int64Array, RecordBatch};
    /// use plasmon::Table;
    /// use std::sync::Arc;
    ///
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let (writer, reader) = (store.connect()?, store.connect()?);
    /// let numbers = Int64Array::from_iter_values(0..1_000);
    /// writer.learn("numbers", &RecordBatch::try_from_iter([("n", Arc::new(numbers) as _)]).unwrap())?;
    ///
    /// let table: Table = reader.recall("numbers")?;
    /// writer.forget("numbers")?;
    /// assert_eq!(table.num_rows(), 1_000); // still there
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[inline]
    pub fn recall<T: FromObject>(&self, name: &str) -> Result<T> {
        match self.look_up(name, true)? {
            Some(object) => self.convert(name, object),
            None => Err(self.not_found(name)),
        }
    }

    /// As [`recall`](Self::recall) of an [`Object`], for those who only describe it: it does not count as a recall.
    ///
    /// # Errors
    /// As [`recall`](Self::recall).
    ///
    /// # Examples
    /// ```
    /// # let brain = plasmon::testing::brain()?;
    /// brain.learn("text", "abc")?;
    /// assert_eq!(brain.inspect("text")?.kind(), plasmon::Kind::TEXT);
    /// assert_eq!(brain.metadata("text")?.expect("bound").recalled, None);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn inspect(&self, name: &str) -> Result<Object> {
        self.look_up(name, false)?.ok_or_else(|| self.not_found(name))
    }

    /// As [`recall`](Self::recall), but only if that needs no word from the store: `None` where it would have to connect
    /// first or to ask, for which a caller may want to let go of a lock.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("answer", &42)?;
    /// assert_eq!(brain.recall_at_once::<i64>("answer").transpose()?, Some(42));
    /// brain.disconnect();
    /// assert!(brain.recall_at_once::<i64>("answer").is_none());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[inline]
    pub fn recall_at_once<T: FromObject>(&self, name: &str) -> Option<Result<T>> {
        let id = match Name::check(name) {
            Ok(name) => self.prefix.name_id(name),
            Err(error) => return Some(Err(error.into())),
        };
        let looked = self.store.with_live_session(&self.trust, |session| self.look(session, &id, true))?;
        let object = match looked {
            Ok(Look::Held(object)) => Ok(object),
            Ok(Look::Absent) => Err(self.not_found(name)),
            Ok(Look::Unsteady) => return None,
            Err(error) => Err(error),
        };
        Some(object.and_then(|object| self.convert(name, object)))
    }

    /// Recalls what is bound to `name`, waiting for it until `timeout` has passed. Waiting holds up no other thread.
    ///
    /// # Errors
    /// [`Error::WaitTimeout`]; else as [`recall`](Self::recall).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let (writer, reader) = (store.connect()?, store.connect()?);
    /// let waiting = std::thread::spawn(move || reader.recall_within::<i64>("result", Duration::from_secs(30)));
    /// writer.learn("result", &42)?;
    /// assert_eq!(waiting.join().unwrap()?, 42);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn recall_within<T: FromObject>(&self, name: &str, timeout: Duration) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(object) = self.look_up(name, true)? {
                return self.convert(name, object);
            }
            let Some(left) = timeout.checked_sub(start.elapsed()) else {
                return Err(self.wait_timeout(name, timeout));
            };
            // What is bound now may be forgotten again before it is looked up: then wait once more.
            self.wait_for(name, 0, left, timeout)?;
        }
    }

    /// Recalls many names from one moment: no commit is seen half done, and no name is older than another.
    ///
    /// # Errors
    /// As [`recall`](Self::recall), but that a name which is not bound is `None`.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("a", &1)?;
    /// let objects = brain.recall_many(&["a", "b"])?;
    /// assert!(objects[0].is_some() && objects[1].is_none());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn recall_many(&self, names: &[&str]) -> Result<Vec<Option<Object>>> {
        let session = self.session()?;
        let ids = names.iter().map(|name| Ok(self.prefix.name_id(Name::check(name)?)));
        let ids = ids.collect::<Result<Vec<NameId>>>()?;
        for _ in 0..SNAPSHOT_TRIES_MAX {
            let found =
                session.index.snapshot(&ids, || session.store_clock_ns(), |entry| pin(&session, entry))?;
            if let Some(found) = found {
                let object = |one| Ok(held(&session, one, true)?.object());
                return found.into_iter().map(object).collect();
            }
        }
        self.find_many(names)
    }

    /// Whether something is bound to `name`. One look at the shared index.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("here", &true)?;
    /// assert!(brain.exists("here")? && !brain.exists("there")?);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn exists(&self, name: &str) -> Result<bool> {
        Ok(self.look_for_version(name)?.is_some())
    }

    /// One look at the index for the version of a name.
    pub(super) fn look_for_version(&self, name: &str) -> Result<Option<u64>> {
        let id = self.prefix.name_id(Name::check(name)?);
        // Nothing of the object is read, so nothing is pinned.
        let found = self.store.with_session(&self.trust, |session| {
            session.index.lookup(&id, || session.store_clock_ns(), |_| Ok(()))
        })?;
        match found {
            Lookup::Held { entry, .. } => Ok(Some(entry.version)),
            Lookup::Absent => Ok(None),
            Lookup::Unsteady => Ok(self.metadata(name)?.map(|metadata| metadata.version)),
        }
    }

    #[inline]
    fn look_up(&self, name: &str, is_recall: bool) -> Result<Option<Object>> {
        let id = self.prefix.name_id(Name::check(name)?);
        let looked = self.store.with_session(&self.trust, |session| self.look(session, &id, is_recall))?;
        match looked {
            Look::Held(object) => Ok(Some(object)),
            Look::Absent => Ok(None),
            Look::Unsteady => self.find(name),
        }
    }

    /// One look at the index, and a pin for what it found.
    #[inline]
    fn look(&self, session: &Arc<Session>, id: &NameId, is_recall: bool) -> Result<Look> {
        let found = session.index.lookup(id, || session.store_clock_ns(), |entry| pin(session, entry))?;
        held(session, found, is_recall)
    }

    /// What the index says that `name` was bound to at a moment, which was taken at `taken_ns`; `None` if it does not say.
    #[inline]
    pub(crate) fn look_at(
        &self,
        session: &Arc<Session>,
        name: &str,
        moment: u64,
        taken_ns: u64,
    ) -> Result<Option<Object>> {
        let id = self.prefix.name_id(Name::check(name)?);
        let found = session.index.lookup(&id, || taken_ns, |entry| pin(session, entry))?;
        match found {
            Lookup::Held { entry, .. } if entry.version > moment => Ok(None),
            found => Ok(held(session, found, true)?.object()),
        }
    }

    #[inline]
    pub(crate) fn convert<T: FromObject>(&self, name: &str, object: Object) -> Result<T> {
        if !T::is_kind(object.kind()) {
            let (namespace, name) = (self.namespace.to_string(), name.to_owned());
            return Err(Error::WrongKind { namespace, name, asked: T::ASKED, found: object.kind() });
        }
        Ok(T::from_object(object)?)
    }

    #[cold]
    pub(crate) fn not_found(&self, name: &str) -> Error {
        Error::NameNotFound { namespace: self.namespace.to_string(), name: name.to_owned() }
    }
}

/// What one look at the index found.
enum Look {
    Held(Object),
    Absent,
    /// The index did not hold still, so nothing is known.
    Unsteady,
}

impl Look {
    fn object(self) -> Option<Object> {
        match self {
            Look::Held(object) => Some(object),
            Look::Absent | Look::Unsteady => None,
        }
    }
}

/// Makes a handle of what a look at the index found and pinned.
#[inline]
fn held(session: &Arc<Session>, found: Lookup<Slot>, is_recall: bool) -> Result<Look> {
    match found {
        Lookup::Held { entry, number, pin } => {
            if is_recall {
                session.note_access(number);
            }
            fault_point(FaultPoint::Held);
            Object::new(session, entry, pin).map(Look::Held)
        }
        Lookup::Absent => Ok(Look::Absent),
        Lookup::Unsteady => Ok(Look::Unsteady),
    }
}

/// Takes a slot and publishes a pin for `entry` in it.
#[inline]
fn pin(session: &Arc<Session>, entry: &Entry) -> Result<Slot> {
    let slot = session.take_slot()?;
    slot.publish(entry);
    Ok(slot)
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::{Blob, testing::Store};

    /// Invariants 2 and 3 from many threads of one session, whose slots, connections and leases they share.
    #[test]
    fn threads_that_share_a_session_never_see_torn_or_changing_objects() {
        let store = Store::start(32 << 20).unwrap();
        let brain = store.connect().unwrap();
        let first = vec![0_u8; 100_000];
        brain.batch().unwrap().learn("a", &first).unwrap().learn("b", &first).unwrap().commit().unwrap();
        let whole = |object: &Blob| object.iter().all(|byte| *byte == object[0]);
        std::thread::scope(|scope| {
            for thread in 0..2_u8 {
                let brain = brain.clone();
                scope.spawn(move || {
                    for round in 0..300_u16 {
                        let value = vec![thread.wrapping_add(round.to_le_bytes()[0]); 100_000];
                        let batch = brain.batch().unwrap().learn("a", &value).unwrap();
                        batch.learn("b", &value).unwrap().commit().unwrap();
                    }
                });
            }
            for _ in 0..2 {
                let brain = brain.clone();
                scope.spawn(move || {
                    for _ in 0..300 {
                        let held: Blob = brain.recall("a").unwrap();
                        let before = held[0];
                        assert!(whole(&held));
                        let both = brain.recall_many(&["a", "b"]).unwrap();
                        let versions: Vec<u64> = both.iter().flatten().map(Object::version).collect();
                        assert!(versions.len() == 2 && versions[0] == versions[1], "{versions:?}");
                        assert!(whole(&held) && held[0] == before);
                    }
                });
            }
        });
        let stats = brain.stats().unwrap();
        assert_eq!((stats.pins, stats.limbo_bytes), (0, 0));
    }
}
