//! What is there: `ls`, `stat`, `namespaces`.

use super::{
    Context,
    get::{dtype, json_value},
    show::{Human, age, count, cut, expiry, grid, left, lifetime, plain, right, seconds_since, unix_seconds},
    trouble::Trouble,
};
use crate::{Brain, Error, FromObject, Kind, Metadata, NamespaceInfo, Object, Pin};
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Only names that begin with this
    #[arg(default_value = "")]
    prefix: String,

    /// Names of all namespaces
    #[arg(short, long)]
    all: bool,

    /// Exact bytes, writer's uid and object id as well
    #[arg(short, long)]
    long: bool,
}

impl Ls {
    pub(super) fn run(&self, context: &mut Context) -> Result<(), Trouble> {
        let brain = context.brain()?;
        let bindings = if self.all { brain.list_all(&self.prefix)? } else { brain.list(&self.prefix)? };
        if context.common.json {
            return Ok(context.out.json(&bindings.iter().map(binding_json).collect())?);
        }
        let mut headings = vec![
            left("NAME"),
            left("KIND"),
            right("BYTES"),
            right("VERSION"),
            right("AGE"),
            right("EXPIRES"),
            right("WRITER"),
        ];
        if self.all {
            headings.insert(0, left("NAMESPACE"));
        }
        if self.long {
            headings.extend([right("UID"), left("OBJECT")]);
        }
        let rows: Vec<Vec<String>> = bindings.iter().map(|binding| self.row(binding)).collect();
        if !rows.is_empty() {
            write_text(context, &grid(&headings, &rows))?;
        }
        Ok(())
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
            binding.writer_pid.to_string(),
        ];
        if self.all {
            row.insert(0, binding.namespace.clone());
        }
        if self.long {
            row.extend([binding.writer_uid.to_string(), binding.object_id.to_string()]);
        }
        row
    }
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

fn ttl_of(info: &NamespaceInfo) -> Option<Duration> {
    info.ttl.as_ref().map(|ttl| Duration::from_nanos(ttl.ttl_ns))
}

fn write_text(context: &mut Context, text: &str) -> Result<(), Trouble> {
    Ok(std::io::Write::write_all(&mut context.out, text.as_bytes())?)
}
