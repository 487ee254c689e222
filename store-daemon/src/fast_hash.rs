//! Hash tables whose keys no client chooses: numbers that the daemon gives out, and processes as the kernel tells them.
//!
//! Every request looks up a dozen of them, so they have a hash function that takes a few instructions. Keys that a
//! client chooses (names, tokens, what stands in its pins) go into tables of the standard library, whose hash function
//! nobody can make collisions for.

use foldhash::fast::RandomState;

/// A hash table of keys that no client chooses.
pub(crate) type FastMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// A set of keys that no client chooses.
pub(crate) type FastSet<K> = std::collections::HashSet<K, RandomState>;
