//! Being told of forks.

use std::io;

use crate::error::Error;

/// What is called around every fork of this process from now on: `prepare` before it, in the thread that forks; then,
/// in the same thread before `fork` returns, `parent` in the parent and `child` in the child. `parent` is called also
/// if there is no child in the end.
///
/// Only `fork` tells: neither `vfork` and `posix_spawn`, whose children have no memory of their own before they become
/// another program, nor a bare system call. It cannot be undone. A function that panics ends the process.
///
/// A child has one thread, with whatever the others left half done: `child` must wait for no lock that another thread
/// may have held, except locks that `prepare` holds across the fork. Memory can be allocated: glibc and musl see to
/// that themselves.
///
/// # Errors
/// [`Error::System`] if there is no memory to note it.
pub fn at_fork(
    prepare: extern "C" fn(),
    parent: extern "C" fn(),
    child: extern "C" fn(),
) -> Result<(), Error> {
    // SAFETY: `pthread_atfork` keeps three functions and calls them at every fork. They are safe ones, which may be
    // called at any time from any thread, and stay: this crate's code is never unloaded while it may be called, as
    // glibc forgets the functions of a library that is.
    let refused = unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    match refused {
        0 => Ok(()),
        errno => Err(Error::System {
            operation: "pthread_atfork",
            asked: "to be told of forks".to_owned(),
            cause: io::Error::from_raw_os_error(errno),
        }),
    }
}
