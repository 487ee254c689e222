//! A real store on a thread of this process, for tests of clients.
//!
//! Tests of the client start a store with it when the feature `testing` is on.

use crate::{
    options::Options,
    startup::{Host, StartError, Stopper, prepare},
};
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread::JoinHandle,
};

/// A running store with a socket of its own. Dropping it stops the store and removes its files.
pub struct Running {
    socket: PathBuf,
    directory: PathBuf,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

static STARTED: AtomicU64 = AtomicU64::new(0);

impl Running {
    /// Starts a store of `capacity_bytes`.
    ///
    /// # Errors
    /// [`StartError`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon_store::testing::Running::start(1 << 20)?;
    /// assert!(store.socket().exists());
    /// # Ok::<(), plasmon_store::StartError>(())
    /// ```
    pub fn start(capacity_bytes: u64) -> Result<Running, StartError> {
        Running::start_with(capacity_bytes, |_| {})
    }

    /// Starts a store of `capacity_bytes` with other options than the usual ones.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_with(capacity_bytes: u64, choose: impl FnOnce(&mut Options)) -> Result<Running, StartError> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("plasmon-test-{}-{number}", std::process::id()));
        let socket = directory.join("store.sock");
        let made = std::fs::create_dir_all(&directory);
        made.map_err(|source| crate::socket::SocketError::Io { path: directory.clone(), source })?;
        let mut options = Options::new(capacity_bytes, socket.clone());
        choose(&mut options);
        let ready = prepare(options, Host::Thread).inspect_err(|_| {
            let _ = std::fs::remove_dir_all(&directory);
        })?;
        let stopper = ready.stopper();
        let thread = std::thread::spawn(move || ready.serve().expect("nothing but its end stops the store"));
        Ok(Running { socket, directory, stopper, thread: Some(thread) })
    }

    /// The socket that clients connect to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Stops the store and waits until it has.
    pub fn stop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the store's thread is a defect that its test should see.
            thread.join().expect("the store ended in order");
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return if self.thread.is_some() {
                self.stop()
            };
        }
        // A test that has failed says why by itself, and leaves as little behind as one that has not.
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
