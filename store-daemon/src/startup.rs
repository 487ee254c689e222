//! From options to a server that is ready: the socket, the regions, the helper threads.

use crate::{
    budget::half_of,
    catalog::{Catalog, IdTaken},
    clock::Clock,
    copy::{self, Copies},
    limits::{self, LimitError, Limits, Needs},
    memory::{Bounds, Headroom},
    options::{Arena, Options, Reserve},
    owner::Owner,
    populate::{Demands, Populated, Populator, Progress},
    recalls,
    reclaim::{Job, Scanner},
    server::{Event, Helpers, Notifier, Parts, ServeError, Server},
    session::Orphan,
    signals::Signals,
    size::Human,
    socket::{SocketError, SocketPath},
    space::Space,
    state::{Facts, HelperReport, State},
};
use nix::sys::{
    eventfd::{EfdFlags, EventFd},
    resource::{Resource, getrlimit},
};
use plasmon_protocol::layout::{IndexShape, WORD_BYTES, session};
use plasmon_shm::{Backend, Kernel, Limit, Region, Seals};
use std::{
    io,
    path::Path,
    sync::{Arc, mpsc},
    thread,
};

/// Why the store could not start. One line each, with a next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// More was asked for than the machine or a cgroup can give.
    #[error(
        "a size of {} cannot be reserved: {} leaves {} after a margin; choose a --size of at most {fits_bytes}, or \
         --reserve lazy to leave it to the writers", Human(*.asked_bytes), .bound_by, Human(*.fits_bytes)
    )]
    DoesNotFit {
        /// What was asked for, in bytes.
        asked_bytes: u64,
        /// What would fit, in bytes.
        fits_bytes: u64,
        /// What sets the limit.
        bound_by: String,
    },
    /// The size is no size for an arena.
    #[error("a size of {asked_bytes} bytes is too small; choose a --size of at least 4096 bytes")]
    TooSmall {
        /// What was asked for, in bytes.
        asked_bytes: u64,
    },
    /// Named segments are open to their user alone, so nobody else could be served.
    #[error(
        "--arena named cannot serve other users, whom --allow-uid admits; leave out --allow-uid, or use --arena memfd"
    )]
    NamedForOthers,
    /// Two namespaces of `--cache` have the same id.
    #[error("--cache {namespace} has the same id as {holder}; choose another namespace")]
    CacheIdTaken {
        /// The namespace.
        namespace: String,
        /// What has its id.
        holder: String,
    },
    /// A signal told the store to stop before it was ready.
    #[error("stopped before it was ready")]
    Interrupted,
    /// The socket cannot be served.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The kernel refused something.
    #[error("{0}")]
    Shm(#[from] plasmon_shm::Error),
    /// The owner is not the process that started the store, or has ended already.
    #[error(
        "process {owner} did not start this store, or has ended; --owner is for the process that starts a store"
    )]
    NotOwned {
        /// The process that was named.
        owner: u32,
    },
    /// What the kernel allows this process (`ulimit`) is too little for a store.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The kernel starts no further thread.
    #[error("cannot start helper thread {name}: {cause}{}", processes_allowed())]
    Thread {
        /// The thread's name.
        name: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// The kernel refused something.
    #[error("{what}: {cause}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        cause: nix::Error,
    },
}

impl StartError {
    /// The exit code that scripts can tell this error by (see `plasmon-store --help`).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::NamedForOthers | StartError::CacheIdTaken { .. } => 2,
            StartError::Interrupted => 0,
            StartError::DoesNotFit { .. }
            | StartError::TooSmall { .. }
            | StartError::Limit(LimitError::FileSize { .. } | LimitError::Memory { .. }) => 3,
            StartError::Socket(SocketError::InUse { .. }) => 5,
            StartError::Socket(_) => 4,
            StartError::Shm(_)
            | StartError::System { .. }
            | StartError::Thread { .. }
            | StartError::Limit(_)
            | StartError::NotOwned { .. } => 1,
        }
    }
}

/// The limits that may be why no thread can be started, as the end of a sentence.
fn processes_allowed() -> String {
    let cgroup = "a container, or the service manager, may allow fewer (pids.max; TasksMax= in a unit)";
    match Limit::Processes.get() {
        Some(count) => {
            format!("; this user may have {count} processes and threads (ulimit -u), and {cgroup}")
        }
        None => format!("; {cgroup}"),
    }
}

