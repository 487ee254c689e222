//! What the store tells of names, and how it is listed.

use super::{Brain, NamespaceInfo};
use crate::{
    codec,
    error::{Error, Result},
};
use plasmon_protocol::{
    id::ObjectId,
    message::{
        BareNames, BareNamesPage, BindingInfo, Describe, DescribedName, ListBareNames, ListDescribed,
        ListNames, ListNamespaces, ListedName,
    },
    name::{NAME_BYTES_MAX, Name, Namespace},
    object::Kind,
};
use std::time::{Duration, SystemTime};

/// Everything there is to know about a name.
///
/// # Examples
/// ```
/// let brain = plasmon::testing::brain()?;
/// let options = plasmon::LearnOptions::new().description("per hour");
/// let version = brain.learn_with("rate", &0.5, &options)?;
/// let metadata = brain.metadata("rate")?.expect("it was just learned");
/// assert_eq!((metadata.version, metadata.kind), (version, plasmon::Kind::FLOAT64));
/// assert_eq!((metadata.writer_pid, metadata.description.as_str()), (std::process::id(), "per hour"));
/// # Ok::<(), plasmon::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metadata {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// Version of the binding.
    pub version: u64,
    /// The object's id.
    pub object_id: ObjectId,
    /// Length of the object, in bytes.
    pub len_bytes: u64,
    /// Kind of the value.
    pub kind: Kind,
    /// When the binding was made, by the clock of the store's machine.
    pub created: SystemTime,
    /// Process that made it, as the store sees it.
    pub writer_pid: u32,
    /// Uid of that process, as the store sees it.
    pub writer_uid: u32,
    /// When the name was last recalled, within about a second, by the clock of the store's machine. `None` if it was
    /// not, as far as the store has heard. Learning the name anew keeps it, forgetting it ends it.
    pub recalled: Option<SystemTime>,
    /// The time to live that the binding has, if it expires.
    pub ttl: Option<Duration>,
    /// Whether every recall begins it anew.
    pub is_sliding: bool,
    /// When the binding expires, if it is not learned or, where that counts, recalled before: by this process's clock,
    /// which may be set meanwhile; the store goes by one that is not.
    pub expires: Option<SystemTime>,
    /// Its description, or nothing. Empty in listings.
    pub description: String,
    /// The user's own metadata, a JSON object, or null; a text if another client wrote what is no JSON. Null in listings.
    pub metadata: serde_json::Value,
}

/// Some names, in order: one page of [`Brain::name_pages`].
#[derive(Clone, Debug)]
pub struct NamePage {
    names: BareNames,
    more: bool,
}

impl NamePage {
    fn new(page: &BareNamesPage) -> Result<NamePage> {
        match BareNames::of_page(page) {
            Some(names) => Ok(NamePage { names, more: page.more }),
            None => Err(Error::internal("a page of names from the store cannot be read")),
        }
    }

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter()
    }

    /// Whether more names follow this page.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// Returns all names in one string, separated by NUL. A binding to another language uses it where splitting one
    /// string is faster than making many. Returns `None` if there are no names, or if a name contains NUL.
    #[must_use]
    pub fn joined(&self) -> Option<&str> {
        self.names.joined()
    }
}

