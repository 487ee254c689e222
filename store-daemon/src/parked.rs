//! What waits: one table of every request that cannot go on yet, what each needs, and until when.
//!
//! | it needs | what ends the waiting |
//! | --- | --- |
//! | a scan that begins from now on | the scan thread's report |
//! | that all is unbound that had expired by a moment | the step that unbinds what has expired |
//! | that no commit is half visible, or under way | the step that works off commits |
//! | room, for which cached bindings must give way | the eviction that it gets when its turn comes |
//! | pages, or a copy | the helper's report, which carries the ticket |
//! | that no other long commit is in private memory | the end of that commit |
//! | a name | the commit, the expiry or the eviction that changes the name |
//!
//! Besides, a wait ends when its deadline has passed ([`Parked::take_late`]), when its connection ends
//! ([`Parked::take_of`]; a copy goes on, and so does a long commit that nobody has read), and when the store shuts down ([`Parked::take_any`]). Each of them costs as much as it finds,
//! however much else waits: one process may wait 64,000 times for one name.
//!
//! Needs that depend on the state alone (the first three) have no list that somebody has to work off: [`Parked::wake`]
//! compares them with the moment. So nothing can be forgotten there.
//!
//! # Who comes first
//!
//! Where many wait for the same, processes take turns: the second thing that a process lets wait comes behind the first
//! one of every other (start-time fair queueing, as in P. Goyal, H. M. Vin and H. Cheng, "Start-time Fair Queuing", 1996,
//! with things of equal length). So whoever lets thousands wait holds up nobody but itself.
//!
//! `State` parks what a handler says must wait, and takes it out again when one of these things has happened.

#[cfg(test)]
mod tests;

use crate::{
    allocator::Extent,
    budget::Held,
    commit::CommitJob,
    connection::{ConnectionId, Peer},
    copy::Run,
    evict::Shortage,
    fast_hash::FastMap,
    reclaim::Report,
    session::SessionId,
    slice::Slice,
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

impl ReplyTo {
    /// Who asked.
    pub(crate) fn process(self) -> Peer {
        self.held.peer
    }
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
    /// That no commit is under way.
    NoCommit,
    /// Room, for which cached bindings must give way.
    Room(Shortage),
}

/// What a ticket waits for, as the table orders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// Nothing any more: it goes on when its turn comes.
    Ready,
    /// The scan of this number, or a later one.
    Scan(u64),
    Expiry(u64),
    WholeCommits,
    NoCommit,
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
    pub(crate) is_commit_under_way: bool,
}

#[derive(Debug)]
struct Entry {
    who: Suspended,
    wants: Wants,
    /// Which of its process's turns it has.
    round: u64,
    deadline: Option<Instant>,
}

