//! The class that `plasmon.Brain` stands on: one namespace of one store.

use crate::{
    errors::{OrRaise, raise},
    exit::detached,
    json, memory,
    options::{Options, time_to_live},
    payload::{self, Form, Payload},
    recalled::{self, Object, Unpickling},
    waiting::{Cancel, PendingWait, patiently},
    writing::{TableWriter, Writable},
};
use plasmon::{Brain, Dtype, Error, Metadata, NamespaceOptions, PendingBinding};
use plasmon_protocol::{id::NameId, name::Namespace};
use pyo3::{
    exceptions::PyValueError,
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyString},
};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

/// One namespace of one store. Safe to share between threads.
#[pyclass(frozen, module = "plasmon._plasmon")]
pub(crate) struct Client {
    brain: Brain,
    namespace: Namespace,
    unpickling: Arc<Unpickling>,
    asleep: Arc<AtomicBool>,
}

/// A value to be learned.
enum Given {
    Payload(Py<Payload>),
    Plain(Form),
}

impl Given {
    /// `None` if it takes Python to find its form, or to say why it has none.
    fn of(thing: &Bound<'_, PyAny>) -> Option<Given> {
        match thing.cast::<Payload>() {
            Ok(payload) => Some(Given::Payload(payload.clone().unbind())),
            Err(_) => payload::plain(thing).ok()?.map(Given::Plain),
        }
    }

    fn get(&self) -> &Form {
        match self {
            Given::Payload(payload) => payload.get().form(),
            Given::Plain(form) => form,
        }
    }
}

#[pymethods]
impl Client {
    #[new]
    fn new(
        py: Python<'_>,
        path: Option<PathBuf>,
        namespace: &str,
        timeout: f64,
        trust: Vec<u32>,
    ) -> PyResult<Self> {
        let mut builder = Brain::builder().namespace(namespace).timeout(seconds(timeout)?);
        if let Some(path) = path {
            builder = builder.path(path);
        }
        for &uid in &trust {
            builder = builder.trust_store_of(uid);
        }
        let brain = detached(py, || builder.connect()).or_raise(py)?;
        let unpickling = Arc::new(Unpickling { uids: trust });
        let namespace = Namespace::new(namespace).map_err(Error::BadName).or_raise(py)?;
        Ok(Client { brain, namespace, unpickling, asleep: Arc::default() })
    }

    /// A second view on the same session, in another namespace.
    fn in_namespace(&self, py: Python<'_>, namespace: &str) -> PyResult<Client> {
        let brain = self.brain.in_namespace(namespace).or_raise(py)?;
        let namespace = Namespace::new(namespace).map_err(Error::BadName).or_raise(py)?;
        let (unpickling, asleep) = (Arc::clone(&self.unpickling), Arc::clone(&self.asleep));
        Ok(Client { brain, namespace, unpickling, asleep })
    }

    #[getter]
    fn namespace(&self) -> &str {
        self.brain.namespace()
    }

    #[getter]
    fn path(&self) -> &str {
        self.brain.path().to_str().unwrap_or_default()
    }

    #[getter]
    fn trust(&self) -> Vec<u32> {
        self.unpickling.uids.clone()
    }

    #[getter]
    fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    fn sleep(&self, py: Python<'_>) {
        self.asleep.store(true, Ordering::Relaxed);
        detached(py, || self.brain.disconnect());
    }

