//! The past: what names were bound to, for as long as somebody wants it.
//!
//! A binding that is born at *b* and ends at *d* is kept while history wants it, or somebody holds a moment *s* with
//! *b ≤ s < d*. `Catalog` asks [`Past::want`] whenever a binding ends. If nobody wants it, which is one comparison, nothing
//! is kept.
//!
//! Each namespace has a *chain* of moments: those that are held of it and some others, and those that are held of all
//! namespaces. A dying binding goes on the list of the last moment that wants it. When a moment leaves the chain, its list
//! is [judged](Past::judge) anew, slice by slice: each binding goes on the list of the next older moment that wants it, or
//! none does. So dropping a hold costs what died between it and the next moment (the lists are ZFS's dead lists, as in
//! M. Ahrens, "OpenZFS snapshots and dead lists", without sublists). The moments that want a dead binding only become
//! fewer, because a new moment is younger than its end; so it stands on one list at most.
//!
//! History is a reason of its own. A binding goes when neither is left.

mod holds;
mod kept;

pub(crate) use self::{
    holds::{Moment, Snapshot, View},
    kept::Kept,
};

use self::{
    holds::{Holds, Moments},
    kept::Slab,
};
use crate::{session::SessionId, slice::Slice};
use plasmon_protocol::{
    id::NamespacePrefix,
    message::{History, Reason},
    name::{Label, Namespace},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    sync::Arc,
};

/// How a binding ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The number of the change that ends it.
    pub(crate) version: u64,
    pub(crate) reason: Reason,
    /// When, by CLOCK_BOOTTIME.
    pub(crate) now_ns: u64,
}

/// The number of a namespace that has a past, or whose past is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PastId(u32);

/// Who wants a binding that ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Want {
    /// The last moment that somebody holds at which it was bound; 0 if nobody does.
    held_at: u64,
    by_history: bool,
}

impl Want {
    pub(super) fn without_history(self) -> Want {
        Want { by_history: false, ..self }
    }

    pub(super) fn is_none(self) -> bool {
        self.held_at == 0 && !self.by_history
    }
}

/// The past of one namespace, and what is to be kept of it.
#[derive(Debug)]
struct PastOf {
    namespace: Namespace,
    prefix: NamespacePrefix,
    names: BTreeMap<Arc<str>, Versions>,
    kept: u64,
    history: Option<History>,
    /// What ended before this change is in no history: there was none, or it was taken away since.
    history_from: u64,
    /// What history wants, by the change that ended it, and, of one change, by when it was kept: the first one goes first.
    in_history: BTreeMap<(u64, u64), u32>,
    history_bytes: u64,
    /// When the first of those is too old, as noted in [`Past::too_old`].
    first_too_old_ns: Option<u64>,
    /// The moments that are held of it and some others.
    moments: Moments,
}

/// What is kept of one name: the oldest first.
#[derive(Debug, Default)]
struct Versions {
    kept: VecDeque<u32>,
    in_history: u32,
}

/// What is kept of bindings that have ended, and for whom.
#[derive(Debug, Default)]
pub(crate) struct Past {
    kept: Slab,
    len: u64,
    max: u64,
    ids: BTreeMap<Namespace, PastId>,
    namespaces: BTreeMap<PastId, PastOf>,
    prefixes: BTreeMap<NamespacePrefix, PastId>,
    last_id: u32,
    /// How many bindings have been kept.
    kept_ever: u64,
    holds: Holds,
    /// The bindings that are held, by the last moment that wants each.
    held: BTreeSet<(u64, PastId, u32)>,
    /// What is held with each moment as the last one that wants it.
    weights: BTreeMap<u64, Weight>,
    /// Moments that have left a chain, and how far their lists are judged.
    loosened: BTreeMap<u64, Option<(PastId, u32)>>,
    /// Namespaces whose history is longer than it may be, and where trimming names goes on.
    over: BTreeMap<PastId, Trim>,
    /// When the oldest of each namespace's history is too old.
    too_old: BTreeSet<(u64, PastId)>,
    /// How many namespaces have a history, or moments that are held of them.
    keeping: usize,
}

/// How much is held with a moment as the last one that wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) kept: u64,
    /// Bytes of their objects in the arena.
    pub(crate) bytes: u64,
}

/// How a history is made shorter.
#[derive(Clone, Debug)]
enum Trim {
    /// By age, and by bytes.
    Oldest,
    /// First by the number of versions: this name comes next. `None` is the first one.
    Names(Option<Arc<str>>),
}

