//! One connection: its locks, its snapshot, its reads; pointers into pages are in `fetch`, the write set is in `write`, the
//! commit in `prepare`, the comparison with checksums in `verify`.

mod fetch;
mod prepare;
mod verify;
mod write;

use crate::base::sync::Ordering;
use crate::base::{Error, Incarnation, Jci, PageNo, Result};
use crate::commit::Prepared;
use crate::engine::{CONNECTION, Engine};
use crate::medium::BaseFile;
use crate::pages::virt::{Place, Virt};
use crate::refusal;
use crate::shared::tally;
use crate::shm::{PinAt, SlotNo};
use crate::store::Store;
use crate::writeset::{WriteSet, Written};
use std::sync::Arc;

const R: Ordering = Ordering::Relaxed;
const PAGE_ONE: PageNo = PageNo(1);

/// One connection: at most one transaction at a time. May move between threads, never used by two at once.
pub struct Session {
    store: Arc<Store>,
    slot: SlotNo,
    base: Option<Box<dyn BaseFile>>,
    pin: Option<Jci>,
    /// Pages at the pin, once asked for.
    pages: Option<u32>,
    /// xLock is at RESERVED or above.
    writing: bool,
    /// The engine's writer lock is ours.
    holding: bool,
    /// Evictions when it became ours.
    evictions: u64,
    /// Pointers handed out under the lock, which nobody else knows of yet.
    lent: Vec<fetch::Lent>,
    last_commit: Jci,
    /// The newest snapshot that it had: it never goes back.
    newest: Jci,
    seen: Incarnation,
    set: WriteSet,
    /// Page size of a database that has none yet, as its first write suggests.
    provisional: u32,
    /// This transaction has fixed the page size of a database that has no pages yet.
    fixed: bool,
    /// Pages of the database after the prepared commit.
    prepared: Option<u32>,
    /// Where the database was cut since, in pages; the most if it was not.
    cut: u32,
    commit: Prepared,
    scratch: Vec<u8>,
    sorted: Vec<(PageNo, Written)>,
    /// Shadow blocks were streamed by this call, and not fenced.
    streamed: bool,
}

impl Session {
    pub(crate) fn new(store: Arc<Store>) -> Result<Session> {
        let engine = store.engine();
        engine.check()?;
        let slot = engine.shared.slots().claim(engine.live.own(), &engine.live)?;
        engine.shared.slots().get(slot).words[CONNECTION].store(1, R);
        let seen = engine.incarnation();
        Ok(Session {
            store,
            slot,
            base: None,
            pin: None,
            pages: None,
            writing: false,
            holding: false,
            evictions: 0,
            lent: Vec::new(),
            last_commit: Jci::ZERO,
            newest: Jci::ZERO,
            seen,
            set: WriteSet::default(),
            provisional: 0,
            fixed: false,
            prepared: None,
            cut: u32::MAX,
            commit: Prepared::default(),
            scratch: Vec::new(),
            sorted: Vec::new(),
            streamed: false,
        })
    }

    /// Opens the handle on the base file at the first need, so that [`parts`](Self::parts) has it.
    fn open_base(&mut self) -> Result<()> {
        if self.base.is_none() {
            self.base = Some(self.store.engine().base.open()?);
        }
        Ok(())
    }

    fn parts(&self) -> (&Engine, &dyn BaseFile) {
        (self.store.engine(), self.base.as_deref().expect("opened by the caller"))
    }