/// Smallest arena: a page.
const SIZE_BYTES_MIN: u64 = 4_096;

/// A store that is ready to serve.
pub struct Ready {
    server: Server,
    socket: SocketPath,
    notifier: Notifier,
    capacity_bytes: u64,
}

/// Makes a running [`Ready`] stop, from any thread.
#[derive(Clone)]
pub struct Stopper(Notifier);

impl Stopper {
    /// Tells the store to stop; returns at once.
    pub fn stop(&self) {
        self.0.tell(Event::Stop);
    }
}

impl Ready {
    /// The socket that clients connect to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.socket.path()
    }

    /// Capacity of the arena, in bytes.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// What makes [`serve`](Self::serve) return.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(self.notifier.clone())
    }

    /// Serves until stopped, by a [`Stopper`] or by a signal where signals are handled; then removes the socket.
    ///
    /// # Errors
    /// [`ServeError`] if something else made it stop.
    pub fn serve(self) -> Result<(), ServeError> {
        let end = self.server.run();
        drop(self.socket);
        end
    }
}

/// Whether the store is a process of its own, or a thread of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// A process of its own: SIGTERM, SIGINT and SIGQUIT stop it, no other signal that can be helped does, and nobody but
    /// root looks into it.
    Process,
    /// A thread in another program, which keeps its signals.
    Thread,
}