impl Past {
    pub(super) fn with_max(max: u64) -> Past {
        Past { max, ..Past::default() }
    }

    /// Whether nobody wants anything that ends.
    pub(super) fn is_idle(&self) -> bool {
        self.keeping == 0 && self.holds.of_all.is_empty()
    }

    /// How many bindings are kept, and how many may be.
    pub(crate) fn len_and_max(&self) -> (u64, u64) {
        (self.len, self.max)
    }

    pub(super) fn room(&self) -> u64 {
        self.max.saturating_sub(self.len)
    }

    /// Who wants a binding of `namespace` that was born at `born`, and ends with change number `ended`.
    pub(super) fn want(&self, namespace: &Namespace, born: u64, ended: u64) -> Want {
        if self.is_idle() {
            return Want::default();
        }
        let past = self.ids.get(namespace).and_then(|id| self.namespaces.get(id));
        let its = past.map_or(0, |past| past.moments.last_between(born, ended));
        let held_at = its.max(self.holds.of_all.last_between(born, ended));
        let by_history = past.is_some_and(|past| past.history.is_some() && ended >= past.history_from);
        Want { held_at, by_history }
    }

    /// Whether the kept binding of `name` that history wants least goes when the next one comes: it is one too many then,
    /// and nobody holds it.
    pub(super) fn makes_way(&self, namespace: &Namespace, name: &str) -> bool {
        let Some(past) = self.of(namespace) else { return false };
        let most = past.history.as_ref().and_then(|history| history.versions);
        let Some(versions) = past.names.get(name).filter(|it| most.is_some_and(|most| it.in_history >= most))
        else {
            return false;
        };
        versions
            .kept
            .iter()
            .find_map(|&number| self.kept.get(number).filter(|kept| kept.in_history))
            .is_some_and(|oldest| oldest.held_at == 0)
    }

    /// Keeps a binding that has ended, for which there is room. Returns what must be let go for it.
    pub(super) fn keep(
        &mut self,
        namespace: &Namespace,
        prefix: NamespacePrefix,
        want: Want,
        kept: impl FnOnce(PastId) -> Kept,
    ) -> Option<Box<Kept>> {
        let id = self.id_of(namespace, prefix);
        let mut kept = kept(id);
        self.kept_ever += 1;
        (kept.held_at, kept.in_history, kept.sequence) = (want.held_at, want.by_history, self.kept_ever);
        let (name, bytes, place) = (Arc::clone(&kept.name), kept.bytes, kept.place_in_history());
        let number = self.kept.insert(kept);
        self.len += 1;
        self.hold_one(number);
        let past = self.namespaces.get_mut(&id)?;
        past.kept += 1;
        let versions = past.names.entry(name).or_default();
        versions.kept.push_back(number);
        if !want.by_history {
            return None;
        }
        versions.in_history += 1;
        past.in_history.insert(place, number);
        past.history_bytes += bytes;
        let History { versions: most, bytes: most_bytes, .. } = past.history.clone()?;
        let is_over = most.is_some_and(|most| versions.in_history > most);
        let oldest =
            versions.kept.iter().copied().find(|&it| self.kept.get(it).is_some_and(|it| it.in_history));
        if most_bytes.is_some_and(|most| past.history_bytes > most) {
            self.over.entry(id).or_insert(Trim::Oldest);
        }
        let gone = oldest.filter(|_| is_over).and_then(|oldest| self.leave_history(oldest));
        self.note_first(id);
        gone
    }

    /// What `name` was bound to at `moment`, if that is kept.
    pub(crate) fn at(&self, namespace: &Namespace, name: &str, moment: u64) -> Option<&Kept> {
        let versions = self.of(namespace)?.names.get(name)?;
        // They do not overlap: the last one that was born by then is the one, or none is.
        let after =
            versions.kept.partition_point(|&it| self.kept.get(it).is_some_and(|it| it.born() <= moment));
        let number = *versions.kept.get(after.checked_sub(1)?)?;
        self.kept.get(number).filter(|kept| kept.was_bound_at(moment))
    }

    /// Whether this is in the history of its name.
    pub(crate) fn is_in_history(&self, kept: &Kept) -> bool {
        let from = self.namespaces.get(&kept.of).map_or(0, |past| past.history_from);
        kept.in_history && kept.end.version >= from
    }

