//! A simulated loop: the state of a store without sockets and threads, under a clock that stands still.
//!
//! Clients, helper threads and time are simulated. A schedule that a seed decides says what happens next: a client asks for
//! something, publishes or withdraws a pin, closes a connection or dies; a helper finishes its oldest job; time passes; the
//! loop takes a turn, with slices of few entries. Helpers do what they really do (the scan thread's own code reads real pin
//! tables), but when the schedule says so. After each event the promises of the store are checked against what the clients
//! know.

use super::*;
use crate::{
    catalog::tests::fresh,
    connection::Peer,
    copy::CopyJob,
    parked::{Newcomer, Request},
    populate::Populated,
    recalls,
    reclaim::{Job, Report, Scanner},
    request::LookUp,
    session::Orphan,
};
use bytes::Bytes;
use plasmon_protocol::{
    codec::Codec,
    index::Entry,
    message::*,
    name::Name,
    object::{Header, Kind},
    pins::SessionRegion,
};
use plasmon_shm::Backend;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

const CAPACITY_BYTES: u64 = 192 << 10;
const ENTRIES: u32 = 24;
const CLIENTS: u64 = 4;
const NAMES: u64 = 10;

/// Fewer entries would not do for every step; a real slice has 32 at least.
const SLICE_ENTRIES_MIN: u64 = 4;

/// The first slot of pins that a look-up of many names uses.
const FIND_MANY_SLOT: u32 = 100;

/// What a schedule is made of: xorshift64* (G. Marsaglia, "Xorshift RNGs", 2003).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// What a client asked for and has no answer to.
#[derive(Debug)]
enum Asked {
    /// A session.
    Hello,
    /// To join its session.
    Join,
    Learn(Vec<Written>),
    Forget(Place),
    Clear(u8),
    Find(Place, u32),
    /// All names of `default`, into the slots from [`FIND_MANY_SLOT`] on.
    FindMany,
    /// That a name is bound with another version than this one.
    Change(Place, u64),
    Lease(u64),
    /// Anything that may be answered with whatever there is.
    Other,
}

/// A namespace and a name.
type Place = (u8, u64);

/// An object that a client has written: its bytes are all the same.
#[derive(Clone, Debug)]
struct Written {
    place: Place,
    byte: u8,
    len_bytes: u64,
    lives_forever: bool,
}

/// A simulated client process.
#[derive(Debug, Default)]
struct Client {
    /// Its lifeline and the connection that it asks by, as far as they are there.
    lifeline: Option<ConnectionId>,
    requests: Option<ConnectionId>,
    session: Option<SessionId>,
    token: [u8; 16],
    /// What it holds in place: pin slot, offset and bytes.
    pins: BTreeMap<u32, (u64, Vec<u8>)>,
    lease: Option<(u64, u64, u64)>,
    is_dead: bool,
}

struct World {
    chance: Chance,
    clock: Clock,
    state: State,
    scanner: Scanner,
    scans: VecDeque<Job>,
    looks: VecDeque<Vec<Orphan>>,
    demands: VecDeque<u64>,
    copies: VecDeque<CopyJob>,
    clients: Vec<Client>,
    asked: HashMap<u64, (usize, ConnectionId, Asked)>,
    next_request: u64,
    next_connection: u64,
    next_byte: u8,
    /// What every name is bound to that was learned for ever, outside of the cache, and whose learning was answered.
    known: BTreeMap<Place, (u64, Written)>,
    last_version: u64,
}

fn namespace(number: u8) -> Namespace {
    Namespace::new(["default", "other-names", "cached-names"][usize::from(number)])
        .expect("a valid namespace")
}

fn name(number: u64) -> Name {
    Name::new(&format!("name {number}")).expect("a valid name")
}

fn encoded<M: Codec>(message: &M) -> Bytes {
    let mut body = Vec::new();
    message.encode(&mut body);
    body.into()
}

