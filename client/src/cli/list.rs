//! What is there: `ls`, `stat`, `namespaces`.

use super::{
    Context,
    show::{
        Human, age, count, cut, cut_middle, expiry, fitting_grid, grid, left, lifetime, plain, right,
        seconds_since, ttl_of, unix_seconds,
    },
    trouble::Trouble,
    value::{dtype, json_value},
};
use crate::{Brain, Error, FromObject, Kind, Metadata, NamespaceInfo, Object, Pin, View};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::cmp::Reverse;

#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Only names that begin with this; with *, ? or [ in it, only names that match it as a whole, as files do in a
    /// shell. [*] is a star
    #[arg(default_value = "", add = clap_complete::ArgValueCompleter::new(super::completions::names))]
    pattern: String,

    /// Names of all namespaces
    #[arg(short, long)]
    all: bool,

    /// Exact bytes, writer and object id as well
    #[arg(short, long)]
    long: bool,

    /// Names that were bound at this snapshot; with --all, in all its namespaces
    #[arg(long, value_name = "LABEL", add = clap_complete::ArgValueCompleter::new(super::completions::labels))]
    at: Option<String>,

    /// What to sort by
    #[arg(short, long, value_enum, default_value = "name")]
    sort: Sort,

    /// The other way round
    #[arg(short, long)]
    reverse: bool,
}

/// Columns of a namespace where lines have an end.
const NAMESPACE_COLUMNS_MAX: usize = 20;

/// What names are sorted by.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sort {
    Name,
    /// The largest first
    Bytes,
    /// The newest first
    Version,
    /// The last recalled first
    Recalled,
    /// What expires next first
    Expires,
}

impl Ls {
    pub(super) fn run(&self, context: &mut Context) -> Result<(), Trouble> {
        let brain = context.brain()?;
        let bindings = self.find(&brain)?;
        if context.common.json {
            return Ok(context.out.json(&bindings.iter().map(binding_json).collect())?);
        }
        if bindings.is_empty() {
            return Ok(());
        }
        let mut headings = vec![
            left("NAME"),
            left("KIND"),
            right("BYTES"),
            right("VERSION"),
            right("AGE"),
            right("EXPIRES"),
        ];
        if self.long {
            headings.extend([right("WRITER"), right("UID"), left("OBJECT")]);
        }
        if self.all {
            headings.insert(0, left("NAMESPACE"));
        }
        let columns = context.out.columns().filter(|_| !self.long);
        let mut rows: Vec<Vec<String>> = bindings.iter().map(|binding| self.row(binding)).collect();
        if self.all && columns.is_some() {
            rows.iter_mut().for_each(|row| row[0] = cut_middle(&row[0], NAMESPACE_COLUMNS_MAX));
        }
        let name = usize::from(self.all);
        // Version, expiry and kind can be asked for by `stat`.
        let text = fitting_grid(headings, rows, columns, name, &[name + 3, name + 5, name + 1]);
        write_text(context, &text)
    }

    fn find(&self, brain: &Brain) -> Result<Vec<Metadata>, Trouble> {
        let (prefix, pattern) = split_pattern(&self.pattern)?;
        let mut bindings = match &self.at {
            Some(label) => self.find_at(&brain.at(label)?, &prefix)?,
            None if self.all => brain.list_all(&prefix)?,
            None => brain.list(&prefix)?,
        };
        if let Some(pattern) = pattern {
            bindings.retain(|binding| pattern.matches(&binding.name));
        }
        self.sort.sort(&mut bindings);
        if self.reverse {
            bindings.reverse();
        }
        Ok(bindings)
    }

    fn find_at(&self, view: &View, prefix: &str) -> Result<Vec<Metadata>, Error> {
        let own = [view.namespace().to_owned()];
        let all = view.namespaces().iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut bindings = Vec::new();
        for namespace in if self.all { &all[..] } else { &own[..] } {
            let versions = view.in_namespace(namespace)?.versions(prefix)?;
            bindings.extend(
                versions.into_iter().map(|(name, version)| Metadata::of_version(namespace, name, version)),
            );
        }
        Ok(bindings)
    }

    fn row(&self, binding: &Metadata) -> Vec<String> {
        let len_bytes = binding.len_bytes;
        let mut row = vec![
            plain(&binding.name),
            binding.kind.to_string(),
            if self.long { len_bytes.to_string() } else { Human(len_bytes).to_string() },
            binding.version.to_string(),
            age(seconds_since(binding.created)),
            expiry(binding.expires),
        ];
        if self.long {
            row.extend([
                binding.writer_pid.to_string(),
                binding.writer_uid.to_string(),
                binding.object_id.to_string(),
            ]);
        }
        if self.all {
            row.insert(0, binding.namespace.clone());
        }
        row
    }
}

impl Sort {
    /// Sorts what is in the order of names; of equals that order stays.
    fn sort(self, bindings: &mut [Metadata]) {
        match self {
            Sort::Name => {}
            Sort::Bytes => bindings.sort_by_key(|it| Reverse(it.len_bytes)),
            Sort::Version => bindings.sort_by_key(|it| Reverse(it.version)),
            Sort::Recalled => bindings.sort_by_key(|it| Reverse(it.recalled)),
            // What never expires comes last.
            Sort::Expires => bindings.sort_by_key(|it| (it.expires.is_none(), it.expires)),
        }
    }
}