    /// xLock(SHARED): pins the newest visible snapshot (P10). Idempotent. Waits only for a commit in progress in place.
    ///
    /// A connection never goes back in time. What it saw when it was granted the writer lock need not be visible yet
    /// when it has given that back; but SQLite would go on with a schema and with cached pages that it took from there:
    /// it prepares a statement for the older schema and runs it on the newer one, again and again, and a page 1 that
    /// did not exist yet stays in its cache.
    ///
    /// # Errors
    /// `Failed` and `Forked`; an error of the repair of a dead writer.
    pub fn begin_read(&mut self) -> Result<()> {
        self.store.engine().check()?;
        if self.pin.is_some() {
            return Ok(());
        }
        self.open_base()?;
        let engine = self.store.engine();
        let (head, slots) = (engine.shared.head(), engine.shared.slots());
        let granted = head.writer.granted_to(slots, self.slot);
        if !granted && slots.get(self.slot).sleeps_elsewhere(crate::shm::now) {
            // it was refused and does not sleep through us: it cannot be granted the lock, so let it see the newest (P10)
            engine.flush(self.slot, head.clock.published())?;
        }
        let at = if granted { PinAt::Published } else { PinAt::Visible };
        let seen = (self.newest > head.clock.visible()).then_some(self.newest);
        let pin = engine.pin(self.slot, at, seen)?;
        self.pin = Some(pin);
        self.newest = pin;
        self.pages = None;
        refusal::forget();
        Ok(())
    }

    /// xUnlock(NONE): drops the pin, and a write transaction if there is one.
    pub fn end_read(&mut self) {
        self.end_write();
        if !self.store.engine().forked() {
            self.unpin();
        }
    }

    fn unpin(&mut self) {
        self.pin = None;
        self.pages = None;
        self.store.engine().shared.slots().get(self.slot).unpin();
    }

