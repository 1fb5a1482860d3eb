//! Reading and writing.

use super::Conn;
use crate::error::{Failure, Outcome};
use crate::lock::Level;
use crate::sys::{SQLITE_IOERR_LOCK, SQLITE_IOERR_SHORT_READ, SQLITE_OK};
use nvlite_engine::PageNo;
use nvlite_engine::format::mark::{self, HEADER};
use std::ffi::c_int;

/// What `PRAGMA mmap_size` allows at most as SQLite is commonly built (`SQLITE_MAX_MMAP_SIZE`). Asking for so much means all:
/// we map nothing for it.
pub(crate) const MOST_MMAP: i64 = 0x7fff_0000;

impl Conn {
    /// xRead. "If xRead() returns SQLITE_IOERR_SHORT_READ it must also fill in the unread portions of the buffer with zeros."
    pub(super) fn read(&mut self, offset: u64, into: &mut [u8]) -> Outcome {
        let found = if self.link.is_none() && offset == 0 && into.len() <= HEADER && !self.asked.immutable {
            self.read_unlocked(into)?
        } else {
            self.session()?.read(offset, into)?
        };
        if offset == 24 && into.len() == 16 && std::mem::take(&mut self.false_header) {
            // What SQLite compares to know whether its cache is good; this compares unequal to everything.
            into.fill(0xFF);
        }
        if found < into.len() { Err(Failure::Code(SQLITE_IOERR_SHORT_READ)) } else { Ok(()) }
    }

    /// The read at open, without a lock: SQLite takes page size and reserved bytes from it, and asks again under a lock. It
    /// attaches only where this process has the database already: else that may have to wait, and nothing waits here.
    fn read_unlocked(&mut self, into: &mut [u8]) -> Outcome<usize> {
        let mut header = match self.header.take() {
            Some(header) => header,
            None if self.is_attached_here()? => return Ok(self.session()?.read(0, into)?),
            None => self.base().header()?.0,
        };
        // the header of a marked base without pages only bears the mark: it says nothing of a page size
        let empty = mark::identity(&header).is_some() && mark::pages(&header).is_none();
        if empty || header.iter().all(|b| *b == 0) {
            into.fill(0);
            return Ok(0);
        }
        mark::normalise(0, &mut header);
        into.copy_from_slice(&header[..into.len()]);
        Ok(into.len())
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Outcome {
        self.may_write()?;
        if offset == 0 && bytes.len() >= HEADER && !mark::is_normal(bytes) {
            self.false_header = true;
        }
        Ok(self.session()?.write(offset, bytes)?)
    }

    pub(super) fn truncate(&mut self, size: u64) -> Outcome {
        self.may_write()?;
        Ok(self.session()?.truncate(size)?)
    }

    fn may_write(&self) -> Outcome {
        if self.read_only {
            return Err(self.refuse_write());
        }
        if self.lock_lost { Err(Failure::Code(SQLITE_IOERR_LOCK)) } else { Ok(()) }
    }

    pub(super) fn size(&mut self) -> Outcome<u64> {
        Ok(self.session()?.size()?)
    }

    /// Number of the write transaction in progress, or of the last one and the time since.
    pub(crate) fn transaction(&self) -> u64 {
        // The time between two transactions is a time of its own: what a transaction left behind is not seen in it.
        self.transaction * 2 + u64::from(self.level >= Level::Reserved)
    }

    /// Reads a page as the write transaction found it.
    pub(crate) fn read_before_image(&mut self, page: PageNo, within: u32, into: &mut [u8]) -> c_int {
        let read = self.session().and_then(|session| Ok(session.read_before_image(page, within, into)?));
        match read {
            Ok(()) => SQLITE_OK,
            Err(Failure::Code(code)) => code,
            Err(failure) => self.report(&failure),
        }
    }

    /// True if `content` is the whole page as the write transaction found it.
    pub(crate) fn is_before_image(&mut self, page: PageNo, content: &[u8]) -> bool {
        self.link.as_mut().is_some_and(|link| link.session.is_before_image(page, content))
    }

    /// Lets one `PRAGMA journal_mode` of our own pass to SQLite.
    pub(crate) fn let_journal_mode_pass(&mut self, pass: bool) {
        self.own_journal_mode = pass;
    }

    /// The journal was cut to nothing.
    pub(crate) fn journal_cut(&mut self) {
        self.sync.journal_cut();
    }

    /// SQLite synced the journal.
    pub(crate) fn journal_synced(&mut self) {
        self.sync.journal_synced();
    }

    /// True if it may write: then it keeps a journal.
    pub(crate) fn may_journal(&self) -> bool {
        !self.read_only
    }

    /// True if nobody has asked for pointers to pages (`PRAGMA mmap_size`) yet.
    pub(crate) fn has_no_mmap_limit(&self) -> bool {
        self.mmap_limit == 0
    }

    /// xFetch: null is always a good answer, so nothing here is an error.
    pub(super) fn fetch(&mut self, offset: u64, length: usize) -> Option<*const u8> {
        let end = offset.checked_add(length as u64)?;
        if i64::try_from(end).ok()? > self.mmap_limit && self.mmap_limit < MOST_MMAP {
            return None;
        }
        self.link.as_mut()?.session.fetch(offset, length).ok().flatten()
    }

    pub(super) fn unfetch(&mut self, offset: u64, pointer: *const u8) {
        if let Some(link) = self.link.as_mut().filter(|_| !pointer.is_null()) {
            link.session.unfetch(offset, pointer);
        }
    }
}
