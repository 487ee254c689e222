//! JSON as text: for callers whose own values are not [`serde_json::Value`].

use super::{error::CodecError, value::Text};
use serde::de::IgnoredAny;
use std::ops::Deref;

/// The text of a JSON value, with the order of its keys as it was written. Dereferences to the text.
///
/// # Examples
/// ```
/// use plasmon::Json;
///
/// let store = plasmon::testing::Store::start(8 << 20)?;
/// let brain = store.connect()?;
/// brain.learn("point", &Json::new(r#"{"y":2,"x":1}"#.to_owned())?)?;
/// assert_eq!(&*brain.recall::<Json>("point")?, r#"{"y":2,"x":1}"#);
/// assert!(Json::new("{".to_owned()).is_err());
/// # Ok::<(), plasmon::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(Text);

impl Json {
    /// Checks that `text` is JSON that every client can read.
    ///
    /// # Errors
    /// [`CodecError::Json`] if it is not, or if it is nested deeper than 127 levels.
    pub fn new(text: String) -> Result<Json, CodecError> {
        serde_json::from_str::<IgnoredAny>(&text).map_err(CodecError::Json)?;
        Ok(Json(Text::from(text)))
    }

    /// JSON from an object of that kind: whoever reads it finds out whether it is.
    pub(super) fn from_stored(text: Text) -> Json {
        Json(text)
    }
}

impl Deref for Json {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}