impl World {
    fn new(seed: u64) -> World {
        let mut chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let clock = Clock::simulated(u32::try_from(SLICE_ENTRIES_MIN + chance.below(8)).expect("few"));
        let (catalog, _) = fresh(ENTRIES, CAPACITY_BYTES);
        let cache = crate::standing::Cache { namespace: namespace(2), ttl: None };
        let catalog = catalog.with_caches(&[cache]).expect("no other namespace has its id");
        let kernel = Kernel::detect();
        let region = |bytes| Region::create("plasmon-test", bytes, Backend::Memfd, &kernel).expect("memory");
        let populates = chance.one_in(2);
        let facts = Facts {
            options: Options::new(CAPACITY_BYTES, "socket".into()),
            own_uid: 7,
            overflow_uid: 65_534,
            store_uuid: [7; 16],
            started: clock.now(),
            capacity_bytes: CAPACITY_BYTES,
            arena: Arc::new(region(CAPACITY_BYTES)),
            index: region(4_096),
            labels: Labels::default(),
            session_bytes: plasmon_protocol::layout::session::words(ENTRIES) as u64 * 8,
            openings: None,
            populates,
            memory_limit: None,
            session_descriptors: 1_000,
            kernel,
        };
        let populated = match populates {
            true => Populated::nothing(CAPACITY_BYTES),
            false => Populated::by_writers(CAPACITY_BYTES),
        };
        let state = State::new(facts, clock.clone(), catalog, Space::new(CAPACITY_BYTES, populated));
        World {
            chance,
            clock,
            state,
            scanner: Scanner::default(),
            scans: VecDeque::new(),
            looks: VecDeque::new(),
            demands: VecDeque::new(),
            copies: VecDeque::new(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            asked: HashMap::new(),
            next_request: 0,
            next_connection: 0,
            next_byte: 0,
            known: BTreeMap::new(),
            last_version: 0,
        }
    }

    /// One event, as chance decides.
    fn happen(&mut self) {
        match self.chance.below(20) {
            0..=8 => {
                let who = usize::try_from(self.chance.below(CLIENTS)).expect("few");
                self.act(who);
            }
            9..=13 => self.turn(),
            14..=17 => self.help(),
            _ => {
                let ms = [1, 5, 40, 150, 1_100][usize::try_from(self.chance.below(5)).expect("few")];
                self.clock.pass(Duration::from_millis(ms));
            }
        }
        self.carry_out();
        self.check();
    }

    fn turn(&mut self) {
        for step in STEPS {
            step.run_if_due(&mut self.state);
            self.carry_out();
        }
    }

    /// A helper finishes its oldest job.
    fn help(&mut self) {
        match self.chance.below(5) {
            0 | 1 => match self.scans.pop_front() {
                Some(Job::Scan(scan)) => {
                    let done = self.scanner.scan(scan);
                    self.state.on_report(HelperReport::Scanned(done));
                }
                Some(Job::Collect(round)) => {
                    let slid = recalls::collect(&round, self.clock.boottime_ns());
                    self.state.on_report(HelperReport::Collected(slid));
                }
                None => {}
            },
            2 => {
                let Some(orphans) = self.looks.pop_front() else { return };
                let is_gone = |orphan: &Orphan| {
                    self.clients.iter().any(|client| client.is_dead && client.session == Some(orphan.session))
                };
                let gone = orphans.iter().filter(|orphan| is_gone(orphan)).map(|orphan| orphan.session);
                let gone = gone.collect();
                self.state.on_report(HelperReport::Looked(gone));
            }
            3 => {
                let Some(ticket) = self.demands.pop_front() else { return };
                let progress =
                    if self.chance.one_in(5) { Progress::Short(ticket) } else { Progress::Met(ticket) };
                self.state.on_report(HelperReport::Populated(progress));
            }
            _ => match self.copies.pop_front() {
                Some(CopyJob::Body { ticket, run }) => {
                    let mut body = vec![0; plasmon_protocol::index_of(run.to.len_bytes)];
                    run.from.read_at(run.offset, &mut body).expect("inside the region");
                    let body = Ok(body.into());
                    self.state.on_report(HelperReport::Copied(Copied::Body { ticket, body }));
                }
                Some(CopyJob::Objects { ticket, .. }) => {
                    self.state.on_report(HelperReport::Copied(Copied::Objects { ticket, done: Ok(()) }));
                }
                Some(CopyJob::LetGo(_)) | None => {}
            },
        }
    }

    /// A client does something.
    fn act(&mut self, who: usize) {
        if self.clients[who].is_dead {
            // Another process takes its place once the store knows.
            let session = self.clients[who].session;
            if session.is_none_or(|session| self.state.sessions.get(session).is_none()) {
                self.clients[who] = Client::default();
            }
            return;
        }
        if self.clients[who].lifeline.is_none() {
            let role = Role::Lifeline;
            self.clients[who].lifeline = Some(self.hello(who, role, Asked::Hello));
            return;
        }
        if self.clients[who].session.is_none() {
            return; // it waits for its session
        }
        if self.clients[who].requests.is_none() {
            let role = Role::Requests { token: self.clients[who].token };
            self.clients[who].requests = Some(self.hello(who, role, Asked::Join));
            return;
        }
        match self.chance.below(40) {
            0..=9 => self.learn(who),
            10..=12 => {
                let place = self.place();
                let (namespace, name) = (namespace(place.0), name(place.1));
                self.commit(who, vec![Change::Unbind { namespace, name }], Asked::Forget(place));
            }
            13 => {
                let of = u8::try_from(self.chance.below(3)).expect("few");
                let namespace = namespace(of);
                self.commit(who, vec![Change::ClearNamespace { namespace }], Asked::Clear(of));
            }
            14..=20 => {
                let slot = u32::try_from(self.chance.below(6)).expect("few");
                let asks = self.asked.values().any(|(other, _, asked)| {
                    *other == who && matches!(asked, Asked::Find(_, used) if *used == slot)
                });
                if asks || self.clients[who].pins.contains_key(&slot) {
                    return self.release(who);
                }
                let place = self.place();
                let (namespace, name) = (namespace(place.0), name(place.1));
                let find = AnyRequest::Find(Find { namespace, name, slot });
                self.ask(who, find, Asked::Find(place, slot));
            }
            21..=25 => self.release(who),
            26 | 27 => {
                if self.clients[who].lease.is_none() {
                    let len_bytes = 4_096 * (1 + self.chance.below(8));
                    let reserve = AnyRequest::Reserve(Reserve { len_bytes });
                    self.ask(who, reserve, Asked::Lease(len_bytes));
                }
            }
            28 => {
                if let Some((lease, ..)) = self.clients[who].lease.take() {
                    self.ask(who, AnyRequest::EndLease(EndLease { lease }), Asked::Other);
                }
            }
            29..=31 => {
                let place = self.place();
                let (namespace, name, wait_ms) = (namespace(place.0), name(place.1), self.chance.below(400));
                let above_version = self.last_version;
                let id = self.state.catalog.namespace(&namespace);
                let linked = id.and_then(|id| self.state.catalog.linked(id, &name));
                let known = linked.map_or(0, |(_, record)| record.entry.version);
                let version =
                    if self.chance.one_in(4) { self.chance.below(self.last_version + 1) } else { known };
                let (request, asked) = match self.chance.one_in(2) {
                    true => {
                        (AnyRequest::Wait(Wait { namespace, name, above_version, wait_ms }), Asked::Other)
                    }
                    false => {
                        let wait = WaitChange { namespace, name, version, wait_ms };
                        (AnyRequest::WaitChange(wait), Asked::Change(place, version))
                    }
                };
                self.ask(who, request, asked);
            }
            32 => {
                let list =
                    ListNames { namespace: Some(namespace(2)), prefix: String::new(), after: None, limit: 0 };
                self.ask(who, AnyRequest::ListNames(list), Asked::Other);
            }
            33 => self.ask(who, AnyRequest::ReadStats(ReadStats {}), Asked::Other),
            34 => self.ask(who, AnyRequest::ListPins(ListPins { after: None }), Asked::Other),
            35 => {
                let names = (0..NAMES).map(|number| NameSlot {
                    namespace: namespace(0),
                    name: name(number),
                    slot: FIND_MANY_SLOT + u32::try_from(number).expect("few"),
                });
                let body = encoded(&FindMany { names: names.collect() });
                let names = FindMany::read(body).expect("just encoded");
                let asks =
                    |(other, _, asked): &(usize, _, _)| *other == who && matches!(asked, Asked::FindMany);
                if !self.asked.values().any(asks) {
                    let (reply_to, session) = self.new_request(who, Asked::FindMany);
                    self.state.begin_look_up(LookUp::new(reply_to, session, names));
                }
            }
            36 => self.close(who, false),
            37 => self.close(who, true),
            38 => {
                let goodbye = AnyRequest::Goodbye(Goodbye {});
                self.ask(who, goodbye, Asked::Other);
                self.release_all(who);
                self.clients[who].is_dead = true; // it does nothing more
            }
            _ => {
                self.close(who, true);
                self.close(who, false);
                self.release_all(who); // the kernel does that, as far as readers are concerned
                self.clients[who].is_dead = true;
                let ended = self.clients[who].session.filter(|_| self.chance.one_in(2));
                if let Some(session) = ended {
                    self.state.end_session(session); // its pidfd tells
                }
            }
        }
    }

    fn place(&mut self) -> Place {
        (u8::try_from(self.chance.below(3)).expect("few"), self.chance.below(NAMES))
    }

    fn learn(&mut self, who: usize) {
        let count = if self.chance.one_in(3) { 1 + self.chance.below(4) } else { 1 };
        let (mut changes, mut written) = (Vec::new(), Vec::<Written>::new());
        for _ in 0..count {
            let place = self.place();
            if written.iter().any(|other| other.place == place) {
                continue;
            }
            self.next_byte = self.next_byte.wrapping_add(1);
            let byte = self.next_byte;
            let ttl_ms = self.chance.one_in(4).then(|| 1 + self.chance.below(300));
            let leased = self.clients[who].lease.filter(|_| self.chance.one_in(2) && written.is_empty());
            let (payload, len_bytes) = match leased {
                Some((lease, offset, lease_bytes)) => {
                    let len_bytes = 1 + self.chance.below(lease_bytes);
                    let bytes = vec![byte; plasmon_protocol::index_of(len_bytes)];
                    self.state.facts.arena.write_at(offset, &bytes).expect("inside the arena");
                    self.clients[who].lease = None;
                    (Payload::Leased { lease, offset, len_bytes }, len_bytes)
                }
                None => {
                    let len_bytes = 1 + self.chance.below(16 << 10);
                    let bytes = vec![byte; plasmon_protocol::index_of(len_bytes)];
                    (Payload::Inline { bytes: bytes.into() }, len_bytes)
                }
            };
            let bind = Bind {
                namespace: namespace(place.0),
                name: name(place.1),
                description: None,
                metadata: None,
                header: Header::new(Kind::BYTES),
                ttl: ttl_ms.map(|ms| Ttl { ttl_ns: ms * 1_000_000, is_sliding: ms % 2 == 0 }),
                payload,
            };
            changes.push(if self.chance.one_in(8) {
                Change::BindEphemeral(bind)
            } else {
                Change::Bind(bind)
            });
            let is_ephemeral = matches!(changes.last(), Some(Change::BindEphemeral(_)));
            let lives_forever = ttl_ms.is_none() && !is_ephemeral;
            written.push(Written { place, byte, len_bytes, lives_forever });
        }
        self.commit(who, changes, Asked::Learn(written));
    }

    fn commit(&mut self, who: usize, changes: Vec<Change>, asked: Asked) {
        let end_leases = Vec::new();
        let body = encoded(&Commit { conditions: Vec::new(), changes, end_leases });
        let (reply_to, session) = self.new_request(who, asked);
        self.state.begin_commit(reply_to, session, body);
    }

    fn ask(&mut self, who: usize, request: AnyRequest, asked: Asked) {
        let (reply_to, session) = self.new_request(who, asked);
        let (as_of_ns, tried) = (None, Tried::Nothing);
        self.state.on_request(reply_to, Box::new(Request { session, request, as_of_ns, tried }));
    }

    fn new_request(&mut self, who: usize, asked: Asked) -> (ReplyTo, SessionId) {
        let connection = self.clients[who].requests.expect("it has joined");
        let session = self.clients[who].session.expect("it has a session");
        (self.reply_to(who, connection, asked), session)
    }

    fn reply_to(&mut self, who: usize, connection: ConnectionId, asked: Asked) -> ReplyTo {
        self.next_request += 1;
        let request_id = self.next_request;
        self.asked.insert(request_id, (who, connection, asked));
        let held = crate::budget::Held { peer: peer(who), bytes: 1 };
        ReplyTo { connection, request_id, held }
    }

    fn hello(&mut self, who: usize, role: Role, asked: Asked) -> ConnectionId {
        self.next_connection += 1;
        let connection = ConnectionId(self.next_connection);
        self.state.connection_began(connection);
        let reply_to = self.reply_to(who, connection, asked);
        let hello = Hello { magic: MAGIC, version: VERSION, role };
        self.state.hello(reply_to, &hello, Newcomer { peer: peer(who), pidfd: Ok(None) }, false);
        connection
    }

    /// A client closes its lifeline, or its other connection.
    fn close(&mut self, who: usize, lifeline: bool) {
        let client = &mut self.clients[who];
        let connection = if lifeline { &mut client.lifeline } else { &mut client.requests };
        let Some(connection) = connection.take() else { return };
        if lifeline {
            client.is_dead = true; // a client without its lifeline asks for nothing more
        }
        self.hang_up(connection);
    }

    fn hang_up(&mut self, connection: ConnectionId) {
        if !self.state.open.contains(&connection) {
            return;
        }
        let of = |client: &Client| {
            let is_its = client.lifeline == Some(connection) || client.requests == Some(connection);
            client.session.filter(|_| is_its)
        };
        let session = self.clients.iter().find_map(of).or_else(|| {
            let sessions = self.state.sessions.iter();
            let mut its = sessions.filter(|(_, session)| {
                session.lifeline == Some(connection) || session.connections.contains(&connection)
            });
            its.next().map(|(id, _)| id)
        });
        for client in &mut self.clients {
            client.requests.take_if(|its| *its == connection);
            if client.lifeline.take_if(|its| *its == connection).is_some() {
                client.is_dead = true;
            }
        }
        self.state.connection_ended(connection, session);
    }

    fn release(&mut self, who: usize) {
        let Some((&slot, _)) = self.clients[who].pins.first_key_value() else { return };
        self.clients[who].pins.remove(&slot);
        self.withdraw(who, slot);
    }

    fn release_all(&mut self, who: usize) {
        while !self.clients[who].pins.is_empty() {
            self.release(who);
        }
    }

    fn withdraw(&self, who: usize, slot: u32) {
        let session = self.clients[who].session.and_then(|session| self.state.sessions.get(session));
        if let Some(session) = session {
            SessionRegion::assume_checked(session.regions[0].words.words()).withdraw(slot);
        }
    }

    /// Does outside what the state asks for.
    fn carry_out(&mut self) {
        while let Some(effect) = self.state.next_effect() {
            match effect {
                Effect::Reply { to, reply, grant } => self.on_reply(to, reply, grant),
                Effect::Drop(to) => {
                    let (who, connection, _) =
                        self.asked.remove(&to.request_id).expect("a request is answered once");
                    let said_goodbye = self.clients[who].is_dead;
                    assert!(said_goodbye || !self.state.open.contains(&connection), "somebody waits for it");
                }
                Effect::Settle(..) | Effect::WatchProcess(_) => {}
                Effect::CloseSoon(connection) | Effect::HangUp(connection) => self.hang_up(connection),
                Effect::HearNewcomers(sessions) => {
                    sessions.into_iter().for_each(|session| self.state.settle_closed(session));
                }
                Effect::Scan(job) => self.scans.push_back(job),
                Effect::Look(orphans) => self.looks.push_back(orphans),
                Effect::Populate(ticket, steps) => {
                    assert!(!steps.is_empty());
                    self.demands.push_back(ticket.0);
                }
                Effect::Copy(job) => self.copies.push_back(job),
            }
        }
    }

    /// A client is answered.
    fn on_reply(&mut self, to: ReplyTo, reply: Reply, grant: Option<Grant>) {
        let (who, connection, asked) = self.asked.remove(&to.request_id).expect("a request is answered once");
        assert_eq!(connection, to.connection);
        if let (Asked::Learn(_) | Asked::Forget(_) | Asked::Clear(_), Committed::KIND) = (&asked, reply.kind)
        {
            let committed = Committed::parse(reply.body.clone().into()).expect("an answer to a commit");
            assert!(committed.version > self.last_version, "versions only rise");
            self.last_version = committed.version;
            self.learned(&asked, committed.version);
        }
        if let (Asked::FindMany, FoundMany::KIND) = (&asked, reply.kind) {
            // It looks at each, and lets go of them again.
            let found = FoundMany::parse(reply.body.clone().into()).expect("an answer to FindMany");
            for (number, one) in (0..).zip(&found.locations) {
                if let FoundOne::At(location) = one {
                    let place = (0, number);
                    let slot = FIND_MANY_SLOT + u32::try_from(number).expect("few");
                    self.on_found(who, place, slot, Some(*location));
                }
            }
        }
        if !self.state.open.contains(&connection) {
            if let Some(grant) = grant {
                self.state.take_back(grant);
            }
            if let (Asked::Find(_, slot), Found::KIND) = (&asked, reply.kind) {
                self.withdraw(who, *slot);
            }
            return;
        }
        match (asked, reply.kind) {
            (Asked::Hello, Welcome::KIND) => {
                let welcome = Welcome::parse(reply.body.into()).expect("an answer to Hello");
                let client = &mut self.clients[who];
                client.session = Some(SessionId(welcome.session_id));
                client.token = welcome.token;
            }
            (Asked::Find(place, slot), Found::KIND) => {
                let found = Found::parse(reply.body.into()).expect("an answer to Find");
                self.on_found(who, place, slot, found.location);
            }
            (Asked::Change(place, version), Failed::KIND)
                if !self.state.is_telling() && !self.may_change(place) =>
            {
                let id = self.state.catalog.namespace(&namespace(place.0));
                let linked = id.and_then(|id| self.state.catalog.linked(id, &name(place.1)));
                let now = linked.map_or(0, |(_, record)| record.entry.version);
                assert_eq!(now, version, "{place:?} has changed, and who waited for that was not told");
            }
            (Asked::Lease(asked_bytes), Granted::KIND) => {
                let granted = Granted::parse(reply.body.into()).expect("an answer to Reserve");
                assert!(granted.len_bytes >= asked_bytes);
                if self.clients[who].is_dead {
                    return;
                }
                self.clients[who].lease = Some((granted.lease, granted.offset, granted.len_bytes));
            }
            _ => {}
        }
    }

    /// What a commit has done that was answered.
    fn learned(&mut self, asked: &Asked, version: u64) {
        match asked {
            Asked::Learn(written) => {
                for one in written {
                    let known = (version, one.clone());
                    if one.lives_forever && one.place.0 != 2 {
                        self.known.insert(one.place, known);
                    } else {
                        self.known.remove(&one.place);
                    }
                }
            }
            Asked::Forget(place) => drop(self.known.remove(place)),
            Asked::Clear(of) => self.known.retain(|place, _| place.0 != *of),
            _ => {}
        }
    }

    /// A client has found an object, which the store holds in place for it.
    fn on_found(&mut self, who: usize, place: Place, slot: u32, location: Option<Entry>) {
        let Some(location) = location else {
            let known = self.known.get(&place).filter(|_| !self.may_change(place));
            assert!(known.is_none(), "{place:?} is {known:?}, and is not found");
            return;
        };
        if location.offset == plasmon_protocol::index::NO_EXTENT {
            return;
        }
        let mut bytes = vec![0; plasmon_protocol::index_of(location.len_bytes)];
        self.state.facts.arena.read_at(location.offset, &mut bytes).expect("inside the arena");
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "{place:?} is not what one client has written");
        if let Some((version, written)) = self.known.get(&place)
            && *version == location.version
        {
            assert_eq!((bytes[0], location.len_bytes), (written.byte, written.len_bytes));
        }
        if slot < FIND_MANY_SLOT && !self.clients[who].is_dead {
            self.clients[who].pins.insert(slot, (location.offset, bytes));
        } else {
            self.withdraw(who, slot);
        }
    }