    /// What is kept of `name`, the one that ended last coming first.
    pub(crate) fn versions_of(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> impl Iterator<Item = &Kept> + use<'_> {
        let versions = self.of(namespace).and_then(|past| past.names.get(name));
        versions
            .into_iter()
            .flat_map(|versions| versions.kept.iter().rev())
            .filter_map(|&it| self.kept.get(it))
    }

    /// The names of which something is kept, in order.
    pub(crate) fn names_from(
        &self,
        namespace: &Namespace,
        from: Bound<&str>,
    ) -> impl Iterator<Item = &Arc<str>> {
        let past = self.of(namespace).into_iter();
        past.flat_map(move |past| past.names.range::<str, _>((from, Bound::Unbounded))).map(|(name, _)| name)
    }

    /// How many bindings are kept of a namespace.
    pub(crate) fn kept_of(&self, namespace: &Namespace) -> u64 {
        self.of(namespace).map_or(0, |past| past.kept)
    }

    /// The namespace that something with this prefix is kept of.
    pub(super) fn holder_of(&self, prefix: &NamespacePrefix) -> Option<&Namespace> {
        let id = self.prefixes.get(prefix)?;
        self.namespaces.get(id).map(|past| &past.namespace)
    }

    /// What is declared to be kept of a namespace.
    pub(crate) fn history_of(&self, namespace: &Namespace) -> Option<&History> {
        self.of(namespace)?.history.as_ref()
    }

    /// The namespaces that have a history, and the bytes of what it keeps.
    pub(crate) fn histories(&self) -> impl Iterator<Item = (&Namespace, u64)> {
        self.namespaces
            .values()
            .filter(|past| past.history.is_some())
            .map(|past| (&past.namespace, past.history_bytes))
    }

    /// Whether a namespace has a history, or moments of it are held.
    pub(crate) fn is_kept(&self, namespace: &Namespace) -> bool {
        self.of(namespace).is_some_and(PastOf::has_rules)
    }

    /// From change number `version` on so much is kept of a namespace.
    pub(super) fn declare(
        &mut self,
        namespace: &Namespace,
        prefix: NamespacePrefix,
        history: Option<History>,
        version: u64,
    ) {
        if history.is_none() && self.of(namespace).is_none() {
            return;
        }
        let id = self.id_of(namespace, prefix);
        self.change_rules(id, |past| {
            if history.is_none() || past.history.is_none() {
                past.history_from = version + u64::from(history.is_none());
            }
            past.history = history;
        });
        self.over.insert(id, Trim::Names(None));
        self.note_first(id);
        self.forget_if_empty(id);
    }

    /// Change number `version` removes a namespace: its history and its snapshots go with it. What views want stays.
    pub(super) fn drop_rules(&mut self, namespace: &Namespace, version: u64) {
        let Some(&id) = self.ids.get(namespace) else { return };
        let labels = self.holds.labels.values_mut();
        let its =
            labels.filter_map(|label| label.namespaces.remove(namespace).then_some(label.moment.version));
        let its: Vec<u64> = its.collect();
        self.holds.labels.retain(|_, label| !label.namespaces.is_empty());
        self.change_rules(id, |past| {
            (past.history, past.history_from) = (None, version + 1);
            its.iter().for_each(|&moment| past.moments.remove(moment));
        });
        self.loosened.extend(its.into_iter().map(|moment| (moment, None)));
        self.over.insert(id, Trim::Names(None));
        self.note_first(id);
        self.forget_if_empty(id);
    }

    /// Keeps a moment of some namespaces under a label, which is not taken.
    pub(super) fn hold(
        &mut self,
        label: &Label,
        snapshot: Snapshot,
        prefix: impl Fn(&Namespace) -> NamespacePrefix,
    ) {
        for namespace in &snapshot.namespaces {
            self.id_of(namespace, prefix(namespace));
        }
        self.add_moment(snapshot.moment, Some(&snapshot.namespaces));
        self.holds.labels.insert(label.clone(), snapshot);
    }

    /// Somebody holds a moment of these namespaces, which are known here; `None` is all.
    fn add_moment(&mut self, moment: Moment, namespaces: Option<&BTreeSet<Namespace>>) {
        let Some(namespaces) = namespaces else { return self.holds.of_all.add(moment.version) };
        for namespace in namespaces {
            if let Some(&id) = self.ids.get(namespace) {
                self.change_rules(id, |past| past.moments.add(moment.version));
            }
        }
    }

