//! Files that are written, so that nobody sees half of one.

use super::trouble::{Trouble, file_trouble};
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// A file being written: beside where it will stand, so that nobody sees half of it.
pub(super) enum Target {
    Beside {
        file: tempfile::NamedTempFile,
        place: PathBuf,
    },
    /// A device or a pipe, which can only be written to.
    Itself(File),
}

impl Target {
    pub(super) fn open(path: &Path) -> Result<Target, Trouble> {
        let there = fs::metadata(path).ok();
        if there.as_ref().is_some_and(|there| !there.is_file() && !there.is_dir()) {
            let file = File::options().write(true).open(path).map_err(file_trouble("open", path))?;
            return Ok(Target::Itself(file));
        }
        if there.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(Trouble::Usage(format!("{} is a directory; name a file in it", path.display())));
        }
        // Where a link leads, not the link, is replaced; the file keeps the mode it had.
        let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = place.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        fs::metadata(folder).map_err(file_trouble("write into", folder))?;
        let mode = there.map_or(0o666, |there| there.permissions().mode() & 0o777);
        let mut builder = tempfile::Builder::new();
        builder.prefix(".plasmon-").permissions(fs::Permissions::from_mode(mode));
        let file = builder.tempfile_in(folder).map_err(file_trouble("make", path))?;
        Ok(Target::Beside { file, place })
    }

    pub(super) fn file(&mut self) -> &mut File {
        match self {
            Target::Beside { file, .. } => file.as_file_mut(),
            Target::Itself(file) => file,
        }
    }

    /// Puts the file where it belongs, and returns its length.
    pub(super) fn finish(self, path: &Path) -> Result<u64, Trouble> {
        match self {
            Target::Beside { file, place } => {
                let file = file.persist(place).map_err(|error| file_trouble("make", path)(error.error))?;
                Ok(file.metadata().map_err(file_trouble("look at", path))?.len())
            }
            Target::Itself(mut file) => {
                file.flush().map_err(file_trouble("write", path))?;
                Ok(0)
            }
        }
    }
}
