//! A client process that forks, as gunicorn or multiprocessing would: `fork-under-test SCENARIO SOCKET`. Exits with 0 if
//! everybody found everything as it must be.

use nix::{
    fcntl::OFlag,
    libc,
    sys::{
        signal::{Signal, kill, raise},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, alarm, execv, fork, getppid, pipe2, read, write},
};
use plasmon::{Blob, Brain, Error, Object};
use std::{
    ffi::CString,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

const LEN: usize = 200_000;

/// A process that waits for what does not come is ended by SIGALRM: far longer than any of this takes.
const GIVES_UP_AFTER_SECS: u32 = 120;

fn main() -> ExitCode {
    alarm::set(GIVES_UP_AFTER_SECS);
    let mut arguments = std::env::args().skip(1);
    let (scenario, socket) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    if scenario.starts_with("held-up") {
        // Called before the client's own, since it is there first.
        plasmon_shm::at_fork(nothing, nothing, wait_to_go_on).expect("there is memory");
    }
    let brain = Brain::builder().path(socket).connect().expect("a store answers");
    match scenario.as_str() {
        "both-go-on" => both_go_on(&brain),
        "parent-forgets" => parent_forgets(&brain),
        "copy-on-write" => copy_on_write(&brain),
        "parent-dies-first" => parent_dies_first(&brain),
        "child-executes" => child_executes(&brain),
        "twice" => twice(&brain),
        "daemoniser" => daemoniser(&brain),
        "held-up" => held_up(&brain),
        "held-up-and-orphaned" => held_up_and_orphaned(&brain),
        "held-up-and-killed" => held_up_and_killed(&brain),
        "threads" => threads(&brain),
        "many-pins" => many_pins(&brain),
        "without-a-session" => without_a_session(&brain),
        "unwritten" => unwritten(&brain),
        other => panic!("fork-under-test SCENARIO SOCKET, not {other:?}"),
    }
    ExitCode::SUCCESS
}

/// Both use what they had, and the store, each as if the other were not there.
fn both_go_on(brain: &Brain) {
    let held = learned(brain, "inherited", 1);
    let child = in_child(|| {
        assert!(is_all(&held, 1));
        drop(held.clone());
        assert_eq!(brain.recall::<Blob>("inherited").expect("it is bound")[LEN - 1], 1);
        brain.learn("from the child", &vec![2_u8; LEN]).expect("there is room");
        let stats = brain.stats().expect("the store answers");
        assert_eq!(stats.sessions, 2, "the child did not speak on its parent's connections");
    });
    ended_well(child);
    assert_eq!(brain.recall::<Blob>("from the child").expect("it is bound")[0], 2);
    brain.forget("inherited").expect("the store answers");
    overwrite_all_that_is_free(brain);
    assert!(is_all(&held, 1), "memory was reused under the parent");
}

/// What the child inherited is its own: it does not rest on its parent's handles.
fn parent_forgets(brain: &Brain) {
    let (used, (told, tell)) = (brain.stats().expect("stats").used_bytes, a_pipe());
    let held = learned(brain, "inherited", 1);
    brain.forget("inherited").expect("the store answers");
    let in_parent = held.clone();
    let child = in_child(|| {
        hear(&told);
        assert!(is_all(&held, 1), "memory was reused under the child");
        assert_eq!(brain.stats().expect("stats").pins, 1, "the parent holds nothing any more");
    });
    drop((in_parent, held));
    overwrite_all_that_is_free(brain);
    assert!(brain.stats().expect("stats").limbo_bytes >= LEN as u64, "the child holds it");
    write(&tell, b"!").expect("the child hears");
    ended_well(child);
    assert_eq!(brain.stats().expect("stats").used_bytes, used, "the child's end gave back all it held");
}

/// The child inherits what its parent wrote to copy-on-write bytes, and the pin under what nobody has written.
fn copy_on_write(brain: &Brain) {
    let (told, tell) = a_pipe();
    drop(learned(brain, "inherited", 1));
    let object: Object = brain.recall("inherited").expect("it is bound");
    brain.forget("inherited").expect("the store answers");
    let mut own = object.copy_on_write().expect("it can be mapped").expect("it is large");
    own[LEN / 2..][..100].fill(2);
    let as_written = own.to_vec();
    let child = in_child(|| {
        hear(&told);
        assert!(own[..] == as_written[..], "memory was reused under the child");
        own.fill(3);
        assert!(own.iter().all(|&byte| byte == 3));
    });
    drop((object, own));
    overwrite_all_that_is_free(brain);
    assert!(brain.stats().expect("stats").limbo_bytes >= LEN as u64, "the child holds it");
    write(&tell, b"!").expect("the child hears");
    ended_well(child);
}

/// The parent is killed as soon as the child is there, and a third process overwrites what is free.
fn parent_dies_first(brain: &Brain) {
    let (told, tell) = a_pipe();
    // This process looks on; its child is the parent, and the grandchild the child.
    let parent = in_child(|| {
        let held = learned(brain, "inherited", 1);
        brain.forget("inherited").expect("the store answers");
        let me = nix::unistd::getpid();
        in_child(|| {
            while getppid() == me {
                std::thread::yield_now();
            }
            overwrite_all_that_is_free(brain);
            assert!(is_all(&held, 1), "memory was reused under the child of a dead parent");
            write(&tell, b"!").expect("the first process hears");
        });
        raise(Signal::SIGKILL).expect("it is killed");
    });
    assert!(matches!(waitpid(parent, None), Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _))));
    drop(tell);
    hear(&told);
}

