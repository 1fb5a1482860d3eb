//! What can go wrong in a run, and the exit status that it deserves.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

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
    #[error("chart: {0}")]
    Chart(String),
    /// The program that counts system calls.
    #[error("strace: {0}")]
    Strace(String),
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// 1 for a finding, 2 for a wrong request or an unfit environment.
    pub fn exit_status(&self) -> u8 {
        if self.is_finding() { 1 } else { 2 }
    }

    /// Whether it tells something about a system, rather than about the request or the machine.
    fn is_finding(&self) -> bool {
        match self {
            Error::Inconsistent(_) => true,
            Error::Sqlite { source, .. } => denies_what_was_committed(source) || is_busy(source),
            Error::System { source, .. } => source.is_finding(),
            _ => false,
        }
    }

    /// Whether the disk or the memory for files was full.
    pub fn is_full(&self) -> bool {
        match self {
            Error::Sqlite { source, .. } => source.sqlite_error_code() == Some(ErrorCode::DiskFull),
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

/// Whether SQLite itself noticed that a database does not hold what was committed to it: it is damaged, lacks a row, or
/// has one too many.
fn denies_what_was_committed(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{QueryReturnedNoRows, StatementChangedRows};
    let damage = [ErrorCode::DatabaseCorrupt, ErrorCode::NotADatabase, ErrorCode::ConstraintViolation];
    let lacks = matches!(error, QueryReturnedNoRows | StatementChangedRows(_));
    lacks || error.sqlite_error_code().is_some_and(|code| damage.contains(&code))
}

/// Whether another connection is in the way; where all patience is at an end, the system has failed.
pub fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
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

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[test]
    fn findings_have_status_one_and_all_else_two() {
        let status = |error: Error| Error::System { system: "x", source: Box::new(error) }.exit_status();
        let sqlite = |code| Error::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_CONSTRAINT_PRIMARYKEY, ffi::SQLITE_BUSY] {
            assert_eq!(status(sqlite(code)), 1, "{code}");
        }
        for code in [ffi::SQLITE_ERROR, ffi::SQLITE_IOERR, ffi::SQLITE_CANTOPEN, ffi::SQLITE_FULL, ffi::SQLITE_NOMEM] {
            assert_eq!(status(sqlite(code)), 2, "{code}");
        }
        for error in [rusqlite::Error::StatementChangedRows(0), rusqlite::Error::QueryReturnedNoRows] {
            assert_eq!(status(Error::from(error)), 1);
        }
        assert_eq!(status(Error::Inconsistent(String::new())), 1);
        assert_eq!(status(Error::Chart(String::new())), 2);
        assert_eq!(status(Error::io(Path::new("x"), std::io::ErrorKind::NotFound.into())), 2);
    }
}
