//! Any body is a message or refused, and a message has one form only. A commit is also read change by change, as the
//! daemon does.
//!
//! The first two bytes are the message's number; with its highest bit the rest says which valid commit is made, and
//! where it is damaged then.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use plasmon_protocol::{
    codec::{BoundedList, Codec, ListReader, Reader},
    message::*,
    name::{Name, Namespace},
};

fuzz_target!(|data: &[u8]| {
    let Some((number, body)) = data.split_first_chunk() else { return };
    let number = u16::from_le_bytes(*number);
    if number < 0x8000 {
        return parse(number, body.to_vec().into());
    }
    let Ok(made) = Made::arbitrary_take_rest(Unstructured::new(body)) else { return };
    if let Some((number, body)) = made.body() {
        parse(number, body.into());
    }
});

/// A message with names as they may be, and damage.
#[derive(Arbitrary, Debug)]
struct Made {
    request: MadeRequest,
    damage: Vec<(u16, u8)>,
    cut: Option<u16>,
}

#[derive(Arbitrary, Debug)]
enum MadeRequest {
    Commit { conditions: Vec<(u8, String, u64)>, changes: Vec<(u8, String, String)>, end_leases: Vec<u64> },
    FindMany(Vec<(String, u32)>),
    ListNames(Option<String>, String, Option<(String, String)>, u32),
    Wait(String, u64, u64),
    WaitChange(String, u64, u64),
    Kick(u32),
}

impl Made {
    fn body(self) -> Option<(u16, Vec<u8>)> {
        let mut body = Vec::new();
        let name = |text: &str| Name::new(text).ok();
        let namespace = |text: &str| Namespace::new(text).unwrap_or_default();
        let number = match &self.request {
            MadeRequest::Commit { conditions, changes, end_leases } => {
                let conditions = conditions.iter().filter_map(|(which, text, version)| {
                    let expect = match which % 4 {
                        3 => Expect::NamespaceUnchanged { since: *version },
                        0 => Expect::Absent,
                        1 => Expect::Version { version: *version },
                        _ => Expect::Present,
                    };
                    Some(Condition { namespace: Namespace::default(), name: name(text)?, expect })
                });
                let changes = changes.iter().filter_map(|(which, of, text)| {
                    let namespace = namespace(of);
                    Some(match which % 8 {
                        0 => Change::Unbind { namespace, name: name(text)? },
                        1 => Change::RemoveNamespace { namespace },
                        2 => Change::ClearNamespace { namespace },
                        3 => Change::RegisterNamespace { namespace },
                        4 => Change::RemoveEmptyNamespace { namespace },
                        5 => Change::EnsureCache { namespace },
                        6 => {
                            let lives = [Lives::AsDeclared, Lives::AsSource][usize::from(which % 3 == 0)].clone();
                            let at = which.is_multiple_of(5).then_some(text.len() as u64);
                            let (of_namespace, of_name, name) = (namespace.clone(), name(of)?, name(text)?);
                            let (description, metadata) = (Some(text.clone()), None);
                            Change::SameAs(SameAs {
                                namespace,
                                name,
                                description,
                                metadata,
                                lives,
                                of_namespace,
                                of_name,
                                at,
                            })
                        }
                        _ => {
                            let (ttl_ns, is_sliding) = (text.len() as u64, which % 2 == 0);
                            let ttl = which.is_multiple_of(3).then_some(Ttl { ttl_ns, is_sliding });
                            Change::DeclareNamespace { namespace, is_cache: is_sliding, ttl }
                        }
                    })
                });
                let (conditions, changes) = (conditions.collect(), changes.collect());
                Commit { conditions, changes, end_leases: end_leases.clone() }.encode(&mut body);
                Commit::KIND
            }
            MadeRequest::FindMany(names) => {
                let names = names.iter().filter_map(|(text, slot)| {
                    Some(NameSlot { namespace: namespace(text), name: name(text)?, slot: *slot })
                });
                FindMany { names: names.collect() }.encode(&mut body);
                FindMany::KIND
            }
            MadeRequest::ListNames(of, prefix, after, limit) => {
                let after = after
                    .as_ref()
                    .and_then(|(of, text)| Some(ListedName { namespace: namespace(of), name: name(text)? }));
                let namespace = of.as_deref().map(namespace);
                ListNames { namespace, prefix: prefix.clone(), after, limit: *limit }.encode(&mut body);
                ListNames::KIND
            }
            MadeRequest::Wait(text, above_version, wait_ms) => {
                let (above_version, wait_ms) = (*above_version, *wait_ms);
                Wait { namespace: Namespace::default(), name: name(text)?, above_version, wait_ms }
                    .encode(&mut body);
                Wait::KIND
            }
            MadeRequest::WaitChange(text, version, wait_ms) => {
                let (version, wait_ms) = (*version, *wait_ms);
                WaitChange { namespace: Namespace::default(), name: name(text)?, version, wait_ms }
                    .encode(&mut body);
                WaitChange::KIND
            }
            MadeRequest::Kick(pid) => {
                Kick { pid: *pid }.encode(&mut body);
                Kick::KIND
            }
        };
        for (at, with) in self.damage {
            let len = body.len().max(1);
            if let Some(byte) = body.get_mut(usize::from(at) % len) {
                *byte ^= with;
            }
        }
        if let Some(cut) = self.cut {
            body.truncate(usize::from(cut));
        }
        Some((number, body))
    }
}

fn parse(number: u16, body: Bytes) {
    if let Some(Err(error)) = AnyRequest::parse(number, body.clone()) {
        assert!(!error.to_string().is_empty());
    }
    if number == Commit::KIND {
        change_by_change(body.clone());
    }
    macro_rules! each {
        ($($message:ident)*) => { $( if number == $message::KIND { canonical::<$message>(&body); } )* };
    }
    each! {
        Failed Hello Welcome Attached ChildAdded Goodbye Commit LongCommit Committed Reserve Granted ExtendLease EndLease
        LeaseEnded AddRegion RegionAdded Find Found FindMany FoundMany Wait Bound ListNames NamesPage ListNamespaces
        NamespacesListed Describe Described ReadStats Stats ListPins PinsPage Kick Kicked WaitChange Changed ListBareNames
        BareNamesPage ListDescribed DescribedPage DescribeNamespace NamespaceDescribed BeginView ViewBegun EndHold
        HoldEnded FindAt TakeSnapshot SnapshotTaken DropSnapshot ListSnapshots SnapshotsPage ListViews ViewsPage
        ListVersions VersionsPage ListAt ThenPage DescribePast PastDescribed
    }
}

/// What is accepted is what would be written.
fn canonical<M: Message>(body: &Bytes) {
    match M::parse(body.clone()) {
        Ok(message) => {
            let mut again = Vec::new();
            message.encode(&mut again);
            assert_eq!(again, body[..]);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Reads a commit's body as the daemon does: what is a commit as a whole is the same change by change.
fn change_by_change(body: Bytes) {
    let whole = Commit::parse(body.clone());
    let Some((conditions, reader)) = all::<Condition>(Reader::new(body)) else {
        return assert!(whole.is_err());
    };
    let Some((changes, _)) = all::<Change>(reader) else { return assert!(whole.is_err()) };
    if let Ok(commit) = whole {
        assert_eq!((commit.conditions, commit.changes), (conditions, changes));
    }
}

fn all<T: Codec + BoundedList>(reader: Reader) -> Option<(Vec<T>, Reader)> {
    let mut list = ListReader::<T>::begin(reader).ok()?;
    let mut items = Vec::new();
    while let Some(item) = list.read().ok()? {
        items.push(item);
    }
    Some((items, list.rest()))
}
