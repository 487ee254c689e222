//! What the store does with each request: a function of its state and the request, which returns the answer or what it
//! needs before there is one.
//!
//! `State` calls [`handle`] for every request of a session but commits and look-ups of many names, and again when a
//! parked request has what it needed.

mod handshake;
pub(crate) mod lease;
mod listing;
mod lookup;
mod operator;
mod past;

pub(crate) use listing::Listing;
pub(crate) use lookup::LookUp;

use crate::{
    effect::Answer,
    parked::{Need, ReplyTo, Request, Tried},
    reclaim::Report,
    state::State,
};
use plasmon_protocol::message::{AnyRequest, Failure, MomentOf};

/// Handles a request of a session.
pub(crate) fn handle(state: &mut State, reply_to: ReplyTo, asked: &mut Request) -> Answer {
    let Request { session, tried, .. } = *asked;
    match &asked.request {
        AnyRequest::LongCommit(long) => state.begin_long_commit(reply_to, session, long),
        AnyRequest::Reserve(reserve) => lease::reserve(state, session, reserve),
        AnyRequest::ExtendLease(extend) => lease::extend(state, session, extend),
        AnyRequest::EndLease(end) => lease::end(state, session, end),
        AnyRequest::AddRegion(_) => handshake::add_region(state, session),
        AnyRequest::Find(find) => lookup::find(state, session, find),
        AnyRequest::Wait(wait) => lookup::wait(state, reply_to, wait),
        AnyRequest::WaitChange(wait) => lookup::wait_change(state, reply_to, wait),
        AnyRequest::Describe(describe) => listing::describe(state, describe),
        AnyRequest::Goodbye(_) => {
            state.say_goodbye(session);
            Answer::None
        }
        AnyRequest::Kick(kick) => operator::kick(state, session, kick),
        AnyRequest::ListNames(_)
        | AnyRequest::ListBareNames(_)
        | AnyRequest::ListDescribed(_)
        | AnyRequest::ListNamespaces(_)
        | AnyRequest::DescribeNamespace(_) => match needs_all_unbound(state, asked) {
            Some(need) => Answer::Wait(need),
            None => list(state, reply_to, &asked.request),
        },
        AnyRequest::ReadStats(_) => match needs_all_unbound(state, asked) {
            Some(need) => Answer::Wait(need),
            None if tried == Tried::Scan => operator::stats(state),
            None => Answer::Wait(Need::Scan { report: Report::Pinned, usage: true }),
        },
        AnyRequest::ListPins(list) => {
            if state.is_mid_commit() {
                Answer::Wait(Need::WholeCommits)
            } else if tried == Tried::Scan || operator::is_listed(state, list) {
                operator::list_pins(state, list)
            } else {
                Answer::Wait(Need::Scan { report: Report::Listed, usage: false })
            }
        }
        AnyRequest::BeginView(begin) if matches!(begin.at, MomentOf::Now) => {
            let begin = begin.clone();
            match past::moment_need(state, asked) {
                Some(need) => Answer::Wait(need),
                None => past::begin_view(state, session, &begin),
            }
        }
        AnyRequest::BeginView(begin) => past::begin_view(state, session, begin),
        AnyRequest::TakeSnapshot(take) => {
            let take = take.clone();
            match past::moment_need(state, asked) {
                Some(need) => Answer::Wait(need),
                None => past::take_snapshot(state, session, &take),
            }
        }
        // A commit may be restoring it.
        AnyRequest::DropSnapshot(_) if state.is_commit_under_way() => Answer::Wait(Need::NoCommit),
        AnyRequest::DropSnapshot(drop) => past::drop_snapshot(state, drop),
        AnyRequest::EndHold(end) => past::end_hold(state, session, end),
        AnyRequest::FindAt(find) => past::find_at(state, session, find),
        AnyRequest::ListSnapshots(list) => past::list_snapshots(state, list),
        AnyRequest::ListViews(list) => past::list_views(state, list),
        AnyRequest::ListVersions(list) => past::list_versions(state, list),
        AnyRequest::ListAt(list) => past::list_at(state, session, list),
        AnyRequest::DescribePast(describe) => past::describe_past(state, describe),
        AnyRequest::Hello(_) => {
            let reason = "Hello is the first message on a connection, and only that".to_owned();
            Answer::fail(Failure::Malformed { reason })
        }
        // A request that this version of the protocol has and this daemon does not serve.
        other => Answer::fail(Failure::Internal { reason: format!("{} is not served", other.name()) }),
    }
}

fn list(state: &mut State, reply_to: ReplyTo, request: &AnyRequest) -> Answer {
    match request {
        AnyRequest::ListNames(list) => listing::list_names(state, reply_to, list.clone()),
        AnyRequest::ListBareNames(list) => listing::list_bare_names(state, list),
        AnyRequest::ListDescribed(list) => listing::list_described(state, list),
        AnyRequest::ListNamespaces(list) => listing::list_namespaces(state, list),
        AnyRequest::DescribeNamespace(describe) => listing::describe_namespace(state, describe),
        other => Answer::fail(Failure::Internal { reason: format!("{} lists nothing", other.name()) }),
    }
}

/// What a request needs that counts or lists names: no commit may be half visible, and what had expired when it was first
/// asked must be unbound.
fn needs_all_unbound(state: &State, asked: &mut Request) -> Option<Need> {
    let need = unbound_need(state, asked);
    if need.is_some() {
        asked.tried = Tried::Nothing; // what a scan has found by now will be old
    }
    need
}

fn unbound_need(state: &State, asked: &mut Request) -> Option<Need> {
    if state.is_mid_commit() {
        return Some(Need::WholeCommits);
    }
    let first_ns = state.catalog.next_expiry()?;
    let as_of_ns = *asked.as_of_ns.get_or_insert_with(|| state.clock.boottime_ns());
    (first_ns <= as_of_ns).then_some(Need::Expiry { as_of_ns })
}
