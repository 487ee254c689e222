//! `Transaction`: reads and writes of several names that take effect together, or not at all.
//!
//! A transaction is the client's: the store knows nothing of it. Reads note the version that they found, or that there was
//! none, and writes are kept here; [`Transaction::commit`] is one commit under the condition that all of that still holds.
//! So nobody ever waits for a transaction, and one that is dropped leaves nothing.

use crate::{
    batch::Batch,
    brain::Brain,
    codec::Learn,
    error::{Conflict, Error, Result},
    object::{FromObject, Object},
    options::LearnOptions,
};
use arrow_buffer::{Buffer, MutableBuffer};
use plasmon_protocol::{
    message::{Change, Condition, Expect, Lives, SameAs},
    name::{Name, Namespace},
    object::{Flags, Header},
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry, hash_map::RandomState},
    hash::{BuildHasher, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How often [`Brain::transact`] tries before it gives up.
const TRIES: u32 = 100;

/// Longest that [`Brain::transact`] waits before it tries again, in microseconds: some times what a commit takes.
const BACK_OFF_US_MAX: u64 = 5_000;

/// Several reads and writes that take effect together, or not at all. Made by [`Brain::transaction`].
///
/// Transactions are serializable: one that commits has seen what it would have seen if it had run alone at the moment of its
/// commit. Until then nobody sees anything of it, and it holds up nobody. A read that is not sure any more fails at once with
/// [`Error::TransactionConflict`], or the commit does. Use [`Brain::transact`] to have it tried again.
///
/// ```
/// let brain = plasmon::testing::brain()?;
/// brain.learn("from", &100_i64)?;
/// brain.learn("to", &0_i64)?;
/// let transaction = brain.transaction();
/// transaction.learn("from", &(transaction.recall::<i64>("from")? - 30))?;
/// transaction.learn("to", &(transaction.recall::<i64>("to")? + 30))?;
/// assert_eq!(transaction.recall::<i64>("to")?, 30); // its own writes
/// assert_eq!(brain.recall::<i64>("to")?, 0); // nobody else sees them
/// transaction.commit()?;
/// assert_eq!((brain.recall::<i64>("from")?, brain.recall::<i64>("to")?), (70, 30));
/// # Ok::<(), plasmon::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `commit`"]
pub struct Transaction {
    brain: Brain,
    state: Arc<Mutex<State>>,
}

/// A name and where it belongs.
type Place = (Namespace, Name);

#[derive(Debug, Default)]
struct State {
    /// What was found when a name was first touched: its version, or that it was not bound.
    seen: BTreeMap<Place, Option<u64>>,
    /// The last change of the store before the names of a namespace were first listed.
    listed: BTreeMap<Namespace, u64>,
    writes: BTreeMap<Place, Write>,
    /// Whether names that are only written count as touched.
    ignores_blind_writes: bool,
    has_ended: bool,
}

/// What a name is to become.
#[derive(Clone, Debug)]
enum Write {
    Learn(Box<Learned>),
    Copy(Place, Lives),
    Forget,
}

/// A value as it was when it was learned.
#[derive(Clone, Debug)]
struct Learned {
    header: Header,
    bytes: Buffer,
    options: LearnOptions,
}

impl Brain {
    /// Begins a transaction. It asks the store nothing.
    pub fn transaction(&self) -> Transaction {
        Transaction { brain: self.clone(), state: Arc::default() }
    }

    /// As [`transaction`](Self::transaction), in which names that are only written are written whatever becomes of them
    /// meanwhile. Such transactions are not serializable: two of them may each overwrite what the other has read.
    pub fn transaction_with_blind_writes(&self) -> Transaction {
        let state = State { ignores_blind_writes: true, ..State::default() };
        Transaction { brain: self.clone(), state: Arc::new(Mutex::new(state)) }
    }

    /// Does something in a transaction, and commits it. If others have changed meanwhile what it read, `body` is done again,
    /// up to 100 times, each time after a little longer and random time of at most 5 ms. So `body` must have no effects but
    /// on the transaction. Returns what `body` returned.
    ///
    /// An error of `body` ends it and changes nothing, unless what `body` had read does not hold any more: then the error may
    /// come of that, and `body` is done again.
    ///
    /// # Errors
    /// [`Error::Contended`] after the last try; what `body` or the commit failed with.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// let visits = brain.transact(|t| {
    ///     let visits = t.recall::<i64>("visits").unwrap_or(0) + 1;
    ///     t.learn("visits", &visits)?;
    ///     Ok(visits)
    /// })?;
    /// assert_eq!((visits, brain.recall::<i64>("visits")?), (1, 1));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn transact<T>(&self, body: impl FnMut(&Transaction) -> Result<T>) -> Result<T> {
        self.transact_within(TRIES, body)
    }

    /// As [`transact`](Self::transact), with at most so many tries.
    ///
    /// # Errors
    /// As [`transact`](Self::transact).
    pub fn transact_within<T>(
        &self,
        tries: u32,
        mut body: impl FnMut(&Transaction) -> Result<T>,
    ) -> Result<T> {
        for tried in 0..tries {
            let transaction = self.transaction();
            let conflict = match body(&transaction) {
                Ok(value) => match transaction.commit() {
                    Ok(_) => return Ok(value),
                    Err(error) => error,
                },
                Err(error @ Error::TransactionConflict { .. }) => error,
                Err(error) => match transaction.check() {
                    Ok(()) => return Err(error),
                    Err(conflict) => conflict,
                },
            };
            let Error::TransactionConflict { .. } = conflict else { return Err(conflict) };
            std::thread::sleep(back_off(tried));
        }
        Err(Error::Contended { tries })
    }
}

