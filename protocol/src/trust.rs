//! Whose bytes are believed.

/// Whether `uid` is a client's, or a store's, own user, `own_uid`, or root: then what it wrote is decoded without being
/// validated, and what it pickled is unpickled, which runs its code.
///
/// All three are numbers of one user namespace, the one that looks. `overflow_uid` is the number that the kernel shows for
/// every user who has none there (`/proc/sys/kernel/overflowuid`): it stands for strangers, so that it is nobody's own, not
/// even of a process that runs under it.
///
/// # Examples
/// ```
/// use plasmon_protocol::trust::is_own;
///
/// assert!(is_own(1_000, 1_000, 65_534) && is_own(0, 1_000, 65_534));
/// assert!(!is_own(1_001, 1_000, 65_534));
/// assert!(!is_own(65_534, 65_534, 65_534)); // another stranger, perhaps
/// ```
#[inline]
#[must_use]
pub const fn is_own(uid: u32, own_uid: u32, overflow_uid: u32) -> bool {
    uid == 0 || (uid == own_uid && uid != overflow_uid)
}