    fn wake_up(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.brain.uid()).or_raise(py)?;
        self.asleep.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Recalls a value; or an `Object`, where it takes Python to make a value of it.
    fn recall<'py>(&self, py: Python<'py>, name: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let object = self.find(py, name)?;
        match recalled::to_python(py, &object)? {
            Some(value) => Ok(value),
            None => Ok(Bound::new(py, self.made(name, object))?.into_any()),
        }
    }

    /// Recalls an object, which is made a value later; waits for it if `timeout` is given, in seconds.
    #[pyo3(signature = (name, timeout=None, cancels=Vec::new()))]
    fn object(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        cancels: Vec<PyRef<'_, Cancel>>,
    ) -> PyResult<Object> {
        let Some(timeout) = timeout else { return Ok(self.made(name, self.find(py, name)?)) };
        let text = name_of(name)?;
        self.check_awake(py)?;
        let (began, timeout) = (Instant::now(), seconds(timeout)?);
        let object = loop {
            match detached(py, || self.brain.recall(text)) {
                // What is bound now may be forgotten again before it is looked up: then wait once more.
                Err(error) if error.is_not_found() => {
                    let left = timeout.saturating_sub(began.elapsed());
                    self.wait_for(py, text, 0, left, timeout, &cancels)?;
                }
                found => break found.or_raise(py)?,
            }
        };
        Ok(self.made(name, object))
    }

    /// The object bound to the name, for those who only describe it; `None` if nothing is.
    fn inspect(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<Option<Object>> {
        let text = name_of(name)?;
        self.check_awake(py)?;
        match detached(py, || self.brain.inspect(text)) {
            Err(error) if error.is_not_found() => Ok(None),
            found => Ok(Some(self.made(name, found.or_raise(py)?))),
        }
    }

    /// Waits until the name has a version above `after_version`, and returns that version.
    #[pyo3(signature = (name, after_version, timeout, cancels=Vec::new()))]
    fn wait(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        after_version: u64,
        timeout: f64,
        cancels: Vec<PyRef<'_, Cancel>>,
    ) -> PyResult<u64> {
        let name = name_of(name)?;
        self.check_awake(py)?;
        let timeout = seconds(timeout)?;
        self.wait_for(py, name, after_version, timeout, timeout, &cancels)
    }

    /// Begins to wait until the name has another version than `version`; 0 is not being bound.
    fn begin_wait_change(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        version: u64,
    ) -> PyResult<PendingWait> {
        let name = name_of(name)?;
        self.check_awake(py)?;
        let pending = detached(py, || self.brain.begin_wait_change(name, version)).or_raise(py)?;
        Ok(PendingWait::new(pending))
    }

    /// Unbinds a name that this process bound ephemerally, also after `sleep`.
    fn end_claim(&self, py: Python<'_>, name: &Bound<'_, PyAny>, version: u64) -> PyResult<()> {
        let name = name_of(name)?;
        detached(py, || self.brain.forget_if_version(name, version)).or_raise(py)
    }

    /// Objects of one moment; `None` for names that are not bound.
    fn objects(&self, py: Python<'_>, names: Vec<Bound<'_, PyAny>>) -> PyResult<Vec<Option<Object>>> {
        let texts = names.iter().map(name_of).collect::<PyResult<Vec<&str>>>()?;
        self.check_awake(py)?;
        let objects = detached(py, || self.brain.recall_many(&texts)).or_raise(py)?;
        let made = objects.into_iter().zip(&names).map(|(object, name)| Some(self.made(name, object?)));
        Ok(made.collect())
    }

    /// Whether something is bound to the name; not to what cannot be a name.
    fn contains(&self, py: Python<'_>, name: &Bound<'_, PyString>) -> PyResult<bool> {
        self.check_awake(py)?;
        let Ok(name) = name.to_str() else { return Ok(false) };
        match detached(py, || self.brain.exists(name)) {
            Err(Error::BadName(_)) => Ok(false),
            found => found.or_raise(py),
        }
    }

    /// What to say about names that are like this one, which is not bound; `None` if there are none.
    fn near(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
        let name = name_of(name)?;
        self.check_awake(py)?;
        let near = detached(py, || self.brain.near(name)).or_raise(py)?;
        Ok((!near.is_empty()).then(|| near.to_string()))
    }

    fn exists(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<bool> {
        let name = name_of(name)?;
        self.check_awake(py)?;
        detached(py, || self.brain.exists(name)).or_raise(py)
    }

    /// Binds a name to a payload or a plain value (`Payload.plain`), and returns the binding's version. `None`, and
    /// nothing is done, if it is neither.
    #[pyo3(signature = (name, thing, options=None))]
    fn learn(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        thing: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, Options>>,
    ) -> PyResult<Option<u64>> {
        let Some(form) = Given::of(thing) else { return Ok(None) };
        let name = name_of(name)?;
        self.check_awake(py)?;
        let options = Options::or_none(options);
        let form = form.get();
        let learned = detached(py, || form.with_learn(|value| self.brain.learn_with(name, value, &options)));
        learned.or_raise_learning(py)?.or_raise_learning(py).map(Some)
    }

    /// Binds all names at one moment, and returns their version. `None`, and nothing is done, if one of the things is
    /// neither a payload nor a plain value: Python code must not run below a frame of Rust, so it makes the payloads.
    #[pyo3(signature = (things, options=None))]
    fn learn_many(
        &self,
        py: Python<'_>,
        things: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)>,
        options: Option<&Bound<'_, Options>>,
    ) -> PyResult<Option<u64>> {
        let mut pairs = Vec::with_capacity(things.len());
        for (name, thing) in &things {
            let Some(form) = Given::of(thing) else { return Ok(None) };
            pairs.push((name_of(name)?, form));
        }
        self.check_awake(py)?;
        let options = Options::or_none(options);
        let version = detached(py, || {
            let mut batch = self.brain.batch()?.reserve(pairs.len());
            for (name, form) in &pairs {
                batch = form.get().with_learn(|value| batch.learn_with(name, value, &options))??;
            }
            batch.commit()
        });
        version.or_raise_learning(py).map(Some)
    }

    /// Unbinds a name, and returns whether it was bound.
    #[pyo3(signature = (name, if_version=None))]
    fn forget(&self, py: Python<'_>, name: &Bound<'_, PyAny>, if_version: Option<u64>) -> PyResult<bool> {
        let name = name_of(name)?;
        self.check_awake(py)?;
        detached(py, || match if_version {
            None => self.brain.forget(name),
            Some(version) => self.brain.forget_if_version(name, version).map(|()| true),
        })
        .or_raise(py)
    }

    /// Unbinds all names at one moment; those that are not bound are ignored.
    fn forget_many(&self, py: Python<'_>, names: Vec<Bound<'_, PyAny>>) -> PyResult<()> {
        let names = names.iter().map(name_of).collect::<PyResult<Vec<&str>>>()?;
        self.check_awake(py)?;
        detached(py, || {
            let mut batch = self.brain.batch()?;
            for name in names {
                batch = batch.forget(name)?;
            }
            batch.commit().map(drop)
        })
        .or_raise(py)
    }

    fn count(&self, py: Python<'_>) -> PyResult<u64> {
        self.check_awake(py)?;
        detached(py, || self.brain.len()).or_raise(py)
    }

    fn clear(&self, py: Python<'_>) -> PyResult<u64> {
        self.check_awake(py)?;
        detached(py, || self.brain.clear()).or_raise(py)
    }

    /// As `entries`, of the first `limit` names of this namespace alone; of no more than a few thousand.
    fn first_entries<'py>(
        &self,
        py: Python<'py>,
        prefix: &str,
        limit: u32,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.check_awake(py)?;
        let listed = detached(py, || self.brain.list_first(prefix, limit)).or_raise(py)?;
        listed.into_iter().map(|metadata| metadata_dict(py, metadata)).collect()
    }

    /// As `describe`, of all names of this namespace.
    fn described<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.check_awake(py)?;
        let listed = detached(py, || self.brain.list_described("")).or_raise(py)?;
        listed.into_iter().map(|metadata| metadata_dict(py, metadata)).collect()
    }

    /// The first names that begin with `prefix`, in order: a page of thousands.
    fn first_names(&self, py: Python<'_>, prefix: &str) -> PyResult<Vec<String>> {
        self.check_awake(py)?;
        let page = detached(py, || self.brain.name_pages(prefix).next().transpose());
        Ok(page.or_raise(py)?.iter().flat_map(|page| page.iter()).map(str::to_owned).collect())
    }

    /// What the store knows about each name that begins with `prefix`, without descriptions and metadata.
    fn entries<'py>(
        &self,
        py: Python<'py>,
        prefix: &str,
        everywhere: bool,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.check_awake(py)?;
        let listed =
            detached(py, || if everywhere { self.brain.list_all(prefix) } else { self.brain.list(prefix) });
        listed.or_raise(py)?.into_iter().map(|metadata| metadata_dict(py, metadata)).collect()
    }

    fn names<'py>(&self, py: Python<'py>, prefix: &str) -> PyResult<Bound<'py, PyList>> {
        self.check_awake(py)?;
        let pages =
            detached(py, || self.brain.name_pages(prefix).collect::<Result<Vec<_>, _>>()).or_raise(py)?;
        let names = PyList::empty(py);
        for page in &pages {
            // Python splits a text in a third of the time that it takes to make as many.
            let page = match page.joined() {
                Some(joined) => PyString::new(py, joined).call_method1(intern!(py, "split"), ("\0",))?,
                None => PyList::new(py, page.iter().map(|name| PyString::new(py, name)).collect::<Vec<_>>())?
                    .into_any(),
            };
            names.call_method1(intern!(py, "extend"), (page,))?;
        }
        Ok(names)
    }

    fn describe<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let name = name_of(name)?;
        self.check_awake(py)?;
        let found = detached(py, || self.brain.metadata(name)).or_raise(py)?;
        found.map(|metadata| metadata_dict(py, metadata)).transpose()
    }

    /// Name, number of names, and bytes of each namespace.
    fn namespaces(&self, py: Python<'_>) -> PyResult<Vec<(String, u64)>> {
        self.check_awake(py)?;
        let listed = detached(py, || self.brain.namespaces()).or_raise(py)?;
        Ok(listed.into_iter().map(|info| (info.namespace.to_string(), info.names)).collect())
    }

    #[getter]
    fn capacity_bytes(&self, py: Python<'_>) -> PyResult<u64> {
        self.check_awake(py)?;
        detached(py, || self.brain.capacity_bytes()).or_raise(py)
    }

    fn register(&self, py: Python<'_>) -> PyResult<()> {
        self.check_awake(py)?;
        detached(py, || self.brain.register()).or_raise(py)
    }

    /// Declares what holds for this namespace. What is `None` stays; a time to live of `(None, false)` is none.
    fn declare(&self, py: Python<'_>, cache: Option<bool>, ttl: Option<(Option<f64>, bool)>) -> PyResult<()> {
        let ttl = match ttl {
            Some((ttl, sliding)) => Some(time_to_live(ttl, sliding)?.map(|ttl| (ttl, sliding))),
            None => None,
        };
        self.check_awake(py)?;
        let declare = || {
            let declared =
                if cache.is_some() && ttl.is_some() { None } else { self.brain.namespace_info()? };
            let declared = declared.as_ref();
            let cache = cache.unwrap_or_else(|| declared.is_some_and(|info| info.is_cache));
            let ttl = ttl.unwrap_or_else(|| {
                let ttl = declared.and_then(|info| info.ttl.as_ref())?;
                Some((Duration::from_nanos(ttl.ttl_ns), ttl.is_sliding))
            });
            let options = if cache { NamespaceOptions::new().cache() } else { NamespaceOptions::new() };
            self.brain.declare(&match ttl {
                Some((ttl, true)) => options.sliding_ttl(ttl),
                Some((ttl, false)) => options.ttl(ttl),
                None => options,
            })
        };
        detached(py, declare).or_raise(py)
    }

    fn remove_namespace(&self, py: Python<'_>) -> PyResult<u64> {
        self.check_awake(py)?;
        detached(py, || self.brain.remove_namespace()).or_raise(py)
    }

    fn remove_namespace_if_empty(&self, py: Python<'_>) -> PyResult<()> {
        self.check_awake(py)?;
        detached(py, || self.brain.remove_namespace_if_empty()).or_raise(py)
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.check_awake(py)?;
        let stats = detached(py, || self.brain.stats()).or_raise(py)?;
        let dict = PyDict::new(py);
        for figure in stats.figures() {
            dict.set_item(figure.name, figure.value)?;
        }
        dict.set_item("store_pid", stats.store_pid)?;
        let refusals = PyList::empty(py);
        for refusal in &stats.refusals {
            let entry = PyDict::new(py);
            entry.set_item("reason", &refusal.reason)?;
            entry.set_item("namespace", refusal.namespace.as_ref().map(|namespace| namespace.as_str()))?;
            entry.set_item("learns", refusal.learns)?;
            refusals.append(entry)?;
        }
        dict.set_item("refusals", refusals)?;
        Ok(dict)
    }

    fn pins<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.check_awake(py)?;
        let pins = detached(py, || self.brain.pins()).or_raise(py)?;
        let list = PyList::empty(py);
        for pin in pins {
            let dict = PyDict::new(py);
            dict.set_item("pid", pin.pid)?;
            dict.set_item("command", pin.command)?;
            dict.set_item("name", pin.name)?;
            dict.set_item("nbytes", pin.len_bytes)?;
            list.append(dict)?;
        }
        Ok(list)
    }

    /// Shared memory to write bytes into, for `name`.
    fn create(&self, py: Python<'_>, name: &Bound<'_, PyAny>, nbytes: u64) -> PyResult<Writable> {
        let name = name_of(name)?;
        self.check_awake(py)?;
        let writable = detached(py, || self.brain.create(name, nbytes)).or_raise_learning(py)?;
        Ok(Writable::new(writable))
    }

    /// Shared memory to write a tensor into, for `name`.
    fn create_tensor(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        dtype: u8,
        shape: Vec<usize>,
        column_major: bool,
    ) -> PyResult<Writable> {
        let name = name_of(name)?;
        self.check_awake(py)?;
        let dtype = Dtype::from_number(dtype);
        let writable = detached(py, || self.brain.create_tensor(name, dtype, &shape, column_major));
        Ok(Writable::new(writable.or_raise_learning(py)?))
    }

    /// A table that is written batch by batch, for `name`; `schema` is an object with `__arrow_c_stream__` that has it.
    fn writer(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        schema: &Bound<'_, PyAny>,
    ) -> PyResult<TableWriter> {
        let name = name_of(name)?;
        self.check_awake(py)?;
        let schema = memory::import_table(schema)?.schema().clone();
        let writer = detached(py, || self.brain.writer(name, &schema)).or_raise_learning(py)?;
        Ok(TableWriter::new(writer))
    }
}