/// How long to wait before another try: a random time, longer the more often it was tried.
fn back_off(tried: u32) -> Duration {
    let most_us = (50_u64 << tried.min(10)).min(BACK_OFF_US_MAX);
    let random = RandomState::new().build_hasher().finish(); // the standard library's only source of chance
    Duration::from_micros(random % most_us)
}

impl Transaction {
    /// The same transaction, in another namespace.
    ///
    /// # Errors
    /// [`Error::BadName`].
    pub fn in_namespace(&self, namespace: &str) -> Result<Transaction> {
        Ok(Transaction { brain: self.brain.in_namespace(namespace)?, state: Arc::clone(&self.state) })
    }

    /// Recalls what `name` is bound to, or what this transaction has made of it: that is a copy. From now on the transaction
    /// depends on it.
    ///
    /// # Errors
    /// [`Error::TransactionConflict`] if the name has changed since this transaction first touched it;
    /// [`Error::TransactionEnded`]; else as [`Brain::recall`].
    pub fn recall<T: FromObject>(&self, name: &str) -> Result<T> {
        let found = match self.written(name)? {
            Some(Write::Learn(learned)) => Some(Object::of_this_process(learned.header, learned.bytes)),
            Some(Write::Forget) => None,
            Some(Write::Copy((namespace, source), _)) => self.in_namespace(&namespace)?.look_up(&source)?,
            None => self.look_up(name)?,
        };
        match found {
            Some(object) => self.brain.convert(name, object),
            None => Err(self.brain.not_found(name)),
        }
    }

    /// As [`recall`](Self::recall), but the transaction does not depend on it, and what it has written does not count.
    ///
    /// # Errors
    /// As [`Brain::recall`]; [`Error::TransactionEnded`].
    pub fn peek<T: FromObject>(&self, name: &str) -> Result<T> {
        drop(self.state()?);
        self.brain.recall(name)
    }

    /// Whether something is bound to `name`, or this transaction has bound something to it. From now on the transaction
    /// depends on that.
    ///
    /// # Errors
    /// As [`recall`](Self::recall).
    pub fn exists(&self, name: &str) -> Result<bool> {
        match self.written(name)? {
            Some(Write::Forget) => Ok(false),
            Some(_) => Ok(true),
            None => {
                let version = self.brain.version(name)?;
                self.note(name, version)?;
                Ok(version.is_some())
            }
        }
    }

