use super::{Ttl, message, part};
use crate::{
    codec::BoundedList,
    limits,
    name::{Name, Namespace},
    object::Kind,
};
use alloc::{string::String, vec::Vec};
use bytes::Bytes;

message! {
    /// Lists names in order, a page at a time.
    ///
    /// Request 24, since protocol 1. Answered by [`NamesPage`], or by failure `UnknownNamespace`.
    ListNames = 24 answered by NamesPage {
        /// The namespace; `None` lists all of them, ordered by namespace first.
        namespace: Option<Namespace>,
        /// Only names that begin with this text.
        prefix: String,
        /// Go on after this name, the last of the page before.
        after: Option<ListedName>,
        /// Most names in the answer, at most [`limits::PAGE_NAMES_MAX`]; 0 means that limit.
        limit: u32,
    }
}

part! {
    /// A name and where it belongs.
    ListedName {
        /// Its namespace.
        namespace: Namespace,
        /// The name.
        name: Name,
    }
}

message! {
    /// One page of names. Reply 25, since protocol 1.
    NamesPage = 25 {
        /// The bindings, in order.
        names: Vec<BindingInfo>,
        /// Whether more follow.
        more: bool,
    }
}

part! {
    /// What there is to know of a binding without touching its object.
    BindingInfo {
        /// Its namespace.
        namespace: Namespace,
        /// Its name.
        name: Name,
        /// Version of the binding.
        version: u64,
        /// The object's id: namespace prefix and UUIDv7.
        object_id: [u8; 32],
        /// Length of the object, in bytes.
        len_bytes: u64,
        /// Kind of the value.
        kind: Kind,
        /// When the binding was made: CLOCK_REALTIME, in nanoseconds.
        created_ns: u64,
        /// Process that made it, as the daemon sees it.
        writer_pid: u32,
        /// Uid of that process, as the daemon sees it.
        writer_uid: u32,
        /// When the name was last recalled, within about a second: CLOCK_REALTIME, in nanoseconds; 0 if nobody has
        /// noted that it was. Binding the name anew keeps it.
        recalled_ns: u64,
        /// The time to live that it has; `None` if it does not expire.
        ttl: Option<Ttl>,
        /// What is left of it, in nanoseconds; `None` if it does not expire.
        left_ns: Option<u64>,
    }
}

message! {
    /// Lists the namespaces, in order. Request 26, since protocol 1. Answered by [`NamespacesListed`].
    ListNamespaces = 26 answered by NamespacesListed {
        /// Go on after this namespace, the last of the page before.
        after: Option<Namespace>,
    }
}

message! {
    /// One page of namespaces. Reply 27, since protocol 1.
    NamespacesListed = 27 {
        /// The namespaces, in order.
        namespaces: Vec<NamespaceInfo>,
        /// Whether more follow.
        more: bool,
    }
}

part! {
    /// A namespace and what it holds.
    NamespaceInfo {
        /// The namespace.
        namespace: Namespace,
        /// Names bound in it.
        names: u64,
        /// Bytes of their objects.
        bytes: u64,
        /// Whether it was declared a cache.
        is_cache: bool,
        /// The time to live that was declared for it.
        ttl: Option<Ttl>,
    }
}

message! {
    /// Asks for everything about one name. Request 28, since protocol 1. Answered by [`Described`].
    Describe = 28 answered by Described {
        /// Namespace of the name.
        namespace: Namespace,
        /// The name.
        name: Name,
    }
}

message! {
    /// Everything about one name. Reply 29, since protocol 1.
    Described = 29 {
        /// The binding; `None` if the name is not bound, and then the texts are empty.
        binding: Option<BindingInfo>,
        /// Its description.
        description: String,
        /// Its user metadata, the text of a JSON object, or empty.
        metadata: String,
    }
}

message! {
    /// Lists names in order, a page at a time, and nothing else of them. Request 40, since protocol 1. Answered by
    /// [`BareNamesPage`], or by failure `UnknownNamespace`.
    ListBareNames = 40 answered by BareNamesPage {
        /// The namespace.
        namespace: Namespace,
        /// Only names that begin with this text.
        prefix: String,
        /// Go on after this name, the last of the page before.
        after: Option<Name>,
    }
}

message! {
    /// One page of bare names. Reply 41, since protocol 1.
    BareNamesPage = 41 {
        /// The names in order, each behind its length in bytes (u16, little-endian): see [`bare_names`].
        names: Bytes,
        /// Whether more follow.
        more: bool,
    }
}

/// Adds a name to those of a page.
pub fn push_bare_name(name: &str, names: &mut Vec<u8>) {
    let len_bytes = u16::try_from(name.len()).expect("a name has at most 1,024 bytes");
    names.extend_from_slice(&len_bytes.to_le_bytes());
    names.extend_from_slice(name.as_bytes());
}

/// The names of a page. What is not the length of a name, or no UTF-8, ends them with `None`.
pub fn bare_names(names: &[u8]) -> impl Iterator<Item = Option<&str>> {
    let mut rest = names;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let name = rest.split_first_chunk().and_then(|(len, text)| {
            let (name, left) = text.split_at_checked(u16::from_le_bytes(*len).into())?;
            rest = left;
            core::str::from_utf8(name).ok()
        });
        if name.is_none() {
            rest = &[];
        }
        Some(name)
    })
}

impl BoundedList for BindingInfo {
    const ITEMS_MAX: u32 = limits::PAGE_NAMES_MAX;
}

impl BoundedList for NamespaceInfo {
    const ITEMS_MAX: u32 = limits::PAGE_NAMES_MAX;
}
