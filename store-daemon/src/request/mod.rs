//! What the daemon does with each request.

mod handshake;
mod lease;
mod listing;
mod lookup;
mod operator;

pub(crate) use listing::Listing;
pub(crate) use lookup::LookUp;

use crate::server::{AfterScan, Parked, Server, Tried};
use plasmon_protocol::message::{AnyRequest, Failure, Holder, NoRoom};

impl Server {
    /// Handles a request of a session.
    pub(crate) fn on_request(&mut self, parked: Parked) {
        let Parked { reply_to, session, request, mut as_of_ns, tried } = parked;
        if !self.connections.contains_key(&reply_to.connection) {
            return self.give_back(reply_to.held); // it has closed while the request was parked
        }
        if self.closing {
            return match request {
                AnyRequest::Goodbye(_) => self.give_back(reply_to.held), // is not answered
                _ => self.fail(reply_to, Failure::ShuttingDown {}),
            };
        }
        tracing::trace!(session = session.0, request = request.name(), "request");
        match request {
            AnyRequest::LongCommit(long) => self.begin_long_commit(reply_to, session, &long),
            AnyRequest::Reserve(reserve) => self.reserve(reply_to, session, reserve, tried),
            AnyRequest::ExtendLease(extend) => self.extend_lease(reply_to, session, extend, tried),
            AnyRequest::EndLease(end) => self.end_lease(reply_to, session, &end),
            AnyRequest::AddRegion(_) => self.add_region(reply_to, session),
            AnyRequest::Find(find) => self.find(reply_to, session, &find),
            AnyRequest::Wait(wait) => self.wait(reply_to, &wait),
            AnyRequest::WaitChange(wait) => self.wait_change(reply_to, &wait),
            AnyRequest::Describe(describe) => self.describe(reply_to, &describe),
            AnyRequest::Goodbye(_) => {
                self.give_back(reply_to.held); // it is not answered
                self.say_goodbye(session);
            }
            AnyRequest::Kick(kick) => self.kick(reply_to, session, &kick),
            request if self.must_wait(&request, &mut as_of_ns) => {
                self.defer(Parked { reply_to, session, request, as_of_ns, tried });
            }
            AnyRequest::ListNames(list) => self.list_names(reply_to, list),
            AnyRequest::ListBareNames(list) => self.list_bare_names(reply_to, &list),
            AnyRequest::ListDescribed(list) => self.list_described(reply_to, &list),
            AnyRequest::ListNamespaces(list) => self.list_namespaces(reply_to, &list),
            AnyRequest::DescribeNamespace(describe) => self.describe_namespace(reply_to, &describe),
            AnyRequest::ReadStats(_) if tried == Tried::Scan => self.stats(reply_to),
            AnyRequest::ListPins(list) if tried == Tried::Scan || self.is_listed(&list) => {
                self.list_pins(reply_to, &list);
            }
            request @ (AnyRequest::ReadStats(_) | AnyRequest::ListPins(_)) => {
                let tried = Tried::Scan;
                self.park_for_scan(AfterScan::Request(Parked {
                    reply_to,
                    session,
                    request,
                    as_of_ns,
                    tried,
                }));
            }
            AnyRequest::Hello(_) => {
                let reason = "Hello is the first message on a connection, and only that".to_owned();
                self.fail(reply_to, Failure::Malformed { reason });
            }
            // A request that this version of the protocol has and this daemon does not serve.
            other => {
                let reason = format!("{} is not served", other.name());
                self.fail(reply_to, Failure::Internal { reason });
            }
        }
    }

    /// The figures of a full store. `short_of_memory`: there is room in the arena, but the machine cannot back it.
    pub(crate) fn store_full(&self, requested_bytes: u64, short_of_memory: bool) -> Failure {
        let figures = self.space.figures();
        let holder = |&(session, bytes)| {
            let session = self.sessions.get(session)?;
            Some(Holder { pid: session.pid, command: session.command.clone(), bytes })
        };
        let holders = self.objects.limbo().holders.iter().filter_map(holder).collect();
        Failure::StoreFull {
            room: NoRoom {
                requested_bytes,
                capacity_bytes: self.capacity_bytes,
                used_bytes: figures.used,
                free_bytes: figures.free,
                largest_free_bytes: figures.largest_free,
                limbo_bytes: self.objects.limbo().bytes,
                cached_bytes: self.catalog.cached_bytes(),
                populated_bytes: short_of_memory.then_some(figures.populated),
                holders,
            },
        }
    }
}
