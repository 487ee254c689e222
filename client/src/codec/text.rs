//! Recalled texts.

use super::error::CodecError;
use arrow_buffer::Buffer;
use plasmon_protocol::object::{Flags, Header};
use std::{fmt, ops::Deref};

/// A recalled text: a read-only view of the store's memory, which it keeps in place for as long as it lives.
///
/// It is a `str` in all but name; `to_string` gives a copy of its own.
///
/// # Examples
/// ```
/// use plasmon::Text;
///
/// fn shout(text: &Text) -> String {
///     text.to_uppercase()
/// }
/// ```
#[derive(Clone)]
pub struct Text(Buffer);

impl Text {
    /// The text in `bytes`, which are checked to be UTF-8 unless a trusted writer's encoder vouches for them.
    pub(super) fn checked(bytes: Buffer, header: &Header, trusted: bool) -> Result<Text, CodecError> {
        // An object's header comes with the object: one that does not say who encoded it vouches for nothing.
        if !(trusted && header.flags.has(Flags::OUR_ENCODER)) {
            str::from_utf8(&bytes).map_err(CodecError::NotUtf8)?;
        }
        Ok(Text(bytes))
    }

    /// The text's bytes, which keep the object in place. Cloning them copies nothing.
    #[must_use]
    pub fn into_buffer(self) -> Buffer {
        self.0
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        // SAFETY: `str::from_utf8_unchecked` asks that the bytes be UTF-8. `Text::checked` and `From<String>`, the
        // only places that make a `Text`, have checked them, and they do not change while the buffer lives (a recalled object never changes while
        // it is held: invariant 2). Trusted, not proven: where `Text::checked` did not look, the header says that our
        // encoder wrote them, from a `str`, and its writer is of this user (docs/SECURITY.md).
        unsafe { str::from_utf8_unchecked(&self.0) }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text(Buffer::from_vec(text.into_bytes()))
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}
