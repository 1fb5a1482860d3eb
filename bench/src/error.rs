//! What can go wrong in a run, and the exit status that it deserves.

use std::path::{Path, PathBuf};

/// Why a run gives no score.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request contradicts itself or this machine.
    #[error("{0}")]
    Usage(String),
    /// SQLite refused something that every system must be able to do.
    #[error("{what}: {source}")]
    Sqlite {
        /// What was being done.
        what: String,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// A file or directory.
    #[error("{path}: {source}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// No room for the databases.
    #[error(
        "{path} has {free} MiB left, and this run needs about {needed} MiB: \
         name another directory with --dir, on a disk with --medium file"
    )]
    Room {
        /// The directory.
        path: PathBuf,
        /// What the run needs, in MiB.
        needed: u64,
        /// What is free, in MiB.
        free: u64,
    },
    /// The database does not hold what was committed to it.
    #[error("inconsistent database: {0}")]
    Inconsistent(String),
    /// An error of one system, with its name.
    #[error("{system}: {source}")]
    System {
        /// The system's name.
        system: &'static str,
        /// Its error.
        source: Box<Error>,
    },
    /// The chart could not be drawn.
    #[error("chart {path}: {reason}")]
    Chart {
        /// The SVG file.
        path: PathBuf,
        /// The drawing library's answer.
        reason: String,
    },
    /// The program that counts system calls.
    #[error("strace: {0}")]
    Strace(String),
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// 2 for a wrong request or an unfit environment, 1 for a finding.
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::Strace(_) | Error::Room { .. } => 2,
            Error::System { source, .. } => source.exit_status(),
            _ if self.is_full() => 2,
            _ => 1,
        }
    }

    /// Whether the disk or the memory for files was full.
    pub fn is_full(&self) -> bool {
        match self {
            Error::Sqlite { source, .. } => source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            Error::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            Error::System { source, .. } => source.is_full(),
            _ => false,
        }
    }

    /// An error about a path.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Error::Io { path: path.to_owned(), source }
    }
}

/// Adds to an error what was being done, or to whom.
pub trait Context<T> {
    /// Says what was being done.
    fn during(self, what: &str) -> Result<T>;
}

impl<T> Context<T> for rusqlite::Result<T> {
    fn during(self, what: &str) -> Result<T> {
        self.map_err(|source| Error::Sqlite { what: what.to_owned(), source })
    }
}

impl From<rusqlite::Error> for Error {
    fn from(source: rusqlite::Error) -> Self {
        Error::Sqlite { what: "running a transaction".to_owned(), source }
    }
}
