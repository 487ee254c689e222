//! What waits: one table of every request that cannot go on yet, what each needs, and until when.
//!
//! | it needs | what ends the waiting |
//! | --- | --- |
//! | a scan that begins from now on | the scan thread's report |
//! | that all is unbound that had expired by a moment | the step that unbinds what has expired |
//! | that no commit is half visible | the step that works off commits |
//! | room, for which cached bindings must give way | the eviction that it gets when its turn comes |
//! | pages, or a copy | the helper's report, which carries the ticket |
//! | that no other long commit is in private memory | the end of that commit |
//! | a name | the commit, the expiry or the eviction that changes the name |
//!
//! Besides, a wait ends when its deadline has passed ([`Parked::take_late`]), when its connection ends
//! ([`Parked::take_of`]; a copy goes on), and when the store shuts down ([`Parked::take_any`]). Each of them costs as much as it finds,
//! however much else waits: one process may wait 64,000 times for one name.
//!
//! Needs that depend on the state alone (the first three) have no list that somebody has to work off:
//! [`Parked::take_met`] compares them with the moment. So nothing can be forgotten there.

#[cfg(test)]
mod tests;

use crate::{
    allocator::Extent,
    budget::Held,
    commit::CommitJob,
    connection::{ConnectionId, Peer},
    copy::Run,
    evict::Shortage,
    reclaim::Report,
    session::SessionId,
    space::LeaseId,
};
use plasmon_protocol::{
    id::NameId,
    message::{AnyRequest, Hello},
};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    os::fd::OwnedFd,
    time::Instant,
};

/// Where a reply goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplyTo {
    pub(crate) connection: ConnectionId,
    pub(crate) request_id: u64,
    pub(crate) held: Held,
}

/// Something that cannot go on yet.
#[derive(Debug)]
pub(crate) struct Suspended {
    pub(crate) reply_to: ReplyTo,
    pub(crate) what: What,
}

/// What it is.
#[derive(Debug)]
pub(crate) enum What {
    /// A request, which is handled anew when it has what it needs.
    Request(Box<Request>),
    /// A commit, which goes on where it was.
    Commit(Box<CommitJob>),
    /// A commit whose body stands in a lease.
    LongCommit(LongCommit),
    /// Somebody who begins a session, and may when sessions that have said goodbye have ended.
    Hello(Box<(Hello, Newcomer)>),
    /// A lease that is to be granted.
    Lease(Grant),
    /// A wait for a name.
    Name(Until),
}

/// A request of a session.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) session: SessionId,
    pub(crate) request: AnyRequest,
    /// Set for a request that counts or lists names: what had expired by then, by CLOCK_BOOTTIME, is unbound before it is
    /// answered.
    pub(crate) as_of_ns: Option<u64>,
    pub(crate) tried: Tried,
}

/// What was done for something that finds no room, or that must know what is pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tried {
    #[default]
    Nothing,
    /// A scan was made, and what it found unpinned is free.
    Scan,
    /// Cached bindings gave way so many times.
    Evicting(u8),
}

/// Who says Hello.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) peer: Peer,
    /// The process, where the kernel gives that; or why it cannot be had.
    pub(crate) pidfd: Result<Option<OwnedFd>, String>,
}

impl Newcomer {
    /// Takes the process; `None` where the kernel does not give that.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub(crate) fn take_pidfd(&mut self) -> Result<Option<OwnedFd>, String> {
        std::mem::replace(&mut self.pidfd, Ok(None))
    }
}

/// A lease that a session is to get. `grown_from` is the length before, in bytes, of a lease that was extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) session: SessionId,
    pub(crate) lease: LeaseId,
    pub(crate) grown_from: Option<u64>,
}

/// A commit whose body stands in a lease.
#[derive(Debug)]
pub(crate) struct LongCommit {
    pub(crate) session: SessionId,
    /// Claimed, so that nobody else writes there until it is copied.
    pub(crate) piece: Extent,
    pub(crate) run: Run,
}

/// What a wait for a name waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// The name is bound with a version above this one.
    Above(u64),
    /// The name is bound with another version than this one, or not at all; 0 is not being bound.
    Not(u64),
}

impl Until {
    /// Whether it has come, now that the name is bound with `version`; 0 if it is not bound.
    pub(crate) fn has_come(self, version: u64) -> bool {
        match self {
            Until::Above(known) => version > known,
            Until::Not(known) => version != known,
        }
    }

    fn known(self) -> u64 {
        match self {
            Until::Above(version) | Until::Not(version) => version,
        }
    }
}