    /// Whether a commit is on its way that changes this name: it may be visible before it is answered.
    fn may_change(&self, place: Place) -> bool {
        self.asked.values().any(|(_, _, asked)| match asked {
            Asked::Learn(written) => written.iter().any(|one| one.place == place),
            Asked::Forget(forgotten) => *forgotten == place,
            Asked::Clear(of) => *of == place.0,
            _ => false,
        })
    }

    /// Invariants 4 and 9, and whatever must hold after every event.
    fn check(&mut self) {
        for client in &self.clients {
            let is_over = client.session.is_none_or(|session| self.state.sessions.get(session).is_none());
            for (offset, bytes) in client.pins.values().filter(|_| !is_over) {
                let mut now = vec![0; bytes.len()];
                self.state.facts.arena.read_at(*offset, &mut now).expect("inside the arena");
                assert_eq!(now, *bytes, "memory was reused under a reader");
            }
        }
        let _ = self.state.due(); // nothing waits in vain
    }

    /// Lets everything that is on its way come to its end.
    fn settle(&mut self) {
        for _ in 0..20_000 {
            let helps = !self.scans.is_empty() || !self.looks.is_empty() || !self.demands.is_empty();
            if helps || !self.copies.is_empty() {
                self.help();
            } else if self.state.due() == Due::Now {
                self.turn();
            } else if !self.asked.is_empty() || self.waits_for_scan() {
                let mut connections = self.asked.values().map(|(_, connection, _)| connection);
                assert!(
                    connections.all(|it| self.state.open.contains(it)),
                    "what a connection waits for ends with it"
                );
                self.clock.pass(Duration::from_millis(100));
                self.turn();
            } else {
                return;
            }
            self.carry_out();
            self.check();
        }
        let sessions = self.state.sessions.iter();
        let held = sessions.map(|(id, session)| (id, session.lifeline, session.slots_in_use()));
        panic!(
            "the loop does not come to rest; due: {:?}; limbo: {:?}; sessions: {:?}; unanswered: {:?}",
            self.state.due(),
            self.state.objects.limbo(),
            held.collect::<Vec<_>>(),
            self.asked,
        );
    }

