//! Time against a list of whole states: whatever happens, every moment that somebody holds shows what every name was bound to
//! right then, and nothing is kept that nobody wants.
//!
//! A schedule that a seed decides makes commits, lets time pass, ends bindings and sessions, takes, joins and drops holds, and
//! judges the past in the shortest slices there are, or not yet. The model keeps a copy of all names for each hold, and a
//! list of everything that has ended.

use super::*;
use crate::{
    budget::Held,
    catalog::{End, Ending, Moment, Snapshot, Then, View, tests::fresh},
    connection::ConnectionId,
    populate::Populated,
};
use plasmon_protocol::{
    codec::Codec,
    message::{Bind, Commit, History, Lives, Payload, Reason, SameAs, Ttl},
    name::Label,
    object::{Header, Kind},
};
use plasmon_shm::{Backend, Kernel};
use std::collections::{BTreeMap, BTreeSet};

const CAPACITY_BYTES: u64 = 1 << 20;
const NAMESPACES: u8 = 3;
const NAMES: u8 = 7;
const SESSIONS: u64 = 3;

/// A namespace and a name.
type Place = (u8, u8);

/// What a name is or was bound to.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    born: u64,
    /// What was learned: no two are the same, but for copies.
    value: u64,
    in_header: bool,
    expires_ns: Option<u64>,
    owner: Option<u64>,
}

impl Known {
    fn lives(&self, now_ns: u64) -> bool {
        self.expires_ns.is_none_or(|at| at > now_ns)
    }
}

type Names = BTreeMap<Place, Known>;

/// A binding that has ended.
#[derive(Debug)]
struct Gone {
    place: Place,
    known: Known,
    ended: u64,
    ended_ns: u64,
    bytes: u64,
    in_history: bool,
}

/// A moment that somebody holds, and all that was bound then.
#[derive(Clone, Debug)]
struct Hold {
    moment: u64,
    taken_ns: u64,
    namespaces: BTreeSet<u8>,
    is_of_all: bool,
    names: Names,
}

impl Hold {
    fn wants(&self, gone: &Gone) -> bool {
        let has = self.is_of_all || self.namespaces.contains(&gone.place.0);
        has && gone.known.born <= self.moment && self.moment < gone.ended
    }
}

/// What a schedule is made of: xorshift64* (G. Marsaglia, "Xorshift RNGs", 2003).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    fn byte(&mut self, end: u8) -> u8 {
        u8::try_from(self.below(end.into())).expect("it is below")
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn place(&mut self) -> Place {
        (self.byte(NAMESPACES), self.byte(NAMES))
    }
}

fn namespace(number: u8) -> Namespace {
    Namespace::new(["default", "other-names", "more-names"][usize::from(number)]).expect("a valid namespace")
}

fn name(number: u8) -> Name {
    Name::new(&format!("name {number}")).expect("a valid name")
}

fn label(number: u64) -> Label {
    Label::new(&format!("label-{number}")).expect("a valid label")
}