/// Makes a store ready: claims the socket, makes the regions, starts the helpers.
///
/// Blocks for as long as populating the arena takes where that is asked for (`--reserve now`), else for some
/// milliseconds.
///
/// # Errors
/// [`StartError`]; nothing is left behind.
pub fn prepare(mut options: Options, host: Host) -> Result<Ready, StartError> {
    Kernel::check_minimum()?;
    let kernel = Kernel::detect().pretend_missing(&options.pretend_missing)?;
    let limits = match host {
        Host::Process => Limits::raised(),
        Host::Thread => Limits::of_host(),
    };
    let bounds = bounds(&options);
    let asked_bytes = options.size.map_or(0, |size| size.to_bytes(|| bounds.total_bytes()));
    if asked_bytes < SIZE_BYTES_MIN {
        return Err(StartError::TooSmall { asked_bytes });
    }
    if options.arena == Arena::Named && !options.allow_uids.is_empty() {
        return Err(StartError::NamedForOthers);
    }
    let backend = match options.arena {
        Arena::Memfd => Backend::Memfd,
        Arena::Named => Backend::Named,
    };
    let shape =
        IndexShape::for_entries(options.entry_count(asked_bytes)).expect("the options keep it in range");
    let session_bytes = session::words(shape.entry_count()) as u64 * WORD_BYTES;
    let needs = needs(asked_bytes, Catalog::index_bytes(shape), session_bytes, backend);
    let limits = limits.check(needs, limits::used_bytes(), &mut options)?;
    // Looked at while signals still end this process: a path on a file system that does not answer holds up for ever
    // whoever asks for it.
    let path = SocketPath::resolve(options.socket.as_deref())?;
    let signals = match host {
        Host::Process => {
            let taken = Signals::take();
            Some(taken.map_err(|cause| StartError::System { what: "cannot take over signals", cause })?)
        }
        Host::Thread => None,
    };
    let owner = options.owner.map(|pid| Owner::of(pid, &kernel)).transpose()?;
    let socket = SocketPath::claim(path, options.socket.is_none())?;
    if options.remove_directory {
        socket.remove_directory_too();
    }
    if options.reserve != Reserve::Lazy {
        let Headroom { bytes: fits_bytes, bound_by } = bounds.headroom();
        if asked_bytes > fits_bytes {
            return Err(StartError::DoesNotFit { asked_bytes, fits_bytes, bound_by });
        }
    }
    let labels = socket.labels(backend);
    if backend == Backend::Named {
        labels.remove_leftover_segments();
    }

    let index = Region::create(&labels.region("index"), Catalog::index_bytes(shape), backend, &kernel)?;
    index.reserve()?;
    let index_words = index.map_words()?;
    // Openings first: the seal forbids new writable mappings, the mode forbids new openings.
    let arena = Arc::new(Region::create(&labels.region("arena"), asked_bytes, backend, &kernel)?);
    let openings = match backend {
        Backend::Memfd => {
            let openings = [index.open_read_only()?, arena.open_read_only()?, arena.open_read_write()?];
            Some(openings.map(Arc::new))
        }
        Backend::Named => None,
    };
    index.seal(Seals::ShrinkGrowFutureWriteSeal)?;
    index.restrict_mode()?;
    arena.seal(Seals::ShrinkGrow)?;
    arena.restrict_mode()?;

    let store_uuid = uuid::Uuid::new_v4().into_bytes();
    let catalog = Catalog::new(index_words, shape, store_uuid, asked_bytes)
        .with_limits(options.max_namespaces, options.max_text_bytes)
        .with_caches(&options.caches)
        .map_err(|(namespace, IdTaken { holder })| StartError::CacheIdTaken { namespace, holder })?;

    let (events_tell, events) = mpsc::channel();
    let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|cause| StartError::System { what: "cannot make an eventfd", cause })?;
    let notifier = Notifier { events: events_tell, wake: Arc::new(wake) };

    let populates = options.reserve != Reserve::Lazy;
    let mut populated =
        if populates { Populated::nothing(asked_bytes) } else { Populated::by_writers(asked_bytes) };
    let (demands_tell, demands) = mpsc::channel();
    let tell = notifier.clone();
    let report = move |progress: Progress| tell.report(HelperReport::Populated(progress));
    let mut populator = Populator::new(Arc::clone(&arena), asked_bytes, bounds, report);
    match options.reserve {
        Reserve::Background => populator = populator.in_background(),
        Reserve::Lazy => {}
        Reserve::Now => {
            let next = || signals.as_ref().and_then(Signals::next);
            let told_to_stop = || match next() {
                Some(came) if came.stops => {
                    tracing::info!("stopping: {came}");
                    true
                }
                _ => false,
            };
            let outcome = populator.populate_all(told_to_stop);
            let finished = outcome.map_err(|Headroom { bytes, bound_by }| {
                let fits_bytes = populator.populated_bytes().saturating_add(bytes);
                StartError::DoesNotFit { asked_bytes, fits_bytes, bound_by }
            })?;
            if !finished {
                return Err(StartError::Interrupted);
            }
            populated = Populated::by_writers(asked_bytes);
        }
    }
    let pretend_panic = options.pretend_panic.clone();
    let spawn = |name, run: Box<dyn FnOnce() + Send>| spawn(name, &notifier, pretend_panic == name, run);
    let populate = spawn("plasmon-populate", Box::new(move || populator.run(&demands)))?;

    let (scan_jobs, jobs) = mpsc::channel();
    let tell = notifier.clone();
    let scan = spawn(
        "plasmon-scan",
        Box::new(move || {
            let mut scanner = Scanner::default();
            for job in jobs {
                tell.report(match job {
                    Job::Scan(scan) => HelperReport::Scanned(scanner.scan(scan)),
                    Job::Collect(round) => {
                        HelperReport::Collected(recalls::collect(&round, plasmon_shm::boottime_ns()))
                    }
                });
            }
        }),
    )?;

    let (look_jobs, jobs) = mpsc::channel::<Vec<Orphan>>();
    let tell = notifier.clone();
    let look = spawn(
        "plasmon-look",
        Box::new(move || {
            for orphans in jobs {
                let gone = orphans.iter().filter(|orphan| orphan.is_gone()).map(|orphan| orphan.session);
                tell.report(HelperReport::Looked(gone.collect()));
            }
        }),
    )?;

    let (copies_tell, copies) = mpsc::channel();
    let (tell, copied_into) = (notifier.clone(), Arc::clone(&arena));
    let copy = spawn(
        "plasmon-copy",
        Box::new(move || {
            copy::run(&copied_into, &copies, |copied| tell.report(HelperReport::Copied(copied)))
        }),
    )?;

    if host == Host::Process && !options.debuggable {
        plasmon_shm::set_not_dumpable()?;
    }
    let listener = socket.listen(!options.allow_uids.is_empty())?;
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let clock = Clock::default();
    let facts = Facts {
        options,
        kernel,
        own_uid: nix::unistd::getuid().as_raw(),
        overflow_uid: plasmon_shm::overflow_uid(),
        store_uuid,
        started: clock.now(),
        capacity_bytes: asked_bytes,
        arena,
        index,
        labels,
        session_bytes,
        openings,
        populates,
        memory_limit: limits.memory(),
        session_descriptors: half_of(descriptors),
    };
    let parts = Parts {
        state: State::new(facts, clock, catalog, Space::new(asked_bytes, populated)),
        helpers: Helpers {
            scans: scan_jobs,
            looks: look_jobs,
            demands: Demands(demands_tell),
            copies: Copies(copies_tell),
            threads: vec![populate, scan, look, copy],
        },
        descriptors,
        listener,
        signals,
        owner,
        wake: Arc::clone(&notifier.wake),
        events,
    };
    let server = Server::new(parts)
        .map_err(|cause| StartError::System { what: "cannot make what the loop waits on", cause })?;
    Ok(Ready { server, socket, notifier, capacity_bytes: asked_bytes })
}