/// The prefix that all names which match `text` have, and the pattern, if it is one.
fn split_pattern(text: &str) -> Result<(String, Option<glob::Pattern>), Trouble> {
    let Some(at) = text.find(['*', '?', '[']) else {
        return Ok((text.to_owned(), None));
    };
    let pattern = glob::Pattern::new(text).map_err(|error| {
        Trouble::Usage(format!(
            "{text:?} is no pattern ({error}); write [*], [?] and [[] for these characters"
        ))
    })?;
    Ok((text[..at].to_owned(), Some(pattern)))
}

fn binding_json(binding: &Metadata) -> Value {
    json!({
        "namespace": binding.namespace, "name": binding.name, "kind": binding.kind.to_string(),
        "bytes": binding.len_bytes, "version": binding.version, "object_id": binding.object_id.to_string(),
        "created": unix_seconds(binding.created), "age_s": seconds_since(binding.created),
        "recalled": binding.recalled.map(unix_seconds), "expires": binding.expires.map(unix_seconds),
        "ttl_s": binding.ttl.map(|ttl| ttl.as_secs_f64()), "sliding": binding.is_sliding,
        "writer_pid": binding.writer_pid, "writer_uid": binding.writer_uid,
    })
}

#[derive(Debug, Args)]
pub(super) struct Stat {
    /// Name to describe
    #[arg(add = clap_complete::ArgValueCompleter::new(super::completions::names))]
    name: String,
}

/// What can be said of a value without showing it.
#[derive(Default)]
struct Shape {
    rows: Option<u64>,
    fields: Vec<Value>,
    tensor: Option<(String, Vec<usize>)>,
    value: Option<Value>,
}

/// Characters of a value that `stat` shows.
const VALUE_CHARS_MAX: usize = 60;

impl Stat {
    pub(super) fn run(&self, context: &mut Context) -> Result<(), Trouble> {
        let brain = context.brain()?;
        let (binding, shape) = self.look(&brain)?;
        let full_name = format!("{}/{}", binding.namespace, binding.name);
        let mut pins = brain.pins()?;
        pins.retain(|pin| pin.version == binding.version && pin.name == full_name);
        if context.common.json {
            return Ok(context.out.json(&document(&binding, &shape, &pins))?);
        }
        write_text(context, &text(&binding, &shape, &pins))
    }

    /// The binding, and what its object is like. Both of the same version, unless the name changes all the time.
    fn look(&self, brain: &Brain) -> Result<(Metadata, Shape), Error> {
        const TRIES: usize = 8;
        let mut tries = 0;
        loop {
            tries += 1;
            let object = brain.inspect(&self.name)?;
            let (namespace, name) = (brain.namespace().to_owned(), self.name.clone());
            let binding = brain.metadata(&self.name)?.ok_or(Error::NameNotFound { namespace, name })?;
            if binding.version == object.version() {
                return Ok((binding, Shape::of(&object)?));
            }
            if tries == TRIES {
                return Ok((binding, Shape::default()));
            }
        }
    }
}

impl Shape {
    fn of(object: &Object) -> Result<Shape, Error> {
        let mut shape = Shape { value: json_value(object)?, ..Shape::default() };
        match object.kind() {
            Kind::TABLE => {
                let table = object.table()?;
                shape.rows = Some(table.num_rows() as u64);
                let field = |field: &arrow_schema::FieldRef| {
                    json!({
                        "name": field.name(), "type": field.data_type().to_string(), "nullable": field.is_nullable(),
                    })
                };
                shape.fields = table.schema().fields().iter().map(field).collect();
            }
            Kind::TENSOR => {
                let tensor = crate::TensorView::from_object(object.clone())?;
                shape.tensor = Some((dtype(&tensor), tensor.shape().to_vec()));
            }
            _ => {}
        }
        Ok(shape)
    }
}

fn document(binding: &Metadata, shape: &Shape, pins: &[Pin]) -> Value {
    let mut document = binding_json(binding);
    document["description"] = binding.description.clone().into();
    document["metadata"] = binding.metadata.clone();
    document["rows"] = shape.rows.into();
    document["schema"] = if shape.fields.is_empty() { Value::Null } else { shape.fields.clone().into() };
    if let Some((dtype, shape)) = &shape.tensor {
        document["dtype"] = dtype.clone().into();
        document["shape"] = shape.clone().into();
    }
    if let Some(value) = &shape.value {
        document["value"] = value.clone();
    }
    let pin = |pin: &Pin| json!({ "pid": pin.pid, "uid": pin.uid, "command": pin.command, "pins": pin.pins, "seen_for_s": pin.seen_for_s });
    document["pinned_by"] = pins.iter().map(pin).collect();
    document
}

fn last_recall(binding: &Metadata) -> String {
    match binding.recalled {
        Some(then) => format!("{} ago", age(seconds_since(then))),
        None => "none".to_owned(),
    }
}

