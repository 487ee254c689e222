//! Listings: names, namespaces, and everything about one name.

use crate::{commit::ReplyTo, server::Server};
use plasmon_protocol::{
    index_of,
    limits::{PAGE_DESCRIBED_BYTES_MAX, PAGE_DESCRIBED_MAX, PAGE_NAMES_MAX},
    message::{
        BareNames, Describe, DescribeNamespace, Described, DescribedName, DescribedPage, Failure,
        ListBareNames, ListDescribed, ListNames, ListNamespaces, NamesPage, NamespaceDescribed,
        NamespacesListed,
    },
};
use plasmon_shm::boottime_ns;

impl Server {
    pub(crate) fn list_names(&mut self, reply_to: ReplyTo, list: &ListNames) {
        let limit = if list.limit == 0 { PAGE_NAMES_MAX } else { list.limit.min(PAGE_NAMES_MAX) };
        // One more than asked tells whether more follow.
        let wanted = index_of(limit.into()) + 1;
        let now_ns = boottime_ns();
        let mut numbers = Vec::new();
        let after = list.after.as_ref();
        if let Some(namespace) = &list.namespace {
            let Some(id) = self.catalog.namespace(namespace) else {
                let namespace = namespace.clone();
                return self.fail(reply_to, Failure::UnknownNamespace { namespace });
            };
            let after = after.filter(|after| after.namespace == *namespace).map(|after| after.name.as_str());
            numbers = self.catalog.page(id, &list.prefix, after, wanted, now_ns);
        } else {
            for (namespace, id) in self.catalog.namespaces_from(after.map(|after| &after.namespace)) {
                let after =
                    after.filter(|after| after.namespace == *namespace).map(|after| after.name.as_str());
                numbers.extend(self.catalog.page(id, &list.prefix, after, wanted - numbers.len(), now_ns));
                if numbers.len() == wanted {
                    break;
                }
            }
        }
        let more = numbers.len() == wanted;
        numbers.truncate(wanted - 1);
        let names = numbers.into_iter().filter_map(|number| self.catalog.info(number, now_ns)).collect();
        self.reply(reply_to, &NamesPage { names, more });
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
