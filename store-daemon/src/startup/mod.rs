//! From options to a server that is ready: the socket, the regions, the helper threads. `main` calls [`prepare`] once,
//! and tests call it for stores on threads.

mod error;
mod helpers;

pub use self::error::StartError;

use crate::{
    budget::half_of,
    catalog::{Catalog, IdTaken},
    clock::Clock,
    limits::{self, Limits, Needs},
    memory::{Bounds, Headroom},
    options::{Arena, Options, Reserve},
    owner::Owner,
    populate::{Populated, Populator, Progress},
    server::{Event, Notifier, Parts, ServeError, Server},
    signals::Signals,
    size::Human,
    socket::{Labels, SocketError, SocketPath},
    space::Space,
    state::{Facts, HelperReport, State},
};
use nix::sys::{
    eventfd::{EfdFlags, EventFd},
    resource::{Resource, getrlimit},
};
use plasmon_protocol::layout::{IndexShape, WORD_BYTES, session};
use plasmon_shm::{Backend, Kernel, Region, Seals, WordsMapping};
use std::{
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, mpsc},
};

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
    let bounds = bounds(&options);
    let plan = Plan::of(&options, &bounds)?;
    let limits = match host {
        Host::Process => Limits::raised(),
        Host::Thread => Limits::of_host(),
    };
    let limits = limits.check(plan.needs(), limits::used_bytes(), &mut options)?;
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
    let populates = options.reserve != Reserve::Lazy;
    if populates {
        plan.check_fits(bounds.headroom())?;
    }
    let labels = socket.labels(plan.backend);
    if plan.backend == Backend::Named {
        labels.remove_leftover_segments();
    }
    let Regions { index, index_words, arena, openings } = Regions::make(&plan, &labels, &kernel)?;
    let store_uuid = uuid::Uuid::new_v4().into_bytes();
    let catalog = Catalog::new(index_words, plan.shape, store_uuid, plan.asked_bytes)
        .with_limits(
            options.max_namespaces,
            options.max_text_bytes,
            options.kept_max(plan.shape.entry_count()),
        )
        .with_caches(&options.caches)
        .map_err(|(namespace, IdTaken { holder })| StartError::CacheIdTaken { namespace, holder })?;

    let (notifier, events) = make_notifier()?;
    let tell = notifier.clone();
    let report = move |progress: Progress| tell.report(HelperReport::Populated(progress));
    let mut populator = Populator::new(Arc::clone(&arena), plan.asked_bytes, bounds, report);
    let populated = match options.reserve {
        Reserve::Background => {
            populator = populator.in_background();
            Populated::nothing(plan.asked_bytes)
        }
        Reserve::Lazy => Populated::by_writers(plan.asked_bytes),
        Reserve::Now => {
            populate_now(&mut populator, &plan, signals.as_ref())?;
            Populated::by_writers(plan.asked_bytes)
        }
    };
    let helpers = helpers::start(&notifier, populator, &arena, &options.pretend_panic)?;

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
        capacity_bytes: plan.asked_bytes,
        arena,
        index,
        labels,
        session_bytes: plan.session_bytes(),
        openings,
        populates,
        memory_limit: limits.memory(),
        session_descriptors: half_of(descriptors),
    };
    let state = State::new(facts, clock, catalog, Space::new(plan.asked_bytes, populated));
    let wake = Arc::clone(&notifier.wake);
    let parts = Parts { state, helpers, descriptors, listener, signals, owner, wake, events };
    let server = Server::new(parts)
        .map_err(|cause| StartError::System { what: "cannot make what the loop waits on", cause })?;
    Ok(Ready { server, socket, notifier, capacity_bytes: plan.asked_bytes })
}

/// What the options ask for, in numbers.
struct Plan {
    asked_bytes: u64,
    backend: Backend,
    shape: IndexShape,
}

impl Plan {
    /// # Errors
    /// [`StartError::TooSmall`]; [`StartError::NamedForOthers`].
    fn of(options: &Options, bounds: &Bounds) -> Result<Plan, StartError> {
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
        Ok(Plan { asked_bytes, backend, shape })
    }

    fn index_bytes(&self) -> u64 {
        Catalog::index_bytes(self.shape)
    }

    fn session_bytes(&self) -> u64 {
        session::words(self.shape.entry_count()) as u64 * WORD_BYTES
    }

    /// What the store takes that the kernel may limit.
    fn needs(&self) -> Needs {
        let Plan { asked_bytes, backend, .. } = *self;
        // A named segment is mapped whole while it is made.
        let mapped_at_start = if backend == Backend::Named { asked_bytes } else { 0 };
        Needs {
            region_bytes_max: asked_bytes.max(self.index_bytes()).max(self.session_bytes()),
            mapped_bytes: self.index_bytes().saturating_add(mapped_at_start),
        }
    }

    /// # Errors
    /// [`StartError::DoesNotFit`] if `headroom` is less than what was asked for.
    fn check_fits(&self, headroom: Headroom) -> Result<(), StartError> {
        let Headroom { bytes: fits_bytes, bound_by } = headroom;
        if self.asked_bytes > fits_bytes {
            return Err(StartError::DoesNotFit { asked_bytes: self.asked_bytes, fits_bytes, bound_by });
        }
        Ok(())
    }
}

/// The memory that is shared with clients.
struct Regions {
    index: Region,
    index_words: WordsMapping,
    arena: Arc<Region>,
    /// What clients are handed, where regions have no names: the index, the arena to read, the arena to write.
    openings: Option<[Arc<OwnedFd>; 3]>,
}

impl Regions {
    fn make(plan: &Plan, labels: &Labels, kernel: &Kernel) -> Result<Regions, StartError> {
        let index = Region::create(&labels.region("index"), plan.index_bytes(), plan.backend, kernel)?;
        index.reserve()?;
        let index_words = index.map_words()?;
        let arena = Region::create(&labels.region("arena"), plan.asked_bytes, plan.backend, kernel)?;
        // Openings first: the seal forbids new writable mappings, the mode forbids new openings.
        let openings = match plan.backend {
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
        Ok(Regions { index, index_words, arena: Arc::new(arena), openings })
    }
}

/// Takes all memory of the arena before anybody is served (`--reserve now`).
///
/// # Errors
/// [`StartError::DoesNotFit`] if the machine runs short meanwhile; [`StartError::Interrupted`] if a signal stops it.
fn populate_now(
    populator: &mut Populator<impl Fn(Progress)>,
    plan: &Plan,
    signals: Option<&Signals>,
) -> Result<(), StartError> {
    let told_to_stop = || match signals.and_then(Signals::next) {
        Some(came) if came.stops => {
            tracing::info!("stopping: {came}");
            true
        }
        _ => false,
    };
    let outcome = populator.populate_all(told_to_stop);
    let finished = outcome.map_err(|Headroom { bytes, bound_by }| {
        let fits_bytes = populator.populated_bytes().saturating_add(bytes);
        StartError::DoesNotFit { asked_bytes: plan.asked_bytes, fits_bytes, bound_by }
    })?;
    if finished { Ok(()) } else { Err(StartError::Interrupted) }
}

/// What helpers wake the loop with, and where it hears them.
fn make_notifier() -> Result<(Notifier, mpsc::Receiver<Event>), StartError> {
    let (tell, events) = mpsc::channel();
    let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|cause| StartError::System { what: "cannot make an eventfd", cause })?;
    Ok((Notifier { events: tell, wake: Arc::new(wake) }, events))
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
