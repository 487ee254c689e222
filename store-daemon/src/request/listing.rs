//! Listings: names, namespaces, and everything about one name.

use crate::{catalog::Catalog, commit::ReplyTo, server::Server, slice::Slice};
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
use plasmon_shm::boottime_ns;

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
    fn go_on(&mut self, catalog: &Catalog, slice: &mut Slice) -> bool {
        let ListNames { namespace: asked, prefix, after, .. } = &self.list;
        let now_ns = boottime_ns();
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

impl Server {
    pub(crate) fn list_names(&mut self, reply_to: ReplyTo, list: ListNames) {
        let limit = if list.limit == 0 { PAGE_NAMES_MAX } else { list.limit.min(PAGE_NAMES_MAX) };
        if let Some(namespace) = &list.namespace
            && self.catalog.namespace(namespace).is_none()
        {
            let namespace = namespace.clone();
            return self.fail(reply_to, Failure::UnknownNamespace { namespace });
        }
        let from =
            list.namespace.clone().or_else(|| list.after.as_ref().map(|after| after.namespace.clone()));
        // One more than asked tells whether more follow.
        let wanted = index_of(limit.into()) + 1;
        let listing = Listing { reply_to, list, from, wanted, names: Vec::new() };
        self.list(listing, &mut Slice::begin());
    }

    /// Goes on with a listing that takes long, for a slice.
    pub(crate) fn list_on(&mut self) {
        if let Some(listing) = self.next_listing() {
            self.list(listing, &mut Slice::begin());
        }
    }

    fn list(&mut self, mut listing: Listing, slice: &mut Slice) {
        if listing.go_on(&self.catalog, slice) {
            let Listing { reply_to, wanted, mut names, .. } = listing;
            let more = names.len() == wanted;
            names.truncate(wanted - 1);
            self.reply(reply_to, &NamesPage { names, more });
        } else {
            self.put_off_listing(listing);
        }
    }

    pub(crate) fn list_bare_names(&mut self, reply_to: ReplyTo, list: &ListBareNames) {
        let Some(id) = self.catalog.namespace(&list.namespace) else {
            return self.fail(reply_to, Failure::UnknownNamespace { namespace: list.namespace.clone() });
        };
        let mut names = BareNames::default();
        let mut found = self.catalog.names_from(id, &list.prefix, list.after.as_deref(), boottime_ns());
        let more = found.any(|(name, _)| {
            let is_full = names.is_full();
            if !is_full {
                names.push(name);
            }
            is_full
        });
        drop(found);
        self.reply(reply_to, &names.into_page(more));
    }

    pub(crate) fn list_described(&mut self, reply_to: ReplyTo, list: &ListDescribed) {
        let Some(id) = self.catalog.namespace(&list.namespace) else {
            return self.fail(reply_to, Failure::UnknownNamespace { namespace: list.namespace.clone() });
        };
        let now_ns = boottime_ns();
        let (mut names, mut texts_bytes, mut more) = (Vec::new(), 0, false);
        for (_, number) in self.catalog.names_from(id, &list.prefix, list.after.as_deref(), now_ns) {
            if names.len() == index_of(PAGE_DESCRIBED_MAX.into()) || texts_bytes >= PAGE_DESCRIBED_BYTES_MAX {
                more = true;
                break;
            }
            let Some((binding, description, metadata)) = self.catalog.info_and_texts(number, now_ns) else {
                continue;
            };
            texts_bytes += description.len() + metadata.len();
            names.push(DescribedName {
                binding,
                description: description.to_owned(),
                metadata: metadata.to_owned(),
            });
        }
        self.reply(reply_to, &DescribedPage { names, more });
    }

    pub(crate) fn describe_namespace(&mut self, reply_to: ReplyTo, describe: &DescribeNamespace) {
        let info = self.catalog.namespace_info(&describe.namespace);
        self.reply(reply_to, &NamespaceDescribed { info });
    }

    pub(crate) fn list_namespaces(&mut self, reply_to: ReplyTo, list: &ListNamespaces) {
        let wanted = index_of(PAGE_NAMES_MAX.into()) + 1;
        let mut namespaces: Vec<_> =
            self.catalog.namespaces_after(list.after.as_ref()).take(wanted).collect();
        let more = namespaces.len() == wanted;
        namespaces.truncate(wanted - 1);
        self.reply(reply_to, &NamespacesListed { namespaces, more });
    }

    pub(crate) fn describe(&mut self, reply_to: ReplyTo, describe: &Describe) {
        let now_ns = boottime_ns();
        let found = self.catalog.find(&describe.namespace, &describe.name, now_ns);
        let known = found.and_then(|(number, ..)| self.catalog.info_and_texts(number, now_ns));
        let described = match known {
            Some((binding, description, metadata)) => Described {
                binding: Some(binding),
                description: description.to_owned(),
                metadata: metadata.to_owned(),
            },
            None => Described { binding: None, description: String::new(), metadata: String::new() },
        };
        self.reply(reply_to, &described);
    }
}