/// A child that becomes another program holds nothing any more.
fn child_executes(brain: &Brain) {
    let held = learned(brain, "inherited", 1);
    brain.forget("inherited").expect("the store answers");
    let (told, tell) = a_pipe();
    let child = in_child(|| {
        // `cat` reads the pipe until its end, and is there until then.
        let program = CString::new("/bin/cat").expect("no zero");
        nix::unistd::dup2_stdin(&told).expect("a descriptor");
        let _ = execv(&program, &[&program]);
        panic!("there is no /bin/cat");
    });
    drop(held);
    wait_until(|| brain.stats().expect("stats").limbo_bytes == 0);
    assert!(
        waitpid(child, Some(nix::sys::wait::WaitPidFlag::WNOHANG)).expect("ours") == WaitStatus::StillAlive
    );
    drop((told, tell));
    ended_well(child);
}

/// The child forks and ends at once, as daemons do; the grandchild holds on.
fn twice(brain: &Brain) {
    let held = learned(brain, "inherited", 1);
    brain.forget("inherited").expect("the store answers");
    let (gone, go) = a_pipe();
    let (told, tell) = a_pipe();
    let child = in_child(|| {
        in_child(|| {
            hear(&gone);
            assert!(is_all(&held, 1), "memory was reused under the grandchild");
            assert_eq!(brain.stats().expect("stats").pins, 1, "the grandchild alone holds anything");
            write(&tell, b"!").expect("the first process hears");
        });
    });
    ended_well(child);
    drop((held, tell));
    overwrite_all_that_is_free(brain);
    write(&go, b"!").expect("the grandchild hears");
    hear(&told);
}

/// The child closes every descriptor it has, lifeline and all, and goes on with what it holds.
fn daemoniser(brain: &Brain) {
    let held = learned(brain, "inherited", 1);
    brain.forget("inherited").expect("the store answers");
    let (told, tell) = a_pipe();
    let child = in_child(|| {
        nix::unistd::dup2_stdin(&told).expect("a descriptor");
        // SAFETY: `close_range` asks that nobody use the descriptors any more: those of this process are its client's,
        // which is about to find them closed; that is what is tried here.
        assert_eq!(unsafe { libc::close_range(3, libc::c_uint::MAX, 0) }, 0);
        hear(std::io::stdin());
        assert!(is_all(&held, 1), "memory was reused under a process that closed its lifeline");
    });
    drop(held);
    wait_until(|| brain.stats().expect("stats").orphaned_sessions == 1);
    overwrite_all_that_is_free(brain);
    write(&tell, b"!").expect("the child hears");
    ended_well(child);
    wait_until(|| brain.stats().expect("stats").limbo_bytes == 0);
}

/// Where a child that is held up hears that it may go on.
static GO_ON: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();

extern "C" fn nothing() {}

/// In a child, before the client's own function: the child has not yet copied a pin.
extern "C" fn wait_to_go_on() {
    if let Some((told, _)) = GO_ON.get() {
        hear(told);
    }
}

fn go_on() {
    write(&GO_ON.get().expect("a pipe").1, b"!").expect("the child hears");
}

