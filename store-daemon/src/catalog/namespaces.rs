//! Namespaces: their numbers and prefixes, what was declared for them, and how much is in each.
//!
//! Only `Catalog` calls this: when a namespace is made, declared or removed, and whenever a name is bound or unbound.

use super::{IdTaken, NamespaceId};
use crate::standing::Cache;
use plasmon_protocol::{
    id::{NameId, NamespacePrefix},
    index::Entry,
    message::{NamespaceInfo, Ttl},
    name::Namespace,
};
use std::{
    collections::{BTreeMap, btree_map},
    ops::Bound,
    sync::Arc,
};

/// One namespace.
#[derive(Debug)]
pub(super) struct State {
    pub(super) namespace: Namespace,
    prefix: NamespacePrefix,
    /// Its names, each with the number of its index entry.
    pub(super) names: BTreeMap<Arc<str>, u32>,
    /// Bytes of its objects, and of these those in the arena.
    bytes: u64,
    arena_bytes: u64,
    /// What was declared for it.
    pub(super) is_cache: bool,
    pub(super) ttl: Option<Ttl>,
    /// The last change that bound or unbound a name in it; 0 if none did.
    changed: u64,
    /// The change that made it.
    made: u64,
}

impl State {
    /// The last change that bound or unbound a name in it; 0 if none did.
    pub(super) fn changed(&self) -> u64 {
        self.changed
    }

    /// The change that made it.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    pub(super) fn name_id(&self, name: &str) -> NameId {
        self.prefix.name_id(name)
    }

    pub(super) fn prefix(&self) -> &NamespacePrefix {
        &self.prefix
    }

    pub(super) fn info(&self) -> NamespaceInfo {
        NamespaceInfo {
            namespace: self.namespace.clone(),
            names: self.names.len() as u64,
            bytes: self.bytes,
            is_cache: self.is_cache,
            ttl: self.ttl.clone(),
        }
    }
}

/// All namespaces.
#[derive(Debug)]
pub(super) struct Namespaces {
    by_name: BTreeMap<Namespace, NamespaceId>,
    by_prefix: BTreeMap<NamespacePrefix, NamespaceId>,
    states: BTreeMap<NamespaceId, State>,
    /// The operator's caches, and how long names live in them.
    standing: BTreeMap<Namespace, Option<Ttl>>,
    next: u64,
    /// Bytes in the arena of the objects in caches.
    cached_bytes: u64,
}

impl Namespaces {
    /// Only `default`.
    pub(super) fn new() -> Namespaces {
        let mut namespaces = Namespaces {
            by_name: BTreeMap::new(),
            by_prefix: BTreeMap::new(),
            states: BTreeMap::new(),
            standing: BTreeMap::new(),
            next: 0,
            cached_bytes: 0,
        };
        namespaces.register(&Namespace::default(), 0).expect("there is no other namespace");
        namespaces
    }

    /// Has this cache for good: whatever is declared for it, and each time that it is registered.
    pub(super) fn keep_cache(&mut self, cache: &Cache) -> Result<(), IdTaken> {
        let Cache { namespace, ttl } = cache;
        self.standing.insert(namespace.clone(), ttl.clone());
        let id = self.register(namespace, 0)?;
        self.declare(id, true, ttl.clone()); // `default` is there already
        Ok(())
    }

    pub(super) fn len(&self) -> u64 {
        self.by_name.len() as u64
    }

    /// The number of a registered namespace.
    pub(super) fn id(&self, namespace: &Namespace) -> Option<NamespaceId> {
        self.by_name.get(namespace).copied()
    }

    pub(super) fn get(&self, id: NamespaceId) -> Option<&State> {
        self.states.get(&id)
    }

    /// A namespace that is registered, as that of a binding is.
    pub(super) fn registered(&self, id: NamespaceId) -> &State {
        &self.states[&id]
    }

    /// Whether `namespace` is a cache, or will be as soon as there is one of that name.
    pub(super) fn is_cache(&self, namespace: &Namespace) -> bool {
        let state = self.id(namespace).and_then(|id| self.get(id));
        state.map_or_else(|| self.standing.contains_key(namespace), |state| state.is_cache)
    }

    /// Bytes in the arena of the objects in caches.
    pub(super) fn cached_bytes(&self) -> u64 {
        self.cached_bytes
    }

