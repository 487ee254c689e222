//! Answers about names and namespaces, in order and page by page.
//!
//! Requests that list or describe (`request/listing.rs`) call these methods. `request/operator.rs` asks for the label
//! of a binding when it lists pins.

use super::{Catalog, NamespaceId, realtime_ns};
use plasmon_protocol::{
    id::ObjectId,
    message::{BindingInfo, NamespaceInfo},
    name::{Name, Namespace},
};
use std::ops::Bound;

impl Catalog {
    /// What there is to know at `now_ns` about the binding in entry `number`.
    pub(crate) fn info(&self, number: u32, now_ns: u64) -> Option<BindingInfo> {
        let record = self.present.get(number)?;
        let entry = &record.entry;
        let state = self.namespaces.get(record.namespace)?;
        let recalled_ns = self.recalls.last(number);
        Some(BindingInfo {
            namespace: state.namespace.clone(),
            name: Name::new(&record.name).ok()?,
            version: entry.version,
            object_id: *ObjectId::as_bytes(&state.prefix().object_id(record.object_uuid)),
            len_bytes: entry.len_bytes,
            kind: entry.header.kind,
            created_ns: entry.created_ns,
            writer_pid: record.writer_pid,
            writer_uid: entry.writer_uid,
            recalled_ns: recalled_ns.map_or(0, |at| realtime_ns().saturating_sub(now_ns.saturating_sub(at))),
            ttl: record.ttl.clone(),
            left_ns: (entry.expires_ns != 0).then(|| entry.expires_ns.saturating_sub(now_ns)),
        })
    }

    /// As [`info`](Self::info), with description and metadata.
    pub(crate) fn info_and_texts(&self, number: u32, now_ns: u64) -> Option<(BindingInfo, &str, &str)> {
        let record = self.present.get(number)?;
        Some((self.info(number, now_ns)?, &record.description, &record.metadata))
    }

    /// `NAMESPACE/NAME` of the binding in entry `number`, for people.
    pub(crate) fn label(&self, number: u32) -> Option<String> {
        let record = self.present.get(number)?;
        Some(format!("{}/{}", self.namespaces.get(record.namespace)?.namespace, record.name))
    }

    /// One page of the names of `namespace` that are bound at `now_ns` and begin with `prefix`, in order, after `after`.
    pub(crate) fn page(
        &self,
        namespace: NamespaceId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        now_ns: u64,
    ) -> Vec<u32> {
        self.names_from(namespace, prefix, after, now_ns).take(limit).map(|(_, number)| number).collect()
    }

    /// The names of `namespace` that are bound at `now_ns` and begin with `prefix`, in order, after `after`; and the
    /// numbers of their entries.
    pub(crate) fn names_from<'a>(
        &'a self,
        namespace: NamespaceId,
        prefix: &'a str,
        after: Option<&'a str>,
        now_ns: u64,
    ) -> impl Iterator<Item = (&'a str, u32)> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let state = self.namespaces.get(namespace).into_iter();
        let some_have_expired = self.has_expired_ones(now_ns);
        let has_expired =
            move |number| self.present.get(number).is_some_and(|record| record.entry.has_expired(now_ns));
        state
            .flat_map(move |state| state.names.range::<str, _>((start, Bound::Unbounded)))
            // Comparing nothing is not free: of 10,000 names it took half the time (a masked load with an empty mask).
            .take_while(move |(name, _)| prefix.is_empty() || name.starts_with(prefix))
            .map(|(name, &number)| (&**name, number))
            .filter(move |&(_, number)| !some_have_expired || !has_expired(number))
    }

    /// The namespaces after `after`, in order.
    pub(crate) fn namespaces_after(&self, after: Option<&Namespace>) -> impl Iterator<Item = NamespaceInfo> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.namespaces.range(start).map(|(_, &id)| self.namespaces.registered(id).info())
    }

    /// What there is to know of one namespace.
    pub(crate) fn namespace_info(&self, namespace: &Namespace) -> Option<NamespaceInfo> {
        Some(self.namespaces.get(self.namespace(namespace)?)?.info())
    }

    /// The namespaces at and after `from`, in order, for listings over all of them.
    pub(crate) fn namespaces_from(
        &self,
        from: Option<&Namespace>,
    ) -> impl Iterator<Item = (&Namespace, NamespaceId)> {
        let start = from.map_or(Bound::Unbounded, Bound::Included);
        self.namespaces.range(start).map(|(namespace, &id)| (namespace, id))
    }
}
