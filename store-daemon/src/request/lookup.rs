//! Looking names up for clients that did not get a steady look at the index, and waiting for names.
//!
//! [`handle`](super::handle) calls these. Look-ups of many names wait in `state/commits.rs` for their turn.

use crate::{
    effect::Answer,
    parked::{ReplyTo, Until},
    session::SessionId,
    slice::Slice,
    state::State,
};
use plasmon_protocol::{
    codec::{DecodeError, ListReader},
    id::NameId,
    index::Entry,
    message::{Bound, Changed, Failure, Find, Found, FoundOne, FoundOneByOne, NameSlot, Wait, WaitChange},
    name::{Name, Namespace},
    object::{Flags, Header},
    pins::pin_for,
};
use std::time::Duration;

/// A [`FindMany`](plasmon_protocol::message::FindMany) on its way. It has a turn among the commits: nothing changes the
/// catalog until all its names are looked up, so they are looked up at one moment, however many slices that takes.
#[derive(Debug)]
pub(crate) struct LookUp {
    pub(crate) reply_to: ReplyTo,
    session: SessionId,
    names: ListReader<NameSlot>,
    /// When its turn came, by CLOCK_BOOTTIME; 0 until then.
    moment_ns: u64,
    /// The slots that pins were stored in.
    claimed: Vec<u32>,
    found: FoundOneByOne,
}

impl LookUp {
    pub(crate) fn new(reply_to: ReplyTo, session: SessionId, names: ListReader<NameSlot>) -> LookUp {
        LookUp {
            reply_to,
            session,
            names,
            moment_ns: 0,
            claimed: Vec::new(),
            found: FoundOneByOne::default(),
        }
    }

    /// Whether its turn has come.
    pub(crate) fn is_under_way(&self) -> bool {
        self.moment_ns != 0
    }
}

/// Tells where a name's object lies, and pins it for the client.
pub(super) fn find(state: &mut State, session: SessionId, find: &Find) -> Answer {
    let now_ns = state.clock.boottime_ns();
    match state.pin_and_locate(session, &find.namespace, &find.name, find.slot, now_ns) {
        Ok(location) => Answer::reply(&Found { location }),
        Err(failure) => Answer::fail(failure),
    }
}

/// Answers once a name is bound with a version above the one that is known.
pub(super) fn wait(state: &mut State, reply_to: ReplyTo, wait: &Wait) -> Answer {
    let now_ns = state.clock.boottime_ns();
    let found = state.catalog.find(&wait.namespace, &wait.name, now_ns);
    match found.map(|(_, record)| record.entry.version) {
        Some(version) if version > wait.above_version => Answer::reply(&Bound { version }),
        _ => {
            let id = NameId::new(&wait.namespace, &wait.name);
            state.wait_for(reply_to, id, Until::Above(wait.above_version), wait.wait_ms)
        }
    }
}

/// Answers once a name is bound with another version than the one that is known, or not at all.
pub(super) fn wait_change(state: &mut State, reply_to: ReplyTo, wait: &WaitChange) -> Answer {
    let now_ns = state.clock.boottime_ns();
    let found = state.catalog.find(&wait.namespace, &wait.name, now_ns);
    let version = found.map_or(0, |(_, record)| record.entry.version);
    let until = Until::Not(wait.version);
    if until.has_come(version) {
        return Answer::reply(&Changed { version });
    }
    state.wait_for(reply_to, NameId::new(&wait.namespace, &wait.name), until, wait.wait_ms)
}

