//! The helper threads, which [`prepare`](super::prepare) starts and the loop gives work to. Each ends with its channel.

use super::StartError;
use crate::{
    copy::{self, Copies},
    populate::{Demands, Populator, Progress},
    recalls,
    reclaim::{Job, Scanner},
    server::{Event, Helpers, Notifier},
    session::Orphan,
    state::HelperReport,
};
use plasmon_shm::Region;
use std::{
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

/// Starts all of them. The one of the name `pretend_panic` panics at once, in a test.
///
/// # Errors
/// [`StartError::Thread`] if the kernel starts no further thread.
pub(super) fn start(
    notifier: &Notifier,
    populator: Populator<impl Fn(Progress) + Send + 'static>,
    arena: &Arc<Region>,
    pretend_panic: &str,
) -> Result<Helpers, StartError> {
    let spawn = |name, run: Box<dyn FnOnce() + Send>| spawn(name, notifier, pretend_panic == name, run);

    let (demands, asked) = mpsc::channel();
    let populate = spawn("plasmon-populate", Box::new(move || populator.run(&asked)))?;

    let (scans, jobs) = mpsc::channel();
    let tell = notifier.clone();
    let scan = move || {
        let mut scanner = Scanner::default();
        for job in jobs {
            tell.report(match job {
                Job::Scan(scan) => HelperReport::Scanned(scanner.scan(scan)),
                Job::Collect(round) => {
                    HelperReport::Collected(recalls::collect(&round, plasmon_shm::boottime_ns()))
                }
            });
        }
    };
    let scan = spawn("plasmon-scan", Box::new(scan))?;

    let (looks, jobs) = mpsc::channel::<Vec<Orphan>>();
    let tell = notifier.clone();
    let look = move || {
        for orphans in jobs {
            let gone = orphans.iter().filter(|orphan| orphan.is_gone()).map(|orphan| orphan.session);
            tell.report(HelperReport::Looked(gone.collect()));
        }
    };
    let look = spawn("plasmon-look", Box::new(look))?;

    let (copies, jobs) = mpsc::channel();
    let (tell, arena) = (notifier.clone(), Arc::clone(arena));
    let copy = move || copy::run(&arena, &jobs, |copied| tell.report(HelperReport::Copied(copied)));
    let copy = spawn("plasmon-copy", Box::new(copy))?;

    let threads = vec![populate, scan, look, copy];
    Ok(Helpers { scans, looks, demands: Demands(demands), copies: Copies(copies), threads })
}

/// Starts a helper thread. If it panics the loop is told, and ends: requests that need the helper would hang.
fn spawn(
    name: &'static str,
    notifier: &Notifier,
    panics: bool,
    run: Box<dyn FnOnce() + Send>,
) -> Result<JoinHandle<()>, StartError> {
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