/// The turns of one process.
#[derive(Clone, Copy, Debug)]
struct Rounds {
    /// The turn of what it let wait last.
    last: u64,
    /// How much of it waits.
    count: usize,
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
    by_ticket: FastMap<Ticket, Entry>,
    by_need: BTreeSet<(Key, u64, Ticket)>,
    by_name: HashMap<NameId, Waiters>,
    by_deadline: BTreeSet<(Instant, Ticket)>,
    by_connection: FastMap<ConnectionId, BTreeSet<Ticket>>,
    by_process: FastMap<Peer, Rounds>,
    /// The turn of what went on last.
    round: u64,
    /// Waits for names.
    waits: u64,
    /// Waits for names that have come and are not answered yet, with the version that they are answered with.
    come: VecDeque<(u64, BTreeSet<(u64, Ticket)>)>,
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
        self.insert(who, Wants::This(key), deadline)
    }

    /// Lets `who` wait for room.
    pub(crate) fn add_short(&mut self, who: Suspended, shortage: Shortage) -> Ticket {
        self.insert(who, Wants::Room(shortage), None)
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
        let ticket = self.insert(who, Wants::Name(id), deadline);
        self.waits += 1;
        self.by_name.entry(id).or_default().of(until).insert((until.known(), ticket));
        ticket
    }

    fn insert(&mut self, who: Suspended, wants: Wants, deadline: Option<Instant>) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        let process = self.by_process.entry(who.reply_to.process());
        let rounds = process.or_insert(Rounds { last: self.round, count: 0 });
        rounds.last = self.round.max(rounds.last) + 1;
        rounds.count += 1;
        let entry = Entry { who, wants, round: rounds.last, deadline };
        self.by_need.insert((wants.key(), entry.round, ticket));
        self.by_deadline.extend(entry.deadline.map(|at| (at, ticket)));
        // A copy goes on, whoever asked for it: what it writes to must not be given to anybody else. So does a long commit
        // that nobody has read yet: it says which leases end with it.
        if ![Key::Copy, Key::LongCommit].contains(&entry.wants.key()) {
            self.by_connection.entry(entry.who.reply_to.connection).or_default().insert(ticket);
        }
        self.by_ticket.insert(ticket, entry);
        ticket
    }

    /// Takes what has this ticket, if it waits still.
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<Suspended> {
        let entry = self.by_ticket.remove(&ticket)?;
        self.by_need.remove(&(entry.wants.key(), entry.round, ticket));
        if let Some(rounds) = self.by_process.get_mut(&entry.who.reply_to.process()) {
            rounds.count -= 1;
            if rounds.count == 0 {
                self.by_process.remove(&entry.who.reply_to.process());
            }
        }
        if let Some(at) = entry.deadline {
            self.by_deadline.remove(&(at, ticket));
        }
        if let (Wants::Name(id), What::Name(until)) = (entry.wants, &entry.who.what) {
            self.waits -= 1;
            if let Some(waiters) = self.by_name.get_mut(&id) {
                waiters.of(*until).remove(&(until.known(), ticket));
                if waiters.is_empty() {
                    self.by_name.remove(&id);
                }
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

    /// Whether something can go on at `moment`.
    pub(crate) fn can_go_on(&self, moment: Moment) -> bool {
        !self.come.is_empty()
            || self.first(Key::Ready, Key::Ready).is_some()
            || self.first_met(moment).is_some()
    }

    /// Makes ready what has what it needs at `moment`, for as long as `slice` lasts.
    pub(crate) fn wake(&mut self, moment: Moment, slice: &mut Slice) {
        while let Some(ticket) = self.first_met(moment) {
            if let Some(entry) = self.by_ticket.get_mut(&ticket) {
                self.by_need.remove(&(entry.wants.key(), entry.round, ticket));
                entry.wants = Wants::This(Key::Ready);
                self.by_need.insert((Key::Ready, entry.round, ticket));
            }
            if !slice.spend() {
                return;
            }
        }
    }

    /// Takes what is ready and comes first.
    pub(crate) fn take_ready(&mut self) -> Option<Suspended> {
        let ticket = self.first(Key::Ready, Key::Ready)?;
        self.round = self.round.max(self.by_ticket.get(&ticket)?.round);
        self.take(ticket)
    }

    fn first_met(&self, moment: Moment) -> Option<Ticket> {
        let Moment { scans_done, first_expiry_ns, is_mid_commit, is_commit_under_way } = moment;
        self.first(Key::Scan(0), Key::Scan(scans_done))
            .or_else(|| self.first(Key::Expiry(0), Key::Expiry(first_expiry_ns.checked_sub(1)?)))
            .or_else(|| if is_mid_commit { None } else { self.first(Key::WholeCommits, Key::WholeCommits) })
            .or_else(|| if is_commit_under_way { None } else { self.first(Key::NoCommit, Key::NoCommit) })
    }

    /// What comes first of what waits for something from `from` to `to`.
    fn first(&self, from: Key, to: Key) -> Option<Ticket> {
        let range = (from, 0, Ticket(0))..=(to, u64::MAX, Ticket(u64::MAX));
        self.by_need.range(range).next().map(|&(.., ticket)| ticket)
    }

    /// The name with this id is bound with `version` now; 0 if it is not bound. Who waits for that will be
    /// [answered](Self::take_come): here the waits that have come are only set apart, so that a million of them hold up
    /// nobody.
    pub(crate) fn name_changed(&mut self, id: &NameId, version: u64) {
        let Some(waiters) = self.by_name.get_mut(id) else { return };
        let come = waiters.take_met(version).into_iter().filter(|tickets| !tickets.is_empty());
        self.come.extend(come.map(|tickets| (version, tickets)));
        if waiters.is_empty() {
            self.by_name.remove(id);
        }
    }

    /// Takes a wait for a name that has come, and the version that it is answered with.
    pub(crate) fn take_come(&mut self) -> Option<(Suspended, u64)> {
        loop {
            let (version, tickets) = self.come.front_mut()?;
            let version = *version;
            match tickets.pop_first() {
                // It may have ended meanwhile, with its connection or its time.
                Some((_, ticket)) => match self.take(ticket) {
                    Some(who) => return Some((who, version)),
                    None => continue,
                },
                None => drop(self.come.pop_front()),
            }
        }
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
        self.waits
    }

    /// Whether something waits for room.
    pub(crate) fn has_short(&self) -> bool {
        self.first(Key::Room, Key::Room).is_some()
    }

    /// What comes first of what waits for room, and what it lacks.
    pub(crate) fn first_short(&mut self) -> Option<(Ticket, Shortage)> {
        let ticket = self.first(Key::Room, Key::Room)?;
        let entry = self.by_ticket.get(&ticket)?;
        self.round = self.round.max(entry.round);
        match entry.wants {
            Wants::Room(shortage) => Some((ticket, shortage)),
            Wants::This(_) | Wants::Name(_) => None,
        }
    }

    /// Takes the long commit that comes first.
    pub(crate) fn take_long_commit(&mut self) -> Option<Suspended> {
        let ticket = self.first(Key::LongCommit, Key::LongCommit)?;
        self.round = self.round.max(self.by_ticket.get(&ticket)?.round);
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

    /// Takes something that a connection waits for, but for copies and long commits.
    pub(crate) fn take_of(&mut self, connection: ConnectionId) -> Option<Suspended> {
        let &ticket = self.by_connection.get(&connection)?.first()?;
        self.take(ticket)
    }

    /// Takes anything.
    pub(crate) fn take_any(&mut self) -> Option<Suspended> {
        let &(.., ticket) = self.by_need.first()?;
        self.take(ticket)
    }
}

impl Waiters {
    fn of(&mut self, until: Until) -> &mut BTreeSet<(u64, Ticket)> {
        match until {
            Until::Above(_) => &mut self.above,
            Until::Not(_) => &mut self.not,
        }
    }

    fn is_empty(&self) -> bool {
        self.above.is_empty() && self.not.is_empty()
    }

    /// Sets those apart that are met by `version`. Costs no more than counting them.
    fn take_met(&mut self, version: u64) -> [BTreeSet<(u64, Ticket)>; 3] {
        let first_of = |version| (version, Ticket(0));
        let not_above = self.above.split_off(&first_of(version));
        let mut same = self.not.split_off(&first_of(version));
        let others = match version.checked_add(1) {
            Some(next) => same.split_off(&first_of(next)),
            None => BTreeSet::new(),
        };
        let above = std::mem::replace(&mut self.above, not_above);
        [above, std::mem::replace(&mut self.not, same), others]
    }
}
