//! Making a namespace what it was at the moment of a snapshot, name by name.
//!
//! `checks.rs` goes through the names to count what that takes, and `apply.rs` once more to do it. Both ask [`restored`],
//! because nothing changes in between; and what one name becomes does not depend on the others.

use super::sources::Source;
use crate::catalog::{Catalog, Then};
use plasmon_protocol::{
    message::Failure,
    name::{Label, Namespace},
};
/// What becomes of a name.
pub(super) enum Restored {
    /// It is what it was.
    Stays,
    /// It was not bound then, and is now.
    Unbound,
    /// It was bound to this.
    Bound(Box<Source>),
}

/// The moment of a snapshot that has this namespace.
pub(super) fn moment_of(catalog: &Catalog, namespace: &Namespace, label: &Label) -> Result<u64, Failure> {
    let snapshot = catalog.past.snapshots().get(label);
    let its = snapshot.filter(|snapshot| snapshot.namespaces.contains(namespace));
    its.map(|it| it.moment.version).ok_or_else(|| Failure::SnapshotNotFound { label: label.clone() })
}

/// What becomes of `name` when it is made what it was at `moment`.
pub(super) fn restored(
    catalog: &Catalog,
    namespace: &Namespace,
    name: &str,
    moment: u64,
    now_ns: u64,
) -> Restored {
    let now = catalog.find(namespace, name, now_ns).map(|(_, record)| record);
    match (catalog.find_at(namespace, name, moment, now_ns), now) {
        (None, None) | (Some(Then::Now(_)), Some(_)) => Restored::Stays,
        (None, Some(_)) => Restored::Unbound,
        // It has expired since, and is not unbound yet.
        (Some(Then::Now(record)), None) => Restored::Bound(Box::new(Source::of(record).without_end())),
        (Some(Then::Kept(kept)), Some(now))
            // A value in the index has no object, but an id; and one object may have been bound with other texts.
            if kept.object == now.object
                && kept.object_uuid == now.object_uuid
                && (&kept.description, &kept.metadata) == (&now.description, &now.metadata) =>
        {
            Restored::Stays
        }
        (Some(Then::Kept(kept)), _) => Restored::Bound(Box::new(Source::of_kept(kept))),
    }
}
