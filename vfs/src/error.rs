//! The one place where the engine's errors become SQLite's codes, and where errors are told: to SQLite's error log, to
//! `xGetLastError` and to `SQLITE_FCNTL_LAST_ERRNO`.

use crate::api::Api;
use crate::sys::*;
use nvlite_engine::Error;
use std::cell::RefCell;
use std::ffi::c_int;
use std::path::Path;

/// Why a call of SQLite's could not be served.
#[derive(Debug)]
pub enum Failure {
    /// An answer that is part of the protocol (busy, short read, not found): not logged.
    Code(c_int),
    /// An error of the engine.
    Engine(Error),
    /// An error of the VFS itself: the code, and what to tell.
    Told(c_int, String),
}

/// The result of a VFS method.
pub type Outcome<T = ()> = Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Engine(error)
    }
}

impl Failure {
    /// SQLite's code, and the operating system's if there is one.
    #[must_use]
    pub fn codes(&self) -> (c_int, i32) {
        match self {
            Failure::Code(code) | Failure::Told(code, _) => (*code, 0),
            Failure::Engine(error) => codes(error),
        }
    }

    /// True if an application meets this in normal operation.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        matches!(self, Failure::Code(_) | Failure::Engine(Error::Busy(_) | Error::BusySnapshot))
    }

    /// For people.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Failure::Code(code) => format!("code {code}"),
            Failure::Told(_, text) => text.clone(),
            Failure::Engine(error) => error.to_string(),
        }
    }
}

/// SQLite's code for an error of the engine, and the system's `errno`.
#[must_use]
pub fn codes(error: &Error) -> (c_int, i32) {
    match error {
        Error::Busy(_) => (SQLITE_BUSY, 0),
        Error::BusySnapshot => (SQLITE_BUSY_SNAPSHOT, 0),
        Error::Full { .. } => (SQLITE_FULL, libc::ENOSPC),
        Error::Io { source, .. } => {
            let errno = source.raw_os_error().unwrap_or(libc::EIO);
            (if cannot_open(errno) { SQLITE_CANTOPEN } else { SQLITE_IOERR }, errno)
        }
        Error::Corrupt { .. } => (SQLITE_CORRUPT, 0),
        Error::Foreign { .. } => (SQLITE_NOTADB, 0),
        Error::CantOpen { .. } => (SQLITE_CANTOPEN, 0),
        Error::ReadOnly { .. } => (SQLITE_READONLY, 0),
        Error::LockLost => (SQLITE_IOERR_LOCK, 0),
        // `Failed`, `Forked` and whatever is added later: the connection is of no use any more.
        _ => (SQLITE_IOERR, libc::EIO),
    }
}

/// Reasons why a file cannot be reached, as against those why a reached one does not work.
fn cannot_open(errno: i32) -> bool {
    use libc::{EACCES, ELOOP, EMFILE, ENAMETOOLONG, ENFILE, ENOENT, ENOTDIR, EPERM, EROFS};
    [EACCES, EPERM, EROFS, ENOENT, ENOTDIR, EMFILE, ENFILE, ELOOP, ENAMETOOLONG].contains(&errno)
}

thread_local! {
    /// The last error of this thread, for `xGetLastError`, which SQLite calls right after the failed call.
    static LAST: RefCell<(i32, String)> = const { RefCell::new((0, String::new())) };
}

/// Tells a failure and answers SQLite's code for it.
pub fn tell(api: &Api, path: &Path, failure: &Failure) -> c_int {
    let (code, errno) = failure.codes();
    if !failure.is_ordinary() {
        let message = failure.message();
        let file = path.display().to_string();
        let text = if message.contains(&file) { message } else { format!("{file}: {message}") };
        api.write_log(code, &format!("nvlite: {text}"));
        // gone when a connection is closed by the destructor of another thread-local: nobody can ask any more
        let _ = LAST.try_with(|last| *last.borrow_mut() = (errno, text));
    }
    code
}

/// Nothing has failed yet: what the default VFS fails at next is its own to tell.
pub fn forget() {
    // gone, as in `tell`: then it holds nothing either
    let _ = LAST.try_with(|last| {
        if !last.borrow().1.is_empty() {
            *last.borrow_mut() = Default::default();
        }
    });
}

/// The last error of this thread: `errno` and text.
#[must_use]
pub fn last() -> (i32, String) {
    LAST.try_with(|last| last.borrow().clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_code() {
        let path = Path::new("x.db");
        let io = |errno| Error::io(path, "write", std::io::Error::from_raw_os_error(errno));
        assert_eq!(codes(&Error::Busy("x")).0, SQLITE_BUSY);
        assert_eq!(codes(&Error::BusySnapshot).0, SQLITE_BUSY_SNAPSHOT);
        assert_eq!(codes(&io(libc::ENOSPC)), (SQLITE_FULL, libc::ENOSPC));
        assert_eq!(codes(&io(libc::EIO)), (SQLITE_IOERR, libc::EIO));
        assert_eq!(codes(&io(libc::EACCES)), (SQLITE_CANTOPEN, libc::EACCES));
        assert_eq!(codes(&Error::corrupt(path, "superblock", "checksum")).0, SQLITE_CORRUPT);
        assert_eq!(codes(&Error::cant_open(path, "foreign")).0, SQLITE_CANTOPEN);
        assert_eq!(codes(&Error::LockLost).0, SQLITE_IOERR_LOCK);
        assert_eq!(codes(&Error::Forked).0, SQLITE_IOERR);
    }
}