    /// Makes sure that `namespace` exists. If it does not, change number `version` makes it.
    pub(super) fn register(&mut self, namespace: &Namespace, version: u64) -> Result<NamespaceId, IdTaken> {
        self.check_prefix(namespace)?;
        if let Some(id) = self.id(namespace) {
            return Ok(id);
        }
        let id = NamespaceId(self.next);
        self.next += 1;
        let prefix = NamespacePrefix::new(namespace);
        self.by_name.insert(namespace.clone(), id);
        self.by_prefix.insert(prefix, id);
        let state = State {
            namespace: namespace.clone(),
            prefix,
            names: BTreeMap::new(),
            bytes: 0,
            arena_bytes: 0,
            is_cache: self.standing.contains_key(namespace),
            ttl: self.standing.get(namespace).cloned().flatten(),
            changed: 0,
            made: version,
        };
        self.states.insert(id, state);
        Ok(id)
    }

    /// Whether `namespace` could be registered, or is.
    pub(super) fn check_prefix(&self, namespace: &Namespace) -> Result<(), IdTaken> {
        match self.by_prefix.get(&NamespacePrefix::new(namespace)) {
            Some(id) if self.states[id].namespace != *namespace => {
                Err(IdTaken { holder: self.states[id].namespace.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Removes an empty namespace.
    pub(super) fn unregister(&mut self, id: NamespaceId) {
        if let Some(state) = self.states.remove(&id) {
            debug_assert!(state.names.is_empty(), "its names are unbound first");
            self.by_name.remove(&state.namespace);
            self.by_prefix.remove(&state.prefix);
        }
    }

    /// Declares what holds for a namespace. Returns whether it has become a cache.
    pub(super) fn declare(&mut self, id: NamespaceId, is_cache: bool, ttl: Option<Ttl>) -> bool {
        let Some(state) = self.states.get_mut(&id) else { return false };
        let standing = self.standing.get(&state.namespace);
        let (is_cache, ttl) = (is_cache || standing.is_some(), ttl.or_else(|| standing.cloned().flatten()));
        let was_cache = std::mem::replace(&mut state.is_cache, is_cache);
        state.ttl = ttl;
        match (was_cache, is_cache) {
            (false, true) => self.cached_bytes += state.arena_bytes,
            (true, false) => self.cached_bytes -= state.arena_bytes,
            _ => {}
        }
        !was_cache && is_cache
    }

    /// `name` is bound in namespace `id` to what `entry` says, in the index entry `number`. Until now it was bound to what
    /// `before` says, if it was.
    pub(super) fn bound(
        &mut self,
        id: NamespaceId,
        name: &Arc<str>,
        number: u32,
        entry: &Entry,
        before: Option<&Entry>,
    ) {
        let state = self.states.get_mut(&id).expect("a commit registers its namespaces first");
        match before {
            Some(before) => {
                state.bytes -= before.len_bytes;
                state.arena_bytes -= before.arena_bytes();
                self.cached_bytes -= if state.is_cache { before.arena_bytes() } else { 0 };
            }
            None => drop(state.names.insert(Arc::clone(name), number)),
        }
        state.bytes += entry.len_bytes;
        state.arena_bytes += entry.arena_bytes();
        state.changed = entry.version;
        self.cached_bytes += if state.is_cache { entry.arena_bytes() } else { 0 };
    }

    /// For everybody, change number `version` has unbound a name of namespace `id`, which is not unbound yet.
    pub(super) fn note_change(&mut self, id: NamespaceId, version: u64) {
        if let Some(state) = self.states.get_mut(&id) {
            state.changed = version;
        }
    }

    /// Change number `version` has unbound `name` in namespace `id`. It was bound to what `entry` says.
    pub(super) fn unbound(&mut self, id: NamespaceId, name: &str, entry: &Entry, version: u64) {
        let state = self.states.get_mut(&id).expect("a namespace with a name in it is registered");
        state.names.remove(name);
        state.changed = state.changed.max(version);
        state.bytes -= entry.len_bytes;
        state.arena_bytes -= entry.arena_bytes();
        self.cached_bytes -= if state.is_cache { entry.arena_bytes() } else { 0 };
    }

    /// The namespaces from `start` on, in order.
    pub(super) fn range(&self, start: Bound<&Namespace>) -> btree_map::Range<'_, Namespace, NamespaceId> {
        self.by_name.range((start, Bound::Unbounded))
    }
}