    /// Somebody holds a moment of these namespaces no more.
    fn remove_moment(&mut self, moment: Moment, namespaces: Option<&BTreeSet<Namespace>>) {
        match namespaces {
            None => self.holds.of_all.remove(moment.version),
            Some(namespaces) => {
                for namespace in namespaces {
                    let Some(&id) = self.ids.get(namespace) else { continue };
                    self.change_rules(id, |past| past.moments.remove(moment.version));
                    self.forget_if_empty(id);
                }
            }
        }
        self.loosened.insert(moment.version, None);
    }

    /// Drops a snapshot. Returns what it was.
    pub(crate) fn drop_snapshot(&mut self, label: &Label) -> Option<Snapshot> {
        let snapshot = self.holds.labels.remove(label)?;
        self.remove_moment(snapshot.moment, Some(&snapshot.namespaces));
        Some(snapshot)
    }

    /// All snapshots, in order of their labels.
    pub(crate) fn snapshots(&self) -> &BTreeMap<Label, Snapshot> {
        &self.holds.labels
    }

    /// Begins a view, of a moment that is now or that somebody holds. Returns its number.
    pub(crate) fn begin_view(&mut self, view: View) -> u64 {
        self.add_moment(view.moment, view.namespaces.as_deref());
        self.holds.add_view(view)
    }

    pub(crate) fn view(&self, number: u64) -> Option<&View> {
        self.holds.views.get(&number)
    }

    /// All views, the one that began first coming first.
    pub(crate) fn views(&self) -> &BTreeMap<u64, View> {
        &self.holds.views
    }

    /// Whether a view has this namespace.
    pub(super) fn has_views_of(&self, namespace: &Namespace) -> bool {
        let mut views = self.holds.views.values();
        views.any(|view| view.namespaces.as_ref().is_none_or(|its| its.contains(namespace)))
    }

    /// How many views a session has.
    pub(crate) fn views_of(&self, session: SessionId) -> usize {
        self.holds.count_of(session)
    }

    /// The moment with this number, if somebody holds that of all namespaces.
    pub(crate) fn held_by_a_view(&self, version: u64) -> Option<Moment> {
        let mut views = self.holds.views.values();
        let found = views.find(|view| view.moment.version == version && view.namespaces.is_none());
        found.map(|view| view.moment)
    }

    /// Ends a view. Returns what it was.
    pub(crate) fn end_view(&mut self, number: u64) -> Option<View> {
        let view = self.holds.remove_view(number)?;
        self.remove_moment(view.moment, view.namespaces.as_deref());
        Some(view)
    }

    /// Ends one of the views of `session`. Returns whether there was one.
    pub(crate) fn end_view_of(&mut self, session: SessionId) -> bool {
        self.holds.first_of(session).is_some_and(|number| self.end_view(number).is_some())
    }

    /// History does not want what is kept of `name` any more. Returns one that nobody wants then, or that there is none left.
    pub(super) fn purge_one(&mut self, namespace: &Namespace, name: &str) -> Purged {
        let Some(past) = self.of(namespace) else { return Purged::Nothing };
        let versions = past.names.get(name).into_iter().flat_map(|versions| versions.kept.iter().copied());
        let first = versions.into_iter().find(|&it| self.kept.get(it).is_some_and(|kept| kept.in_history));
        match first {
            Some(number) => Purged::One(self.leave_history(number)),
            None => Purged::Nothing,
        }
    }

    /// Whether [`judge`](Self::judge) has something to do.
    pub(crate) fn has_loosened(&self) -> bool {
        !self.loosened.is_empty() || !self.over.is_empty()
    }

    /// When the oldest binding in a history is too old: CLOCK_BOOTTIME, in nanoseconds.
    pub(crate) fn next_too_old(&self) -> Option<u64> {
        self.too_old.first().map(|&(at, _)| at)
    }

    /// Judges anew what nobody may want any more, until one is found that nobody wants, or `slice` is over. Returns the
    /// object of that one.
    pub(super) fn judge(&mut self, now_ns: u64, slice: &mut Slice) -> Judged {
        while slice.spend() {
            let step = match self.loosened.first_key_value() {
                Some((&moment, &at)) => self.judge_held(moment, at),
                None => match self.over.first_key_value() {
                    Some((&id, trim)) => {
                        let trim = trim.clone();
                        self.trim(id, trim, now_ns)
                    }
                    None => match self.too_old.first() {
                        Some(&(at, id)) if at <= now_ns => {
                            self.over.insert(id, Trim::Oldest);
                            None
                        }
                        _ => return Judged::Nothing,
                    },
                },
            };
            if let Some(gone) = step {
                return Judged::Gone(gone);
            }
        }
        Judged::NoTime
    }

