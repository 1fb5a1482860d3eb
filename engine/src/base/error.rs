//! Errors are data: what structure, where, why. `vfs` maps them to SQLite's codes in one place.

use std::io;
use std::path::{Path, PathBuf};

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, told so that a caller can act on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another connection holds what was asked for; asking again later may succeed.
    #[error("the database is busy: {0}")]
    Busy(&'static str),
    /// The snapshot of a read transaction is not the newest any more, so it cannot become a write transaction.
    #[error("the snapshot is not the newest: another connection has committed since")]
    BusySnapshot,
    /// No room on the medium, the disk, or in a file-size limit.
    #[error("{}: no room for {what}: {cause}", path.display())]
    Full {
        /// The file that could not grow.
        path: PathBuf,
        /// What was to be written.
        what: &'static str,
        /// The limit that was met.
        cause: String,
    },
    /// An operation on a file failed.
    #[error("{}: cannot {op}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, as a verb.
        op: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A file that is ours but damaged.
    #[error("{}: corrupt {what}: {detail}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The structure.
        what: &'static str,
        /// The evidence.
        detail: String,
    },
    /// A file that cannot be used: foreign, newer, of another database, or missing.
    #[error("{}: {reason}", path.display())]
    CantOpen {
        /// The file.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// A file that is no SQLite database.
    #[error("{}: not a database: {reason}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The evidence.
        reason: String,
    },
    /// A write to something opened or stored read-only.
    #[error("{}: read-only: {reason}", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The region has failed (P18): every attached connection gets this until it is closed.
    #[error("{}: the region has failed: {reason}", path.display())]
    Failed {
        /// The region.
        path: PathBuf,
        /// The first failure.
        reason: String,
    },
    /// A write without the writer lock that can no longer be ordered (P6).
    #[error("the writer lock was lost to another connection")]
    LockLost,
    /// Use of a parent's connection in a forked child.
    #[error("this connection belongs to the process before fork")]
    Forked,
}

impl Error {
    /// An [`Error::Io`], or [`Error::Full`] where the system says that there is no room.
    #[must_use]
    pub fn io(path: &Path, op: &'static str, source: io::Error) -> Error {
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => {
                Error::Full { path: path.to_owned(), what: op, cause: source.to_string() }
            }
            _ => Error::Io { path: path.to_owned(), op, source },
        }
    }

    /// An [`Error::Corrupt`].
    #[must_use]
    pub fn corrupt(path: &Path, what: &'static str, detail: impl Into<String>) -> Error {
        Error::Corrupt { path: path.to_owned(), what, detail: detail.into() }
    }

    /// An [`Error::CantOpen`].
    #[must_use]
    pub fn cant_open(path: &Path, reason: impl Into<String>) -> Error {
        Error::CantOpen { path: path.to_owned(), reason: reason.into() }
    }
}