/// The parent lets go, and all that is free is overwritten, before the child has pins of its own.
fn held_up(brain: &Brain) {
    let held = learned(brain, "inherited", 1);
    brain.forget("inherited").expect("the store answers");
    GO_ON.set(a_pipe()).expect("it is set once");
    let (told, tell) = a_pipe();
    let child = in_child(|| {
        hear(&told);
        assert!(is_all(&held, 1), "memory was reused under the child");
        assert_eq!(brain.stats().expect("stats").pins, 1, "the parent has given its pins back");
    });
    drop(held);
    overwrite_all_that_is_free(brain);
    go_on();
    wait_until(|| brain.stats().expect("stats").pins == 1);
    overwrite_all_that_is_free(brain);
    write(&tell, b"!").expect("the child hears");
    ended_well(child);
    wait_until(|| brain.stats().expect("stats").limbo_bytes == 0);
}

/// The parent is killed before the child has pins of its own.
fn held_up_and_orphaned(brain: &Brain) {
    GO_ON.set(a_pipe()).expect("it is set once");
    let (told, tell) = a_pipe();
    go_on(); // this first child is not held up
    let parent = in_child(|| {
        let held = learned(brain, "inherited", 1);
        brain.forget("inherited").expect("the store answers");
        in_child(|| {
            assert!(is_all(&held, 1), "memory was reused under the child of a dead parent");
            write(&tell, b"!").expect("the first process hears");
        });
        raise(Signal::SIGKILL).expect("it is killed");
    });
    assert!(matches!(waitpid(parent, None), Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _))));
    overwrite_all_that_is_free(brain);
    assert!(
        brain.stats().expect("stats").limbo_bytes >= LEN as u64,
        "the child's handle rests on a dead one's pin"
    );
    go_on();
    drop(tell);
    hear(&told);
    wait_until(|| brain.stats().expect("stats").limbo_bytes == 0);
}

/// The child is killed before it has pins of its own: nobody waits for it.
fn held_up_and_killed(brain: &Brain) {
    let held = learned(brain, "inherited", 1);
    brain.forget("inherited").expect("the store answers");
    GO_ON.set(a_pipe()).expect("it is set once");
    let child = in_child(|| ());
    drop(held);
    kill(child, Signal::SIGKILL).expect("it is ours");
    waitpid(child, None).expect("it is ours");
    wait_until(|| brain.stats().expect("stats").limbo_bytes == 0);
}

/// Threads recall and drop, and another forks all the while. Every handle that a child finds must hold.
fn threads(brain: &Brain) {
    static HELD: Mutex<Vec<(u8, Blob)>> = Mutex::new(Vec::new());
    const THREADS: u64 = 3;
    const FORKS: u32 = 60;
    let over = AtomicBool::new(false);
    let turns = AtomicU64::new(0);
    let held = || HELD.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (over, turns) = (&over, &turns);
            scope.spawn(move || {
                for turn in 0_u64.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let content = u8::try_from(turn % 200 + 1).expect("small");
                    let name = format!("thread {thread}");
                    let mut blob = learned(brain, &name, content);
                    // What leaves the list is let go while somebody may be forking.
                    let mut held = held();
                    held.push((content, blob.clone()));
                    if held.len() > 12 {
                        blob = held.remove(0).1;
                    }
                    drop(held);
                    drop(blob);
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..FORKS {
            let before = turns.load(Ordering::Relaxed);
            let at_fork = held(); // so that the child finds the list whole
            let child = in_child(|| {
                // The parent lets go of all of these and overwrites them meanwhile.
                while at_fork.iter().all(|(content, blob)| is_all(blob, *content)) && !is_bound(brain, "go") {
                }
                assert!(at_fork.iter().all(|(content, blob)| is_all(blob, *content)), "memory was reused");
            });
            drop(at_fork);
            wait_until(|| turns.load(Ordering::Relaxed) >= before + 60);
            brain.learn("go", &true).expect("there is room");
            ended_well(child);
            brain.forget("go").expect("the store answers");
        }
        over.store(true, Ordering::Relaxed);
    });
    held().clear();
}

/// More pins than one region has slots: every region is handed over.
fn many_pins(brain: &Brain) {
    let held: Vec<Blob> = (0..70_000).map(|_| learned_once(brain, "inherited")).collect();
    brain.forget("inherited").expect("the store answers");
    let (told, tell) = a_pipe();
    let child = in_child(|| {
        hear(&told);
        assert_eq!(brain.stats().expect("stats").pins, 70_000);
        assert!(is_all(&held[69_999], 1), "memory was reused under the child");
    });
    drop(held);
    overwrite_all_that_is_free(brain);
    write(&tell, b"!").expect("the child hears");
    ended_well(child);
}