/// What something needs before it can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A scan that begins from now on and reports so much; with `usage` also what the daemon itself takes.
    Scan { report: Report, usage: bool },
    /// That all is unbound that had expired by then, by CLOCK_BOOTTIME in nanoseconds.
    Expiry { as_of_ns: u64 },
    /// That no commit is half visible.
    WholeCommits,
    /// Room, for which cached bindings must give way.
    Room(Shortage),
}

/// What a ticket waits for, as the table orders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// The scan of this number, or a later one.
    Scan(u64),
    Expiry(u64),
    WholeCommits,
    Room,
    Pages,
    Copy,
    /// To be the long commit that is in private memory.
    LongCommit,
    Name,
}

/// A place in the table: the number of what waits, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// What decides whether needs are met.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Number of the last scan that is done.
    pub(crate) scans_done: u64,
    /// When the first binding expires that is not unbound, by CLOCK_BOOTTIME in nanoseconds.
    pub(crate) first_expiry_ns: u64,
    pub(crate) is_mid_commit: bool,
}

#[derive(Debug)]
struct Entry {
    who: Suspended,
    wants: Wants,
    deadline: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Wants {
    This(Key),
    Room(Shortage),
    Name(NameId),
}

impl Wants {
    fn key(self) -> Key {
        match self {
            Wants::This(key) => key,
            Wants::Room(_) => Key::Room,
            Wants::Name(_) => Key::Name,
        }
    }
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    by_ticket: HashMap<Ticket, Entry>,
    by_need: BTreeSet<(Key, Ticket)>,
    by_name: HashMap<NameId, Waiters>,
    by_deadline: BTreeSet<(Instant, Ticket)>,
    by_connection: HashMap<ConnectionId, BTreeSet<Ticket>>,
    /// Waits for names that have not come.
    waits: u64,
    /// Waits for names that have come and are not answered yet, each with the version that it is answered with.
    come: VecDeque<(Suspended, u64)>,
    last: u64,
}

/// The waits for one name, by the version that each knows.
#[derive(Debug, Default)]
struct Waiters {
    above: BTreeSet<(u64, Ticket)>,
    not: BTreeSet<(u64, Ticket)>,
}

impl Parked {
    /// Lets `who` wait for what `key` says, which is neither room nor a name.
    pub(crate) fn add(&mut self, who: Suspended, key: Key, deadline: Option<Instant>) -> Ticket {
        self.insert(Entry { who, wants: Wants::This(key), deadline })
    }

    /// Lets `who` wait for room.
    pub(crate) fn add_short(&mut self, who: Suspended, shortage: Shortage) -> Ticket {
        self.insert(Entry { who, wants: Wants::Room(shortage), deadline: None })
    }

    /// Lets a request wait for a name.
    pub(crate) fn add_wait(
        &mut self,
        reply_to: ReplyTo,
        id: NameId,
        until: Until,
        deadline: Option<Instant>,
    ) -> Ticket {
        let who = Suspended { reply_to, what: What::Name(until) };
        let ticket = self.insert(Entry { who, wants: Wants::Name(id), deadline });
        self.waits += 1;
        self.by_name.entry(id).or_default().of(until).insert((until.known(), ticket));
        ticket
    }

    fn insert(&mut self, entry: Entry) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.by_need.insert((entry.wants.key(), ticket));
        self.by_deadline.extend(entry.deadline.map(|at| (at, ticket)));
        // A copy goes on, whoever asked for it: what it writes to must not be given to anybody else.
        if entry.wants.key() != Key::Copy {
            self.by_connection.entry(entry.who.reply_to.connection).or_default().insert(ticket);
        }
        self.by_ticket.insert(ticket, entry);
        ticket
    }