    /// Runs `read` at the pin; without one, at the newest visible state, pinned for as long as it runs.
    fn pinned<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.pin.is_some() {
            return read(self);
        }
        self.begin_read()?;
        let result = read(self);
        self.unpin();
        result
    }

    /// xLock(RESERVED): takes the writer lock. `Busy` if it is held, `BusySnapshot` if the pin is not the newest commit;
    /// both record the refusal for [`sleep`](crate::store::sleep) (P11). Pins first if there is no pin (P9).
    ///
    /// # Errors
    /// As said, and `ReadOnly`.
    pub fn begin_write(&mut self) -> Result<()> {
        self.store.check_writable()?;
        self.begin_read()?;
        if self.writing && self.holding {
            return Ok(());
        }
        self.take_lock()?;
        self.writing = true;
        Ok(())
    }

    fn take_lock(&mut self) -> Result<()> {
        let engine = self.store.engine();
        let (head, slots) = (engine.shared.head(), engine.shared.slots());
        if !engine.hold_past_maintenance(self.slot)? {
            return Err(self.refuse(Error::Busy("another connection is writing")));
        }
        if self.pin != Some(head.clock.published()) {
            head.writer.release(slots, self.slot);
            return Err(self.refuse(Error::BusySnapshot));
        }
        self.evictions = engine.evictions();
        self.holding = true;
        refusal::forget();
        Ok(())
    }

    /// Counts and records a refusal at RESERVED, for the sleep that may follow it (P11).
    fn refuse(&mut self, why: Error) -> Error {
        let engine = self.store.engine();
        let head = engine.shared.head();
        tally(&head.counters.refusals, 1);
        head.writer.note_refusal(engine.shared.slots(), self.slot);
        refusal::record(&self.store, self.slot);
        why
    }

    /// xUnlock below RESERVED: drops the write set and the preparation, gives the writer lock back if still held.
    pub fn end_write(&mut self) {
        if self.store.engine().forked() {
            return;
        }
        self.drop_shadows();
        self.set.clear();
        self.prepared = None;
        self.provisional = 0;
        self.fixed = false;
        self.writing = false;
        self.release_lock();
    }

    fn release_lock(&mut self) {
        self.tell_lent();
        if std::mem::take(&mut self.holding) {
            let engine = self.store.engine();
            engine.shared.head().writer.release(engine.shared.slots(), self.slot);
        }
    }

    /// At the end of a call that may have streamed shadow blocks.
    fn fence_streamed(&mut self) {
        if std::mem::take(&mut self.streamed) {
            self.store.engine().fence_shadows();
        }
    }

    fn drop_shadows(&mut self) {
        if !self.holding {
            return;
        }
        let pages = &self.store.engine().pages;
        self.set.shadows().for_each(|(_, v)| pages.give_back(v));
    }

    /// True if this session has a write transaction (begun and not ended; a committed one stays begun until `end_write`).
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.writing
    }

    /// The snapshot this session reads at, if it has one.
    #[must_use]
    pub fn snapshot(&self) -> Option<Jci> {
        self.pin
    }

    /// The page size, once it is known: one that a transaction has fixed means nothing to others before it is committed.
    #[must_use]
    pub fn page_size(&self) -> Option<u32> {
        let pages = &self.store.engine().pages;
        pages.settled().or_else(|| pages.geometry().filter(|_| self.fixed)).map(|g| g.arena.size())
    }

    /// xRead: any offset and length. Own writes first, then the snapshot; without a pin, the newest visible state.
    /// Bytes past the end are zeroed; answers how many there were. Page 1 is presented normalised (P7); the first
    /// 16-byte read at offset 24 after a change of incarnation answers sixteen 0xFF bytes (P19).
    ///
    /// # Errors
    /// Of the base or the cold file; `Corrupt`, `Failed`, `Forked`.
    pub fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<usize> {
        self.store.engine().check()?;
        if offset == 24 && into.len() == 16 && self.seen != self.store.engine().incarnation() {
            self.seen = self.store.engine().incarnation();
            into.fill(0xff);
            return Ok(16);
        }
        self.pinned(|session| session.read_pinned(offset, into))
    }

    fn read_pinned(&mut self, offset: u64, into: &mut [u8]) -> Result<usize> {
        let Some(page_size) = self.known_page_size() else {
            into.fill(0);
            return Ok(0);
        };
        let size = self.size()?;
        let there = size.saturating_sub(offset).min(into.len() as u64) as usize;
        into[there..].fill(0);
        let mut done = 0;
        while done < there {
            let at = offset + done as u64;
            let (page, within) = PageNo::at(at, page_size).expect("below the size of the database");
            let n = (there - done).min((page_size - within) as usize);
            self.read_in_page(page, within, &mut into[done..done + n])?;
            done += n;
        }
        Ok(there)
    }

    fn known_page_size(&self) -> Option<u32> {
        self.page_size().or((self.provisional != 0).then_some(self.provisional))
    }

    fn read_in_page(&mut self, page: PageNo, within: u32, into: &mut [u8]) -> Result<()> {
        match self.set.get(page) {
            Some(Written::Shadow(v)) => {
                let pages = &self.store.engine().pages;
                return pages.read_version(pages.virt(v), within, into).map(|_| ());
            }
            Some(Written::Ranges { fresh: true, first, n }) => {
                into.fill(0);
                self.set.overlay(first, n, within, into);
                return Ok(());
            }
            Some(Written::Ranges { fresh: false, first, n }) => {
                self.read_committed(page, within, into)?;
                self.set.overlay(first, n, within, into);
            }
            None if self.set.has_cut(page) => into.fill(0),
            None => self.read_committed(page, within, into)?,
        }
        Ok(())
    }

    /// Reads `page` from byte `within` on as this transaction found it: the snapshot, without own writes.
    ///
    /// # Errors
    /// As [`read`](Self::read); `LockLost` without a snapshot.
    pub fn read_before_image(&mut self, page: PageNo, within: u32, into: &mut [u8]) -> Result<()> {
        self.store.engine().check()?;
        self.read_committed(page, within, into)
    }

    /// True if `content` is the whole of `page` as this write transaction found it.
    pub fn is_before_image(&mut self, page: PageNo, content: &[u8]) -> bool {
        let (Some(pin), true, Some(size)) = (self.pin, self.holding, self.page_size()) else { return false };
        if size as usize != content.len() || !matches!(self.committed_pages(), Ok(pages) if page.0 <= pages) {
            return false;
        }
        let pages = &self.store.engine().pages;
        if let Some(Place::Fast(block)) = pages.version(page, pin).map(Virt::place) {
            // stable under the writer lock
            return pages.geo().arena.view(block) == content;
        }
        let mut found = std::mem::take(&mut self.scratch);
        found.resize(content.len(), 0);
        let same = self.read_committed(page, 0, &mut found).is_ok() && found == content;
        self.scratch = found;
        same
    }

    fn read_committed(&mut self, page: PageNo, within: u32, into: &mut [u8]) -> Result<()> {
        let Some(pin) = self.pin else { return Err(Error::LockLost) };
        if page.0 > self.committed_pages()? {
            into.fill(0);
            return Ok(());
        }
        let (engine, base) = self.parts();
        if self.holding {
            // nobody else can take away or move a version (P12 guards readers against the holder)
            return engine.read_page(page, engine.pages.version(page, pin), within, into, base);
        }
        let slot = engine.shared.slots().get(self.slot);
        slot.begin_copy();
        let virt = engine.pages.version(page, pin);
        let result = engine.read_page(page, virt, within, into, base);
        let from_home = virt.is_none_or(|v| !matches!(v.place(), Place::Fast(_)));
        slot.end_copy();
        if from_home && result.is_ok() {
            engine.fault_in(self.slot, page, base);
        }
        result
    }

    /// Pages at the pin.
    fn committed_pages(&mut self) -> Result<u32> {
        if let Some(n) = self.pages {
            return Ok(n);
        }
        let Some(pin) = self.pin else { return Ok(0) };
        let (engine, base) = self.parts();
        let slot = engine.shared.slots().get(self.slot);
        slot.begin_copy();
        let pages = engine.pages_at(pin, base);
        slot.end_copy();
        self.pages = Some(pages?);
        Ok(self.pages.unwrap_or(0))
    }

    /// xFileSize: bytes, own writes included.
    ///
    /// # Errors
    /// Of the base file.
    pub fn size(&mut self) -> Result<u64> {
        self.store.engine().check()?;
        let Some(page_size) = self.known_page_size() else { return Ok(0) };
        let pages = self.pinned(Self::committed_pages)?;
        let pages = match self.set.end {
            Some(end) if self.set.truncated => end,
            Some(end) => end.max(pages),
            None => pages,
        };
        Ok(u64::from(pages) * u64::from(page_size))
    }

    /// True if somebody else holds the writer lock (xCheckReservedLock).
    #[must_use]
    pub fn reserved_elsewhere(&self) -> bool {
        let head = self.store.engine().shared.head();
        head.writer.holder().is_some_and(|holder| holder != self.slot)
    }

    /// True if another process is attached (SQLITE_FCNTL_EXTERNAL_READER).
    #[must_use]
    pub fn external_reader(&self) -> bool {
        self.store.engine().live.anyone_else()
    }

    /// A panic went through one of its calls. If that had the writer lock, what it was changing may be half changed, and the
    /// lock is about to be given back: the region fails.
    pub fn abandon(&self) {
        if self.holding && !self.store.engine().forked() {
            drop(self.store.engine().shared.begin());
        }
    }

    /// Makes it a connection that has seen another history. For tests: nothing changes the incarnation of a mapping that
    /// lives yet, and no connection outlives its mapping.
    #[doc(hidden)]
    pub fn assume_seen(&mut self, incarnation: Incarnation) {
        self.seen = incarnation;
    }

    /// The store it belongs to.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Makes everything committed durable and writes homes as far as readers allow. Answers (durable, low-water mark).
    ///
    /// # Errors
    /// `Failed`, `Forked`; `Busy` inside a transaction; those of the base file.
    pub fn checkpoint(&mut self) -> Result<(Jci, Jci)> {
        self.store.engine().check()?;
        if self.holding || self.pin.is_some() {
            return Err(Error::Busy("a transaction is open")); // who writes homes pins what it writes, in this slot (P16)
        }
        self.open_base()?;
        let (engine, base) = self.parts();
        engine.checkpoint(self.slot, base)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.store.engine().forked() {
            return;
        }
        self.end_read();
        refusal::forget_slot(&self.store, self.slot);
        self.store.engine().shared.slots().release(self.slot);
    }
}