    /// Puts a binding on the list of the moment that wants it, if one does.
    fn hold_one(&mut self, number: u32) {
        let Some(kept) = self.kept.get(number).filter(|kept| kept.held_at != 0) else { return };
        self.held.insert((kept.held_at, kept.of, number));
        let weight = self.weights.entry(kept.held_at).or_default();
        weight.kept += 1;
        weight.bytes += kept.entry.arena_bytes();
    }

    /// Takes a binding off the list that it stands on.
    fn unhold_one(&mut self, number: u32) {
        let Some(kept) = self.kept.get(number).filter(|kept| kept.held_at != 0) else { return };
        self.held.remove(&(kept.held_at, kept.of, number));
        if let Some(weight) = self.weights.get_mut(&kept.held_at) {
            weight.kept -= 1;
            weight.bytes -= kept.entry.arena_bytes();
            if weight.kept == 0 {
                self.weights.remove(&kept.held_at);
            }
        }
    }

    /// How much is held with this moment as the last one that wants it.
    pub(crate) fn weight_of(&self, moment: u64) -> Weight {
        self.weights.get(&moment).copied().unwrap_or_default()
    }

    /// Judges the binding that comes next on the list of a moment that has left some chain.
    fn judge_held(&mut self, moment: u64, at: Option<(PastId, u32)>) -> Option<Box<Kept>> {
        let from = at.map_or(Bound::Included((moment, PastId(0), 0)), |(id, number)| {
            Bound::Excluded((moment, id, number))
        });
        let next = self.held.range((from, Bound::Unbounded)).next().copied();
        let Some((_, id, number)) = next.filter(|&(of, ..)| of == moment) else {
            self.loosened.remove(&moment);
            return None;
        };
        let is_held = self.holds.of_all.contains(moment);
        let past = self.namespaces.get(&id)?;
        if is_held || past.moments.contains(moment) {
            // All of this namespace is held as before.
            self.loosened.insert(moment, Some((id, u32::MAX)));
            return None;
        }
        self.loosened.insert(moment, Some((id, number)));
        let born = self.kept.get(number)?.born();
        let of_all = self.holds.of_all.last_between(born, moment);
        let held_at = past.moments.last_between(born, moment).max(of_all);
        self.unhold_one(number);
        self.kept.get_mut(number)?.held_at = held_at;
        self.hold_one(number);
        self.let_go(number)
    }

    /// Makes a history shorter by one, or finds that it is short enough.
    fn trim(&mut self, id: PastId, trim: Trim, now_ns: u64) -> Option<Box<Kept>> {
        let Some(past) = self.namespaces.get(&id) else {
            self.over.remove(&id);
            return None;
        };
        if let (Trim::Names(at), Some(most)) = (&trim, past.history.as_ref().and_then(|it| it.versions)) {
            let from = at.as_deref().map_or(Bound::Unbounded, Bound::Included);
            let Some((name, versions)) = past.names.range::<str, _>((from, Bound::Unbounded)).next() else {
                self.over.insert(id, Trim::Oldest);
                return None;
            };
            if versions.in_history > most {
                let name = Arc::clone(name);
                let oldest = versions.kept.iter().copied();
                let oldest =
                    oldest.into_iter().find(|&it| self.kept.get(it).is_some_and(|it| it.in_history))?;
                self.over.insert(id, Trim::Names(Some(name)));
                return self.leave_history(oldest);
            }
            let from = Bound::Excluded(&**name);
            let next = past.names.range::<str, _>((from, Bound::Unbounded)).next();
            let next = next.map_or(Trim::Oldest, |(name, _)| Trim::Names(Some(Arc::clone(name))));
            self.over.insert(id, next);
            return None;
        }
        let oldest = past.in_history.first_key_value().map(|(_, &number)| number);
        let is_over = match (&past.history, oldest.and_then(|it| self.kept.get(it))) {
            (None, _) => true,
            (_, None) => false,
            (Some(History { age_ns, bytes, .. }), Some(oldest)) => {
                oldest.end.version < past.history_from
                    || age_ns.is_some_and(|age_ns| oldest.end.now_ns.saturating_add(age_ns) <= now_ns)
                    || bytes.is_some_and(|bytes| past.history_bytes > bytes)
            }
        };
        match oldest.filter(|_| is_over) {
            Some(oldest) => self.leave_history(oldest),
            None => {
                self.over.remove(&id);
                self.note_first(id);
                self.forget_if_empty(id);
                None
            }
        }
    }

