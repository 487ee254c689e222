//! Where a client looks for the store's socket.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The environment that decides where to look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) socket: Option<OsString>,
    pub(crate) runtime_dir: Option<OsString>,
    pub(crate) uid: u32,
}

impl Surroundings {
    pub(crate) fn of_this_process() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let uid = nix::unistd::getuid().as_raw();
        Surroundings { socket: set("PLASMON_SOCKET"), runtime_dir: set("XDG_RUNTIME_DIR"), uid }
    }

    /// The sockets to try, in turn: `$PLASMON_SOCKET` alone if it is set; else `plasmon/store.sock` in
    /// `$XDG_RUNTIME_DIR` and in `/run/user/UID`, and `/tmp/plasmon-UID/store.sock`.
    pub(crate) fn candidates(&self) -> Vec<PathBuf> {
        if let Some(socket) = &self.socket {
            return vec![PathBuf::from(socket)];
        }
        plasmon_shm::default_sockets(self.runtime_dir.as_deref().map(Path::new), self.uid)
    }

    /// Whether the directory of a default socket is this user's: anybody could have made one in /tmp.
    pub(crate) fn owns_directory_of(&self, socket: &Path) -> bool {
        let directory = socket.parent().and_then(|directory| fs::symlink_metadata(directory).ok());
        directory.is_some_and(|directory| directory.is_dir() && directory.uid() == self.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_variable_is_the_only_candidate_if_it_is_set() {
        let here = Surroundings { socket: Some("/a/b".into()), runtime_dir: Some("/run/x".into()), uid: 7 };
        assert_eq!(here.candidates(), [PathBuf::from("/a/b")]);
    }

    #[test]
    fn the_defaults_are_tried_in_turn() {
        let here = Surroundings { socket: None, runtime_dir: Some("/run/x".into()), uid: 7 };
        let shown: Vec<_> = here.candidates().iter().map(|path| path.display().to_string()).collect();
        assert_eq!(
            shown,
            ["/run/x/plasmon/store.sock", "/run/user/7/plasmon/store.sock", "/tmp/plasmon-7/store.sock"]
        );
        let same = Surroundings { runtime_dir: Some("/run/user/7".into()), ..here };
        assert_eq!(same.candidates().len(), 2);
    }
}