impl Client {
    pub(crate) fn brain(&self) -> &Brain {
        &self.brain
    }

    /// Its namespace, and whose pickles may be unpickled.
    pub(crate) fn place(&self) -> (Namespace, Arc<Unpickling>) {
        (self.namespace.clone(), Arc::clone(&self.unpickling))
    }

    pub(crate) fn made(&self, name: &Bound<'_, PyAny>, object: plasmon::Object) -> Object {
        let namespace = self.namespace.clone();
        Object { object, name: name.clone().unbind(), namespace, unpickling: Arc::clone(&self.unpickling) }
    }

    pub(crate) fn check_awake(&self, py: Python<'_>) -> PyResult<()> {
        if self.asleep.load(Ordering::Relaxed) {
            return Err(raise(py, "ClientAsleep", "this brain is asleep; wake_up() connects it again", None));
        }
        Ok(())
    }

    /// Waits for `left` of the `asked` time.
    fn wait_for(
        &self,
        py: Python<'_>,
        name: &str,
        after_version: u64,
        left: Duration,
        asked: Duration,
        cancels: &[PyRef<'_, Cancel>],
    ) -> PyResult<u64> {
        let begin = |left| self.brain.begin_wait(name, after_version, left);
        let finish = |pending: PendingBinding| match pending.finish() {
            Err(Error::WaitTimeout { namespace, name, .. }) => {
                Err(Error::WaitTimeout { namespace, name, waited: asked })
            }
            finished => finished,
        };
        patiently(py, &self.brain, left, cancels, begin, finish)
    }

    fn find(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<plasmon::Object> {
        let name = name_of(name)?;
        self.check_awake(py)?;
        let found = match self.brain.recall_at_once(name) {
            Some(found) => found,
            None => detached(py, || self.brain.recall(name)),
        };
        found.or_raise(py)
    }
}

/// The id under which a name stands in the index.
#[pyfunction]
pub(crate) fn name_id<'py>(py: Python<'py>, namespace: &str, name: &str) -> PyResult<Bound<'py, PyBytes>> {
    let namespace = Namespace::new(namespace).map_err(Error::BadName).or_raise(py)?;
    Ok(PyBytes::new(py, NameId::new(&namespace, name).as_bytes()))
}