impl Brain {
    /// The names bound in this namespace that begin with `prefix` (an empty one for all), in order.
    ///
    /// They are fetched a page at a time, so names that come or go meanwhile may or may not be among them.
    ///
    /// # Errors
    /// [`Error::NamespaceNotFound`], [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// for name in ["b", "a2", "a1"] {
    ///     brain.learn(name, &true)?;
    /// }
    /// assert_eq!(brain.names("a")?, ["a1", "a2"]);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for page in self.name_pages(prefix) {
            names.extend(page?.iter().map(str::to_owned));
        }
        Ok(names)
    }

    /// As [`names`](Self::names), a page of thousands at a time, which is one round trip each.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.batch()?.learn("b", &1)?.learn("a", &2)?.commit()?;
    /// for page in brain.name_pages("") {
    ///     assert_eq!(page?.iter().collect::<Vec<_>>(), ["a", "b"]);
    /// }
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn name_pages(&self, prefix: &str) -> impl Iterator<Item = Result<NamePage>> {
        let mut next = (prefix.len() <= NAME_BYTES_MAX).then(|| ListBareNames {
            namespace: self.namespace.clone(),
            prefix: prefix.to_owned(),
            after: None,
        });
        std::iter::from_fn(move || {
            let list = next.take()?;
            let page = self.store.ask(&self.trust, &list).and_then(|page| NamePage::new(&page));
            next = match &page {
                Ok(page) if page.more => {
                    let after = page.iter().last().and_then(|name| Name::new(name).ok());
                    after.map(|after| ListBareNames { after: Some(after), ..list })
                }
                _ => None,
            };
            Some(page)
        })
    }

    /// As [`names`](Self::names), with what the store knows about each.
    ///
    /// # Errors
    /// As [`names`](Self::names).
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("a", "five!")?;
    /// assert_eq!(brain.list("")?[0].kind, plasmon::Kind::TEXT);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn list(&self, prefix: &str) -> Result<Vec<Metadata>> {
        self.list_pages(Some(&self.namespace), prefix)
    }

    /// As [`list`](Self::list), at most the first `limit` of them, and no more than one page. One round trip.
    ///
    /// # Errors
    /// As [`names`](Self::names).
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.batch()?.learn("b", &1)?.learn("a", &2)?.commit()?;
    /// assert_eq!(brain.list_first("", 1)?[0].name, "a");
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn list_first(&self, prefix: &str, limit: u32) -> Result<Vec<Metadata>> {
        if limit == 0 || prefix.len() > NAME_BYTES_MAX {
            return Ok(Vec::new());
        }
        let namespace = Some(self.namespace.clone());
        let list = ListNames { namespace, prefix: prefix.to_owned(), after: None, limit };
        Ok(self.store.ask(&self.trust, &list)?.names.into_iter().map(Metadata::from).collect())
    }

    /// As [`list`](Self::list), with descriptions and metadata: a thousand names in a round trip.
    ///
    /// # Errors
    /// As [`names`](Self::names).
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn_with("rate", &0.5, &plasmon::LearnOptions::new().description("per hour"))?;
    /// assert_eq!(brain.list_described("")?[0].description, "per hour");
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn list_described(&self, prefix: &str) -> Result<Vec<Metadata>> {
        let mut described = Vec::new();
        if prefix.len() > NAME_BYTES_MAX {
            return Ok(described); // no name is that long
        }
        let mut list =
            ListDescribed { namespace: self.namespace.clone(), prefix: prefix.to_owned(), after: None };
        loop {
            let page = self.store.ask(&self.trust, &list)?;
            list.after = page.names.last().map(|last| last.binding.name.clone());
            for DescribedName { binding, description, metadata } in page.names {
                described.push(Metadata {
                    description,
                    metadata: read_metadata(&metadata),
                    ..binding.into()
                });
            }
            if !page.more || list.after.is_none() {
                return Ok(described);
            }
        }
    }

    /// As [`list`](Self::list), over all namespaces.
    ///
    /// # Errors
    /// As [`names`](Self::names).
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("a", &1)?;
    /// brain.in_namespace("other")?.learn("b", &2)?;
    /// let all: Vec<String> = brain.list_all("")?.into_iter().map(|it| format!("{}/{}", it.namespace, it.name)).collect();
    /// assert_eq!(all, ["default/a", "other/b"]);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn list_all(&self, prefix: &str) -> Result<Vec<Metadata>> {
        self.list_pages(None, prefix)
    }

    fn list_pages(&self, namespace: Option<&Namespace>, prefix: &str) -> Result<Vec<Metadata>> {
        let mut bindings: Vec<Metadata> = Vec::new();
        if prefix.len() > NAME_BYTES_MAX {
            return Ok(bindings); // no name is that long
        }
        let mut after: Option<ListedName> = None;
        loop {
            let list =
                ListNames { namespace: namespace.cloned(), prefix: prefix.to_owned(), after, limit: 0 };
            let page = self.store.ask(&self.trust, &list)?;
            after = page
                .names
                .last()
                .map(|last| ListedName { namespace: last.namespace.clone(), name: last.name.clone() });
            bindings.extend(page.names.into_iter().map(Metadata::from));
            if !page.more || after.is_none() {
                return Ok(bindings);
            }
        }
    }

    /// The namespaces, in order, and what each holds.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.in_namespace("other")?.learn("b", &2)?;
    /// let names: Vec<u64> = brain.namespaces()?.iter().map(|info| info.names).collect();
    /// assert_eq!(names, [0, 1]); // default, other
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn namespaces(&self) -> Result<Vec<NamespaceInfo>> {
        let mut namespaces: Vec<NamespaceInfo> = Vec::new();
        loop {
            let after = namespaces.last().map(|info| info.namespace.clone());
            let page = self.store.ask(&self.trust, &ListNamespaces { after })?;
            let is_last = !page.more || page.namespaces.is_empty();
            namespaces.extend(page.namespaces);
            if is_last {
                return Ok(namespaces);
            }
        }
    }

    /// The first page of namespaces.
    pub(crate) fn first_namespaces(&self) -> Result<Vec<NamespaceInfo>> {
        Ok(self.store.ask(&self.trust, &ListNamespaces { after: None })?.namespaces)
    }

    /// Everything there is to know about `name`; `None` if it is not bound. One round trip.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("a", "text")?;
    /// assert_eq!(brain.metadata("a")?.map(|it| it.kind), Some(plasmon::Kind::TEXT));
    /// assert_eq!(brain.metadata("b")?, None);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn metadata(&self, name: &str) -> Result<Option<Metadata>> {
        let describe = Describe { namespace: self.namespace.clone(), name: Name::new(name)? };
        let described = self.store.ask(&self.trust, &describe)?;
        let metadata = read_metadata(&described.metadata);
        Ok(described.binding.map(|binding| Metadata {
            description: described.description,
            metadata,
            ..Metadata::from(binding)
        }))
    }
}

