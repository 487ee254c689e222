//! Caches that the operator declares, with `--cache`: for good, whatever clients declare or remove.
//!
//! `options.rs` parses them. `Catalog` declares them once, before the first client connects.

use plasmon_protocol::{
    lifetime::{self, NoLifetime},
    message::Ttl,
    name::{NameError, Namespace},
};
use std::str::FromStr;

/// A namespace that is a cache, and how long its names live of which nobody says anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// The namespace.
    pub namespace: Namespace,
    /// The time to live; `None` has no end.
    pub ttl: Option<Ttl>,
}

/// Why a cache was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write NAMESPACE or NAMESPACE=TIME, such as results or results=10m: {0}")]
pub enum CacheError {
    /// The namespace breaks its rule.
    Namespace(#[from] NameError),
    /// The time is none.
    Lifetime(#[from] NoLifetime),
}

impl FromStr for Cache {
    type Err = CacheError;

    fn from_str(text: &str) -> Result<Self, CacheError> {
        let (namespace, ttl) = match text.split_once('=') {
            Some((namespace, ttl)) => (namespace, Some(lifetime::parse(ttl)?)),
            None => (text, None),
        };
        let ttl_ns = ttl.map(|ttl| u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
        let ttl = ttl_ns.map(|ttl_ns| Ttl { ttl_ns, is_sliding: false });
        Ok(Cache { namespace: Namespace::new(namespace)?, ttl })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_has_a_namespace_and_perhaps_a_time() {
        let namespace = Namespace::new("results").expect("a valid namespace");
        let ttl = Some(Ttl { ttl_ns: 600_000_000_000, is_sliding: false });
        assert_eq!("results".parse(), Ok(Cache { namespace: namespace.clone(), ttl: None }));
        assert_eq!("results=10m".parse(), Ok(Cache { namespace, ttl }));
        for text in ["", "=10m", "results=", "results=0", "results=soon", "a", "with space", "results=10m=5m"]
        {
            assert!(text.parse::<Cache>().is_err(), "{text}");
        }
    }
}
