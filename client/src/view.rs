//! `View`: a moment of the store that stays as it is.
//!
//! Most reads ask nobody. An index entry whose version is at most the moment's is what the name was bound to at that moment,
//! because a name that is bound anew gets a later version; so it does not matter what has happened to other names since, nor
//! whether the binding has expired meanwhile. For all else the store is asked, which keeps what was bound then.

use crate::{
    brain::{Brain, Version},
    connection::CallError,
    error::{Error, Result},
    object::{FromObject, Object},
    session::Session,
};
use plasmon_protocol::{
    message::{BeginView, EndHold, MomentOf, When},
    name::{Name, Namespace},
};
use std::{collections::BTreeMap, sync::Arc};

/// A moment of the store, which stays as it is while the view lives: a read-only [`Brain`].
///
/// It ends when it is dropped, and when this process's session ends, which it keeps as every handle does, also when the
/// brain [leaves](Brain::disconnect) the store: then every use fails with [`Error::ViewEnded`], as it
/// does in a forked child, which can begin one of the same [moment](Self::moment) with [`Brain::view_of`]. While it lives,
/// what is forgotten or learned anew takes room. A cache has no past: its names are as they are now.
///
/// # Examples
/// ```
/// let brain = plasmon::testing::brain()?;
/// brain.learn("a", &1)?;
/// let view = brain.view()?;
/// brain.forget("a")?;
/// assert_eq!(view.recall::<i64>("a")?, 1);
/// assert_eq!(view.names("")?, ["a"]);
/// # Ok::<(), plasmon::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct View {
    brain: Brain,
    held: Arc<Held>,
}

/// A view as the store knows it. Ended when the last `View` goes.
#[derive(Debug)]
struct Held {
    session: Arc<Session>,
    /// The process that began the view, of those that have the session: see [`Session::forks`].
    forks: u32,
    number: u64,
    moment: u64,
    taken_ns: u64,
    namespaces: Vec<Namespace>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.is_alive() {
            // Where the store does not answer, the view ends with the session.
            let _ = self.session.call(&EndHold { view: self.number });
        }
    }
}

impl Held {
    fn is_alive(&self) -> bool {
        self.session.is_alive() && self.session.forks() == self.forks
    }
}

impl View {
    pub(crate) fn begin(brain: &Brain, at: MomentOf) -> Result<View> {
        let begin = BeginView { at };
        let mut session = brain.session()?;
        let mut begun = session.call(&begin);
        if let Err(CallError::Lost { .. }) = begun {
            session.lose();
            session = brain.session()?;
            begun = session.call(&begin);
        }
        let begun = begun.map_err(|error| session.explain(error))?;
        let forks = session.forks();
        let (number, moment, taken_ns) = (begun.view, begun.moment, begun.taken_ns);
        let held = Held { session, forks, number, moment, taken_ns, namespaces: begun.namespaces };
        Ok(View { brain: brain.clone(), held: Arc::new(held) })
    }

    /// The number of the last change that it shows: for [`Brain::view_of`] in another process.
    #[must_use]
    pub fn moment(&self) -> u64 {
        self.held.moment
    }

