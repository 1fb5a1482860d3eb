//! xFileControl: one arm per operation that a VFS may answer. What is not here is SQLITE_NOTFOUND, never SQLITE_OK.
#![allow(unsafe_code)]

use super::{Conn, pragma};
use crate::error::{Failure, Outcome};
use crate::sys::*;
use nvlite_engine::Error;
use std::ffi::{c_char, c_int, c_void};

/// An argument of the documented type. Where the argument is null there is nothing to answer.
///
/// # Safety
/// `argument` is null or points at a `T` that SQLite lets us change during this call.
unsafe fn slot<'a, T>(argument: *mut c_void) -> Outcome<&'a mut T> {
    // SAFETY: as the caller promises.
    unsafe { argument.cast::<T>().as_mut() }.ok_or(Failure::Code(SQLITE_MISUSE))
}

/// An operation of our own (those above 100 are a VFS's): runs a [`Visit`]. SQLite makes it one of its calls to the file, so that
/// it has the connection for itself even where several share a cache and with it the file (`cache=shared`).
pub(crate) const VISIT: c_int = 0x6E76_6C31;

/// The argument of [`VISIT`] points at one.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&mut Conn);

/// What a preparation answers SQLite.
fn never_busy(prepared: nvlite_engine::Result<()>) -> Outcome {
    match prepared {
        Err(Error::Busy(what)) => Err(Failure::Told(SQLITE_IOERR_LOCK, format!("busy while preparing: {what}"))),
        Err(Error::BusySnapshot) => Err(Failure::Told(SQLITE_IOERR_LOCK, "another snapshot while preparing".into())),
        other => Ok(other?),
    }
}

impl Conn {
    /// xFileControl.
    ///
    /// # Safety
    /// `argument` is what SQLite documents for `op`.
    pub(super) unsafe fn control(&mut self, op: c_int, argument: *mut c_void) -> Outcome {
        // SAFETY: each `slot` and each call names the documented type of its operation.
        unsafe {
            match op {
                SQLITE_FCNTL_SYNC => self.prepare()?,
                SQLITE_FCNTL_COMMIT_PHASETWO => self.commit()?,
                SQLITE_FCNTL_PRAGMA => return pragma::answer(self, argument.cast()),
                SQLITE_FCNTL_LOCKSTATE => *slot::<c_int>(argument)? = self.level as c_int,
                SQLITE_FCNTL_LAST_ERRNO => *slot::<c_int>(argument)? = self.last_errno,
                // Allocation is the engine's own affair; psow cannot be turned off, so there is nothing to lose by saying yes.
                SQLITE_FCNTL_SIZE_HINT | SQLITE_FCNTL_OVERWRITE => {}
                SQLITE_FCNTL_CHUNK_SIZE | SQLITE_FCNTL_BLOCK_ON_CONNECT => {}
                SQLITE_FCNTL_POWERSAFE_OVERWRITE => *slot::<c_int>(argument)? = 1,
                SQLITE_FCNTL_VFSNAME => {
                    *slot::<*mut c_char>(argument)? = self.instance.api.alloc_text(&self.instance.full_name());
                }
                // Which connection it is makes no difference.
                SQLITE_FCNTL_PDB => {}
                // The busy handler is never called from here: the queue works through xSleep (P11).
                SQLITE_FCNTL_BUSYHANDLER => {}
                SQLITE_FCNTL_TEMPFILENAME => *slot::<*mut c_char>(argument)? = self.temp_name()?,
                SQLITE_FCNTL_MMAP_SIZE => {
                    let limit = slot::<sqlite3_int64>(argument)?;
                    let asked = std::mem::replace(limit, self.mmap_limit);
                    if asked >= 0 {
                        self.mmap_limit = asked;
                    }
                }
                // A base that was replaced fails the region (P14) where it matters; journals do not depend on it.
                SQLITE_FCNTL_HAS_MOVED => *slot::<c_int>(argument)? = 0,
                SQLITE_FCNTL_LOCK_TIMEOUT => {
                    let timeout = slot::<c_int>(argument)?;
                    std::mem::swap(timeout, &mut self.lock_timeout);
                }
                SQLITE_FCNTL_EXTERNAL_READER => {
                    *slot::<c_int>(argument)? = c_int::from(self.session()?.external_reader());
                }
                VISIT => slot::<Visit<'_>>(argument)?(self),
                SQLITE_FCNTL_FILESTAT if argument.is_null() => return Err(Failure::Code(SQLITE_MISUSE)),
                SQLITE_FCNTL_FILESTAT => self.file_stat(argument.cast()),
                _ => return Err(Failure::Code(SQLITE_NOTFOUND)),
            }
        }
        Ok(())
    }

    /// `SQLITE_FCNTL_SYNC`: every error of a transaction is returned here (P1). Never `SQLITE_BUSY`, after which an explicit
    /// COMMIT would leave the transaction open.
    fn prepare(&mut self) -> Outcome {
        self.sync.prepared();
        if self.lock_lost {
            return Err(Failure::Code(SQLITE_IOERR_LOCK));
        }
        let Some(link) = &mut self.link else { return Ok(()) };
        never_busy(link.session.prepare())
    }

    /// `SQLITE_FCNTL_COMMIT_PHASETWO`.
    fn commit(&mut self) -> Outcome {
        let durability = self.sync.durability();
        match &mut self.link {
            Some(link) => Ok(link.session.commit(durability)?),
            None => Ok(()),
        }
    }

    fn temp_name(&self) -> Outcome<*mut c_char> {
        self.base().open_file()?.temp_name().ok_or(Failure::Code(SQLITE_NOTFOUND))
    }

    /// `SQLITE_FCNTL_FILESTAT` (3.51 and later): diagnostics, as JSON.
    fn file_stat(&mut self, into: *mut sqlite3_str) {
        let snapshot = self.link.as_ref().and_then(|link| link.session.snapshot()).map_or(0, |jci| jci.0);
        let text = format!(
            r#"{{"vfs":"nvlite","attached":{},"lock":{},"snapshot":{snapshot}}}"#,
            self.link.is_some(),
            self.level as c_int
        );
        let length = c_int::try_from(text.len()).unwrap_or(0);
        // SAFETY: a string builder of SQLite's, and as many bytes as there are.
        unsafe { (self.instance.api.str_append)(into, text.as_ptr().cast(), length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn p1_a_preparation_never_answers_busy() {
        // Failure: an explicit COMMIT that is told so leaves its transaction open.
        let path = Path::new("x.db");
        let errors = [
            Error::Busy("somebody writes"),
            Error::BusySnapshot,
            Error::LockLost,
            Error::Forked,
            Error::Full { path: path.into(), what: "blocks", cause: "disk full".into() },
            Error::corrupt(path, "log", "it was cut"),
        ];
        for error in errors {
            let told = error.to_string();
            let code = never_busy(Err(error)).expect_err("an error").codes().0;
            assert!(code != SQLITE_OK && code & 0xFF != SQLITE_BUSY, "{told}: {code}");
        }
        assert!(never_busy(Ok(())).is_ok());
    }
}
