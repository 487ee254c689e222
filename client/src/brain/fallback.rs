//! Recalling what the index does not hold still for: the store looks it up, and pins it.

use super::Brain;
use crate::{
    connection::CallError,
    error::{Error, Result},
    object::Object,
    session::{Session, Slot},
};
use plasmon_protocol::{
    index::Entry,
    index_of,
    limits::RECALL_NAMES_MAX,
    message::{Find, FindMany, Found, FoundOne, NameSlot, Request},
    name::Name,
    object::Flags,
};
use std::sync::Arc;

impl Brain {
    /// The index did not hold still: the store looks the name up and stores the pin.
    #[cold]
    pub(super) fn find(&self, name: &str) -> Result<Option<Object>> {
        let name = Name::new(name)?;
        self.store.retry(&self.trust, |session| {
            self.find_pinned(session, |slot| Find {
                namespace: self.namespace.clone(),
                name: name.clone(),
                slot,
            })
        })
    }

    /// Makes a request that looks something up and stores a pin in the slot of this number.
    pub(super) fn find_pinned<R: Request<Reply = Found>>(
        &self,
        session: &Arc<Session>,
        request: impl FnOnce(u32) -> R,
    ) -> Result<Option<Object>, CallError> {
        let slot = session.take_slot().map_err(CallError::Other)?;
        match session.call(&request(slot.number())) {
            Ok(found) => {
                let object = found.location.map(|location| located(session, location, slot));
                object.transpose().map_err(CallError::Other)
            }
            Err(error) => {
                if may_still_pin(&error) {
                    slot.abandon();
                }
                Err(error)
            }
        }
    }

    #[cold]
    pub(super) fn find_many(&self, names: &[&str]) -> Result<Vec<Option<Object>>> {
        if names.len() > index_of(RECALL_NAMES_MAX.into()) {
            let what = format!("names recalled at one moment while they change ({})", names.len());
            return Err(Error::TooMany { what, limit: RECALL_NAMES_MAX.into() });
        }
        let names = names.iter().map(|name| Name::new(name));
        let names = names.collect::<Result<Vec<Name>, _>>()?;
        self.store.retry(&self.trust, |session| {
            let slots = names.iter().map(|_| session.take_slot()).collect::<Result<Vec<Slot>>>();
            let slots = slots.map_err(CallError::Other)?;
            let slot_of = |(name, slot): (&Name, &Slot)| NameSlot {
                namespace: self.namespace.clone(),
                name: name.clone(),
                slot: slot.number(),
            };
            let asked = names.iter().zip(&slots).map(slot_of).collect();
            let error = match session.call(&FindMany { names: asked }) {
                Ok(found) if found.locations.len() == names.len() => {
                    let located = found.locations.into_iter().zip(slots).map(|(found, slot)| match found {
                        FoundOne::At(location) => located(session, location, slot).map(Some),
                        FoundOne::Absent => Ok(None),
                    });
                    return located.collect::<Result<_>>().map_err(CallError::Other);
                }
                Ok(found) => {
                    let what =
                        format!("the store answered for {} of {} names", found.locations.len(), names.len());
                    CallError::Other(Error::internal(what))
                }
                Err(error) => error,
            };
            if may_still_pin(&error) {
                slots.into_iter().for_each(Slot::abandon);
            }
            Err(error)
        })
    }
}

/// Whether a store that was asked to pin, and gave no answer to that, may still do it.
fn may_still_pin(error: &CallError) -> bool {
    match error {
        CallError::Failed(_) | CallError::Lost { sent: false, .. } => false,
        CallError::Lost { sent: true, .. } | CallError::TimedOut | CallError::Other(_) => true,
    }
}

/// An object that the store has looked up, and pinned in `slot` unless its value stands in the entry.
fn located(session: &Arc<Session>, entry: Entry, slot: Slot) -> Result<Object> {
    // By the flag alone, as the store decided whether to pin.
    if entry.header.flags.has(Flags::INLINE) {
        return Object::new(session, entry, None);
    }
    slot.published_by_store(entry.offset);
    Object::new(session, entry, Some(slot))
}