    /// The number under which `plasmon views` lists it.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.held.number
    }

    /// The namespaces that it shows, if it is one of a snapshot; empty if it shows all.
    #[must_use]
    pub fn namespaces(&self) -> &[Namespace] {
        &self.held.namespaces
    }

    /// The same view, of another namespace.
    ///
    /// # Errors
    /// [`Error::BadName`].
    pub fn in_namespace(&self, namespace: &str) -> Result<View> {
        Ok(View { brain: self.brain.in_namespace(namespace)?, held: Arc::clone(&self.held) })
    }

    /// The namespace that it shows names of.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.brain.namespace()
    }

    /// Recalls what was bound to `name`. Costs what [`Brain::recall`] costs if the name has not changed since; else one round
    /// trip.
    ///
    /// # Errors
    /// [`Error::ViewEnded`]; [`Error::NamespaceNotFound`] if this is a namespace that the snapshot does not keep; else as [`Brain::recall`].
    pub fn recall<T: FromObject>(&self, name: &str) -> Result<T> {
        match self.look_up(name)? {
            Some(object) => self.brain.convert(name, object),
            None => Err(self.brain.not_found(name)),
        }
    }

    /// Whether something was bound to `name`.
    ///
    /// # Errors
    /// [`Error::ViewEnded`], [`Error::BadName`].
    pub fn exists(&self, name: &str) -> Result<bool> {
        Ok(self.version(name)?.is_some())
    }

    /// The version that `name` had; `None` if nothing was bound to it.
    ///
    /// # Errors
    /// [`Error::ViewEnded`], [`Error::BadName`].
    pub fn version(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.look_up(name)?.map(|object| object.version()))
    }

    /// Everything there is to know of what `name` was bound to; `None` if nothing was. One round trip, or two.
    ///
    /// # Errors
    /// [`Error::ViewEnded`], [`Error::BadName`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn_with("rate", &0.5, &plasmon::LearnOptions::new().description("per hour"))?;
    /// let view = brain.view()?;
    /// brain.forget("rate")?;
    /// assert_eq!(view.metadata("rate")?.map(|it| it.description), Some("per hour".to_owned()));
    /// assert_eq!(view.metadata("other")?, None);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn metadata(&self, name: &str) -> Result<Option<Version>> {
        let Some(version) = self.version(name)? else { return Ok(None) };
        Ok(self.brain.all_versions(name)?.into_iter().find(|found| found.version == version))
    }

    /// The names that were bound and begin with `prefix`, in order.
    ///
    /// # Errors
    /// [`Error::ViewEnded`], [`Error::NamespaceNotFound`].
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        Ok(self.versions(prefix)?.into_keys().collect())
    }

    /// Everything about each name that was bound and begins with `prefix`.
    ///
    /// # Errors
    /// As [`names`](Self::names).
    pub fn versions(&self, prefix: &str) -> Result<BTreeMap<String, Version>> {
        self.check()?;
        let ask = |page: &_| self.held.session.call(page).map_err(|error| self.explain(error));
        self.brain.list_at(Some(&self.when()), prefix, ask)
    }

    /// Ends it, as dropping it and all its clones does, and says whether that went well.
    ///
    /// # Errors
    /// [`Error::ViewEnded`] if it has ended already, [`Error::StoreUnavailable`].
    pub fn close(self) -> Result<()> {
        self.check()?;
        let end = EndHold { view: self.held.number };
        self.held.session.call(&end).map(drop).map_err(|error| self.held.session.explain(error))
    }

    fn when(&self) -> When {
        When::View { view: self.held.number }
    }

    fn check(&self) -> Result<()> {
        let Held { number, namespaces, .. } = &*self.held;
        if !self.held.is_alive() {
            return Err(Error::ViewEnded { view: *number });
        }
        // The index would answer for any namespace, and the store does not keep what others had.
        let is_shown = |shown: &Namespace| shown.as_str() == self.brain.namespace();
        if !namespaces.is_empty() && !namespaces.iter().any(is_shown) {
            return Err(Error::NamespaceNotFound { namespace: self.brain.namespace().to_owned() });
        }
        Ok(())
    }

    pub(crate) fn look_up(&self, name: &str) -> Result<Option<Object>> {
        self.check()?;
        let Held { session, moment, taken_ns, .. } = &*self.held;
        match self.brain.look_at(session, name, *moment, *taken_ns)? {
            Some(object) => Ok(Some(object)),
            None => {
                let found = self.brain.find_at_in(session, &Name::new(name)?, &self.when());
                found.map_err(|error| self.explain(error))
            }
        }
    }

    /// The session is the view's own, and no other one comes in its place.
    #[cold]
    fn explain(&self, error: CallError) -> Error {
        if let CallError::Lost { .. } = error {
            self.held.session.lose();
            return Error::ViewEnded { view: self.held.number };
        }
        self.held.session.explain(error)
    }
}