/// A name: any `str`, also an instance of a subclass.
pub(crate) fn name_of<'a>(name: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    let Ok(text) = name.cast::<PyString>() else {
        let found = name.get_type().qualname()?;
        let text = format!("a name is a str, and this is {found}: {}", name.repr()?);
        return Err(raise(name.py(), "NameTypeError", &text, None));
    };
    text.to_str().map_err(|_| {
        let text = "a name is UTF-8, and this one has surrogates without a partner; choose another";
        raise(name.py(), "BadName", text, None)
    })
}

/// Seconds as Python has them.
fn seconds(seconds: f64) -> PyResult<Duration> {
    // More than the clock has is as good as no end.
    let longest = Duration::from_secs(u64::from(u32::MAX));
    if seconds >= longest.as_secs_f64() {
        return Ok(longest);
    }
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err(format!("a timeout is 0 seconds or more, and this is {seconds}")))
}

fn metadata_dict<'py>(py: Python<'py>, metadata: Metadata) -> PyResult<Bound<'py, PyDict>> {
    let created = metadata.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let dict = PyDict::new(py);
    dict.set_item("name", &metadata.name)?;
    dict.set_item("namespace", &metadata.namespace)?;
    dict.set_item("object_id", PyBytes::new(py, metadata.object_id.as_bytes()))?;
    dict.set_item("version", metadata.version)?;
    dict.set_item("kind", metadata.kind.to_string())?;
    dict.set_item("nbytes", metadata.len_bytes)?;
    dict.set_item("created", created.as_secs_f64())?;
    let since_1970 = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    dict.set_item("ttl", metadata.ttl.map(|ttl| ttl.as_secs_f64()))?;
    dict.set_item("sliding", metadata.is_sliding)?;
    dict.set_item("expires_at", metadata.expires.map(|at| since_1970(at).as_secs_f64()))?;
    dict.set_item("writer_pid", metadata.writer_pid)?;
    dict.set_item("writer_uid", metadata.writer_uid)?;
    dict.set_item("description", &metadata.description)?;
    let user = Some(metadata.metadata).filter(|user| !user.is_null()).map(json::text_of);
    dict.set_item("metadata", user)?;
    Ok(dict)
}
