//! Values as JSON, as bytes, and as text that a terminal may show.

use super::show::plain;
use crate::{Dtype, Error, Kind, Object};

pub(super) fn dtype(tensor: &crate::TensorView) -> String {
    let order = if tensor.is_column_major() { ", column-major" } else { "" };
    let dtype: Dtype = tensor.dtype();
    format!("{dtype}{order}")
}

/// The object as a value of a Rust type that its kind is known to be.
pub(super) fn decode<T: crate::FromObject>(object: &Object) -> Result<T, Error> {
    Ok(T::from_object(object.clone())?)
}

/// The value of an object that is no table, as JSON; `None` where it has no short one.
pub(super) fn json_value(object: &Object) -> Result<Option<serde_json::Value>, Error> {
    Ok(Some(match object.kind() {
        Kind::NULL => serde_json::Value::Null,
        Kind::BOOL => decode::<bool>(object)?.into(),
        Kind::INT64 => decode::<i64>(object)?.into(),
        // What JSON has no number for is a text.
        Kind::FLOAT64 => match decode::<f64>(object)? {
            value if value.is_finite() => value.into(),
            value => value.to_string().into(),
        },
        Kind::TEXT => decode::<String>(object)?.into(),
        Kind::JSON => decode::<serde_json::Value>(object)?,
        _ => return Ok(None),
    }))
}

/// The bytes of the value itself, for kinds that are bytes.
pub(super) fn raw_bytes(object: &Object) -> Result<Option<arrow_buffer::Buffer>, Error> {
    Ok(Some(match object.kind() {
        Kind::BYTES => decode::<crate::Blob>(object)?.into_buffer(),
        Kind::TEXT => decode::<crate::Text>(object)?.into_buffer(),
        Kind::TENSOR => decode::<crate::TensorView>(object)?.into_buffer(),
        Kind::JSON => {
            arrow_buffer::Buffer::from_vec(decode::<serde_json::Value>(object)?.to_string().into_bytes())
        }
        _ => return Ok(None),
    }))
}

/// Whether the raw bytes of a value are text that a terminal shows and does not obey.
pub(super) fn is_readable(object: &Object) -> Result<bool, Error> {
    let bytes = raw_bytes(object)?;
    let text = bytes.as_ref().map(|bytes| std::str::from_utf8(bytes));
    // Where there are no raw bytes the error says so.
    Ok(text.is_none_or(|text| text.is_ok_and(|text| text == readable(text))))
}

/// `text` with its lines, without other characters that a terminal would obey.
pub(super) fn readable(text: &str) -> String {
    text.split_inclusive(['\n', '\t'])
        .map(|piece| {
            let (line, end) = match piece.as_bytes().last() {
                Some(b'\n' | b'\t') => piece.split_at(piece.len() - 1),
                _ => (piece, ""),
            };
            plain(line) + end
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_in_its_lines_and_steers_no_terminal() {
        assert_eq!(readable("a\tb\n\u{1b}[2Jc\r\n"), "a\tb\n\\u{1b}[2Jc\\r\n");
        assert_eq!(readable(""), "");
    }
}