    /// Whether a scan would free something: nobody holds what is in limbo.
    fn waits_for_scan(&self) -> bool {
        let nobody_holds = self.clients.iter().all(|client| client.pins.is_empty());
        nobody_holds && self.state.objects.has_candidates()
    }

    /// What the clients know is what the store says.
    fn check_names(&self) {
        let now_ns = self.clock.boottime_ns();
        for (&(of, number), (version, written)) in &self.known {
            let found = self.state.catalog.find(&namespace(of), &name(number), now_ns);
            let entry = found.map(|(_, record)| record.entry);
            let seen = entry.map(|entry| (entry.version, entry.len_bytes));
            assert_eq!(seen, Some((*version, written.len_bytes)), "{:?}", (of, number));
        }
    }

    /// When everybody is gone and everything is forgotten, nothing is left.
    fn end(&mut self) {
        for who in 0..self.clients.len() {
            self.release_all(who);
            self.close(who, false);
            self.close(who, true);
        }
        let sessions: Vec<SessionId> = self.state.sessions.iter().map(|(id, _)| id).collect();
        sessions.into_iter().for_each(|session| self.state.end_session(session));
        self.carry_out();
        self.settle();
        assert!(self.asked.is_empty());
        assert_eq!(self.state.sessions.len(), 0);
        assert_eq!(self.state.parked.wait_count(), 0);
        self.clients = vec![Client::default()];
        for _ in 0..2 {
            self.act(0);
            self.carry_out();
        }
        for of in 0..3 {
            let change = Change::ClearNamespace { namespace: namespace(of) };
            self.commit(0, vec![change], Asked::Clear(of));
        }
        self.carry_out();
        self.settle();
        assert_eq!(self.state.catalog.objects().0, 0);
        assert_eq!((self.state.space.figures().used, self.state.objects.len()), (0, 0), "nothing is left");
    }
}

