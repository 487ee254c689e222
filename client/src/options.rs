//! What goes with a value that is learned, and what is declared for a namespace.

#[cfg(doc)]
use crate::Brain;
use crate::{
    codec::with_room,
    error::{Error, Result},
};
use plasmon_protocol::message::{Expect, Ttl};
use std::time::Duration;

/// What goes with a value when it is learned. The default changes nothing about a plain learn.
///
/// ```
/// use plasmon::LearnOptions;
///
/// let brain = plasmon::testing::brain()?;
/// brain.learn_with("rate", &0.5, &LearnOptions::new().description("per hour").if_absent())?;
/// let again = brain.learn_with("rate", &0.7, &LearnOptions::new().if_absent());
/// assert!(matches!(again, Err(plasmon::Error::ConditionFailed { .. })));
/// # Ok::<(), plasmon::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct LearnOptions {
    pub(crate) description: Option<String>,
    pub(crate) metadata: Option<serde_json::Value>,
    pub(crate) expect: Option<Expect>,
    /// Another name, and the version that it must have.
    pub(crate) held: Option<(String, u64)>,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) keeps_ttl: bool,
    pub(crate) is_ephemeral: bool,
    pub(crate) in_cache: bool,
}

impl LearnOptions {
    /// Nothing goes with the value.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A description for people, at most 64 KiB. Without one, a rebound name keeps the one it has; an empty one
    /// clears it.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// Metadata of the user: a JSON object of at most 64 KiB as text. Without it, a rebound name keeps what it has;
    /// an empty object clears it.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// let unit = serde_json::json!({ "unit": "EUR" });
    /// brain.learn_with("price", &19.5, &plasmon::LearnOptions::new().metadata(unit.clone()))?;
    /// assert_eq!(brain.metadata("price")?.map(|it| it.metadata), Some(unit));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn metadata(mut self, object: serde_json::Value) -> Self {
        self.metadata = Some(object);
        self
    }

    /// The binding lives for `ttl`, which is longer than zero, and is gone then for everybody at one moment, as if it had
    /// been forgotten. Who holds its value keeps it. Time goes on while the machine is suspended.
    ///
    /// Without it the binding lives as long as its namespace has [declared](Brain::declare), or without end;
    /// [`Duration::MAX`] has no end whatever is declared. Learning the name anew begins anew.
    ///
    /// # Examples
    /// ```
    /// use plasmon::LearnOptions;
    /// use std::time::Duration;
    ///
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn_with("token", "secret", &LearnOptions::new().ttl(Duration::from_millis(50)))?;
    /// while brain.exists("token")? {
    ///     std::thread::yield_now();
    /// }
    /// assert_eq!(brain.len()?, 0);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl_of(ttl, false));
        self
    }

    /// As [`ttl`](Self::ttl), but every recall begins the time anew. The store hears of recalls about once a second, so
    /// the binding expires between `ttl` and `ttl` and 4 seconds after the last one, never earlier.
    #[must_use]
    pub fn sliding_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl_of(ttl, true));
        self
    }

    /// A name that is bound keeps its time to live and the moment at which it expires, or that it never does: for counters.
    /// For a name that is not bound, [`ttl`](Self::ttl) holds, or what its namespace has declared. Not for what is
    /// [ephemeral](Self::ephemeral).
    ///
    /// # Examples
    /// ```
    /// use plasmon::LearnOptions;
    /// use std::time::Duration;
    ///
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn_with("hits", &1, &LearnOptions::new().ttl(Duration::from_secs(60)))?;
    /// let expires = brain.metadata("hits")?.and_then(|it| it.expires);
    /// brain.learn_with("hits", &2, &LearnOptions::new().keep_ttl())?;
    /// assert_eq!(brain.metadata("hits")?.and_then(|it| it.ttl), Some(Duration::from_secs(60)));
    /// # assert!(expires.is_some());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn keep_ttl(mut self) -> Self {
        self.keeps_ttl = true;
        self
    }

    /// The binding ends with this process's session: when the process ends, however it ends, or
    /// [leaves](Brain::disconnect) the store. Whoever [waits for a change](Brain::wait_change) is told. So it says that
    /// somebody is there or at work, and is never left behind; in a cache it does not give way. A forked child's session is
    /// another one.
    ///
    /// # Examples
    /// ```
    /// use plasmon::LearnOptions;
    ///
    /// let brain = plasmon::testing::brain()?;
    /// let leader = LearnOptions::new().ephemeral().if_absent();
    /// let mine = brain.learn_with("leader", "this process", &leader)?;
    /// assert!(brain.learn_with("leader", &0, &leader).is_err()); // there is one already
    /// brain.forget_if_version("leader", mine)?;
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn ephemeral(mut self) -> Self {
        self.is_ephemeral = true;
        self
    }

    /// Makes sure in the same commit that the namespace is a cache, whatever became of what was
    /// [declared](Brain::declare): the store may have been started anew, or the namespace been removed. What else was
    /// declared for it stays.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let results = store.connect()?.in_namespace("results")?;
    /// results.learn_with("a", &1, &plasmon::LearnOptions::new().in_cache())?;
    /// assert!(results.namespaces()?.iter().any(|it| it.is_cache && &*it.namespace == "results"));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn in_cache(mut self) -> Self {
        self.in_cache = true;
        self
    }

    /// Only if nothing is bound to the name.
    #[must_use]
    pub fn if_absent(mut self) -> Self {
        self.expect = Some(Expect::Absent);
        self
    }

    /// Only if the name has exactly this version, as returned by an earlier learn or recall: compare and set.
    ///
    /// # Examples
    /// ```
    /// use plasmon::{LearnOptions, Object};
    ///
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("counter", &1)?;
    /// let (seen, value) = (brain.recall::<Object>("counter")?.version(), brain.recall::<i64>("counter")?);
    /// brain.learn_with("counter", &(value + 1), &LearnOptions::new().if_version(seen))?;
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn if_version(mut self, version: u64) -> Self {
        self.expect = Some(Expect::Version { version });
        self
    }

    /// Only if another name of the namespace has exactly this version: as long as a claim is held that this process made,
    /// mostly an [ephemeral](Self::ephemeral) one.
    ///
    /// # Examples
    /// ```
    /// use plasmon::LearnOptions;
    ///
    /// let brain = plasmon::testing::brain()?;
    /// let claim = brain.learn_with("claim", &1, &LearnOptions::new().ephemeral().if_absent())?;
    /// brain.learn_with("result", &42, &LearnOptions::new().if_held("claim", claim))?;
    /// brain.forget("claim")?; // somebody takes it away
    /// assert!(brain.learn_with("result", &43, &LearnOptions::new().if_held("claim", claim)).is_err());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn if_held(mut self, name: impl Into<String>, version: u64) -> Self {
        self.held = Some((name.into(), version));
        self
    }
}

