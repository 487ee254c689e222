//! The past of a namespace: versions that have ended, snapshots, and views.

use crate::{
    client::{Client, name_of},
    errors::OrRaise,
    exit::detached,
    json,
    recalled::{self, Object, Unpickling},
};
use plasmon::{Error, History, Reason, Version};
use plasmon_protocol::name::Namespace;
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict, PyString},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

/// What history is bounded by: versions, age in nanoseconds, bytes.
type Bounds = (Option<u32>, Option<u64>, Option<u64>);

/// The past of the namespace of a client.
#[pyclass(frozen, module = "plasmon._plasmon")]
pub(crate) struct Past {
    client: Py<Client>,
}

#[pymethods]
impl Past {
    #[new]
    fn new(client: Py<Client>) -> Past {
        Past { client }
    }

    /// Declares what is kept.
    #[pyo3(signature = (bounds))]
    fn keep_history(&self, py: Python<'_>, bounds: Option<Bounds>) -> PyResult<()> {
        let brain = self.client(py)?.brain();
        let history = bounds.map(|(versions, age_ns, bytes)| History { versions, age_ns, bytes });
        detached(py, || brain.keep_history(history.as_ref())).or_raise(py)
    }

    /// What `keep_history` was told.
    fn kept_history(&self, py: Python<'_>) -> PyResult<Option<Bounds>> {
        let brain = self.client(py)?.brain();
        let history = detached(py, || brain.kept_history()).or_raise(py)?;
        Ok(history.map(|history| (history.versions, history.age_ns, history.bytes)))
    }

    fn history<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyAny>,
        everything: bool,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let (brain, text) = (self.client(py)?.brain(), name_of(name)?);
        let versions =
            detached(py, || if everything { brain.all_versions(text) } else { brain.history(text) });
        let dict = |version| version_dict(py, brain.namespace(), text, version);
        versions.or_raise(py)?.into_iter().map(dict).collect()
    }

    /// The version that a name had at a time, in nanoseconds since 1970.
    fn version_as_of(&self, py: Python<'_>, name: &Bound<'_, PyAny>, at_ns: i64) -> PyResult<u64> {
        let (brain, name) = (self.client(py)?.brain(), name_of(name)?);
        detached(py, || brain.version_as_of(name, since_1970(at_ns))).or_raise(py)
    }

    /// Recalls a version of a name.
    fn object(&self, py: Python<'_>, name: &Bound<'_, PyAny>, version: u64) -> PyResult<Object> {
        let (client, text) = (self.client(py)?, name_of(name)?);
        let object = detached(py, || client.brain().recall_version(text, version)).or_raise(py)?;
        Ok(client.made(name, object))
    }

    fn restore(&self, py: Python<'_>, name: &Bound<'_, PyAny>, version: u64) -> PyResult<u64> {
        let (brain, name) = (self.client(py)?.brain(), name_of(name)?);
        detached(py, || brain.restore(name, version)).or_raise(py)
    }

    fn undelete(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<u64> {
        let (brain, name) = (self.client(py)?.brain(), name_of(name)?);
        detached(py, || brain.undelete(name)).or_raise(py)
    }

    fn purge(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<()> {
        let (brain, name) = (self.client(py)?.brain(), name_of(name)?);
        detached(py, || brain.purge(name)).or_raise(py)
    }

    fn deleted_names(&self, py: Python<'_>, prefix: &str) -> PyResult<Vec<String>> {
        let brain = self.client(py)?.brain();
        detached(py, || brain.deleted_names(prefix)).or_raise(py)
    }

    /// Keeps the present moment of these namespaces, and returns its number.
    fn snapshot(&self, py: Python<'_>, label: &str, namespaces: Vec<String>) -> PyResult<u64> {
        let brain = self.client(py)?.brain();
        let namespaces: Vec<&str> = namespaces.iter().map(String::as_str).collect();
        detached(py, || brain.snapshot_of(label, &namespaces)).or_raise(py)
    }

    fn snapshots<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let brain = self.client(py)?.brain();
        let snapshots = detached(py, || brain.snapshots()).or_raise(py)?;
        let dict = |snapshot: plasmon::SnapshotInfo| {
            let dict = PyDict::new(py);
            dict.set_item("label", snapshot.label.to_string())?;
            dict.set_item("moment", snapshot.moment)?;
            dict.set_item("created", Duration::from_nanos(snapshot.created_ns).as_secs_f64())?;
            dict.set_item("names", snapshot.names)?;
            dict.set_item("bytes", snapshot.bytes)?;
            let namespaces: Vec<String> = snapshot.namespaces.iter().map(ToString::to_string).collect();
            dict.set_item("namespaces", namespaces)?;
            dict.set_item("pid", snapshot.pid)?;
            dict.set_item("owner", snapshot.uid)?;
            Ok(dict)
        };
        snapshots.into_iter().map(dict).collect()
    }

    fn drop_snapshot(&self, py: Python<'_>, label: &str) -> PyResult<()> {
        let brain = self.client(py)?.brain();
        detached(py, || brain.drop_snapshot(label)).or_raise(py)
    }

    /// Makes all names what they were, or these.
    fn restore_snapshot(
        &self,
        py: Python<'_>,
        label: &str,
        names: Option<Vec<Bound<'_, PyAny>>>,
    ) -> PyResult<u64> {
        let brain = self.client(py)?.brain();
        let names = names.as_ref().map(|names| names.iter().map(name_of).collect::<PyResult<Vec<&str>>>());
        let names = names.transpose()?;
        let restored = detached(py, || match names {
            None => brain.restore_snapshot(label),
            Some(names) => brain.restore_names(label, &names),
        });
        restored.or_raise(py)
    }

    /// What was added, changed and removed.
    fn diff(
        &self,
        py: Python<'_>,
        label: &str,
        other: Option<&str>,
    ) -> PyResult<(Vec<String>, Vec<String>, Vec<String>)> {
        let brain = self.client(py)?.brain();
        let diff = detached(py, || brain.diff(label, other)).or_raise(py)?;
        Ok((diff.added, diff.changed, diff.removed))
    }

    /// Begins a view of a snapshot.
    fn at(&self, py: Python<'_>, label: &str) -> PyResult<View> {
        let client = self.client(py)?;
        let view = detached(py, || client.brain().at(label)).or_raise(py)?;
        Ok(View::new(client, view))
    }

    /// Begins a view of now, or of a moment that is held.
    fn view(&self, py: Python<'_>, moment: Option<u64>) -> PyResult<View> {
        let client = self.client(py)?;
        let begin = || moment.map_or_else(|| client.brain().view(), |moment| client.brain().view_of(moment));
        let view = detached(py, begin).or_raise(py)?;
        Ok(View::new(client, view))
    }

    fn views<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let brain = self.client(py)?.brain();
        let views = detached(py, || brain.views()).or_raise(py)?;
        let dict = |view: plasmon::ViewInfo| {
            let dict = PyDict::new(py);
            dict.set_item("id", view.view)?;
            dict.set_item("moment", view.moment)?;
            dict.set_item("created", Duration::from_nanos(view.began_ns).as_secs_f64())?;
            dict.set_item("pid", view.pid)?;
            dict.set_item("owner", view.uid)?;
            dict.set_item("command", view.command)?;
            dict.set_item("kept", view.kept)?;
            Ok(dict)
        };
        views.into_iter().map(dict).collect()
    }

    fn end_view(&self, py: Python<'_>, number: u64) -> PyResult<()> {
        let brain = self.client(py)?.brain();
        detached(py, || brain.end_view(number)).or_raise(py)
    }
}