    /// History does not want this binding any more. Returns it if nobody does.
    fn leave_history(&mut self, number: u32) -> Option<Box<Kept>> {
        let kept = self.kept.get_mut(number)?;
        kept.in_history = false;
        let (id, place, bytes) = (kept.of, kept.place_in_history(), kept.bytes);
        let past = self.namespaces.get_mut(&id)?;
        past.in_history.remove(&place);
        past.history_bytes -= bytes;
        if let Some(versions) = past.names.get_mut(&kept.name) {
            versions.in_history -= 1;
        }
        self.note_first(id);
        self.let_go(number)
    }

    /// Lets go of a binding that nobody wants any more, if that is so.
    fn let_go(&mut self, number: u32) -> Option<Box<Kept>> {
        if self.kept.get(number).is_none_or(Kept::is_wanted) {
            return None;
        }
        let kept = self.kept.remove(number)?;
        self.len -= 1;
        let past = self.namespaces.get_mut(&kept.of)?;
        past.kept -= 1;
        if let Some(versions) = past.names.get_mut(&kept.name) {
            if let Some(at) = versions.kept.iter().position(|&it| it == number) {
                versions.kept.remove(at);
            }
            if versions.kept.is_empty() {
                past.names.remove(&kept.name);
            }
        }
        self.forget_if_empty(kept.of);
        Some(Box::new(kept))
    }

    fn of(&self, namespace: &Namespace) -> Option<&PastOf> {
        self.namespaces.get(self.ids.get(namespace)?)
    }

    fn id_of(&mut self, namespace: &Namespace, prefix: NamespacePrefix) -> PastId {
        if let Some(&id) = self.ids.get(namespace) {
            return id;
        }
        self.last_id += 1;
        let id = PastId(self.last_id);
        self.ids.insert(namespace.clone(), id);
        self.prefixes.insert(prefix, id);
        let past = PastOf {
            namespace: namespace.clone(),
            prefix,
            names: BTreeMap::new(),
            kept: 0,
            history: None,
            history_from: 0,
            in_history: BTreeMap::new(),
            history_bytes: 0,
            first_too_old_ns: None,
            moments: Moments::default(),
        };
        self.namespaces.insert(id, past);
        id
    }

    /// Changes what is to be kept of a namespace.
    fn change_rules(&mut self, id: PastId, change: impl FnOnce(&mut PastOf)) {
        let Some(past) = self.namespaces.get_mut(&id) else { return };
        self.keeping -= usize::from(past.has_rules());
        change(past);
        self.keeping += usize::from(past.has_rules());
    }

    /// Notes when the first binding of a history is too old.
    fn note_first(&mut self, id: PastId) {
        let Some(past) = self.namespaces.get_mut(&id) else { return };
        let age_ns = past.history.as_ref().and_then(|history| history.age_ns);
        let first = past.in_history.first_key_value().and_then(|(_, &number)| self.kept.get(number));
        let at = age_ns.zip(first).map(|(age_ns, first)| first.end.now_ns.saturating_add(age_ns));
        if past.first_too_old_ns != at {
            let before = std::mem::replace(&mut past.first_too_old_ns, at);
            if let Some(before) = before {
                self.too_old.remove(&(before, id));
            }
            self.too_old.extend(at.map(|at| (at, id)));
        }
    }

    /// A namespace of which nothing is kept, and nothing to be kept, is none of the past's.
    fn forget_if_empty(&mut self, id: PastId) {
        let Some(past) = self.namespaces.get(&id) else { return };
        if past.kept == 0 && !past.has_rules() && !self.over.contains_key(&id) {
            self.ids.remove(&past.namespace);
            self.prefixes.remove(&past.prefix);
            self.namespaces.remove(&id);
        }
    }
}

impl PastOf {
    fn has_rules(&self) -> bool {
        self.history.is_some() || !self.moments.is_empty()
    }
}

/// What purging came to.
#[derive(Debug)]
pub(super) enum Purged {
    /// One is not in history any more. It is gone, unless somebody holds it.
    One(Option<Box<Kept>>),
    /// There was none.
    Nothing,
}

/// What judging came to.
#[derive(Debug)]
pub(super) enum Judged {
    /// Nobody wants this one.
    Gone(Box<Kept>),
    /// There is nothing more to judge.
    Nothing,
    /// The slice is over.
    NoTime,
}
