//! JSON-like Python values as JSON text, exactly or not at all.

use crate::{errors::raise, stack::with_room};
use plasmon::Json;
use pyo3::{
    prelude::*,
    types::{
        PyBool, PyDict, PyFloat, PyInt, PyList, PyNone, PyString,
        iter::{BoundDictIterator, BoundListIterator},
    },
};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::{collections::HashSet, fmt};

/// Lists and dictionaries within each other that every client reads.
const NESTING_MAX: usize = Json::NESTING_MAX;

/// The JSON text of `value`, if that says all there is to say: exact `dict` with exact `str` keys, `list`, `str`, `int`
/// of 64 bits, signed or not, finite `float`, `bool`, `None`, each list and dictionary at one place only. `None` for
/// anything else.
///
/// It does not recurse: a thread whose stack is short learns what others learn.
pub(crate) fn from_python(value: &Bound<'_, PyAny>) -> PyResult<Option<Json>> {
    let mut writer = Writer { out: String::new(), seen: HashSet::new(), open: Vec::new() };
    let mut next = Some(value.clone());
    while let Some(value) = next {
        if let Exactness::Other = writer.write(&value)? {
            return Ok(None);
        }
        next = match writer.next_item() {
            Ok(next) => next,
            Err(NotText) => return Ok(None),
        };
    }
    Ok(Some(Json::written(writer.out)))
}

struct Writer<'py> {
    out: String,
    /// The addresses of the lists and dictionaries written so far. One that comes again is left to the pickle: as text,
    /// thirty lists that hold the next one twice would be a thousand million.
    seen: HashSet<usize>,
    /// What is being written, from the outermost on.
    open: Vec<Open<'py>>,
}

/// A list or a dictionary, some of whose items are written.
enum Open<'py> {
    List { items: BoundListIterator<'py>, is_first: bool },
    Dict { items: BoundDictIterator<'py>, is_first: bool },
}

/// Whether JSON says all there is to say of a value.
enum Exactness {
    Exact,
    Other,
}

/// A key that JSON does not have.
struct NotText;

impl<'py> Writer<'py> {
    /// Writes a value, or the beginning of a list or a dictionary.
    fn write(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Exactness> {
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
        if self.open.len() == NESTING_MAX || !self.seen.insert(value.as_ptr().addr()) {
            return Ok(Exactness::Other);
        }
        if let Ok(list) = value.cast_exact::<PyList>() {
            self.out.push('[');
            self.open.push(Open::List { items: list.iter(), is_first: true });
            return Ok(Exactness::Exact);
        }
        let Ok(dict) = value.cast_exact::<PyDict>() else { return Ok(Exactness::Other) };
        self.out.push('{');
        self.open.push(Open::Dict { items: dict.iter(), is_first: true });
        Ok(Exactness::Exact)
    }

    /// The value that comes next, with what stands before it written; `None` at the end of all.
    fn next_item(&mut self) -> Result<Option<Bound<'py, PyAny>>, NotText> {
        while let Some(open) = self.open.last_mut() {
            let (key, item, is_first) = match open {
                Open::List { items, is_first } => (None, items.next(), is_first),
                Open::Dict { items, is_first } => {
                    let (key, item) = items.next().unzip();
                    (key, item, is_first)
                }
            };
            let Some(item) = item else {
                self.out.push(if matches!(open, Open::List { .. }) { ']' } else { '}' });
                self.open.pop();
                continue;
            };
            if !std::mem::replace(is_first, false) {
                self.out.push(',');
            }
            if let Some(key) = key {
                let key = key.cast_exact::<PyString>().map_err(|_| NotText)?;
                if let Exactness::Other = self.write_text(key) {
                    return Err(NotText);
                }
                self.out.push(':');
            }
            return Ok(Some(item));
        }
        Ok(None)
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

/// The value that a text says, and back, for what is no Python object. As deep as either may nest, the stack is longer if
/// this thread's may be too short for it.
pub(crate) fn value_of(text: &str) -> serde_json::Result<serde_json::Value> {
    with_room(|| serde_json::from_str(text))
}

pub(crate) fn text_of(value: serde_json::Value) -> String {
    with_room(|| value.to_string())
}

/// The Python value that JSON says; for text that others wrote.
#[pyfunction]
pub(crate) fn parse_json(py: Python<'_>, text: &str) -> PyResult<Py<PyAny>> {
    to_python(py, text)
        .map_err(|error| raise(py, "MalformedObject", &format!("a text that should be JSON: {error}"), None))
}

/// The Python value that `text` says.
///
/// # Errors
/// Also if it is nested deeper than 127 levels, or than this thread's stack has room for.
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
        check_stack()?;
        let list = PyList::empty(self.0);
        while let Some(item) = items.next_element_seed(self)? {
            list.append(item).map_err(A::Error::custom)?;
        }
        Ok(list.into_any())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        check_stack()?;
        let dict = PyDict::new(self.0);
        while let Some((key, value)) = entries.next_entry_seed(self, self)? {
            dict.set_item(key, value).map_err(A::Error::custom)?;
        }
        Ok(dict.into_any())
    }
}

/// Refuses to go deeper where that could end the process.
///
/// The stack cannot be made longer here, as it can where no Python object is made: an interpreter that looks how much of
/// its thread's stack is left would look at another one.
fn check_stack<E: serde::de::Error>() -> Result<(), E> {
    match stacker::remaining_stack() {
        Some(left_bytes) if left_bytes < STACK_LEFT_BYTES_MIN => Err(E::custom(
            "it is nested deeper than the stack of this thread has room for; recall it in another thread, or make this one's \
             stack longer (threading.stack_size)",
        )),
        _ => Ok(()),
    }
}

/// What a level takes, and what Python may need for an object (its garbage collector may run).
const STACK_LEFT_BYTES_MIN: usize = 12 << 10;
