//! Ids: 16 bytes of namespace, then 16 bytes of name hash or of UUID.

use crate::name::Namespace;
use core::fmt;

/// Bytes of an id that stand for the namespace.
pub const PREFIX_BYTES: usize = 16;

/// The first half of every id: the namespace itself, padded with zeros, where it has at most 16 bytes; else its first
/// 7 bytes, `~`, and the first 8 bytes of blake3 of it.
///
/// No namespace contains `~` or a zero byte, so a short namespace never equals the prefix of a long one, and no
/// prefix is the beginning of another. Two long namespaces may share a prefix by accident or by search; the daemon
/// keeps the full text beside each and refuses the second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacePrefix([u8; PREFIX_BYTES]);

impl NamespacePrefix {
    /// The prefix of `namespace`.
    #[must_use]
    pub fn new(namespace: &Namespace) -> Self {
        let text = namespace.as_bytes();
        let mut prefix = [0; PREFIX_BYTES];
        if text.len() <= PREFIX_BYTES {
            prefix[..text.len()].copy_from_slice(text);
        } else {
            prefix[..7].copy_from_slice(&text[..7]);
            prefix[7] = b'~';
            prefix[8..].copy_from_slice(&blake3::hash(text).as_bytes()[..8]);
        }
        NamespacePrefix(prefix)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; PREFIX_BYTES] {
        &self.0
    }

    /// The id of `name` in this namespace. About 60 ns for a short name: one blake3 hash.
    #[must_use]
    pub fn name_id(&self, name: &str) -> NameId {
        let mut id = [0; 32];
        id[..PREFIX_BYTES].copy_from_slice(&self.0);
        id[PREFIX_BYTES..].copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..16]);
        NameId(id)
    }

    /// The id of an object in this namespace, made from the 16 bytes of a UUIDv7.
    #[must_use]
    pub fn object_id(&self, uuid: [u8; 16]) -> ObjectId {
        let mut id = [0; 32];
        id[..PREFIX_BYTES].copy_from_slice(&self.0);
        id[PREFIX_BYTES..].copy_from_slice(&uuid);
        ObjectId(id)
    }
}

/// What the index is keyed by: the namespace's prefix, then the first 16 bytes of blake3 of the name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameId([u8; 32]);

impl NameId {
    /// The id of `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: &Namespace, name: &str) -> Self {
        NamespacePrefix::new(namespace).name_id(name)
    }

    /// An id from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        NameId(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The id as the four little-endian words that stand in an index entry.
    #[inline]
    #[must_use]
    pub fn words(&self) -> [u64; 4] {
        let (words, _) = self.0.as_chunks::<8>();
        [words[0], words[1], words[2], words[3]].map(u64::from_le_bytes)
    }
}

/// Names an object, not a name: the namespace's prefix, then a UUIDv7, so that ids of one namespace sort by age.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId([u8; 32]);

impl ObjectId {
    /// An id from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        ObjectId(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

macro_rules! show_hex {
    ($($id:ident)*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($id), "({})"), self)
            }
        }
    )*};
}
show_hex!(NamespacePrefix NameId ObjectId);

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn short_namespaces_stand_in_ids_as_they_are() {
        let prefix = NamespacePrefix::new(&Namespace::new("sixteen-bytes-16").unwrap());
        assert_eq!(prefix.as_bytes(), b"sixteen-bytes-16");
        assert_eq!(NamespacePrefix::new(&Namespace::default()).as_bytes(), b"default\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn long_namespaces_are_shortened_to_a_beginning_and_a_hash() {
        let one = NamespacePrefix::new(&Namespace::new("seventeen-bytes-1").unwrap());
        let two = NamespacePrefix::new(&Namespace::new("seventeen-bytes-2").unwrap());
        assert_eq!(&one.as_bytes()[..8], b"sevente~");
        assert_ne!(one, two);
    }

    /// A published vector: other implementations must agree with it.
    #[test]
    fn the_id_of_default_this_is_known() {
        let id = NameId::new(&Namespace::default(), "this");
        let hash = blake3::hash(b"this").to_hex();
        assert_eq!(format!("{id}"), format!("64656661756c74000000000000000000{}", &hash.as_str()[..32]));
        assert_eq!(&format!("{id}")[32..], THIS_HASH);
    }
    const THIS_HASH: &str = include_str!("../golden/name-id-this.txt");
}