impl Past {
    fn client(&self, py: Python<'_>) -> PyResult<&Client> {
        let client = self.client.get();
        client.check_awake(py)?;
        Ok(client)
    }
}

/// A moment of a store, and one namespace of it.
#[pyclass(frozen, module = "plasmon._plasmon")]
pub(crate) struct View {
    /// `None` while it is being dropped.
    view: Option<plasmon::View>,
    /// Whether it was closed, here or under another namespace.
    closed: Arc<AtomicBool>,
    namespace: Namespace,
    unpickling: Arc<Unpickling>,
}

impl Drop for View {
    /// The store is told, and may be slow to answer: then other threads go on.
    fn drop(&mut self) {
        let mut view = self.view.take();
        let _ = Python::try_attach(|py| detached(py, || drop(view.take())));
    }
}

#[pymethods]
impl View {
    #[getter]
    fn moment(&self) -> u64 {
        self.inner().moment()
    }

    /// The number by which `Past.views` lists it.
    #[getter]
    fn id(&self) -> u64 {
        self.inner().number()
    }

    #[getter]
    fn namespace(&self) -> &str {
        self.inner().namespace()
    }

    fn in_namespace(&self, py: Python<'_>, namespace: &str) -> PyResult<View> {
        let view = self.inner().in_namespace(namespace).or_raise(py)?;
        let namespace = Namespace::new(namespace).map_err(Error::BadName).or_raise(py)?;
        let (closed, unpickling) = (Arc::clone(&self.closed), Arc::clone(&self.unpickling));
        Ok(View { view: Some(view), closed, namespace, unpickling })
    }