/// The store makes no session for the child: what it inherits rests on its parent's pins, which stay.
fn without_a_session(brain: &Brain) {
    let held = learned(brain, "inherited", 1);
    brain.forget("inherited").expect("the store answers");
    let (told, tell) = a_pipe();
    let child = in_child(|| {
        hear(&told);
        assert!(is_all(&held, 1), "memory was reused under the child");
        let refused = brain.recall::<i64>("anything");
        assert!(matches!(refused, Err(Error::TooMany { .. })), "{refused:?}");
    });
    drop(held);
    overwrite_all_that_is_free(brain);
    write(&tell, b"!").expect("the child hears");
    ended_well(child);
    assert_eq!(brain.stats().expect("stats").pins, 1, "kept for children that nobody sees");
}

/// An object that is being written is its writer's alone.
fn unwritten(brain: &Brain) {
    let held = learned(brain, "inherited", 1);
    let mut writable = brain.create("written", LEN as u64).expect("there is room");
    writable.fill(3);
    let child = in_child(|| {
        drop(held.clone());
        let mut mine = brain.create("the child's", LEN as u64).expect("there is room");
        mine.fill(4);
        mine.seal().expect("the child's lease is its own");
    });
    ended_well(child);
    writable.seal().expect("the lease is still there");
    assert!(is_all(&brain.recall("written").expect("it is bound"), 3));
    assert!(is_all(&brain.recall("the child's").expect("it is bound"), 4));
}

/// Runs `what` in a forked child, which ends with it.
fn in_child(what: impl FnOnce()) -> Pid {
    // SAFETY: `fork` asks that the child of a process with threads call only what is safe there. It allocates, which the
    // C library makes safe, and uses this client, which is what is tried.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            alarm::set(GIVES_UP_AFTER_SECS);
            let well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what)).is_ok();
            // SAFETY: `_exit` ends the process; nothing of it is needed any more.
            unsafe { libc::_exit(i32::from(!well)) }
        }
    }
}

fn ended_well(child: Pid) {
    let ended = waitpid(child, None).expect("it is ours");
    if !matches!(ended, WaitStatus::Exited(_, 0)) {
        let _ = kill(child, Signal::SIGKILL);
        panic!("the child did not end well: {ended:?}");
    }
}

fn learned(brain: &Brain, name: &str, content: u8) -> Blob {
    let value = vec![content; LEN];
    // While a child has not yet got its own pins its parent gives none back, and so the store may be full for a moment.
    wait_until(|| match brain.learn(name, &value) {
        Ok(_) => true,
        Err(Error::StoreFull { .. }) => false,
        Err(error) => panic!("{error}"),
    });
    brain.recall(name).expect("it is bound")
}

fn learned_once(brain: &Brain, name: &str) -> Blob {
    if !is_bound(brain, name) {
        brain.learn(name, &vec![1_u8; LEN]).expect("there is room");
    }
    brain.recall(name).expect("it is bound")
}

fn is_bound(brain: &Brain, name: &str) -> bool {
    brain.exists(name).expect("the store answers")
}

fn is_all(blob: &Blob, content: u8) -> bool {
    blob.len() == LEN && blob.iter().all(|&byte| byte == content)
}

/// Learns until the store is full, and forgets it again: whatever was free is overwritten.
fn overwrite_all_that_is_free(brain: &Brain) {
    let name = |number: u32| format!("filler {number}");
    let mut count = 0;
    let full = loop {
        match brain.learn(&name(count), &vec![9_u8; LEN]) {
            Ok(_) => count += 1,
            Err(full) => break full,
        }
    };
    assert!(matches!(full, Error::StoreFull { .. }), "{full:?}");
    assert!(count > 20, "there was something to overwrite");
    for number in 0..count {
        brain.forget(&name(number)).expect("the store answers");
    }
}

/// The end that hears, and the end that tells; no other program inherits them.
fn a_pipe() -> (OwnedFd, OwnedFd) {
    pipe2(OFlag::O_CLOEXEC).expect("a pipe")
}

fn hear(told: impl AsFd) {
    let mut byte = [0];
    assert_eq!(read(told, &mut byte), Ok(1), "nobody said anything");
}

/// Waits for something that takes the time it takes.
fn wait_until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        std::thread::yield_now();
    }
}
