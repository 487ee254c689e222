//! Names and namespaces: counting, forgetting, registering and removing them.

use super::{Brain, NamespaceInfo};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use plasmon_protocol::message::{Change, DescribeNamespace, Expect};

impl Brain {
    /// Unbinds `name`, and returns whether it was bound. Its memory is free once nobody holds the object.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::StoreUnavailable`], [`Error::OutcomeUnknown`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("draft", "text")?;
    /// assert!(brain.forget("draft")?);
    /// assert!(!brain.forget("draft")?); // not bound any more
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn forget(&self, name: &str) -> Result<bool> {
        Ok(self.batch()?.forget(name)?.send()?.unbound > 0)
    }

    /// Unbinds `name` only if it has exactly this version.
    ///
    /// # Errors
    /// [`Error::ConditionFailed`]; else as [`forget`](Self::forget).
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// let seen = brain.learn("job", "waiting")?;
    /// brain.learn("job", "taken by somebody else")?;
    /// assert!(matches!(brain.forget_if_version("job", seen), Err(plasmon::Error::ConditionFailed { .. })));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn forget_if_version(&self, name: &str, version: u64) -> Result<()> {
        self.batch()?.expect(name, Expect::Version { version })?.forget(name)?.commit().map(drop)
    }

    /// Number of names bound in this namespace; 0 if there is no such namespace.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("a", &1)?;
    /// assert_eq!((brain.len()?, brain.in_namespace("other")?.len()?), (1, 0));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn len(&self) -> Result<u64> {
        Ok(self.namespace_info()?.map_or(0, |info| info.names))
    }

    /// Whether no name is bound in this namespace.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// assert!(store.connect()?.is_empty()?);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// What there is to know of this namespace; `None` if there is no such namespace. One round trip.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// assert_eq!(brain.namespace_info()?.map(|info| info.names), Some(0));
    /// assert_eq!(brain.in_namespace("other")?.namespace_info()?, None);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn namespace_info(&self) -> Result<Option<NamespaceInfo>> {
        let describe = DescribeNamespace { namespace: self.namespace.clone() };
        Ok(self.store.ask(&self.trust, &describe)?.info)
    }

    /// Makes sure that this namespace exists.
    ///
    /// # Errors
    /// [`Error::IdTaken`], [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let other = store.connect()?.in_namespace("other")?;
    /// assert!(other.names("").unwrap_err().is_not_found()); // there is no such namespace yet
    /// other.register()?;
    /// assert!(other.names("")?.is_empty());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn register(&self) -> Result<()> {
        let change = Change::RegisterNamespace { namespace: self.namespace.clone() };
        self.batch()?.change(change).commit().map(drop)
    }

    /// Unbinds all names of this namespace, at one moment. Returns how many there were.
    ///
    /// # Errors
    /// [`Error::NamespaceNotFound`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("a", &1)?;
    /// assert_eq!((brain.clear()?, brain.len()?), (1, 0));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn clear(&self) -> Result<u64> {
        let change = Change::ClearNamespace { namespace: self.namespace.clone() };
        Ok(self.batch()?.change(change).send()?.unbound)
    }

    /// Unbinds all names of this namespace and removes it, at one moment. Returns how many names there were.
    ///
    /// # Errors
    /// [`Error::DefaultNamespace`] for `default`, which can only be cleared; [`Error::NamespaceNotFound`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let other = store.connect()?.in_namespace("other")?;
    /// other.learn("a", &1)?;
    /// assert_eq!(other.remove_namespace()?, 1);
    /// assert_eq!(other.namespaces()?.len(), 1); // default
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn remove_namespace(&self) -> Result<u64> {
        let change = Change::RemoveNamespace { namespace: self.namespace.clone() };
        Ok(self.batch()?.change(change).send()?.unbound)
    }

    /// Removes this namespace if no name is bound in it.
    ///
    /// # Errors
    /// [`Error::NamespaceInUse`] if one is; else as [`remove_namespace`](Self::remove_namespace).
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let other = store.connect()?.in_namespace("other")?;
    /// other.learn("a", &1)?;
    /// assert!(matches!(other.remove_namespace_if_empty(), Err(plasmon::Error::NamespaceInUse { .. })));
    /// other.forget("a")?;
    /// other.remove_namespace_if_empty()?;
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn remove_namespace_if_empty(&self) -> Result<()> {
        let change = Change::RemoveEmptyNamespace { namespace: self.namespace.clone() };
        self.batch()?.change(change).commit().map(drop)
    }
}