    /// Takes what has this ticket, if it waits still.
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<Suspended> {
        let entry = self.by_ticket.remove(&ticket)?;
        self.by_need.remove(&(entry.wants.key(), ticket));
        if let Some(at) = entry.deadline {
            self.by_deadline.remove(&(at, ticket));
        }
        if let (Wants::Name(id), What::Name(until)) = (entry.wants, &entry.who.what)
            && let Some(waiters) = self.by_name.get_mut(&id)
        {
            self.waits -= 1;
            waiters.of(*until).remove(&(until.known(), ticket));
            if waiters.above.is_empty() && waiters.not.is_empty() {
                self.by_name.remove(&id);
            }
        }
        let connection = entry.who.reply_to.connection;
        if let Some(tickets) = self.by_connection.get_mut(&connection) {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                self.by_connection.remove(&connection);
            }
        }
        Some(entry.who)
    }

    /// Whether something has what it needs at `moment`, or a wait for a name has come.
    pub(crate) fn has_met(&self, moment: Moment) -> bool {
        !self.come.is_empty() || self.first_met(moment).is_some()
    }

    /// Takes something that has what it needs at `moment`.
    pub(crate) fn take_met(&mut self, moment: Moment) -> Option<Suspended> {
        let ticket = self.first_met(moment)?;
        self.take(ticket)
    }

    fn first_met(&self, moment: Moment) -> Option<Ticket> {
        let Moment { scans_done, first_expiry_ns, is_mid_commit } = moment;
        self.first(Key::Scan(0), Key::Scan(scans_done))
            .or_else(|| self.first(Key::Expiry(0), Key::Expiry(first_expiry_ns.checked_sub(1)?)))
            .or_else(|| if is_mid_commit { None } else { self.first(Key::WholeCommits, Key::WholeCommits) })
    }

    /// The ticket that waits longest for what comes first from `from` to `to`.
    fn first(&self, from: Key, to: Key) -> Option<Ticket> {
        self.by_need.range((from, Ticket(0))..=(to, Ticket(u64::MAX))).next().map(|&(_, ticket)| ticket)
    }

    /// The name with this id is bound with `version` now; 0 if it is not bound. Who waits for that will be
    /// [answered](Self::take_come).
    pub(crate) fn name_changed(&mut self, id: &NameId, version: u64) {
        while let Some(ticket) = self.by_name.get(id).and_then(|waiters| waiters.first_met(version)) {
            let Some(who) = self.take(ticket) else { return };
            self.come.push_back((who, version));
        }
    }

    /// Takes a wait for a name that has come, and the version of that.
    pub(crate) fn take_come(&mut self) -> Option<(Suspended, u64)> {
        self.come.pop_front()
    }

    /// Whether somebody waits for the name with this id.
    pub(crate) fn has_waiter(&self, id: &NameId) -> bool {
        self.by_name.contains_key(id)
    }

    /// Whether nobody waits for any name.
    pub(crate) fn has_no_waiters(&self) -> bool {
        self.by_name.is_empty()
    }

    /// How many wait for names.
    pub(crate) fn wait_count(&self) -> u64 {
        self.waits + self.come.len() as u64
    }

    /// What waits longest for room, and what it lacks.
    pub(crate) fn first_short(&self) -> Option<(Ticket, Shortage)> {
        let ticket = self.first(Key::Room, Key::Room)?;
        match self.by_ticket.get(&ticket)?.wants {
            Wants::Room(shortage) => Some((ticket, shortage)),
            Wants::This(_) | Wants::Name(_) => None,
        }
    }

    /// The long commit that waits longest for its turn in private memory.
    pub(crate) fn take_long_commit(&mut self) -> Option<Suspended> {
        let ticket = self.first(Key::LongCommit, Key::LongCommit)?;
        self.take(ticket)
    }

    /// What waits.
    pub(crate) fn get(&self, ticket: Ticket) -> Option<&Suspended> {
        self.by_ticket.get(&ticket).map(|entry| &entry.who)
    }

    /// Whether something waits that needs what lies from `from` to `to`.
    pub(crate) fn needs(&self, from: Key, to: Key) -> bool {
        self.first(from, to).is_some()
    }

    /// When the first wait has lasted long enough.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|&(at, _)| at)
    }

    /// Takes something whose deadline has passed at `now`.
    pub(crate) fn take_late(&mut self, now: Instant) -> Option<Suspended> {
        let &(at, ticket) = self.by_deadline.first()?;
        if at <= now { self.take(ticket) } else { None }
    }

    /// Takes something that a connection waits for, but for copies.
    pub(crate) fn take_of(&mut self, connection: ConnectionId) -> Option<Suspended> {
        let &ticket = self.by_connection.get(&connection)?.first()?;
        self.take(ticket)
    }

    /// Takes anything.
    pub(crate) fn take_any(&mut self) -> Option<Suspended> {
        match self.by_need.first() {
            Some(&(_, ticket)) => self.take(ticket),
            None => self.come.pop_front().map(|(who, _)| who),
        }
    }
}

impl Waiters {
    fn of(&mut self, until: Until) -> &mut BTreeSet<(u64, Ticket)> {
        match until {
            Until::Above(_) => &mut self.above,
            Until::Not(_) => &mut self.not,
        }
    }

    /// One that is met by `version`: the one that knows the lowest version, or of those that wait for any other version
    /// the one that knows the highest.
    fn first_met(&self, version: u64) -> Option<Ticket> {
        let above = self.above.first().filter(|&&(known, _)| version > known);
        let other = || {
            [self.not.first(), self.not.last()].into_iter().flatten().find(|&&(known, _)| known != version)
        };
        above.or_else(other).map(|&(_, ticket)| ticket)
    }
}