/// What this kernel offers and what size would fit, for people.
#[must_use]
pub fn probe(options: &Options) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let kernel = Kernel::detect().pretend_missing(&options.pretend_missing);
    match &kernel {
        Ok(kernel) => {
            for (call, present, otherwise) in kernel.report() {
                let verdict = if present { "in use".to_owned() } else { format!("missing: {otherwise}") };
                let _ = writeln!(text, "{call:<28} {verdict}");
            }
        }
        Err(error) => drop(writeln!(text, "{error}")),
    }
    let Headroom { bytes, bound_by } = bounds(options).headroom();
    let _ = writeln!(text, "{:<28} {bytes} bytes ({}), set by {bound_by}", "largest size", Human(bytes));
    let socket = SocketPath::resolve(options.socket.as_deref());
    let socket = socket.map_or_else(|error| error.to_string(), |path| path.display().to_string());
    let _ = writeln!(text, "{:<28} {socket}", "socket");
    text
}

/// Removes what a store that was killed has left behind: its socket, its lock, and named segments.
///
/// # Errors
/// [`SocketError::InUse`] if a store is alive there; others if the path cannot be used.
pub(crate) fn tidy(options: &Options) -> Result<(), SocketError> {
    let path = SocketPath::resolve(options.socket.as_deref())?;
    if path.parent().is_some_and(|directory| !directory.exists()) {
        return Ok(());
    }
    let socket = SocketPath::claim(path, options.socket.is_none())?;
    socket.labels(Backend::Named).remove_leftover_segments();
    if options.remove_directory {
        socket.remove_directory_too();
    }
    Ok(())
}

/// What bounds the memory of the arena that was asked for.
fn bounds(options: &Options) -> Bounds {
    Bounds { dev_shm: options.arena == Arena::Named, pretend_cgroup: options.pretend_cgroup.clone() }
}

/// What a store of this size takes that the kernel may limit.
fn needs(asked_bytes: u64, index_bytes: u64, session_bytes: u64, backend: Backend) -> Needs {
    // A named segment is mapped whole while it is made.
    let mapped_at_start = if backend == Backend::Named { asked_bytes } else { 0 };
    Needs {
        region_bytes_max: asked_bytes.max(index_bytes).max(session_bytes),
        mapped_bytes: index_bytes.saturating_add(mapped_at_start),
    }
}

/// Starts a helper thread. If it panics the loop is told, and ends: requests that need the helper would hang.
fn spawn(
    name: &'static str,
    notifier: &Notifier,
    panics: bool,
    run: Box<dyn FnOnce() + Send>,
) -> Result<thread::JoinHandle<()>, StartError> {
    struct TellOnPanic(Notifier, &'static str);
    impl Drop for TellOnPanic {
        fn drop(&mut self) {
            if thread::panicking() {
                self.0.tell(Event::HelperFailed(self.1));
            }
        }
    }
    let tell = TellOnPanic(notifier.clone(), name);
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _tell = tell;
        assert!(!panics, "told to by --pretend-panic");
        run();
    });
    spawned.map_err(|cause| StartError::Thread { name, cause })
}