/// What is declared for a namespace: see [`Brain::declare`]. The default is what holds for one of which nothing was said.
#[derive(Clone, Debug, Default)]
pub struct NamespaceOptions {
    pub(crate) is_cache: bool,
    pub(crate) ttl: Option<Ttl>,
}

impl NamespaceOptions {
    /// Bindings stay until they are unbound.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The namespace is a cache: when room is short, bindings of cache namespaces go that were recalled least recently
    /// and whose values nobody holds, as many as are needed. No other namespace ever loses one.
    #[must_use]
    pub fn cache(mut self) -> Self {
        self.is_cache = true;
        self
    }

    /// How long bindings live of which their writer says nothing: as [`LearnOptions::ttl`].
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl_of(ttl, false));
        self
    }

    /// As [`ttl`](Self::ttl), but every recall begins the time anew: as [`LearnOptions::sliding_ttl`].
    #[must_use]
    pub fn sliding_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl_of(ttl, true));
        self
    }
}

fn ttl_of(ttl: Duration, is_sliding: bool) -> Ttl {
    Ttl { ttl_ns: u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX), is_sliding }
}

/// A time to live as it is sent, if it is one.
pub(crate) fn checked_ttl(ttl: Option<&Ttl>) -> Result<Option<Ttl>> {
    match ttl {
        Some(Ttl { ttl_ns: 0, .. }) => Err(Error::NoTimeToLive),
        ttl => Ok(ttl.cloned()),
    }
}

/// The text of a JSON object; empty for an empty one, which clears.
pub(crate) fn metadata_text(metadata: &serde_json::Value) -> Result<String> {
    let found = match metadata {
        serde_json::Value::Object(fields) if fields.is_empty() => return Ok(String::new()),
        serde_json::Value::Object(_) => return Ok(with_room(|| metadata.to_string())),
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "a truth value",
        serde_json::Value::Number(_) => "a number",
        serde_json::Value::String(_) => "a string",
        serde_json::Value::Array(_) => "an array",
    };
    Err(Error::MetadataNotAnObject { found })
}