impl Metadata {
    /// What is known of a name at another moment: not whether it expired, nor when it was recalled.
    #[cfg(feature = "cli")]
    pub(crate) fn of_version(namespace: &str, name: String, version: super::Version) -> Metadata {
        Metadata {
            namespace: namespace.to_owned(),
            name,
            version: version.version,
            object_id: version.object_id,
            len_bytes: version.len_bytes,
            kind: version.kind,
            created: version.created,
            writer_pid: version.writer_pid,
            writer_uid: version.writer_uid,
            recalled: None,
            ttl: None,
            is_sliding: false,
            expires: None,
            description: version.description,
            metadata: version.metadata,
        }
    }
}

/// The user's metadata, from its text: another client may have written what is no JSON.
pub(super) fn read_metadata(text: &str) -> serde_json::Value {
    match text {
        "" => serde_json::Value::Null,
        text => codec::with_room(|| serde_json::from_str(text)).unwrap_or_else(|_| text.into()),
    }
}

impl From<BindingInfo> for Metadata {
    fn from(info: BindingInfo) -> Self {
        Metadata {
            namespace: info.namespace.to_string(),
            name: info.name.to_string(),
            version: info.version,
            object_id: ObjectId::from_bytes(info.object_id),
            len_bytes: info.len_bytes,
            kind: info.kind,
            created: SystemTime::UNIX_EPOCH + Duration::from_nanos(info.created_ns),
            writer_pid: info.writer_pid,
            writer_uid: info.writer_uid,
            recalled: (info.recalled_ns != 0)
                .then(|| SystemTime::UNIX_EPOCH + Duration::from_nanos(info.recalled_ns)),
            is_sliding: info.ttl.as_ref().is_some_and(|ttl| ttl.is_sliding),
            ttl: info.ttl.map(|ttl| Duration::from_nanos(ttl.ttl_ns)),
            expires: info.left_ns.and_then(|left| SystemTime::now().checked_add(Duration::from_nanos(left))),
            description: String::new(),
            metadata: serde_json::Value::Null,
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::testing::Store;

    /// A page of names always fits a frame, also if all of them are as long as names may be; what is between names in a
    /// page may also be in them.
    #[test]
    fn names_are_listed_however_long_and_odd_they_are() {
        let store = Store::start(64 << 20).unwrap();
        let brain = store.connect().unwrap();
        let long = (0..17_000).map(|number| format!("{number:01024}"));
        let mut names: Vec<String> = long.chain(["a\0b", "\0", "ü\0"].map(String::from)).collect();
        let batch = names.iter().try_fold(brain.batch().unwrap(), |batch, name| batch.learn(name, &()));
        batch.unwrap().commit().unwrap();
        names.sort_unstable();
        assert_eq!(brain.names("").unwrap(), names);
        assert_eq!(brain.names("0").unwrap(), names[1..17_001]);
    }

    #[test]
    fn a_prefix_longer_than_any_name_finds_nothing() {
        let store = Store::start(1 << 20).unwrap();
        let brain = store.connect().unwrap();
        let long = "x".repeat(1_024);
        brain.learn(&long, &1).unwrap();
        assert_eq!(brain.names(&long).unwrap(), [long.as_str()]);
        assert!(brain.names(&"x".repeat(1_025)).unwrap().is_empty());
        assert!(brain.names(&"x".repeat(1 << 20)).unwrap().is_empty());
        assert!(matches!(brain.learn(&"x".repeat(1_025), &1), Err(Error::BadName(_))));
    }
}
