//! What the loop's state asks of the outside: it never talks to a socket or a thread itself, so that tests can take the
//! place of both.
//!
//! `State` and the handlers of requests leave effects in a queue. `Server::carry_out` takes them from it.

use crate::{
    connection::{ConnectionId, Role},
    copy::CopyJob,
    parked::{Grant, Need, ReplyTo, Ticket},
    reclaim::Job,
    session::{Orphan, SessionId},
};
use plasmon_protocol::{
    codec::Codec,
    message::{Failed, Failure, Message},
};
use std::{collections::VecDeque, os::fd::OwnedFd, sync::Arc};

/// Most messages are no longer.
const SHORT_BODY_BYTES: usize = 64;

/// A message for a client.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its number.
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
    /// What goes with its first byte.
    pub(crate) fds: Vec<Arc<OwnedFd>>,
}

impl Reply {
    pub(crate) fn new<M: Message>(message: &M) -> Reply {
        Reply::with_fds(message, Vec::new())
    }

    pub(crate) fn with_fds<M: Message>(message: &M, fds: Vec<Arc<OwnedFd>>) -> Reply {
        let mut body = Vec::with_capacity(SHORT_BODY_BYTES);
        Codec::encode(message, &mut body);
        Reply { kind: M::KIND, body, fds }
    }

    pub(crate) fn failed(failure: Failure) -> Reply {
        Reply::new(&Failed { failure })
    }
}

/// What handling a request came to.
#[derive(Debug)]
pub(crate) enum Answer {
    /// This.
    Reply(Reply),
    /// A lease, once its pages are there.
    Grant(Grant),
    /// It needs this first, and is handled anew when it has that.
    Wait(Need),
    /// Whatever it has begun will answer.
    Later,
    /// The client expects none.
    None,
}

impl Answer {
    pub(crate) fn reply<M: Message>(message: &M) -> Answer {
        Answer::Reply(Reply::new(message))
    }

    pub(crate) fn fail(failure: Failure) -> Answer {
        Answer::Reply(Reply::failed(failure))
    }
}

/// Something that is to be done outside.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Send this to a client. If it cannot be sent, nobody knows of the lease that it grants, if it grants one.
    Reply { to: ReplyTo, reply: Reply, grant: Option<Grant> },
    /// The request is not answered, and held no longer.
    Drop(ReplyTo),
    /// The connection has become this.
    Settle(ConnectionId, Role),
    /// Close the connection, once what was sent is read.
    CloseSoon(ConnectionId),
    /// Close the connection: its session has ended.
    HangUp(ConnectionId),
    /// Hear who has connected before the lifelines of these sessions were closed, and then decide what becomes of them.
    HearNewcomers(Vec<SessionId>),
    /// Tell when the process of this session ends.
    WatchProcess(SessionId),
    /// Scan, or collect recalls.
    Scan(Job),
    /// Look at processes that live on without their lifeline.
    Look(Vec<Orphan>),
    /// Populate these steps of the arena.
    Populate(Ticket, VecDeque<usize>),
    /// Copy, or free what is large.
    Copy(CopyJob),
}
