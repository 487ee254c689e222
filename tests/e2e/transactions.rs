//! Transactions, locks and counters, by several processes at once.

use crate::{CLIENT, STORE};
use nix::sys::signal::Signal;
use plasmon::{Blob, Brain, Error, LearnOptions};
use plasmon_tests::{
    TestResult,
    client::Client,
    daemon::Daemon,
    eventually,
    worker::{ACCOUNTS, account},
};
use std::time::Duration;

fn connect(daemon: &Daemon) -> Brain {
    Brain::builder().path(daemon.socket()).connect().expect("the store answers")
}

/// Growth-review G22, G23: whoever reads several names at one moment sees all of a transfer or nothing, and none is lost.
#[test]
fn amounts_that_processes_move_between_names_always_add_up() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    for number in 0..ACCOUNTS {
        brain.learn(&account(number), &0_i64)?;
    }
    let mut writers: Vec<Client> = (0..4).map(|_| Client::start(CLIENT, daemon.socket())).collect();
    let mut readers: Vec<Client> = (0..2).map(|_| Client::start(CLIENT, daemon.socket())).collect();
    readers.iter_mut().for_each(|reader| reader.tell("sum-until done"));
    for (seed, writer) in writers.iter_mut().enumerate() {
        writer.tell(&format!("transfer 500 {}", seed + 1));
    }
    let tries: u64 = writers.iter_mut().map(|writer| writer.answer().parse::<u64>().expect("a number")).sum();
    assert!(tries >= 2_000);
    brain.learn("done", &1)?;
    let looks: u64 = readers.iter_mut().map(|reader| reader.answer().parse::<u64>().expect("a number")).sum();
    assert!(looks > 0);
    let sum: i64 = (0..ACCOUNTS).map(|number| brain.recall::<i64>(&account(number))).sum::<Result<_, _>>()?;
    assert_eq!(sum, 0);
    eventually("no view is left", || brain.stats().is_ok_and(|stats| (stats.views, stats.kept) == (0, 0)));
    Ok(())
}

#[test]
fn a_transaction_sees_its_own_writes_and_nobody_else_does() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    brain.learn("old", &vec![1_u8; 100_000])?;
    brain.learn("goes", &1)?;
    let leases = brain.stats()?.leases;
    let t = brain.transaction();
    let other = t.in_namespace("other-names")?;
    t.learn("new", &vec![2_u8; 100_000])?;
    t.learn("int", &42)?;
    let mut value = vec![3_u8; 1_000];
    other.learn("new", &value)?;
    value.fill(9); // what was assigned counts
    t.copy("old", "copy")?;
    t.copy("new", "copy of new")?;
    t.rename("old", "moved")?;
    assert!(t.forget("goes")? && !t.forget("never bound")?);
    assert_eq!((t.recall::<Blob>("new")?[0], t.recall::<i64>("int")?), (2, 42));
    assert_eq!((t.recall::<Blob>("copy")?[0], t.recall::<Blob>("copy of new")?[0]), (1, 2));
    assert_eq!(*other.recall::<Blob>("new")?, *vec![3; 1_000]);
    assert!(t.recall::<Blob>("old").unwrap_err().is_not_found() && !t.exists("goes")?);
    assert_eq!(t.names("")?, ["copy", "copy of new", "int", "moved", "new"]);
    assert_eq!(t.names("copy ")?, ["copy of new"]);
    assert_eq!(t.peek::<i64>("goes")?, 1, "what others see");
    assert_eq!(brain.names("")?, ["goes", "old"]);
    let held = t.recall::<Blob>("new")?;
    assert_eq!(brain.stats()?.leases, leases, "nothing is held in the store meanwhile");
    let version = t.commit()?;
    assert_eq!(held[0], 2);
    assert_eq!(brain.names("")?, ["copy", "copy of new", "int", "moved", "new"]);
    assert!(brain.metadata("int")?.is_some_and(|it| it.version == version));
    assert_eq!(*brain.in_namespace("other-names")?.recall::<Blob>("new")?, *vec![3; 1_000]);
    for ended in [t.commit(), t.learn("x", &1).map(|()| 0), t.recall::<i64>("int").map(|_| 0)] {
        assert!(matches!(ended, Err(Error::TransactionEnded)), "{ended:?}");
    }
    let t = brain.transaction();
    t.learn("int", &43)?;
    let own = t.recall::<i64>("int")?;
    t.rollback();
    assert_eq!((own, brain.recall::<i64>("int")?), (43, 42));
    Ok(())
}

