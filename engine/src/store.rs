//! Layer 7: what a VFS sees. A [`Store`] is one process's attachment to one database; a [`Session`] is one connection.

use crate::base::{Jci, Result};
use crate::medium::{BaseOpener, MediumKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How to open a database. Values that conflict with those of processes already attached are an error that says so.
#[derive(Clone, Debug)]
pub struct Options {
    /// The medium, or `None` to detect it: `dax` where `MAP_SYNC` succeeds, else `file`.
    pub medium: Option<MediumKind>,
    /// Where region and cold file go; `None` is beside the base file.
    pub region_dir: Option<PathBuf>,
    /// Fast-tier budget, bytes.
    pub region: u64,
    /// Keep region and mark over the last close instead of writing everything home.
    pub keep_region: bool,
    /// Open without the right to write: no write session, and nothing is adopted or created.
    pub read_only: bool,
}

/// How long a commit waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// `synchronous=OFF` and `NORMAL`: survives the death of all processes.
    Process,
    /// `synchronous=FULL` and `EXTRA`: survives what the medium promises.
    Full,
}

/// A row of `nvlite_stat`.
#[derive(Clone, Debug)]
pub struct Stat {
    /// Its name, `snake_case`.
    pub name: &'static str,
    /// Its value.
    pub value: StatValue,
}

/// The value of a [`Stat`].
#[derive(Clone, Debug)]
pub enum StatValue {
    /// A count or a position.
    Int(u64),
    /// A word.
    Text(String),
}

/// One process's attachment to one database. Dropping the last one in the machine closes the database cleanly.
pub struct Store {
    _private: (),
}

/// One connection: at most one transaction at a time. May move between threads, never used by two at once.
pub struct Session {
    _private: (),
}

impl Store {
    /// Attaches: recovers the region if nobody is attached, adopts a stock base file if it is unmarked.
    ///
    /// # Errors
    /// `Busy` while another process attaches, detaches or holds stock SQLite's lock; `CantOpen` and `Corrupt` as P13 and P14 say.
    pub fn attach(_base: Arc<dyn BaseOpener>, _options: &Options) -> Result<Arc<Store>> {
        unimplemented!()
    }

    /// A new connection.
    pub fn session(self: &Arc<Self>) -> Result<Session> {
        unimplemented!()
    }

    /// The path of the base file's region, for messages.
    pub fn region_path(&self) -> PathBuf {
        unimplemented!()
    }

    /// The medium that was chosen.
    pub fn medium(&self) -> MediumKind {
        unimplemented!()
    }

    /// All figures.
    pub fn stats(&self) -> Vec<Stat> {
        unimplemented!()
    }

    /// Makes everything committed durable and writes homes as far as readers allow: `nvlite_checkpoint()`. Answers (jci durable, jci home).
    pub fn checkpoint(&self) -> Result<(Jci, Jci)> {
        unimplemented!()
    }

    /// Detaches. The last attachment writes homes, unmarks the base and removes the side files, unless asked to keep them.
    /// Dropping the last `Arc` does the same but cannot tell an error.
    pub fn close(self: Arc<Self>) -> Result<()> {
        unimplemented!()
    }
}

impl Session {
    /// xLock(SHARED): pins the newest visible snapshot (P10). Idempotent. Never waits.
    pub fn begin_read(&mut self) -> Result<()> {
        unimplemented!()
    }

    /// xUnlock(NONE): drops the pin (and a write transaction, if any).
    pub fn end_read(&mut self) {
        unimplemented!()
    }

    /// xLock(RESERVED): takes the writer lock. `Busy` if it is held, `BusySnapshot` if the pin is not the newest commit;
    /// both record the refusal for [`Session::sleep`] (P11). Pins first if there is no pin (P9).
    pub fn begin_write(&mut self) -> Result<()> {
        unimplemented!()
    }

    /// xUnlock below RESERVED: drops the write set and the preparation, gives the writer lock back if still held.
    pub fn end_write(&mut self) {
        unimplemented!()
    }

    /// True if this session has a write transaction (begun and not ended; a committed one stays begun until `end_write`).
    pub fn is_writing(&self) -> bool {
        unimplemented!()
    }

    /// The snapshot this session reads at, if it has one.
    pub fn snapshot(&self) -> Option<Jci> {
        unimplemented!()
    }

    /// xRead: any offset and length. Own writes first, then the snapshot; without a pin, the newest visible state.
    /// Bytes past the end are zeroed; answers how many there were. Page 1 is presented normalised (P7); the first
    /// 16-byte read at offset 24 after a change of incarnation answers sixteen 0xFF bytes (P19).
    pub fn read(&mut self, _offset: u64, _into: &mut [u8]) -> Result<usize> {
        unimplemented!()
    }

    /// xFetch: a pointer to `len` bytes at `offset`, valid and unchanged until [`unfetch`](Self::unfetch); `None` at any time
    /// (not in the fast tier, page 1, written by this transaction, not within one page, under pressure).
    pub fn fetch(&mut self, _offset: u64, _len: usize) -> Result<Option<*const u8>> {
        unimplemented!()
    }

    /// xUnfetch of one pointer that [`fetch`](Self::fetch) answered.
    pub fn unfetch(&mut self, _offset: u64, _pointer: *const u8) {
        unimplemented!()
    }

    /// xWrite: any offset and length, into the private write set. Without a write transaction it re-takes the writer lock
    /// if the session's own last commit is still the newest (P6), else `LockLost`.
    pub fn write(&mut self, _offset: u64, _bytes: &[u8]) -> Result<()> {
        unimplemented!()
    }

    /// xTruncate: in a write transaction never fails; the size is settled at commit (P1).
    pub fn truncate(&mut self, _size: u64) -> Result<()> {
        unimplemented!()
    }

    /// xFileSize: bytes, own writes included.
    pub fn size(&mut self) -> Result<u64> {
        unimplemented!()
    }

    /// FCNTL_SYNC: builds the commit and reserves all it needs. Every error of a transaction is returned here. Repeatable.
    pub fn prepare(&mut self) -> Result<()> {
        unimplemented!()
    }

    /// FCNTL_COMMIT_PHASETWO: commits what was prepared; a no-op without a preparation. Fails only by failing the region.
    /// Releases the writer lock as soon as the commit is published, then waits as `durability` says.
    pub fn commit(&mut self, _durability: Durability) -> Result<()> {
        unimplemented!()
    }

    /// True if somebody else holds the writer lock (xCheckReservedLock).
    pub fn reserved_elsewhere(&self) -> bool {
        unimplemented!()
    }

    /// True if another process is attached (SQLITE_FCNTL_EXTERNAL_READER).
    pub fn external_reader(&self) -> bool {
        unimplemented!()
    }

    /// FCNTL_SIZE_HINT: a coming size in bytes; advice only.
    pub fn size_hint(&mut self, _size: u64) {
        unimplemented!()
    }

    /// The database's page size, once it is known.
    pub fn page_size(&self) -> Option<u32> {
        unimplemented!()
    }
}

/// xSleep: if this thread's last VFS call was a refusal at RESERVED, waits in the writer queue and returns early when granted (P11);
/// else sleeps. Answers the time asked.
pub fn sleep(_time: Duration) -> Duration {
    unimplemented!()
}

/// Any VFS call other than xSleep clears the refusal that [`sleep`] would act on; `vfs` calls this at the start of every call that
/// does not go through a [`Session`].
pub fn forget_refusal() {
    unimplemented!()
}