struct World {
    chance: Chance,
    arena: Region,
    catalog: Catalog,
    objects: Objects,
    space: Space,
    versions: Versions,
    parked: Parked,
    now_ns: u64,
    kept_max: u64,
    names: Names,
    registered: BTreeSet<u8>,
    histories: BTreeMap<u8, History>,
    gone: Vec<Gone>,
    labels: BTreeMap<u64, Hold>,
    /// By number; each with its session.
    views: BTreeMap<u64, (u64, Hold)>,
    next_value: u64,
    next_label: u64,
    refused: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        // Now and then hardly anything can be kept.
        let kept_max = if chance.one_in(3) { 1 + chance.below(8) } else { 10_000 };
        let (catalog, _) = fresh(64, CAPACITY_BYTES);
        World {
            chance,
            arena: Region::create("plasmon-arena", CAPACITY_BYTES, Backend::Memfd, &Kernel::detect())
                .expect("memory"),
            catalog: catalog.with_limits(100, 1 << 20, kept_max),
            objects: Objects::default(),
            space: Space::new(CAPACITY_BYTES, Populated::by_writers(CAPACITY_BYTES)),
            versions: Versions::default(),
            parked: Parked::default(),
            now_ns: 1_000,
            kept_max,
            names: Names::new(),
            registered: [0].into(),
            histories: BTreeMap::new(),
            gone: Vec::new(),
            labels: BTreeMap::new(),
            views: BTreeMap::new(),
            next_value: 0,
            next_label: 0,
            refused: 0,
        }
    }

    fn step(&mut self) {
        match self.chance.below(40) {
            0..=11 => {
                let mut changes = Vec::new();
                let mut places = BTreeSet::new();
                for _ in 0..=self.chance.below(3) {
                    let place = self.chance.place();
                    if places.insert(place) {
                        changes.push(self.any_change(place));
                    }
                }
                self.commit(&changes);
            }
            12 => {
                let of = self.chance.byte(NAMESPACES);
                let change = match self.chance.below(3) {
                    0 if of > 0 => Change::RemoveNamespace { namespace: namespace(of) },
                    _ => Change::ClearNamespace { namespace: namespace(of) },
                };
                self.commit(&[change]);
            }
            13 | 14 => {
                let versions = (self.chance.one_in(2)).then(|| 1 + u32::from(self.chance.byte(3)));
                let age_ns = self.chance.one_in(3).then(|| 1 + self.chance.below(300));
                // With both bounds it would matter when the past is judged.
                let bytes = (versions.is_none() && self.chance.one_in(2)).then(|| self.chance.below(900));
                let history = (!self.chance.one_in(3)).then_some(History { versions, age_ns, bytes });
                let namespace = namespace(self.chance.byte(NAMESPACES));
                self.come_to_rest();
                self.commit(&[Change::DeclareHistory { namespace, history }]);
                self.come_to_rest();
            }
            15 => {
                let (of, number) = self.chance.place();
                self.come_to_rest();
                self.commit(&[Change::PurgeHistory { namespace: namespace(of), name: name(number) }]);
            }
            16 | 17 => {
                let labels: Vec<u64> = self.labels.keys().copied().collect();
                if let Some(&which) = labels.get(usize::try_from(self.chance.below(4)).expect("few")) {
                    let namespace = namespace(self.chance.byte(NAMESPACES));
                    self.commit(&[Change::RestoreNamespace { namespace, label: label(which) }]);
                }
            }
            18..=22 => self.now_ns += self.chance.below(40),
            23 | 24 => {
                let at_most = self.chance.below(4);
                self.expire(at_most);
            }
            25 => self.end_session(),
            26 | 27 => self.take_label(),
            28 => {
                if let Some(&which) = self.labels.keys().next() {
                    self.catalog.past.drop_snapshot(&label(which)).expect("it is there");
                    self.labels.remove(&which);
                }
            }
            29 => {
                let last = self.labels.keys().next_back().copied();
                if let Some(which) = last {
                    self.catalog.past.drop_snapshot(&label(which)).expect("it is there");
                    self.labels.remove(&which);
                }
            }
            30..=32 => self.begin_view(),
            33 | 34 => {
                let views: Vec<u64> = self.views.keys().copied().collect();
                if let Some(&which) = views.get(usize::try_from(self.chance.below(3)).expect("few")) {
                    self.catalog.past.end_view(which).expect("it is there");
                    self.views.remove(&which);
                }
            }
            35..=37 => {
                let mut slice = Slice::shortest();
                if let Some(gone) = self.catalog.judge_past(self.now_ns, &mut slice) {
                    self.objects.release_if_any(gone);
                }
            }
            _ => self.come_to_rest(),
        }
        self.free();
        self.check_some();
    }

    fn any_change(&mut self, (of, number): Place) -> Change {
        let (of_namespace, of_name) = (namespace(of), name(number));
        match self.chance.below(10) {
            0 | 1 => Change::Unbind { namespace: of_namespace, name: of_name },
            2 | 3 => {
                // From now, or from a moment that is held.
                let (source_of, source) = self.chance.place();
                let holds: Vec<u64> =
                    self.holds().filter(|hold| hold.is_of_all).map(|hold| hold.moment).collect();
                let at = holds.get(usize::try_from(self.chance.below(4)).expect("few")).copied();
                let lives = [Lives::AsDeclared, Lives::AsSource][usize::from(self.chance.one_in(2))].clone();
                let (description, metadata) = (None, None);
                Change::SameAs(SameAs {
                    namespace: of_namespace,
                    name: of_name,
                    description,
                    metadata,
                    lives,
                    of_namespace: namespace(source_of),
                    of_name: name(source),
                    at,
                })
            }
            how => {
                self.next_value += 1;
                let plain = Header::new(Kind::BYTES);
                let value = self.next_value.to_le_bytes();
                let in_header = self.chance.one_in(2);
                let header = if in_header { plain.with_inline(&value).expect("it is short") } else { plain };
                let payload = match in_header {
                    true => Payload::InHeader,
                    false => Payload::Inline { bytes: value.repeat(10).into() },
                };
                let ttl_ns = 1 + self.chance.below(150);
                let ttl = self.chance.one_in(3).then_some(Ttl { ttl_ns, is_sliding: false });
                let (description, metadata) = (self.chance.one_in(2).then(|| "text".to_owned()), None);
                let (namespace, name) = (of_namespace, of_name);
                let bind = Bind { namespace, name, description, metadata, header, ttl, payload };
                if how == 4 { Change::BindEphemeral(bind) } else { Change::Bind(bind) }
            }
        }
    }

    fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.labels.values().chain(self.views.values().map(|(_, hold)| hold))
    }

    /// Does a commit, and what it does to the model.
    fn commit(&mut self, changes: &[Change]) {
        let session = 1 + self.chance.below(SESSIONS);
        let reply_to = ReplyTo { connection: ConnectionId(1), request_id: 1, held: Held::default() };
        let writer = Writer { session: SessionId(session), pid: 1, uid: 1, is_own: true };
        let commit = Commit { conditions: vec![], changes: changes.to_vec(), end_leases: vec![] };
        let mut body = Vec::new();
        commit.encode(&mut body);
        let mut job = CommitJob::new(reply_to, writer, body.into());
        let result = self.work(&mut job);
        let expected = self.expect(changes, session);
        match (result, expected) {
            (Ok(committed), Some((names, ended))) => {
                assert_eq!(committed.version, self.versions.last);
                self.ended(ended, &names, committed.version);
                self.names = names;
                self.declare(changes);
            }
            (Err(Failure::TooManyKept { limit, .. }), Some((_, ended))) => {
                assert_eq!(limit, self.kept_max);
                let (kept, _) = self.catalog.past.len_and_max();
                let ending = (ended.len() + self.catalog.put_off_count()) as u64;
                assert!(kept + ending > limit, "there is room for {ending} more");
                self.refused += 1;
            }
            (Err(failure), None) => assert!(
                matches!(
                    failure,
                    Failure::NotBound { .. }
                        | Failure::UnknownNamespace { .. }
                        | Failure::SnapshotNotFound { .. }
                ),
                "{failure:?}"
            ),
            (result, expected) => {
                panic!("{result:?}, and the model says {}: {changes:?}", expected.is_some())
            }
        }
    }

    fn work(&mut self, job: &mut CommitJob) -> Result<Committed, Failure> {
        loop {
            let mut bench = Workbench {
                catalog: &mut self.catalog,
                objects: &mut self.objects,
                space: &mut self.space,
                arena: &self.arena,
                versions: &mut self.versions,
                now_ns: self.now_ns,
                parked: &self.parked,
                uuid_seed: [7; 16],
            };
            match job.prepare(&mut bench, &mut Slice::shortest()) {
                Prepared::More | Prepared::Placed { .. } => {}
                Prepared::NoRoom(_) => panic!("there is room for all of it"),
                Prepared::Failed(failure) => return Err(*failure),
                Prepared::Ready => match job.work(&mut bench, &mut Slice::shortest()) {
                    Worked::More => {}
                    Worked::Done => return Ok(job.committed().cloned().expect("it is done")),
                    Worked::Failed(failure) => job.fail(failure),
                    Worked::NoEntries(_) | Worked::Expired { .. } => panic!("there are enough"),
                },
            }
        }
    }

    /// All names after these changes, and the bindings that end; `None` if nothing must happen.
    fn expect(&self, changes: &[Change], session: u64) -> Option<(Names, Vec<Place>)> {
        let number_of =
            |text: &Namespace| (0..NAMESPACES).find(|&number| namespace(number) == *text).expect("known");
        let place_of = |of: &Namespace, text: &Name| {
            (number_of(of), (0..NAMES).find(|&number| name(number) == *text).expect("known"))
        };
        let version = self.versions.last;
        let (mut names, mut ended) = (self.names.clone(), Vec::new());
        let mut put = |names: &mut Names, place, known: Option<Known>| {
            let before = match known {
                Some(known) => names.insert(place, known),
                None => names.remove(&place),
            };
            ended.extend(before.map(|_| place));
        };
        // Names are unbound first.
        let (unbinding, binding): (Vec<_>, Vec<_>) =
            changes.iter().partition(|change| change.bound_name().is_none());
        for change in unbinding.into_iter().chain(binding) {
            match change {
                Change::Bind(bind) | Change::BindEphemeral(bind) => {
                    let (value, in_header) = match &bind.payload {
                        Payload::Inline { bytes } => (bytes.to_vec(), false),
                        _ => (bind.header.inline().expect("it stands there").0.to_vec(), true),
                    };
                    let value = u64::from_le_bytes(*value.first_chunk().expect("8 bytes"));
                    let expires_ns = bind.ttl.as_ref().map(|ttl| self.now_ns + ttl.ttl_ns);
                    let owner = matches!(change, Change::BindEphemeral(_)).then_some(session);
                    let known = Known { born: version, value, in_header, expires_ns, owner };
                    put(&mut names, place_of(&bind.namespace, &bind.name), Some(known));
                }
                Change::SameAs(same) => {
                    let source = place_of(&same.of_namespace, &same.of_name);
                    let source = match same.at {
                        None => self.names.get(&source).filter(|known| known.lives(self.now_ns))?.clone(),
                        Some(at) => {
                            let held = self.holds().find(|hold| hold.is_of_all && hold.moment == at);
                            let then = held.expect("it is held").names.get(&source)?.clone();
                            // What is bound still hands on its deadline, unless that has passed.
                            let now = self.names.get(&source).filter(|now| now.born == then.born);
                            match now.filter(|now| now.lives(self.now_ns)) {
                                Some(now) => now.clone(),
                                None => Known { expires_ns: None, owner: None, ..then },
                            }
                        }
                    };
                    let source = match same.lives {
                        Lives::AsSource => source,
                        _ => Known { expires_ns: None, owner: None, ..source },
                    };
                    put(
                        &mut names,
                        place_of(&same.namespace, &same.name),
                        Some(Known { born: version, ..source }),
                    );
                }
                Change::Unbind { namespace, name } => put(&mut names, place_of(namespace, name), None),
                Change::ClearNamespace { namespace } | Change::RemoveNamespace { namespace } => {
                    let of = number_of(namespace);
                    if !self.registered.contains(&of) {
                        return None;
                    }
                    let its: Vec<Place> = names.keys().copied().filter(|place| place.0 == of).collect();
                    its.into_iter().for_each(|place| put(&mut names, place, None));
                }
                Change::RestoreNamespace { namespace, label: wanted } => {
                    let of = number_of(namespace);
                    let hold = self.labels.iter().find(|(number, _)| label(**number) == *wanted);
                    let hold = hold.map(|(_, hold)| hold).filter(|hold| hold.namespaces.contains(&of))?;
                    for number in 0..NAMES {
                        let place = (of, number);
                        let now = self.names.get(&place).filter(|now| now.lives(self.now_ns));
                        match (hold.names.get(&place), now) {
                            (None, None) => {}
                            (None, Some(_)) => put(&mut names, place, None),
                            (Some(then), Some(now)) if then.value == now.value => {}
                            (Some(then), _) => {
                                let (born, expires_ns, owner) = (version, None, None);
                                put(
                                    &mut names,
                                    place,
                                    Some(Known { born, expires_ns, owner, ..then.clone() }),
                                );
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        Some((names, ended))
    }

    /// What these changes say of namespaces.
    fn declare(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Bind(Bind { namespace: of, .. })
                | Change::BindEphemeral(Bind { namespace: of, .. })
                | Change::SameAs(SameAs { namespace: of, .. })
                | Change::RestoreNamespace { namespace: of, .. }
                | Change::DeclareHistory { namespace: of, .. } => {
                    let number = (0..NAMESPACES).find(|&number| namespace(number) == *of).expect("known");
                    self.registered.insert(number);
                    if let Change::DeclareHistory { history, .. } = change {
                        match history {
                            Some(history) => drop(self.histories.insert(number, history.clone())),
                            None => {
                                self.histories.remove(&number);
                                let gone = self.gone.iter_mut().filter(|gone| gone.place.0 == number);
                                gone.for_each(|gone| gone.in_history = false);
                            }
                        }
                    }
                }
                Change::RemoveNamespace { namespace: of } => {
                    let number = (0..NAMESPACES).find(|&number| namespace(number) == *of).expect("known");
                    self.registered.remove(&number);
                    self.histories.remove(&number);
                    for hold in self.labels.values_mut() {
                        hold.namespaces.remove(&number);
                        hold.names.retain(|place, _| place.0 != number);
                    }
                    self.labels.retain(|_, hold| !hold.namespaces.is_empty());
                    for gone in self.gone.iter_mut().filter(|gone| gone.place.0 == number) {
                        gone.in_history = false;
                    }
                }
                Change::PurgeHistory { namespace: of, name: text } => {
                    for gone in &mut self.gone {
                        let is_it = namespace(gone.place.0) == *of && name(gone.place.1) == *text;
                        gone.in_history &= !is_it;
                    }
                }
                _ => {}
            }
        }
    }

    /// These bindings end with change number `ended`, and then names are bound as `after` says.
    fn ended(&mut self, places: Vec<Place>, after: &Names, ended: u64) {
        for place in places {
            let known = self.names.get(&place).expect("it was bound").clone();
            let successor = after.get(&place).filter(|new| !new.in_header && new.value == known.value);
            let shows = successor.is_some() && !known.in_header;
            let bytes = if shows {
                0
            } else if known.in_header {
                8
            } else {
                80
            };
            self.end(place, known, ended, bytes);
        }
    }

    fn end(&mut self, place: Place, known: Known, ended: u64, bytes: u64) {
        let in_history = self.histories.contains_key(&place.0);
        self.gone.push(Gone { place, known, ended, ended_ns: self.now_ns, bytes, in_history });
        self.trim_versions();
    }

    /// No name has more versions in its history than were declared.
    fn trim_versions(&mut self) {
        for (&of, history) in &self.histories {
            let Some(most) = history.versions else { continue };
            for number in 0..NAMES {
                let its = self
                    .gone
                    .iter()
                    .enumerate()
                    .filter(|(_, gone)| gone.place == (of, number) && gone.in_history);
                let its: Vec<usize> = its.map(|(at, _)| at).collect();
                let too_many = its.len().saturating_sub(usize::try_from(most).expect("few"));
                its[..too_many].iter().for_each(|&at| self.gone[at].in_history = false);
            }
        }
    }

    /// No history is older or larger than was declared.
    fn trim_history(&mut self) {
        self.trim_versions();
        for of in 0..NAMESPACES {
            let history = self.histories.get(&of);
            let mut bytes: u64 = self
                .gone
                .iter()
                .filter(|gone| gone.place.0 == of && gone.in_history)
                .map(|gone| gone.bytes)
                .sum();
            // In the order in which they have ended.
            for gone in self.gone.iter_mut().filter(|gone| gone.place.0 == of && gone.in_history) {
                let is_over = history.is_none_or(|history| {
                    history.age_ns.is_some_and(|age_ns| gone.ended_ns + age_ns <= self.now_ns)
                        || history.bytes.is_some_and(|most| bytes > most)
                });
                if !is_over {
                    break;
                }
                gone.in_history = false;
                bytes -= gone.bytes;
            }
        }
    }

    fn end_now(&self, reason: Reason) -> End {
        End { version: self.versions.last + 1, reason, now_ns: self.now_ns }
    }

    /// Unbinds so many of what has expired. Returns whether there was nothing more.
    fn expire(&mut self, at_most: u64) -> bool {
        let end = self.end_now(Reason::Expired);
        for _ in 0..at_most {
            let (before, _) = self.catalog.past.len_and_max();
            match self.catalog.expire(end) {
                Ending::Unbound(unbound) => {
                    self.versions.last = end.version;
                    unbound.settle(&mut self.objects);
                    self.ended_by_itself(unbound.entry.version, unbound.label(), end.version);
                }
                Ending::PutOff => {
                    self.versions.last = end.version;
                    assert!(before >= self.kept_max, "there is no room");
                    // For everybody, it has ended.
                    self.forget_put_off(end.version);
                }
                Ending::Nothing => return true,
            }
        }
        false
    }

    /// The model forgets what was put off: those that are gone for the catalog's readers and were not counted.
    fn forget_put_off(&mut self, ended: u64) {
        let readers_see = |place: &Place| {
            let found = self.catalog.find_at(&namespace(place.0), &name(place.1), ended, self.now_ns);
            found.is_some()
        };
        let lost: Vec<Place> = self
            .names
            .iter()
            .filter(|(place, known)| !known.lives(self.now_ns) && !readers_see(place))
            .map(|(place, _)| *place)
            .collect();
        assert_eq!(lost.len(), 1, "one at a time");
        let known = self.names.remove(&lost[0]).expect("it was bound");
        let bytes = if known.in_header { 8 } else { 80 };
        self.end(lost[0], known, ended, bytes);
    }

    fn ended_by_itself(&mut self, born: u64, text: String, ended: u64) {
        let is_it = |place: &Place| format!("{}/{}", namespace(place.0), name(place.1)) == text;
        let place = *self.names.keys().find(|place| is_it(place)).expect("it was bound");
        let known = self.names.remove(&place).expect("it was bound");
        assert_eq!(known.born, born);
        let bytes = if known.in_header { 8 } else { 80 };
        self.end(place, known, ended, bytes);
    }

    /// A session ends, with its ephemeral bindings and its views.
    fn end_session(&mut self) {
        let session = 1 + self.chance.below(SESSIONS);
        let end = self.end_now(Reason::Expired);
        loop {
            match self.catalog.end_one_of(SessionId(session), end) {
                Ending::Unbound(unbound) => {
                    self.versions.last = end.version;
                    unbound.settle(&mut self.objects);
                    self.ended_by_itself(unbound.entry.version, unbound.label(), end.version);
                }
                Ending::PutOff => {
                    self.versions.last = end.version;
                    let gone: Vec<Place> = self
                        .names
                        .iter()
                        .filter(|(place, known)| {
                            known.owner == Some(session)
                                && self
                                    .catalog
                                    .find(&namespace(place.0), &name(place.1), self.now_ns)
                                    .is_none()
                        })
                        .map(|(place, _)| *place)
                        .collect();
                    let now_ns = self.now_ns;
                    // One that had expired besides looks the same: the one that was put off is not bound at this moment.
                    let place = gone.into_iter().find(|place| {
                        self.catalog
                            .find_at(&namespace(place.0), &name(place.1), end.version, now_ns)
                            .is_none()
                    });
                    let place = place.expect("one was put off");
                    let known = self.names.remove(&place).expect("it was bound");
                    let bytes = if known.in_header { 8 } else { 80 };
                    self.end(place, known, end.version, bytes);
                }
                Ending::Nothing => break,
            }
        }
        while self.catalog.past.end_view_of(SessionId(session)) {}
        self.views.retain(|_, (of, _)| *of != session);
    }

    /// Everything that has expired is unbound: then a moment can be taken.
    fn moment(&mut self) -> Moment {
        while !self.expire(10) {}
        Moment { version: self.versions.last, taken_ns: self.now_ns }
    }

    fn take_label(&mut self) {
        if self.labels.len() > 5 {
            return;
        }
        let moment = self.moment();
        let mut namespaces: BTreeSet<u8> =
            self.registered.iter().copied().filter(|_| self.chance.0.is_multiple_of(3)).collect();
        let one = self.chance.byte(NAMESPACES);
        if self.registered.contains(&one) {
            namespaces.insert(one);
        }
        if namespaces.is_empty() {
            return;
        }
        self.next_label += 1;
        let (created_ns, names, bytes, made_by) = (0, 0, 0, (1, 1));
        let of = namespaces.iter().map(|&number| namespace(number)).collect();
        let snapshot = Snapshot { moment, created_ns, namespaces: of, names, bytes, made_by };
        self.catalog.take_snapshot(&label(self.next_label), snapshot);
        let mut names = self.names.clone();
        names.retain(|place, _| namespaces.contains(&place.0));
        let Moment { version, taken_ns } = moment;
        let hold = Hold { moment: version, taken_ns, namespaces, is_of_all: false, names };
        self.labels.insert(self.next_label, hold);
    }

    fn begin_view(&mut self) {
        if self.views.len() > 6 {
            return;
        }
        let session = 1 + self.chance.below(SESSIONS);
        let of_label = self.labels.values().next().filter(|_| self.chance.0.is_multiple_of(3)).cloned();
        let joined = self.views.values().next().filter(|_| self.chance.0.is_multiple_of(5)).cloned();
        let joined = joined.map(|(_, hold)| hold).filter(|hold| hold.is_of_all);
        let hold = match of_label.or(joined) {
            Some(hold) => hold,
            None => {
                let Moment { version, taken_ns } = self.moment();
                let names = self.names.clone();
                let namespaces = BTreeSet::new();
                Hold { moment: version, taken_ns, namespaces, is_of_all: true, names }
            }
        };
        let of = hold.namespaces.iter().map(|&number| namespace(number)).collect();
        let namespaces = (!hold.is_of_all).then(|| std::sync::Arc::new(of));
        let moment = Moment { version: hold.moment, taken_ns: hold.taken_ns };
        let view = View { session: SessionId(session), moment, namespaces, began_ns: 0 };
        let number = self.catalog.past.begin_view(view);
        self.views.insert(number, (session, hold));
    }

    /// Nobody pins anything here: what nobody holds is free after the next scan.
    fn free(&mut self) {
        let retired = self.objects.take_retired();
        self.objects.reclaim(retired);
        while !self.objects.free_some(&mut self.space, &mut Slice::shortest()) {}
    }

    /// Reads what a name was bound to at a moment.
    fn read(&self, place: Place, moment: u64) -> Option<(u64, u64)> {
        let then = self.catalog.find_at(&namespace(place.0), &name(place.1), moment, self.now_ns)?;
        let (entry, object) = match then {
            Then::Now(record) => (record.entry, record.object),
            Then::Kept(kept) => (kept.entry, kept.object),
        };
        let value = match object {
            Some(object) => {
                let root = self.objects.get(object).expect("it is held").homes.root();
                let mut bytes = [0; 80];
                self.arena.read_at(root.offset, &mut bytes).expect("inside the arena");
                assert!(bytes.chunks(8).all(|chunk| chunk == &bytes[..8]), "it is whole");
                bytes
            }
            None => {
                let mut bytes = [0; 80];
                bytes[..32].copy_from_slice(&entry.header.inline().expect("it stands there").0);
                bytes
            }
        };
        Some((entry.version, u64::from_le_bytes(*value.first_chunk().expect("8 bytes"))))
    }

    /// What is held shows what was.
    fn check_some(&mut self) {
        let place = self.chance.place();
        for hold in self.holds() {
            self.check_hold(hold, place);
        }
    }

    fn check_hold(&self, hold: &Hold, place: Place) {
        if !hold.is_of_all && !hold.namespaces.contains(&place.0) {
            return;
        }
        let then = hold.names.get(&place).map(|known| (known.born, known.value));
        assert_eq!(self.read(place, hold.moment), then, "{place:?} at {} ({hold:?})", hold.moment);
    }

    /// All is judged, and all that has to end has: then exactly that is kept which somebody wants.
    fn come_to_rest(&mut self) {
        loop {
            let mut slice = Slice::shortest();
            match self.catalog.judge_past(self.now_ns, &mut slice) {
                Some(gone) => {
                    self.objects.release_if_any(gone);
                }
                None if self.catalog.past.has_loosened() => {}
                None if self.catalog.past.next_too_old().is_some_and(|at| at <= self.now_ns) => {}
                None => match self.catalog.end_put_off() {
                    Ending::Unbound(unbound) => {
                        unbound.settle(&mut self.objects);
                    }
                    Ending::PutOff => panic!("there is room"),
                    Ending::Nothing => break,
                },
            }
        }
        self.trim_history();
        let holds: Vec<Hold> = self.holds().cloned().collect();
        self.gone.retain(|gone| gone.in_history || holds.iter().any(|hold| hold.wants(gone)));
        for hold in &holds {
            for of in 0..NAMESPACES {
                (0..NAMES).for_each(|number| self.check_hold(hold, (of, number)));
            }
        }
        if self.catalog.has_put_off() || self.is_full() {
            return; // some wait to be kept
        }
        for of in 0..NAMESPACES {
            for number in 0..NAMES {
                let kept = self.catalog.past.versions_of(&namespace(of), &name(number));
                let mut kept: Vec<_> =
                    kept.map(|kept| (kept.born(), kept.end.version, kept.in_history)).collect();
                kept.sort_unstable();
                let wanted = self.gone.iter().filter(|gone| gone.place == (of, number));
                let mut wanted: Vec<_> =
                    wanted.map(|gone| (gone.known.born, gone.ended, gone.in_history)).collect();
                wanted.sort_unstable();
                assert_eq!(
                    kept,
                    wanted,
                    "of {:?}; {:?}; {:?}; now {}",
                    (of, number),
                    self.histories.get(&of),
                    self.gone.iter().filter(|gone| gone.place == (of, number)).collect::<Vec<_>>(),
                    self.now_ns
                );
            }
        }
        assert_eq!(self.catalog.past.len_and_max().0, self.gone.len() as u64);
        self.free();
        let in_arena = |known: &&Known| !known.in_header;
        let bound = self.names.values().filter(in_arena).map(|known| known.value);
        let gone = self.gone.iter().map(|gone| &gone.known).filter(in_arena).map(|known| known.value);
        let objects: BTreeSet<u64> = bound.chain(gone).collect();
        assert_eq!(self.objects.len(), objects.len(), "nothing is kept that nobody wants");
    }

    fn is_full(&self) -> bool {
        let (kept, max) = self.catalog.past.len_and_max();
        kept >= max
    }
}

/// How many steps are done, and in how many worlds. More are done with `PLASMON_TIME_STEPS`.
const STEPS: u64 = 100_000;
const WORLD_STEPS: u64 = 1_000;

#[test]
fn every_moment_that_is_held_shows_what_was_and_nothing_is_kept_for_nobody() {
    let wanted = std::env::var("PLASMON_TIME_STEPS").ok().and_then(|count| count.parse().ok());
    let mut refused = 0;
    for seed in 0..wanted.unwrap_or(STEPS) / WORLD_STEPS {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..WORLD_STEPS).for_each(|_| world.step());
            world.come_to_rest();
            world.refused
        });
        match run {
            Ok(count) => refused += count,
            Err(panic) => {
                eprintln!("this was the schedule of seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(refused > 0, "no limit was ever reached");
}