    /// Recalls a value; or an `Object`, where it takes Python to make a value of it.
    fn recall<'py>(&self, py: Python<'py>, name: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let found = self.object(py, name)?;
        match recalled::to_python(py, &found.object)? {
            Some(value) => Ok(value),
            None => Ok(Bound::new(py, found)?.into_any()),
        }
    }

    /// Recalls an object, which is made a value later.
    fn object(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<Object> {
        let (view, text) = (self.open(py)?, name_of(name)?);
        let object = detached(py, || view.recall(text)).or_raise(py)?;
        let (namespace, unpickling) = (self.namespace.clone(), Arc::clone(&self.unpickling));
        Ok(Object { object, name: name.clone().unbind(), namespace, unpickling })
    }

    /// Whether something was bound to the name; not to what cannot be a name.
    fn contains(&self, py: Python<'_>, name: &Bound<'_, PyString>) -> PyResult<bool> {
        let view = self.open(py)?;
        let Ok(name) = name.to_str() else { return Ok(false) };
        match detached(py, || view.exists(name)) {
            Err(Error::BadName(_)) => Ok(false),
            found => found.or_raise(py),
        }
    }

    fn names(&self, py: Python<'_>, prefix: &str) -> PyResult<Vec<String>> {
        let view = self.open(py)?;
        self.if_any(detached(py, || view.names(prefix))).or_raise(py)
    }

    /// What the store knows of a name; `None` if nothing was bound to it.
    fn describe<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let (view, text) = (self.open(py)?, name_of(name)?);
        let found = detached(py, || view.metadata(text)).or_raise(py)?;
        found.map(|version| version_dict(py, view.namespace(), text, version)).transpose()
    }

    /// As `describe`, of all names.
    fn described<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let view = self.open(py)?;
        let versions = self.if_any(detached(py, || view.versions(""))).or_raise(py)?;
        let dict = |(name, version): (String, Version)| version_dict(py, view.namespace(), &name, version);
        versions.into_iter().map(dict).collect()
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.closed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let view = self.inner().clone();
        match detached(py, || view.close()) {
            // It has ended already: with its session, in a forked child, or because somebody ended it.
            Err(Error::ViewEnded { .. }) => Ok(()),
            closed => closed.or_raise(py),
        }
    }
}

impl View {
    fn new(client: &Client, view: plasmon::View) -> View {
        let (namespace, unpickling) = client.place();
        View { view: Some(view), closed: Arc::default(), namespace, unpickling }
    }

    fn inner(&self) -> &plasmon::View {
        self.view.as_ref().expect("only `drop` takes it")
    }

    /// Nothing where no name was learned in the namespace yet; an error where the snapshot does not keep it.
    fn if_any<T: Default>(&self, found: Result<T, Error>) -> Result<T, Error> {
        let shown = self.inner().namespaces();
        match found {
            Err(Error::NamespaceNotFound { .. }) if shown.is_empty() || shown.contains(&self.namespace) => {
                Ok(T::default())
            }
            found => found,
        }
    }

    fn open(&self, py: Python<'_>) -> PyResult<&plasmon::View> {
        let view = self.inner();
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::ViewEnded { view: view.number() }).or_raise(py);
        }
        Ok(view)
    }
}

fn version_dict<'py>(
    py: Python<'py>,
    namespace: &str,
    name: &str,
    version: Version,
) -> PyResult<Bound<'py, PyDict>> {
    let seconds =
        |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let dict = PyDict::new(py);
    dict.set_item("name", name)?;
    dict.set_item("namespace", namespace)?;
    dict.set_item("object_id", PyBytes::new(py, version.object_id.as_bytes()))?;
    dict.set_item("version", version.version)?;
    dict.set_item("kind", version.kind.to_string())?;
    dict.set_item("nbytes", version.len_bytes)?;
    dict.set_item("created", seconds(version.created))?;
    let ended = version.ended.as_ref();
    dict.set_item("ended", ended.map(|ended| seconds(ended.at)))?;
    dict.set_item("reason", ended.map(|ended| word(ended.reason)))?;
    dict.set_item("writer_pid", version.writer_pid)?;
    dict.set_item("writer_uid", version.writer_uid)?;
    dict.set_item("description", &version.description)?;
    let user = Some(version.metadata).filter(|user| !user.is_null()).map(json::text_of);
    dict.set_item("metadata", user)?;
    Ok(dict)
}

fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::Rebound => "rebound",
        Reason::Forgotten => "forgotten",
        Reason::Expired => "expired",
        Reason::Evicted => "evicted",
        Reason::Cleared => "cleared",
    }
}

fn since_1970(at_ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(at_ns.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    if at_ns < 0 { epoch.checked_sub(distance).unwrap_or(epoch) } else { epoch + distance }
}
