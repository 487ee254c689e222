//! Listings: names, namespaces, and everything about one name.
//!
//! [`handle`](super::handle) calls these. A long listing becomes a [`Listing`], which `state/turn.rs` works off in
//! slices.

use crate::{catalog::Catalog, effect::Answer, parked::ReplyTo, slice::Slice, state::State};
use plasmon_protocol::{
    index_of,
    limits::{PAGE_DESCRIBED_BYTES_MAX, PAGE_DESCRIBED_MAX, PAGE_NAMES_MAX},
    message::{
        BareNames, BindingInfo, Describe, DescribeNamespace, Described, DescribedName, DescribedPage,
        Failure, ListBareNames, ListDescribed, ListNames, ListNamespaces, NamesPage, NamespaceDescribed,
        NamespacesListed,
    },
    name::Namespace,
};

/// A page of names that is being made. Names of all namespaces may be looked for in many of them in vain.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) reply_to: ReplyTo,
    list: ListNames,
    /// The namespace that is looked through next; `None` is the first.
    from: Option<Namespace>,
    wanted: usize,
    names: Vec<BindingInfo>,
}

impl Listing {
    /// Looks through namespaces, for a slice. Returns whether that was all.
    fn go_on(&mut self, catalog: &Catalog, now_ns: u64, slice: &mut Slice) -> bool {
        let ListNames { namespace: asked, prefix, after, .. } = &self.list;
        let from = self.from.take();
        for (namespace, id) in catalog.namespaces_from(from.as_ref()) {
            if asked.as_ref().is_some_and(|asked| asked != namespace) {
                break;
            }
            if !slice.spend() {
                self.from = Some(namespace.clone());
                return false;
            }
            let after = after.as_ref().filter(|after| after.namespace == *namespace);
            let after = after.map(|after| after.name.as_str());
            let numbers = catalog.page(id, prefix, after, self.wanted - self.names.len(), now_ns);
            self.names.extend(numbers.into_iter().filter_map(|number| catalog.info(number, now_ns)));
            if self.names.len() == self.wanted {
                break;
            }
        }
        true
    }
}

/// Answers with a page of names, of one namespace or of all.
pub(super) fn list_names(state: &mut State, reply_to: ReplyTo, list: ListNames) -> Answer {
    let limit = if list.limit == 0 { PAGE_NAMES_MAX } else { list.limit.min(PAGE_NAMES_MAX) };
    if let Some(namespace) = &list.namespace
        && state.catalog.namespace(namespace).is_none()
    {
        let namespace = namespace.clone();
        return Answer::fail(Failure::UnknownNamespace { namespace });
    }
    let from = list.namespace.clone().or_else(|| list.after.as_ref().map(|after| after.namespace.clone()));
    // One more than asked tells whether more follow.
    let wanted = index_of(limit.into()) + 1;
    let listing = Listing { reply_to, list, from, wanted, names: Vec::new() };
    state.list(listing);
    Answer::Later
}

impl State {
    /// Goes on with a listing that takes long, for a slice, unless a commit is half visible.
    pub(crate) fn list_on(&mut self) {
        if self.is_mid_commit() {
            return;
        }
        if let Some(listing) = self.listings.pop() {
            self.list(listing);
        }
    }

    fn list(&mut self, mut listing: Listing) {
        let (now_ns, mut slice) = (self.clock.boottime_ns(), self.clock.slice());
        if listing.go_on(&self.catalog, now_ns, &mut slice) {
            let Listing { reply_to, wanted, mut names, .. } = listing;
            let more = names.len() == wanted;
            names.truncate(wanted - 1);
            self.reply(reply_to, &NamesPage { names, more });
        } else {
            self.put_off_listing(listing);
        }
    }
}

/// Answers with a page of names of one namespace, and nothing else of them.
pub(super) fn list_bare_names(state: &State, list: &ListBareNames) -> Answer {
    let Some(id) = state.catalog.namespace(&list.namespace) else {
        return Answer::fail(Failure::UnknownNamespace { namespace: list.namespace.clone() });
    };
    let mut names = BareNames::default();
    let mut found =
        state.catalog.names_from(id, &list.prefix, list.after.as_deref(), state.clock.boottime_ns());
    let more = found.any(|(name, _)| {
        let is_full = names.is_full();
        if !is_full {
            names.push(name);
        }
        is_full
    });
    drop(found);
    Answer::reply(&names.into_page(more))
}

/// Answers with a page of names of one namespace, and all about each.
pub(super) fn list_described(state: &State, list: &ListDescribed) -> Answer {
    let Some(id) = state.catalog.namespace(&list.namespace) else {
        return Answer::fail(Failure::UnknownNamespace { namespace: list.namespace.clone() });
    };
    let now_ns = state.clock.boottime_ns();
    let (mut names, mut texts_bytes, mut more) = (Vec::new(), 0, false);
    for (_, number) in state.catalog.names_from(id, &list.prefix, list.after.as_deref(), now_ns) {
        if names.len() == index_of(PAGE_DESCRIBED_MAX.into()) || texts_bytes >= PAGE_DESCRIBED_BYTES_MAX {
            more = true;
            break;
        }
        let Some((binding, description, metadata)) = state.catalog.info_and_texts(number, now_ns) else {
            continue;
        };
        texts_bytes += description.len() + metadata.len();
        names.push(DescribedName {
            binding,
            description: description.to_owned(),
            metadata: metadata.to_owned(),
        });
    }
    Answer::reply(&DescribedPage { names, more })
}

/// Answers with what there is to know of one namespace.
pub(super) fn describe_namespace(state: &State, describe: &DescribeNamespace) -> Answer {
    let info = state.catalog.namespace_info(&describe.namespace);
    Answer::reply(&NamespaceDescribed { info })
}

/// Answers with a page of namespaces.
pub(super) fn list_namespaces(state: &State, list: &ListNamespaces) -> Answer {
    let wanted = index_of(PAGE_NAMES_MAX.into()) + 1;
    let mut namespaces: Vec<_> = state.catalog.namespaces_after(list.after.as_ref()).take(wanted).collect();
    let more = namespaces.len() == wanted;
    namespaces.truncate(wanted - 1);
    Answer::reply(&NamespacesListed { namespaces, more })
}

/// Answers with all about one name.
pub(super) fn describe(state: &State, describe: &Describe) -> Answer {
    let now_ns = state.clock.boottime_ns();
    let found = state.catalog.find(&describe.namespace, &describe.name, now_ns);
    let known = found.and_then(|(number, ..)| state.catalog.info_and_texts(number, now_ns));
    let described = match known {
        Some((binding, description, metadata)) => Described {
            binding: Some(binding),
            description: description.to_owned(),
            metadata: metadata.to_owned(),
        },
        None => Described { binding: None, description: String::new(), metadata: String::new() },
    };
    Answer::reply(&described)
}