    /// The names that begin with `prefix`, in order, as this transaction has made them. From now on it depends on all names
    /// of the namespace: one that others bind or unbind is a conflict.
    ///
    /// # Errors
    /// As [`Brain::names`], [`Error::TransactionEnded`].
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let namespace = self.brain.namespace_checked();
        if !self.state()?.listed.contains_key(namespace) {
            let since = self.brain.batch()?.commit()?; // changes nothing: it tells the number of the last change
            self.state()?.listed.entry(namespace.clone()).or_insert(since);
        }
        let mut names: BTreeSet<String> = match self.brain.names(prefix) {
            Err(Error::NamespaceNotFound { .. }) => BTreeSet::new(),
            names => names?.into_iter().collect(),
        };
        let state = self.state()?;
        let writes =
            state.writes.iter().filter(|((of, name), _)| of == namespace && name.starts_with(prefix));
        for ((_, name), write) in writes {
            match write {
                Write::Forget => drop(names.remove(name.as_str())),
                _ => drop(names.insert(name.to_string())),
            }
        }
        Ok(names.into_iter().collect())
    }

    /// Binds `name` to `value` when the transaction is committed. The value is copied now: what becomes of it later does not
    /// matter.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::Codec`], [`Error::TransactionEnded`].
    pub fn learn<V: Learn + ?Sized>(&self, name: &str, value: &V) -> Result<()> {
        self.learn_with(name, value, &LearnOptions::default())
    }

    /// As [`learn`](Self::learn), with what `options` add. Conditions among them are checked with all others.
    ///
    /// # Errors
    /// As [`learn`](Self::learn).
    pub fn learn_with<V: Learn + ?Sized>(&self, name: &str, value: &V, options: &LearnOptions) -> Result<()> {
        let prepared = value.prepare()?;
        let bytes = match prepared.header().flags.has(Flags::INLINE) {
            true => Buffer::default(),
            false => {
                let mut bytes = MutableBuffer::new(0); // at a multiple of 64, as in the arena
                bytes.extend_from_slice(&prepared.to_vec()?);
                bytes.into()
            }
        };
        let learned = Learned { header: prepared.header(), bytes, options: options.clone() };
        self.write(name, Write::Learn(Box::new(learned)))
    }

    /// Binds `target` to the object that `source` is bound to, when the transaction is committed. No bytes move. What this
    /// transaction has learned itself is learned once more.
    ///
    /// # Errors
    /// [`Error::NotBound`] if nothing is bound to `source`; [`Error::TransactionConflict`], [`Error::TransactionEnded`].
    pub fn copy(&self, source: &str, target: &str) -> Result<()> {
        self.bind_as(source, target, Lives::AsDeclared)
    }

    /// Moves what `old` is bound to to `new`, when the transaction is committed.
    ///
    /// # Errors
    /// As [`copy`](Self::copy).
    pub fn rename(&self, old: &str, new: &str) -> Result<()> {
        self.bind_as(old, new, Lives::AsSource)?;
        if old == new { Ok(()) } else { self.write(old, Write::Forget) }
    }

    fn bind_as(&self, source: &str, target: &str, lives: Lives) -> Result<()> {
        let write = match self.written(source)? {
            Some(Write::Forget) => return Err(self.not_bound(source)),
            Some(written) => written,
            None => {
                let version = self.brain.version(source)?;
                self.note(source, version)?;
                if version.is_none() {
                    return Err(self.not_bound(source));
                }
                Write::Copy((self.brain.namespace_checked().clone(), Name::new(source)?), lives)
            }
        };
        self.write(target, write)
    }

    /// Unbinds `name` when the transaction is committed. Returns whether it was bound, or this transaction had bound it; the
    /// transaction depends on that.
    ///
    /// # Errors
    /// As [`exists`](Self::exists).
    pub fn forget(&self, name: &str) -> Result<bool> {
        let was_bound = self.exists(name)?;
        self.write(name, Write::Forget)?;
        Ok(was_bound)
    }

    /// Makes everything visible at one moment, if all that was read still holds. Returns that change's version; of a
    /// transaction that changes nothing, the number of the store's last change.
    ///
    /// # Errors
    /// [`Error::TransactionConflict`], which names what does not hold; [`Error::TransactionEnded`]; else as
    /// [`Batch::commit`]. Then nothing has changed, unless it is [`Error::OutcomeUnknown`].
    pub fn commit(&self) -> Result<u64> {
        let (conditions, writes) = {
            let mut state = self.state()?;
            state.has_ended = true;
            (state.conditions(), std::mem::take(&mut state.writes))
        };
        self.send(conditions, writes)
    }

    /// Whether all that was read still holds. Changes nothing.
    ///
    /// # Errors
    /// [`Error::TransactionConflict`]; as [`commit`](Self::commit).
    pub fn check(&self) -> Result<()> {
        let conditions = self.state()?.conditions();
        self.send(conditions, BTreeMap::new()).map(drop)
    }

    /// Ends the transaction; nothing of it happens. Dropping it does the same.
    pub fn rollback(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { has_ended: true, ..State::default() };
    }

    fn send(&self, conditions: Vec<Condition>, writes: BTreeMap<Place, Write>) -> Result<u64> {
        if conditions.is_empty() && writes.is_empty() {
            return self.brain.batch()?.commit();
        }
        let mut batch = conditions.into_iter().fold(self.brain.batch()?, Batch::condition);
        for ((namespace, name), write) in writes {
            batch = match write {
                Write::Forget => batch.change(Change::Unbind { namespace, name }),
                Write::Copy((of_namespace, of_name), lives) => {
                    let (description, metadata, at) = (None, None, None);
                    batch.change(Change::SameAs(SameAs {
                        namespace,
                        name,
                        description,
                        metadata,
                        lives,
                        of_namespace,
                        of_name,
                        at,
                    }))
                }
                Write::Learn(learned) => {
                    let Learned { header, bytes, options } = *learned;
                    batch.learn_encoded(&namespace, name, header, &bytes, &options)?
                }
            };
        }
        batch.commit().map_err(conflict)
    }

    /// What this transaction has made of `name`.
    fn written(&self, name: &str) -> Result<Option<Write>> {
        let place = self.place(name)?;
        Ok(self.state()?.writes.get(&place).cloned())
    }

    fn write(&self, name: &str, write: Write) -> Result<()> {
        let place = self.place(name)?;
        let is_blind = {
            let state = self.state()?;
            !state.ignores_blind_writes && !state.seen.contains_key(&place)
        };
        if is_blind {
            let version = self.brain.version(name)?;
            self.note(name, version)?;
        }
        self.state()?.writes.insert(place, write);
        Ok(())
    }

    fn look_up(&self, name: &str) -> Result<Option<Object>> {
        let found = match self.brain.recall::<Object>(name) {
            Ok(object) => Some(object),
            Err(Error::NameNotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        self.note(name, found.as_ref().map(Object::version))?;
        Ok(found)
    }

    /// `name` has this version. It must be the one that it had when this transaction first touched it.
    fn note(&self, name: &str, version: Option<u64>) -> Result<()> {
        let place = self.place(name)?;
        match self.state()?.seen.entry(place) {
            Entry::Vacant(unseen) => drop(unseen.insert(version)),
            Entry::Occupied(seen) if *seen.get() == version => {}
            Entry::Occupied(_) => {
                let conflict = Conflict {
                    namespace: self.brain.namespace().to_owned(),
                    name: Some(name.to_owned()),
                    found: version,
                };
                return Err(Error::TransactionConflict { conflicts: vec![conflict], more: 0 });
            }
        }
        Ok(())
    }

    fn place(&self, name: &str) -> Result<Place> {
        Ok((self.brain.namespace_checked().clone(), Name::new(name)?))
    }

    fn not_bound(&self, name: &str) -> Error {
        Error::NotBound { namespace: self.brain.namespace().to_owned(), name: name.to_owned() }
    }

    fn state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.has_ended { Err(Error::TransactionEnded) } else { Ok(state) }
    }
}