/// Whatever others do to what was read, written or listed is a conflict, which names it; and nothing has happened.
#[test]
fn every_kind_of_conflict_is_found_and_named() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let conflict = |result: Result<u64, Error>| match result {
        Err(Error::TransactionConflict { conflicts, more: 0 }) => {
            conflicts.into_iter().map(|it| it.name.unwrap_or_else(|| "all".to_owned())).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    brain.learn("read", &1)?;
    brain.learn("written", &1)?;
    // What was read was bound anew.
    let t = brain.transaction();
    t.recall::<i64>("read")?;
    t.learn("result", &1)?;
    brain.learn("read", &2)?;
    assert_eq!(conflict(t.commit()), ["read"]);
    assert!(!brain.exists("result")?);
    // A second read in the transaction finds out at once.
    let t = brain.transaction();
    t.recall::<i64>("read")?;
    brain.learn("read", &3)?;
    assert_eq!(conflict(t.recall::<i64>("read").map(|_| 0)), ["read"]);
    // What was not there is there now; what is only written was changed.
    let t = brain.transaction();
    assert!(!t.exists("absent")?);
    t.learn("written", &2)?;
    brain.learn("absent", &1)?;
    brain.learn("written", &3)?;
    assert_eq!(conflict(t.commit()), ["absent", "written"]);
    let t = brain.transaction_with_blind_writes();
    t.learn("written", &4)?;
    brain.learn("written", &5)?;
    t.commit()?;
    assert_eq!(brain.recall::<i64>("written")?, 4);
    // A name that comes, or goes, where all were listed.
    let t = brain.transaction();
    t.names("")?;
    t.learn("count", &4)?;
    brain.learn("one more", &1)?;
    assert_eq!(conflict(t.commit()), ["all"]);
    let t = brain.transaction();
    t.names("")?;
    brain.forget("one more")?;
    assert_eq!(conflict(t.commit()), ["all"]);
    let t = brain.transaction();
    t.names("")?;
    brain.in_namespace("other-names")?.learn("x", &1)?;
    t.learn("count", &5)?;
    t.commit()?;
    // What is copied is gone.
    let t = brain.transaction();
    t.copy("count", "copy")?;
    brain.forget("count")?;
    assert_eq!(conflict(t.commit()), ["count"]);
    assert!(t.copy("x", "y").is_err());
    Ok(())
}

/// Growth-review G22: an error that comes of what did not hold any more is no error of the body.
#[test]
fn a_body_that_fails_on_what_has_changed_is_done_again() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    brain.learn("a", &50)?;
    brain.learn("b", &50)?;
    let mut tries = 0;
    let total = brain.transact(|t| {
        tries += 1;
        let a = t.recall::<i64>("a")?;
        if tries == 1 {
            // Somebody moves an amount between the two reads.
            brain.batch()?.learn("a", &60)?.learn("b", &40)?.commit()?;
        }
        match a + t.recall::<i64>("b")? {
            100 => Ok(100),
            wrong => Err(Error::Internal { what: format!("the total is {wrong}") }),
        }
    })?;
    assert_eq!((total, tries), (100, 2));
    let failed = brain.transact(|t| {
        t.learn("a", &0)?;
        Err::<(), _>(Error::Internal { what: "its own".to_owned() })
    });
    assert!(matches!(failed, Err(Error::Internal { .. })));
    assert_eq!(brain.recall::<i64>("a")?, 60);
    let contended = brain.transact_within(3, |t| {
        let seen = t.recall::<i64>("a")?;
        brain.learn("a", &(seen + 1))?;
        t.learn("a", &0)
    });
    assert!(matches!(contended, Err(Error::Contended { tries: 3 })), "{contended:?}");
    assert_eq!(brain.recall::<i64>("a")?, 63);
    Ok(())
}

#[test]
fn counters_and_pops_lose_nothing_whoever_else_does_the_same() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::start(CLIENT, daemon.socket())).collect();
    clients.iter_mut().for_each(|client| client.tell("incr counter 300"));
    clients.iter_mut().for_each(|client| drop(client.answer()));
    assert_eq!(brain.recall::<i64>("counter")?, 900);
    brain.learn_with("brief", &7, &LearnOptions::new().ttl(Duration::from_secs(1_000)))?;
    assert_eq!(brain.incr("brief", -10)?, -3);
    assert!(brain.metadata("brief")?.is_some_and(|it| it.ttl == Some(Duration::from_secs(1_000))));
    brain.learn("text", "no number")?;
    assert!(matches!(brain.incr("text", 1), Err(Error::WrongKind { .. })));
    brain.learn("most", &i64::MAX)?;
    assert!(matches!(brain.incr("most", 1), Err(Error::Overflow { .. })));
    for number in 0..200_i64 {
        brain.learn(&format!("job {number}"), &number)?;
    }
    let popped = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let pop = |number| brain.pop::<i64>(&format!("job {number}")).ok();
                    (0..200).filter_map(pop).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("it did not panic")).collect::<Vec<_>>()
    });
    let mut sorted = popped;
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..200), "each was popped once");
    Ok(())
}

/// Growth-review G25: a lock is its process's: what it guards is done by one at a time, and it goes with whoever dies.
#[test]
fn a_lock_is_held_by_one_and_ends_with_its_process() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    brain.learn("locked one", &0)?;
    brain.learn("locked two", &0)?;
    let mut clients: Vec<Client> = (0..3).map(|_| Client::start(CLIENT, daemon.socket())).collect();
    clients.iter_mut().for_each(|client| client.tell("locked 50"));
    clients.iter_mut().for_each(|client| drop(client.answer()));
    assert_eq!((brain.recall::<i64>("locked one")?, brain.recall::<i64>("locked two")?), (150, 150));
    let mut holder = Client::start(CLIENT, daemon.socket());
    let version = holder.ask_for_number("keep-lock mine");
    let late = brain.lock("mine", Duration::from_millis(10)).unwrap_err();
    assert!(matches!(late, Error::WaitTimeout { .. }), "{late}");
    let waiter = brain.clone();
    let waiting = std::thread::spawn(move || waiter.lock("mine", Duration::from_secs(60)));
    eventually("it waits", || brain.stats().expect("the store answers").waits == 1);
    holder.signal(Signal::SIGKILL);
    let lock = waiting.join().expect("it did not panic")?;
    assert!(lock.version() > version && lock.is_held()?);
    // Who depends on the lock does nothing once it is lost.
    let guarded = LearnOptions::new().if_held("mine", lock.version());
    brain.learn_with("guarded", &1, &guarded)?;
    brain.forget("mine")?; // somebody takes it away
    assert!(matches!(brain.learn_with("guarded", &2, &guarded), Err(Error::ConditionFailed { .. })));
    assert!(!lock.is_held()? && !lock.release()?);
    Ok(())
}
