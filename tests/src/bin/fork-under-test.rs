//! A client process that forks, as gunicorn or multiprocessing would: `fork-under-test SOCKET`. Exits with 0 if parent
//! and child both found everything as it must be.

use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, fork},
};
use plasmon::{Blob, Brain};
use std::process::ExitCode;

const LEN: usize = 200_000;

fn main() -> ExitCode {
    let socket = std::env::args().nth(1).expect("fork-under-test SOCKET");
    let brain = Brain::builder().path(socket).connect().expect("a store answers");
    brain.learn("inherited", &vec![1_u8; LEN]).expect("there is room");
    let held: Blob = brain.recall("inherited").expect("it is bound");

    // SAFETY: `fork` asks that the child of a process with threads do little; this process has one thread.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            // What it inherited is there, dropping it disturbs nobody, and the child has a session of its own.
            assert!(held.iter().all(|&byte| byte == 1));
            drop(held);
            assert_eq!(brain.recall::<Blob>("inherited").expect("it is bound")[LEN - 1], 1);
            brain.learn("from the child", &vec![2_u8; LEN]).expect("there is room");
            let stats = brain.stats().expect("the store answers");
            assert_eq!(stats.sessions, 2, "the child did not speak on its parent's connections");
            ExitCode::SUCCESS
        }
        ForkResult::Parent { child } => {
            let child = waitpid(child, None).expect("it is ours");
            assert!(matches!(child, WaitStatus::Exited(_, 0)), "{child:?}");
            assert_eq!(brain.recall::<Blob>("from the child").expect("it is bound")[0], 2);
            // The child has dropped its handle and ended; the parent's pin still holds.
            brain.forget("inherited").expect("the store answers");
            for number in 0..40 {
                brain.learn(&format!("filler {number}"), &vec![9_u8; LEN]).expect("there is room");
            }
            assert!(held.iter().all(|&byte| byte == 1), "memory was reused under the parent");
            ExitCode::SUCCESS
        }
    }
}
