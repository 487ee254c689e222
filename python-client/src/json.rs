//! JSON-like Python values as JSON text, exactly or not at all.

use plasmon::Json;
use pyo3::{
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyNone, PyString},
};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::{collections::HashSet, fmt};

/// Lists and dictionaries within each other that every client reads.
const NESTING_MAX: usize = 127;

/// The JSON text of `value`, if that says all there is to say: exact `dict` with exact `str` keys, `list`, `str`, `int`
/// of 64 bits, signed or not, finite `float`, `bool`, `None`, each list and dictionary at one place only. `None` for
/// anything else.
pub(crate) fn from_python(value: &Bound<'_, PyAny>) -> PyResult<Option<Json>> {
    let mut writer = Writer { out: String::new(), seen: HashSet::new() };
    match writer.write(value, 0)? {
        Exactness::Exact => Ok(Json::new(writer.out).ok()),
        Exactness::Other => Ok(None),
    }
}

struct Writer {
    out: String,
    /// The addresses of the lists and dictionaries written so far. One that comes again is left to the pickle: as text,
    /// thirty lists that hold the next one twice would be a thousand million.
    seen: HashSet<usize>,
}

/// Whether JSON says all there is to say of a value.
enum Exactness {
    Exact,
    Other,
}

impl Writer {
    fn write(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<Exactness> {
        use std::fmt::Write as _;
        if let Ok(text) = value.cast_exact::<PyString>() {
            return Ok(self.write_text(text));
        }
        if value.is_exact_instance_of::<PyBool>() {
            self.out.push_str(if value.is_truthy()? { "true" } else { "false" });
            return Ok(Exactness::Exact);
        }
        if let Ok(number) = value.cast_exact::<PyInt>() {
            let written = match (number.extract::<i64>(), number.extract::<u64>()) {
                (Ok(number), _) => write!(self.out, "{number}"),
                (_, Ok(number)) => write!(self.out, "{number}"),
                _ => return Ok(Exactness::Other),
            };
            return Ok(if written.is_ok() { Exactness::Exact } else { Exactness::Other });
        }
        if let Ok(number) = value.cast_exact::<PyFloat>() {
            let Ok(text) = serde_json::to_string(&number.value()) else { return Ok(Exactness::Other) };
            if text == "null" {
                return Ok(Exactness::Other); // nan and the infinities
            }
            self.out.push_str(&text);
            return Ok(Exactness::Exact);
        }
        if value.is_exact_instance_of::<PyNone>() {
            self.out.push_str("null");
            return Ok(Exactness::Exact);
        }
        if depth == NESTING_MAX || !self.seen.insert(value.as_ptr().addr()) {
            return Ok(Exactness::Other);
        }
        if let Ok(list) = value.cast_exact::<PyList>() {
            self.out.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    self.out.push(',');
                }
                if let Exactness::Other = self.write(&item, depth + 1)? {
                    return Ok(Exactness::Other);
                }
            }
            self.out.push(']');
            return Ok(Exactness::Exact);
        }
        let Ok(dict) = value.cast_exact::<PyDict>() else { return Ok(Exactness::Other) };
        self.out.push('{');
        for (index, (key, item)) in dict.iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            let Ok(key) = key.cast_exact::<PyString>() else { return Ok(Exactness::Other) };
            if let Exactness::Other = self.write_text(key) {
                return Ok(Exactness::Other);
            }
            self.out.push(':');
            if let Exactness::Other = self.write(&item, depth + 1)? {
                return Ok(Exactness::Other);
            }
        }
        self.out.push('}');
        Ok(Exactness::Exact)
    }

    /// Surrogates have no UTF-8.
    fn write_text(&mut self, text: &Bound<'_, PyString>) -> Exactness {
        let Ok(text) = text.to_str() else { return Exactness::Other };
        match serde_json::to_string(text) {
            Ok(quoted) => {
                self.out.push_str(&quoted);
                Exactness::Exact
            }
            Err(_) => Exactness::Other,
        }
    }
}

/// The Python value that `text` says.
pub(crate) fn to_python(py: Python<'_>, text: &str) -> serde_json::Result<Py<PyAny>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Seed(py).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value.unbind())
}

#[derive(Clone, Copy)]
struct Seed<'py>(Python<'py>);

impl<'de, 'py> DeserializeSeed<'de> for Seed<'py> {
    type Value = Bound<'py, PyAny>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, 'py> Visitor<'de> for Seed<'py> {
    type Value = Bound<'py, PyAny>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(PyNone::get(self.0).to_owned().into_any())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(PyBool::new(self.0, value).to_owned().into_any())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        value.into_pyobject(self.0).map(Bound::into_any).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        value.into_pyobject(self.0).map(Bound::into_any).map_err(E::custom)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(PyFloat::new(self.0, value).into_any())
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(PyString::new(self.0, value).into_any())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let list = PyList::empty(self.0);
        while let Some(item) = items.next_element_seed(self)? {
            list.append(item).map_err(A::Error::custom)?;
        }
        Ok(list.into_any())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let dict = PyDict::new(self.0);
        while let Some((key, value)) = entries.next_entry_seed(self, self)? {
            dict.set_item(key, value).map_err(A::Error::custom)?;
        }
        Ok(dict.into_any())
    }
}
