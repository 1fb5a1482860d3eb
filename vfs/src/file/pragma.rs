//! Pragmas that the VFS answers in SQLite's place, or only listens to.
#![allow(unsafe_code)]

use super::Conn;
use crate::error::{Failure, Outcome};
use crate::lock::Level;
use crate::sys::*;
use std::ffi::{CStr, c_char};

/// What our own `PRAGMA journal_mode` asks for: a journal as a file that stays open, and that shows `synchronous` (P5).
pub(crate) const OWN_JOURNAL_MODE: &str = "TRUNCATE";

/// SQLite's array: where the answer goes, the pragma's name, its argument or null.
///
/// # Safety
/// `argument` is the argument of `SQLITE_FCNTL_PRAGMA`.
pub(super) unsafe fn answer(conn: &mut Conn, argument: *mut *mut c_char) -> Outcome {
    if argument.is_null() {
        return Err(Failure::Code(SQLITE_MISUSE));
    }
    // SAFETY: three pointers, of which the second is terminated, the third null or terminated.
    let (name, value) = unsafe {
        let text = |p: *const c_char| (!p.is_null()).then(|| CStr::from_ptr(p).to_string_lossy().into_owned());
        (text(*argument.add(1)).unwrap_or_default(), text(*argument.add(2)))
    };
    let reply = match name.to_ascii_lowercase().as_str() {
        // Only what our own asks for: where connections share the file, another thread's may come in between.
        "journal_mode" if conn.own_journal_mode && value.as_deref() == Some(OWN_JOURNAL_MODE) => None,
        // The engine journals, whatever SQLite would like to do: the truth is "memory". Programs that switch to WAL and
        // insist on hearing so can have it.
        "journal_mode" => Some(if conn.asked.config.reply_wal { "wal" } else { "memory" }),
        // A connection cannot keep others out by keeping a lock: they read snapshots, and the writer lock is given back.
        "locking_mode" => Some("normal"),
        "wal_checkpoint" => {
            conn.checkpoint_by_pragma();
            None
        }
        _ => None,
    };
    let Some(reply) = reply else { return Err(Failure::Code(SQLITE_NOTFOUND)) };
    // SAFETY: SQLite frees what is put there with sqlite3_free.
    unsafe { *argument = conn.instance.api.alloc_text(reply) };
    Ok(())
}

impl Conn {
    /// What `PRAGMA wal_checkpoint` is for: the base file gets what was committed. SQLite then answers its own row, which
    /// outside WAL mode is 0, -1, -1. A checkpoint that fails is told in the log, as nothing is lost by it.
    fn checkpoint_by_pragma(&mut self) {
        if self.level != Level::None || self.read_only {
            return;
        }
        let result = self.store().map(std::sync::Arc::clone).and_then(|store| Ok(store.checkpoint()?));
        if let Err(failure) = result {
            self.report(&failure);
        }
    }
}