impl State {
    /// What must still hold.
    fn conditions(&self) -> Vec<Condition> {
        let seen = self.seen.iter().map(|((namespace, name), version)| Condition {
            namespace: namespace.clone(),
            name: name.clone(),
            expect: version.map_or(Expect::Absent, |version| Expect::Version { version }),
        });
        let listed = self.listed.iter().map(|(namespace, &since)| Condition {
            namespace: namespace.clone(),
            name: Name::new("*").expect("a valid name"),
            expect: Expect::NamespaceUnchanged { since },
        });
        seen.chain(listed).collect()
    }
}

/// A condition that does not hold is a conflict.
fn conflict(error: Error) -> Error {
    let conflict = |namespace: String, name: String, expect: &Expect, found| {
        let is_of_all = matches!(expect, Expect::NamespaceUnchanged { .. });
        Conflict { namespace, name: (!is_of_all).then_some(name), found }
    };
    match error {
        Error::ConditionFailed { namespace, name, expect, found } => {
            let conflicts = vec![conflict(namespace, name, &expect, found)];
            Error::TransactionConflict { conflicts, more: 0 }
        }
        Error::ConditionsFailed { failed, more } => {
            let failed = failed.into_iter();
            let conflicts = failed
                .map(|it| conflict(it.namespace.to_string(), it.name.to_string(), &it.expect, it.found));
            Error::TransactionConflict { conflicts: conflicts.collect(), more }
        }
        // What it copies from was bound when it looked.
        Error::NotBound { namespace, name } => {
            let conflicts = vec![Conflict { namespace, name: Some(name), found: None }];
            Error::TransactionConflict { conflicts, more: 0 }
        }
        error => error,
    }
}