impl State {
    /// Goes on with looking many names up, for as long as `slice` lasts. Returns what is left to do.
    pub(crate) fn look_up(&mut self, mut look_up: Box<LookUp>, slice: &mut Slice) -> Option<Box<LookUp>> {
        if !look_up.is_under_way() {
            look_up.moment_ns = self.clock.boottime_ns();
        }
        while self.open.contains(&look_up.reply_to.connection) {
            if !slice.spend() {
                return Some(look_up);
            }
            match look_up.names.read() {
                Ok(Some(wanted)) => {
                    if let Err(failure) = self.look_up_one(&mut look_up, &wanted) {
                        self.withdraw(look_up.session, &look_up.claimed);
                        self.fail(look_up.reply_to, failure);
                        return None;
                    }
                }
                Ok(None) => {
                    match look_up.names.rest().finish() {
                        Ok(()) => self.reply(look_up.reply_to, &look_up.found),
                        Err(error) => {
                            self.refuse_look_up(look_up.reply_to, look_up.session, &look_up.claimed, &error)
                        }
                    }
                    return None;
                }
                Err(error) => {
                    self.refuse_look_up(look_up.reply_to, look_up.session, &look_up.claimed, &error);
                    return None;
                }
            }
        }
        // Nobody will hear of it.
        self.withdraw(look_up.session, &look_up.claimed);
        self.drop_request(look_up.reply_to);
        None
    }

    fn look_up_one(&mut self, look_up: &mut LookUp, wanted: &NameSlot) -> Result<(), Failure> {
        let NameSlot { namespace, name, slot } = wanted;
        let found = self.pin_and_locate(look_up.session, namespace, name, *slot, look_up.moment_ns)?;
        if found.as_ref().is_some_and(|location| is_pinned(&location.header)) {
            look_up.claimed.push(*slot);
        }
        let found = found.map_or(FoundOne::Absent, FoundOne::At);
        look_up.found.locations.push(&found);
        Ok(())
    }

    fn refuse_look_up(
        &mut self,
        reply_to: ReplyTo,
        session: SessionId,
        claimed: &[u32],
        error: &DecodeError,
    ) {
        self.withdraw(session, claimed);
        self.refuse_request(reply_to, error);
    }

    fn wait_for(&mut self, reply_to: ReplyTo, id: NameId, until: Until, wait_ms: u64) -> Answer {
        let deadline = self.clock.now().checked_add(Duration::from_millis(wait_ms));
        self.parked.add_wait(reply_to, id, until, deadline);
        Answer::Later
    }

    /// Stores the client's pin on its behalf, before it is told what it pins. The name is bound now, on the thread
    /// that would unbind it, so whatever scan could free the object comes after the pin.
    fn pin_and_locate(
        &mut self,
        session: SessionId,
        namespace: &Namespace,
        name: &Name,
        slot: u32,
        now_ns: u64,
    ) -> Result<Option<Entry>, Failure> {
        let found = self.catalog.find(namespace, name, now_ns);
        self.pin_for(session, slot, found.as_ref().map(|(_, record)| &record.entry))?;
        let Some((number, record)) = found else { return Ok(None) };
        let location = record.entry;
        self.catalog.recalls.note(number, now_ns);
        self.catalog.slide(number, now_ns);
        Ok(Some(location))
    }

    /// Stores a pin for what was found, if something was, in a slot of the client's that is free.
    pub(super) fn pin_for(
        &self,
        session: SessionId,
        slot: u32,
        found: Option<&Entry>,
    ) -> Result<(), Failure> {
        let bad_slot = || Failure::BadSlot { slot };
        let (region, region_slot) =
            self.sessions.get(session).and_then(|session| session.slot(slot)).ok_or_else(bad_slot)?;
        let is_free = match found {
            Some(entry) if is_pinned(&entry.header) => region.claim(region_slot, pin_for(entry.offset)),
            _ => region.pin(region_slot) == Some(0),
        };
        if is_free { Ok(()) } else { Err(bad_slot()) }
    }

    fn withdraw(&self, session: SessionId, claimed: &[u32]) {
        let Some(session) = self.sessions.get(session) else { return };
        for (region, slot) in claimed.iter().filter_map(|&slot| session.slot(slot)) {
            region.withdraw(slot);
        }
    }
}

/// Whether a recall of this object holds a pin: a value that stands in the index needs none.
fn is_pinned(header: &Header) -> bool {
    !header.flags.has(Flags::INLINE)
}
