//! Requests of a session: each on a connection that no other request uses meanwhile.

use super::Session;
use crate::connection::{CallError, Connection, Reached};
use plasmon_protocol::message::{Failure, Request};
use std::{io, os::fd::OwnedFd, sync::atomic::Ordering, time::Duration};

/// Idle connections that are kept for the next call.
const IDLE_CONNECTIONS_MAX: usize = 8;

impl Session {
    /// Sends a request on a connection of its own and waits for the answer, as long as is usual.
    pub(crate) fn call<R: Request>(&self, request: &R) -> Result<R::Reply, CallError> {
        self.call_for(request, Some(self.patience))
    }

    /// As [`call`](Self::call), with the longest wait given.
    pub(crate) fn call_for<R: Request>(
        &self,
        request: &R,
        patience: Option<Duration>,
    ) -> Result<R::Reply, CallError> {
        self.on_a_connection(|connection| connection.call(request, patience))
    }

    /// Sends a request on a connection of its own, which [`finish_call`](Self::finish_call) hears the answer on.
    pub(crate) fn begin_call<R: Request>(&self, request: &R) -> Result<Connection, CallError> {
        let mut connection = self.check_out()?;
        connection.send(request)?;
        Ok(connection)
    }

    /// Waits for the answer to a request that was begun, for as long as it takes.
    pub(crate) fn finish_call<R: Request>(&self, mut connection: Connection) -> Result<R::Reply, CallError> {
        if !self.mark.is_here() {
            // A forked child: the answer is its parent's.
            return Err(CallError::Lost { source: io::ErrorKind::NotConnected.into(), sent: false });
        }
        let result = connection.receive(None);
        self.keep(connection, &result);
        result
    }

    /// As [`call`](Self::call), for an answer that takes as long as it takes: a store that answers others meanwhile is at
    /// work on it.
    pub(crate) fn call_at_length<R: Request>(&self, request: &R) -> Result<R::Reply, CallError> {
        self.on_a_connection(|connection| {
            connection.call_at_length(request, self.patience, || self.answers_others())
        })
    }

    /// As [`call_at_length`](Self::call_at_length), for an answer that comes with descriptors.
    pub(crate) fn call_with_fds<R: Request>(
        &self,
        request: &R,
    ) -> Result<(R::Reply, Vec<OwnedFd>), CallError> {
        self.on_a_connection(|connection| {
            connection.call_with_fds(request, self.patience, || self.answers_others())
        })
    }

    /// Fails if the store does not answer on a new connection either. A store that has ended is no failure here: the
    /// call that waits for its answer notices that itself.
    fn answers_others(&self) -> Result<(), CallError> {
        let another = self.join(self.patience).and_then(|mut another| {
            another.joined(self.patience)?;
            Ok(another)
        });
        match another {
            Ok(another) => self.check_in(another),
            Err(CallError::TimedOut) => return Err(CallError::TimedOut),
            // So many wait to be accepted that this one cannot even wait.
            Err(CallError::Lost { source, .. }) if source.kind() == io::ErrorKind::TimedOut => {
                return Err(CallError::TimedOut);
            }
            Err(_) => {}
        }
        Ok(())
    }

    fn on_a_connection<T>(
        &self,
        call: impl FnOnce(&mut Connection) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let mut connection = self.check_out()?;
        let result = call(&mut connection);
        self.keep(connection, &result);
        result
    }

    /// Keeps a connection for the next request, unless this one broke it.
    fn keep<T>(&self, connection: Connection, result: &Result<T, CallError>) {
        if connection.is_usable() && matches!(result, Ok(_) | Err(CallError::Failed(_))) {
            self.check_in(connection);
        }
    }

    pub(super) fn check_out(&self) -> Result<Connection, CallError> {
        let not_sent = |source| CallError::Lost { source, sent: false };
        if !self.mark.is_here() {
            return Err(not_sent(io::ErrorKind::NotConnected.into())); // a forked child: the connections are its parent's
        }
        if self.hands_over.load(Ordering::Relaxed) {
            self.private(|private| self.settle(&mut private.hand_overs));
        }
        let idle = self.private(|private| private.idle.pop()).filter(Connection::is_ours);
        let joining = match idle {
            Some(connection) => Ok(connection),
            None => self.join(self.patience),
        };
        let joined = joining.and_then(|mut connection| {
            connection.joined(self.patience)?;
            Ok(connection)
        });
        match joined {
            Ok(connection) => Ok(connection),
            // Whatever happened here, the request itself was not sent.
            Err(CallError::Lost { source, .. }) => Err(not_sent(source)),
            // Another store listens there now, or this one is about to end.
            Err(CallError::Failed(Failure::UnknownSession | Failure::ShuttingDown)) => {
                Err(not_sent(io::ErrorKind::ConnectionReset.into()))
            }
            Err(error) => Err(error),
        }
    }

    /// A connection that has asked to join this session.
    pub(super) fn join(&self, patience: Duration) -> Result<Connection, CallError> {
        let not_sent = |source| CallError::Lost { source, sent: false };
        let Reached { mut connection, store_uid } =
            Connection::open(&self.socket, patience).map_err(not_sent)?;
        if store_uid != self.store_uid {
            // Somebody else listens there now. It gets neither the token nor the request.
            return Err(not_sent(io::ErrorKind::PermissionDenied.into()));
        }
        connection.join(self.here().token)?;
        Ok(connection)
    }

    pub(super) fn check_in(&self, connection: Connection) {
        let surplus = self.private(|private| {
            if private.idle.len() >= IDLE_CONNECTIONS_MAX {
                return Some(connection);
            }
            private.idle.push(connection);
            None
        });
        drop(surplus);
    }
}