fn peer(who: usize) -> Peer {
    // Numbers that no process has.
    Peer { pid: 1_000_000_000 + u32::try_from(who).expect("few"), uid: 7 }
}

/// How many schedules are tried, and how long each is. More are tried with `PLASMON_SIMULATIONS`.
const SIMULATIONS: u64 = 300;
const EVENTS: u64 = 600;

#[test]
fn whatever_happens_in_whatever_order_the_store_keeps_its_promises() {
    let wanted = std::env::var("PLASMON_SIMULATIONS").ok().and_then(|count| count.parse().ok());
    for seed in 0..wanted.unwrap_or(SIMULATIONS) {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for event in 0..EVENTS {
                world.happen();
                if event % 200 == 199 {
                    world.settle();
                    world.check_names();
                }
            }
            world.end();
        });
        if let Err(panic) = run {
            eprintln!("this was the schedule of seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// What is retired while a scan runs is not known to that scan.
#[test]
fn who_wants_a_scan_gets_one_that_begins_from_then_on() {
    let mut world = World::new(1);
    let first = world.state.want_scan(Report::Limbo, false);
    let (second, third) =
        (world.state.want_scan(Report::Listed, false), world.state.want_scan(Report::Limbo, true));
    assert!(second > first && third == second, "one scan does for both");
    world.carry_out();
    let mut done = Vec::new();
    while let Some(Job::Scan(scan)) = world.scans.pop_front() {
        done.push((scan.report, scan.usage));
        let scanned = world.scanner.scan(scan);
        world.state.on_report(HelperReport::Scanned(scanned));
        assert_eq!(world.state.scans.done(), u64::try_from(done.len()).expect("few") - 1);
        world.turn();
        assert_eq!(world.state.scans.done(), u64::try_from(done.len()).expect("few"));
    }
    assert_eq!(done, [(Report::Limbo, false), (Report::Listed, true)]);
}
