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
        /// The names in order, as one text in which a zero byte follows each. (A name may have zeros of its own.)
        names: Bytes,
        /// Their lengths in bytes, each a u16, little-endian.
        lengths: Bytes,
        /// Whether more follow.
        more: bool,
    }
}

message! {
    /// Lists names in order, a page at a time, with everything about each: as [`Describe`] for all of them.
    ///
    /// Request 44, since protocol 1. Answered by [`DescribedPage`], or by failure `UnknownNamespace`.
    ListDescribed = 44 answered by DescribedPage {
        /// The namespace.
        namespace: Namespace,
        /// Only names that begin with this text.
        prefix: String,
        /// Go on after this name, the last of the page before.
        after: Option<Name>,
    }
}

message! {
    /// One page of names with everything about each. Reply 45, since protocol 1.
    DescribedPage = 45 {
        /// The bindings, in order.
        names: Vec<DescribedName>,
        /// Whether more follow.
        more: bool,
    }
}

part! {
    /// Everything about one name.
    DescribedName {
        /// The binding.
        binding: BindingInfo,
        /// Its description.
        description: String,
        /// Its user metadata, the text of a JSON object, or empty.
        metadata: String,
    }
}

message! {
    /// Asks what there is to know of one namespace. Request 46, since protocol 1. Answered by [`NamespaceDescribed`].
    DescribeNamespace = 46 answered by NamespaceDescribed {
        /// The namespace.
        namespace: Namespace,
    }
}

message! {
    /// What there is to know of one namespace. Reply 47, since protocol 1.
    NamespaceDescribed = 47 {
        /// The namespace; `None` if there is no such one.
        info: Option<NamespaceInfo>,
    }
}

/// The names of a [`BareNamesPage`].
///
/// They are one text, so that all of them are checked, and made into texts of another language, at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BareNames {
    /// A zero follows each.
    text: String,
    lengths: Vec<u16>,
}

impl BareNames {
    /// Adds a name.
    ///
    /// # Panics
    /// If it is longer than any name.
    pub fn push(&mut self, name: &str) {
        self.text.push_str(name);
        self.text.push('\0');
        self.lengths.push(u16::try_from(name.len()).expect("a name has at most 1,024 bytes"));
    }

    /// Whether no more names fit into one page.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let (names, bytes) = (limits::PAGE_BARE_NAMES_MAX, limits::PAGE_BARE_NAMES_BYTES_MAX);
        self.lengths.len() >= crate::index_of(names.into()) || self.text.len() >= bytes
    }

    /// The page of these names.
    #[must_use]
    pub fn into_page(self, more: bool) -> BareNamesPage {
        let lengths: Vec<u8> = self.lengths.into_iter().flat_map(u16::to_le_bytes).collect();
        BareNamesPage { names: self.text.into_bytes().into(), lengths: lengths.into(), more }
    }

    /// The names of a page; `None` if it contradicts itself.
    #[must_use]
    pub fn of_page(page: &BareNamesPage) -> Option<BareNames> {
        let text = core::str::from_utf8(&page.names).ok()?;
        let (lengths, []) = page.lengths.as_chunks() else { return None };
        let names = BareNames {
            text: text.into(),
            lengths: lengths.iter().copied().map(u16::from_le_bytes).collect(),
        };
        let mut left = text;
        for &length in &names.lengths {
            left = left.get(length.into()..)?.strip_prefix('\0')?;
        }
        left.is_empty().then_some(names)
    }

    /// The names, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut left = self.text.as_str();
        self.lengths.iter().map(move |&length| {
            let (name, rest) = left.split_at(length.into());
            left = &rest[1..];
            name
        })
    }

    /// Returns all names in one string, separated by NUL. Returns `None` if there are no names, or if a name contains
    /// NUL.
    #[must_use]
    pub fn joined(&self) -> Option<&str> {
        let zeros = self.text.bytes().filter(|&byte| byte == 0).count();
        self.text.strip_suffix('\0').filter(|_| zeros == self.lengths.len())
    }
}

impl BoundedList for BindingInfo {
    const ITEMS_MAX: u32 = limits::PAGE_NAMES_MAX;
}

impl BoundedList for DescribedName {
    const ITEMS_MAX: u32 = limits::PAGE_DESCRIBED_MAX;
}

impl BoundedList for NamespaceInfo {
    const ITEMS_MAX: u32 = limits::PAGE_NAMES_MAX;
}
