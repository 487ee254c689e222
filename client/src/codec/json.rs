//! JSON as text: for callers whose own values are not [`serde_json::Value`].

use super::{error::CodecError, text::Text};
use serde::de::IgnoredAny;
use std::ops::Deref;

/// The text of a JSON value, with the order of its keys as it was written. Dereferences to the text.
///
/// # Examples
/// ```
/// use plasmon::Json;
///
/// let brain = plasmon::testing::brain()?;
/// brain.learn("point", &Json::new(r#"{"y":2,"x":1}"#.to_owned())?)?;
/// assert_eq!(&*brain.recall::<Json>("point")?, r#"{"y":2,"x":1}"#);
/// assert!(Json::new("{".to_owned()).is_err());
/// # Ok::<(), plasmon::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(Text);

impl Json {
    /// Lists and objects within each other that every client reads: as many as serde_json does.
    pub const NESTING_MAX: usize = 127;

    /// Checks that `text` is JSON that every client can read.
    ///
    /// # Errors
    /// [`CodecError::Json`] if it is not, or if it is nested deeper than 127 levels.
    pub fn new(text: String) -> Result<Json, CodecError> {
        serde_json::from_str::<IgnoredAny>(&text).map_err(CodecError::Json)?;
        match nesting(text.as_bytes()) {
            ..=Self::NESTING_MAX => Ok(Json(Text::from(text))),
            _ => Err(too_deep()),
        }
    }

    /// What our own encoder of another language's values wrote: JSON, and not nested deeper than that. For our own use.
    #[doc(hidden)]
    #[must_use]
    pub fn written(text: String) -> Json {
        Json(Text::from(text))
    }

    /// JSON from an object of that kind: whoever reads it finds out whether it is.
    pub(super) fn from_stored(text: Text) -> Json {
        Json(text)
    }
}

pub(super) fn too_deep() -> CodecError {
    CodecError::Unsupported {
        what: format!("JSON nested deeper than {} levels", Json::NESTING_MAX),
        advice: "flatten it, or learn it as text",
    }
}

/// Levels of lists and objects within each other in a text that is JSON.
fn nesting(text: &[u8]) -> usize {
    let (mut level, mut deepest) = (0_usize, 0);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                level += 1;
                deepest = deepest.max(level);
            }
            b']' | b'}' => level = level.saturating_sub(1),
            b'"' => {
                // To the end of the string; what is escaped does not end it.
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

impl Deref for Json {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}
