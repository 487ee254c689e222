//! Looking names up for clients that did not get a steady look at the index, and waiting for names.

use crate::{
    commit::ReplyTo,
    server::{Server, Until},
    session::SessionId,
};
use plasmon_protocol::{
    id::NameId,
    index::Entry,
    message::{
        Bound, Changed, Failure, Find, FindMany, Found, FoundMany, FoundOne, Location, NameSlot, Wait,
        WaitChange,
    },
    name::{Name, Namespace},
    object::{Flags, Header},
    pins::pin_for,
};
use plasmon_shm::boottime_ns;
use std::time::{Duration, Instant};

impl Server {
    pub(crate) fn find(&mut self, reply_to: ReplyTo, session: SessionId, find: &Find) {
        match self.pin_and_locate(session, &find.namespace, &find.name, find.slot, boottime_ns()) {
            Ok(location) => self.reply(reply_to, &Found { location }),
            Err(failure) => self.fail(reply_to, failure),
        }
    }

    /// All names in one turn of the loop, while no commit is half done: one moment.
    pub(crate) fn find_many(&mut self, reply_to: ReplyTo, session: SessionId, find: &FindMany) {
        let mut locations = Vec::with_capacity(find.names.len());
        let mut claimed = Vec::new();
        let now_ns = boottime_ns();
        for NameSlot { namespace, name, slot } in &find.names {
            match self.pin_and_locate(session, namespace, name, *slot, now_ns) {
                Ok(Some(location)) => {
                    if is_pinned(&location.header) {
                        claimed.push(*slot);
                    }
                    locations.push(FoundOne::At { location });
                }
                Ok(None) => locations.push(FoundOne::Absent {}),
                Err(failure) => {
                    self.withdraw(session, &claimed);
                    return self.fail(reply_to, failure);
                }
            }
        }
        self.reply(reply_to, &FoundMany { locations });
    }

    pub(crate) fn wait(&mut self, reply_to: ReplyTo, wait: &Wait) {
        let found = self.catalog.find(&wait.namespace, &wait.name, boottime_ns());
        let found = found.map(|(_, _, entry)| entry.version);
        match found {
            Some(version) if version > wait.above_version => self.reply(reply_to, &Bound { version }),
            _ => {
                let deadline = Instant::now().checked_add(Duration::from_millis(wait.wait_ms));
                let id = NameId::new(&wait.namespace, &wait.name);
                self.wait_for(id, reply_to, Until::Above(wait.above_version), deadline);
            }
        }
    }

    pub(crate) fn wait_change(&mut self, reply_to: ReplyTo, wait: &WaitChange) {
        let found = self.catalog.find(&wait.namespace, &wait.name, boottime_ns());
        let version = found.map_or(0, |(_, _, entry)| entry.version);
        let until = Until::Not(wait.version);
        if until.has_come(version) {
            return self.reply(reply_to, &Changed { version });
        }
        let deadline = Instant::now().checked_add(Duration::from_millis(wait.wait_ms));
        self.wait_for(NameId::new(&wait.namespace, &wait.name), reply_to, until, deadline);
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
    ) -> Result<Option<Location>, Failure> {
        let bad_slot = || Failure::BadSlot { slot };
        let (region, region_slot) =
            self.sessions.get(session).and_then(|session| session.slot(slot)).ok_or_else(bad_slot)?;
        let found = self.catalog.find(namespace, name, now_ns);
        let is_free = match &found {
            Some((_, _, entry)) if is_pinned(&entry.header) => {
                region.claim(region_slot, pin_for(entry.offset))
            }
            _ => region.pin(region_slot) == Some(0),
        };
        if !is_free {
            return Err(bad_slot());
        }
        if let Some((number, ..)) = found {
            self.catalog.recalls.note(number);
        }
        let found = found.map(|(number, _, entry)| (number, location(&entry)));
        Ok(found.map(|(number, location)| {
            self.catalog.slide(number, now_ns);
            location
        }))
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

fn location(entry: &Entry) -> Location {
    Location {
        version: entry.version,
        offset: entry.offset,
        len_bytes: entry.len_bytes,
        created_ns: entry.created_ns,
        expires_ns: entry.expires_ns,
        writer_uid: entry.writer_uid,
        header: entry.header,
    }
}
