//! The directory that a run works in: made, checked, and removed again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::cli::Medium;
use crate::error::{Error, Result};

const PREFIX: &str = "nvlite-bench-";
const LOCK: &str = "in-use";

/// A private directory, removed when dropped. One that a killed run left is removed by the next run.
pub struct Place {
    dir: TempDir,
    _lock: File,
}

impl Place {
    /// Makes the directory under `parent`, or where the medium usually is; there must be room for `needed` bytes.
    pub fn create(parent: Option<&Path>, medium: Medium, needed: u64) -> Result<Self> {
        let parent = match (parent, medium) {
            (Some(parent), _) => parent.to_owned(),
            (None, Medium::Ram) => PathBuf::from("/dev/shm"),
            (None, Medium::File) => std::env::current_dir().map_err(|error| Error::io(Path::new("."), error))?,
        };
        let parent = parent.canonicalize().map_err(|error| Error::io(&parent, error))?;
        let kind = file_system(&parent);
        match (medium, kind.as_str()) {
            (Medium::Ram, "tmpfs" | "unknown") | (Medium::File, _) => {}
            (Medium::Ram, other) => {
                let path = parent.display();
                return Err(Error::Usage(format!("{path} is on {other}; --medium ram needs a directory on tmpfs")));
            }
        }
        sweep(&parent);
        // Where the file system does not tell, the run will.
        let free = rustix::fs::statvfs(&parent).map_or(u64::MAX, |room| room.f_bavail.saturating_mul(room.f_frsize));
        if free < needed {
            return Err(Error::Room { path: parent, needed: needed >> 20, free: free >> 20 });
        }
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&parent);
        let dir = dir.map_err(|error| Error::io(&parent, error))?;
        let lock = locked(&dir.path().join(LOCK)).map_err(|error| Error::io(dir.path(), error))?;
        Ok(Self { dir, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn locked(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    file.try_lock()?;
    Ok(file)
}

/// Removes the directories of runs that died: nobody holds their lock file any more.
fn sweep(parent: &Path) {
    let Ok(entries) = parent.read_dir() else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        if ours && lock.try_lock().is_ok() {
            // Best effort: another user's left-overs are not ours to remove.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The type of the file system that `path` lies on, as the kernel names it.
pub fn file_system(path: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut best = (0, "unknown");
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(point), Some(kind)) = (fields.next(), fields.next()) else { continue };
        if path.starts_with(point) && point.len() >= best.0 {
            best = (point.len(), kind);
        }
    }
    best.1.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_runs_directory_is_swept_and_a_live_one_is_not() {
        let parent = tempfile::tempdir().expect("dir");
        let live = Place::create(Some(parent.path()), Medium::File, 1).expect("place");
        let dead = parent.path().join("nvlite-bench-dead");
        std::fs::create_dir(&dead).expect("dir");
        File::create(dead.join(LOCK)).expect("lock file");
        let next = Place::create(Some(parent.path()), Medium::File, 1).expect("place");
        assert!(live.path().exists() && next.path().exists() && !dead.exists());
        let path = next.path().to_owned();
        drop(next);
        assert!(!path.exists());
    }

    #[test]
    fn ram_wants_tmpfs() {
        if file_system(Path::new("/proc")) == "proc" {
            assert!(Place::create(Some(Path::new("/proc")), Medium::Ram, 1).is_err());
        }
    }
}
