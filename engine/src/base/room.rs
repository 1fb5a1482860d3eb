//! Room in files: limits met before the kernel meets them, storage made present before it is touched.

use super::{Error, Result};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use std::fs::File;
use std::path::Path;

/// Refuses what ends above the process's file-size limit: the kernel would send `SIGXFSZ`, which kills the host program.
///
/// # Errors
/// `Full`.
pub(crate) fn within_file_limit(path: &Path, what: &'static str, end: u64) -> Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if end > limit => Err(Error::Full {
            path: path.to_owned(),
            what,
            cause: format!("byte {end} lies above this process's file-size limit RLIMIT_FSIZE of {limit} bytes"),
        }),
        _ => Ok(()),
    }
}

/// Unit of allocation: tmpfs undoes an interrupted `fallocate`, so under a timer's signals a large one might never end.
const PIECE: u64 = 16 << 20;

/// Makes storage present. `Ok(false)`: the file system has no such operation.
///
/// # Errors
/// `Full` where there is no room.
pub(crate) fn allocate(file: &File, path: &Path, off: u64, len: u64) -> Result<bool> {
    within_file_limit(path, "allocate", off.saturating_add(len))?;
    let mut done = 0;
    while done < len {
        let piece = PIECE.min(len - done);
        match rustix::fs::fallocate(file, FallocateFlags::empty(), off + done, piece) {
            Ok(()) => done += piece,
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
            // tmpfs: the memory limit of a control group
            Err(e @ Errno::NOMEM) => {
                return Err(Error::Full { path: path.to_owned(), what: "allocate", cause: e.to_string() });
            }
            Err(e) => return Err(Error::io(path, "allocate", e.into())),
        }
    }
    Ok(true)
}