fn expires(binding: &Metadata) -> String {
    let ttl = binding.ttl.map(|ttl| {
        let sliding = if binding.is_sliding { ", begun anew by every recall" } else { "" };
        format!(" (time to live {}{sliding})", lifetime(ttl))
    });
    expiry(binding.expires) + &ttl.unwrap_or_default()
}

fn text(binding: &Metadata, shape: &Shape, pins: &[Pin]) -> String {
    let mut lines = vec![
        ("name", plain(&binding.name)),
        ("namespace", binding.namespace.clone()),
        ("kind", binding.kind.to_string()),
        ("bytes", format!("{} ({})", binding.len_bytes, Human(binding.len_bytes))),
        ("version", binding.version.to_string()),
        ("object id", binding.object_id.to_string()),
        ("learned", format!("{} ago", age(seconds_since(binding.created)))),
        ("last recall", last_recall(binding)),
        ("expires", expires(binding)),
        ("writer", format!("pid {}, uid {}", binding.writer_pid, binding.writer_uid)),
    ];
    if !binding.description.is_empty() {
        lines.push(("description", plain(&binding.description)));
    }
    if !binding.metadata.is_null() {
        lines.push(("metadata", binding.metadata.to_string()));
    }
    if let Some(rows) = shape.rows {
        lines.push(("rows", rows.to_string()));
    }
    if let Some((dtype, shape)) = &shape.tensor {
        lines.push(("tensor", format!("{dtype}, shape {shape:?}")));
    }
    if let Some(value) = &shape.value {
        lines.push(("value", cut(&value.to_string(), VALUE_CHARS_MAX)));
    }
    let held = |pin: &Pin| {
        let (pid, command, since) = (pin.pid, plain(&pin.command), age(pin.seen_for_s));
        format!("pid {pid} ({command}), {}, for {since}", count(pin.pins.into(), "handle"))
    };
    match pins {
        [] => lines.push(("held by", "nobody".to_owned())),
        pins => lines.extend(pins.iter().map(|pin| ("held by", held(pin)))),
    }
    let mut text: String = lines.iter().map(|(what, value)| format!("{what:<12} {value}\n")).collect();
    if !shape.fields.is_empty() {
        let cell = |field: &Value, key: &str| plain(field[key].as_str().unwrap_or_default());
        let null = |field: &Value| if field["nullable"] == true { "yes" } else { "no" }.to_owned();
        let row = |field: &Value| vec![cell(field, "name"), cell(field, "type"), null(field)];
        let rows: Vec<Vec<String>> = shape.fields.iter().map(row).collect();
        text += &format!("\n{}", grid(&[left("COLUMN"), left("TYPE"), left("NULLS")], &rows));
    }
    text
}

pub(super) fn namespaces(context: &mut Context) -> Result<(), Trouble> {
    let namespaces = context.brain()?.namespaces()?;
    if context.common.json {
        let one = |info: &NamespaceInfo| {
            json!({
                "namespace": info.namespace.as_str(), "names": info.names, "bytes": info.bytes, "cache": info.is_cache,
                "ttl_s": ttl_of(info).map(|ttl| ttl.as_secs_f64()),
                "sliding": info.ttl.as_ref().is_some_and(|ttl| ttl.is_sliding),
            })
        };
        return Ok(context.out.json(&namespaces.iter().map(one).collect())?);
    }
    let row = |info: &NamespaceInfo| {
        let sliding = info.ttl.as_ref().is_some_and(|ttl| ttl.is_sliding);
        let ttl = ttl_of(info).map_or_else(|| "none".to_owned(), lifetime);
        vec![
            info.namespace.to_string(),
            info.names.to_string(),
            Human(info.bytes).to_string(),
            if info.is_cache { "yes" } else { "no" }.to_owned(),
            if sliding { format!("{ttl}, sliding") } else { ttl },
        ]
    };
    let rows: Vec<Vec<String>> = namespaces.iter().map(row).collect();
    let headings = [left("NAMESPACE"), right("NAMES"), right("BYTES"), left("CACHE"), left("TTL")];
    write_text(context, &grid(&headings, &rows))
}

fn write_text(context: &mut Context, text: &str) -> Result<(), Trouble> {
    Ok(std::io::Write::write_all(&mut context.out, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_split_at_its_first_wildcard() {
        let matches = |pattern: &str, name: &str| split_pattern(pattern).unwrap().1.unwrap().matches(name);
        assert_eq!(split_pattern("day-2024").unwrap().0, "day-2024");
        assert!(split_pattern("day-2024").unwrap().1.is_none());
        assert_eq!(split_pattern("day-*").unwrap().0, "day-");
        assert!(matches("day-*", "day-2024/07") && !matches("day-*", "days"));
        assert!(matches("*.csv", ".csv") && matches("a?", "aé") && matches("[ab]*", "b"));
        assert!(matches("2[*]3", "2*3") && !matches("2[*]3", "213"));
        assert!(matches!(split_pattern("a[").unwrap_err(), Trouble::Usage(_)));
    }
}
