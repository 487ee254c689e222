//! Namespaces and names: checked once, where they enter.

use alloc::{borrow::ToOwned, boxed::Box, string::String, sync::Arc};
use core::{fmt, ops::Deref};

/// Shortest namespace, in bytes.
pub const NAMESPACE_BYTES_MIN: usize = 5;
/// Longest namespace, in bytes.
pub const NAMESPACE_BYTES_MAX: usize = 64;
/// Longest label of a snapshot, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;
/// Longest name, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 1_024;

/// Why a namespace or a name was refused. The message says the rule and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// The namespace has too few or too many bytes.
    NamespaceLength {
        /// What was asked for, shortened for display.
        namespace: String,
        /// Its length in bytes.
        len_bytes: usize,
    },
    /// The namespace has a character outside ASCII letters, digits, `_`, `.` and `-`.
    NamespaceCharacter {
        /// What was asked for.
        namespace: String,
        /// The first character that is not allowed.
        character: char,
    },
    /// The label of a snapshot has too few or too many bytes.
    LabelLength {
        /// What was asked for, shortened for display.
        label: String,
        /// Its length in bytes.
        len_bytes: usize,
    },
    /// The label has a character outside ASCII letters, digits, `_`, `.` and `-`.
    LabelCharacter {
        /// What was asked for.
        label: String,
        /// The first character that is not allowed.
        character: char,
    },
    /// The name is empty.
    NameEmpty,
    /// The name has too many bytes.
    NameLength {
        /// Its length in bytes.
        len_bytes: usize,
    },
}

impl NameError {
    /// Whether it was a namespace that was refused, and not a name.
    #[must_use]
    pub fn is_of_namespace(&self) -> bool {
        match self {
            NameError::NamespaceLength { .. } | NameError::NamespaceCharacter { .. } => true,
            NameError::LabelLength { .. }
            | NameError::LabelCharacter { .. }
            | NameError::NameEmpty
            | NameError::NameLength { .. } => false,
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::NamespaceLength { namespace, len_bytes } => write!(
                f,
                "a namespace has {NAMESPACE_BYTES_MIN} to {NAMESPACE_BYTES_MAX} characters, and {namespace:?} has {len_bytes}"
            ),
            NameError::NamespaceCharacter { namespace, character } => write!(
                f,
                "a namespace is made of ASCII letters, digits, '_', '.' and '-', and {namespace:?} has {character:?}"
            ),
            NameError::LabelLength { label, len_bytes } => write!(
                f,
                "the label of a snapshot has 1 to {LABEL_BYTES_MAX} characters, and {label:?} has {len_bytes}"
            ),
            NameError::LabelCharacter { label, character } => write!(
                f,
                "the label of a snapshot is made of ASCII letters, digits, '_', '.' and '-', and {label:?} has \
                 {character:?}"
            ),
            NameError::NameEmpty => write!(f, "a name has at least one character, and this one is empty"),
            NameError::NameLength { len_bytes } => {
                write!(f, "a name has at most {NAME_BYTES_MAX} bytes of UTF-8, and this one has {len_bytes}")
            }
        }
    }
}

impl core::error::Error for NameError {}

/// Whether namespaces and labels may have this character.
fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '-')
}

/// The label of a snapshot: 1 to 64 ASCII letters, digits, `_`, `.`, `-`.
///
/// ```
/// use plasmon_protocol::name::Label;
/// assert_eq!(Label::new("before-the-run").unwrap().as_str(), "before-the-run");
/// assert!(Label::new("").is_err() && Label::new("a/b").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Box<str>);

impl Label {
    /// Checks `label` and copies it.
    ///
    /// # Errors
    /// [`NameError::LabelLength`] or [`NameError::LabelCharacter`].
    pub fn new(label: &str) -> Result<Self, NameError> {
        let len_bytes = label.len();
        if !(1..=LABEL_BYTES_MAX).contains(&len_bytes) {
            let shown = label.chars().take(LABEL_BYTES_MAX).collect();
            return Err(NameError::LabelLength { label: shown, len_bytes });
        }
        match label.chars().find(|&c| !is_allowed(c)) {
            Some(character) => Err(NameError::LabelCharacter { label: label.to_owned(), character }),
            None => Ok(Label(label.into())),
        }
    }

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a namespace: 5 to 64 ASCII letters, digits, `_`, `.`, `-`; compared exactly. Clones share the text.
///
/// ```
/// use plasmon_protocol::name::Namespace;
/// assert!(Namespace::new("user-42").is_ok());
/// assert!(Namespace::new("four").is_err()); // too short
/// assert!(Namespace::new("with space").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// The namespace that always exists.
    pub const DEFAULT: &'static str = "default";

    /// Checks `namespace`.
    ///
    /// # Errors
    /// [`NameError::NamespaceLength`] or [`NameError::NamespaceCharacter`].
    pub fn new(namespace: &str) -> Result<Self, NameError> {
        let len_bytes = namespace.len();
        if !(NAMESPACE_BYTES_MIN..=NAMESPACE_BYTES_MAX).contains(&len_bytes) {
            let shown = namespace.chars().take(NAMESPACE_BYTES_MAX).collect();
            return Err(NameError::NamespaceLength { namespace: shown, len_bytes });
        }
        match namespace.chars().find(|&c| !is_allowed(c)) {
            Some(character) => {
                Err(NameError::NamespaceCharacter { namespace: namespace.to_owned(), character })
            }
            None => Ok(Namespace(namespace.into())),
        }
    }

    /// The namespace as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Namespace(Self::DEFAULT.into())
    }
}

impl Deref for Namespace {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name: non-empty UTF-8 of at most 1,024 bytes, unique in its namespace.
///
/// ```
/// use plasmon_protocol::name::Name;
/// assert_eq!(Name::new("prices").unwrap().as_str(), "prices");
/// assert!(Name::new("").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

impl Name {
    /// Checks `name` and copies it.
    ///
    /// # Errors
    /// As [`Name::check`].
    pub fn new(name: &str) -> Result<Self, NameError> {
        Ok(Name(Self::check(name)?.into()))
    }

    /// Checks `name` without copying it.
    ///
    /// # Errors
    /// [`NameError::NameEmpty`] or [`NameError::NameLength`].
    pub fn check(name: &str) -> Result<&str, NameError> {
        match name.len() {
            0 => Err(NameError::NameEmpty),
            len_bytes if len_bytes > NAME_BYTES_MAX => Err(NameError::NameLength { len_bytes }),
            _ => Ok(name),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_have_5_to_64_characters_of_the_alphabet() {
        for good in ["abcde", "A.b-c_9", &"x".repeat(64), "default"] {
            assert!(Namespace::new(good).is_ok(), "{good}");
        }
        for bad in ["", "abcd", &"x".repeat(65), "abc/de", "ümlaut", "abcd\0"] {
            assert!(Namespace::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_have_1_to_1024_bytes_of_anything() {
        for good in ["a", "\0", "🦀", &"x".repeat(1_024)] {
            assert!(Name::new(good).is_ok());
        }
        assert_eq!(Name::new(""), Err(NameError::NameEmpty));
        assert_eq!(Name::new(&"x".repeat(1_025)), Err(NameError::NameLength { len_bytes: 1_025 }));
    }
}
