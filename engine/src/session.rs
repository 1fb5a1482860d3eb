//! One connection: snapshot, reads, the write set, prepare and commit.

use crate::base::sync::Ordering;
use crate::base::{Error, Incarnation, Jci, PageNo, Result};
use crate::commit::Prepared;
use crate::engine::Engine;
use crate::format::mark;
use crate::medium::BaseFile;
use crate::pages::heads;
use crate::pages::virt::{Place, Virt};
use crate::refusal;
use crate::shared::tally;
use crate::shm::{PinAt, SlotNo};
use crate::store::{Durability, Store};
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
    last_commit: Jci,
    seen: Incarnation,
    set: WriteSet,
    /// Page size of a database that has none yet, as its first write suggests.
    provisional: u32,
    /// Pages of the database after the prepared commit.
    prepared: Option<u32>,
    commit: Prepared,
    scratch: Vec<u8>,
    sorted: Vec<(PageNo, Written)>,
}

impl Session {
    pub(crate) fn new(store: Arc<Store>) -> Result<Session> {
        let engine = store.engine();
        engine.check()?;
        let slot = engine.shared.slots().claim(engine.live.own(), &engine.live)?;
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
            last_commit: Jci::ZERO,
            seen,
            set: WriteSet::default(),
            provisional: 0,
            prepared: None,
            commit: Prepared::default(),
            scratch: Vec::new(),
            sorted: Vec::new(),
        })
    }

    /// The handle on the base file, opened at the first need; borrows nothing of the rest.
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
    /// # Errors
    /// `Failed` and `Forked`; an error of the repair of a dead writer.
    pub fn begin_read(&mut self) -> Result<()> {
        self.store.engine().check()?;
        if self.pin.is_some() {
            return Ok(());
        }
        self.open_base()?;
        let (engine, base) = self.parts();
        let (head, slots) = (engine.shared.head(), engine.shared.slots());
        let granted = head.writer.granted_to(slots, self.slot);
        if !granted && slots.get(self.slot).sleeps_elsewhere(crate::shm::now) {
            // it was refused and does not sleep through us: it cannot be granted the lock, so let it see the newest (P10)
            engine.flush(self.slot, head.clock.published(), base)?;
        }
        let at = if granted { PinAt::Published } else { PinAt::Visible };
        let own = (self.last_commit > head.clock.visible()).then_some(self.last_commit);
        let pin = engine.pin(self.slot, at, own, base)?;
        self.pin = Some(pin);
        self.pages = None;
        Ok(())
    }

    /// xUnlock(NONE): drops the pin, and a write transaction if there is one.
    pub fn end_read(&mut self) {
        self.end_write();
        if self.store.engine().forked() {
            return;
        }
        self.pin = None;
        self.pages = None;
        self.store.engine().shared.slots().get(self.slot).unpin();
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
        let (engine, base) = self.parts();
        let (head, slots) = (engine.shared.head(), engine.shared.slots());
        if !engine.hold(self.slot, base)? {
            tally(&head.counters.busy, 1);
            head.writer.note_refusal(slots, self.slot);
            refusal::record(&self.store, self.slot);
            return Err(Error::Busy("another connection is writing"));
        }
        if self.pin != Some(head.clock.published()) {
            head.writer.release(slots, self.slot);
            head.writer.note_refusal(slots, self.slot);
            refusal::record(&self.store, self.slot);
            return Err(Error::BusySnapshot);
        }
        self.evictions = engine.evictions();
        self.holding = true;
        Ok(())
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
        self.writing = false;
        self.release_lock();
    }

    fn release_lock(&mut self) {
        if std::mem::take(&mut self.holding) {
            let engine = self.store.engine();
            engine.shared.head().writer.release(engine.shared.slots(), self.slot);
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

    /// The page size, once it is known.
    #[must_use]
    pub fn page_size(&self) -> Option<u32> {
        self.store.engine().pages.geometry().map(|g| g.arena.size())
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
        if self.pin.is_some() {
            return self.read_pinned(offset, into);
        }
        self.begin_read()?;
        let n = self.read_pinned(offset, into);
        self.pin = None;
        self.pages = None;
        self.store.engine().shared.slots().get(self.slot).unpin();
        n
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
            let page = PageNo((at / u64::from(page_size)) as u32 + 1);
            let within = (at % u64::from(page_size)) as u32;
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
            None => self.read_committed(page, within, into)?,
        }
        Ok(())
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
            engine.promote(self.slot, page, base);
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

    /// xFetch: a pointer to `len` bytes at `offset`, valid and unchanged until [`unfetch`](Self::unfetch); `None` at any
    /// time (not in the fast tier, page 1, written by this transaction, not within one page, under pressure).
    ///
    /// # Errors
    /// `Failed`, `Forked`.
    pub fn fetch(&mut self, offset: u64, len: usize) -> Result<Option<*const u8>> {
        self.store.engine().check()?;
        let (Some(pin), Some(page_size)) = (self.pin, self.page_size()) else { return Ok(None) };
        let page = PageNo((offset / u64::from(page_size)) as u32 + 1);
        let within = (offset % u64::from(page_size)) as u32;
        let whole = u64::from(within) + len as u64 <= u64::from(page_size);
        if !whole || page == PAGE_ONE || self.set.get(page).is_some() || page.0 > self.committed_pages()? {
            return Ok(None);
        }
        let engine = self.store.engine();
        let head = engine.shared.head();
        if engine.pages.free_blocks() == 0 && head.grace.first.load(R) != 0 {
            return Ok(None);
        }
        let slot = engine.shared.slots().get(self.slot);
        slot.begin_copy();
        let virt = engine.pages.version(page, pin);
        let pointer = match virt.map(Virt::place) {
            Some(Place::Fast(b)) => {
                slot.add_fetch();
                virt.into_iter().for_each(Virt::touch);
                Some(engine.pages.geo().arena.address(b, within))
            }
            _ => None,
        };
        slot.end_copy();
        Ok(pointer)
    }

    /// xUnfetch of one pointer that [`fetch`](Self::fetch) answered.
    pub fn unfetch(&mut self, _offset: u64, _pointer: *const u8) {
        if !self.store.engine().forked() {
            self.store.engine().shared.slots().get(self.slot).drop_fetch();
        }
    }

    /// xFileSize: bytes, own writes included.
    ///
    /// # Errors
    /// Of the base file.
    pub fn size(&mut self) -> Result<u64> {
        self.store.engine().check()?;
        let Some(page_size) = self.known_page_size() else { return Ok(0) };
        let unpinned = self.pin.is_none();
        if unpinned {
            self.begin_read()?;
        }
        let pages = self.committed_pages();
        if unpinned {
            self.end_read();
        }
        let pages = pages?;
        let pages = match self.set.end {
            Some(end) if self.set.truncated => end,
            Some(end) => end.max(pages),
            None => pages,
        };
        Ok(u64::from(pages) * u64::from(page_size))
    }

    /// xTruncate: in a write transaction never fails; the size is settled at commit (P1).
    ///
    /// # Errors
    /// `LockLost` outside one.
    pub fn truncate(&mut self, size: u64) -> Result<()> {
        if !self.writing {
            self.retake_lock()?;
        }
        let page_size = u64::from(self.known_page_size().unwrap_or(4096));
        let end = size.div_ceil(page_size) as u32;
        let cut: Vec<PageNo> = self.set.iter().map(|(p, _)| p).filter(|p| p.0 > end).collect();
        for page in cut {
            if let Some(Written::Shadow(v)) = self.set.remove(page) {
                self.store.engine().pages.give_back(v);
            }
        }
        self.set.end = Some(end);
        self.set.truncated = true;
        Ok(())
    }

    /// A write or cut without the writer lock (P6): taken again if this session's own last commit is still the newest.
    fn retake_lock(&mut self) -> Result<()> {
        self.store.check_writable()?;
        self.begin_read()?;
        let newest = self.store.engine().shared.published();
        if self.last_commit != newest || self.pin != Some(newest) {
            return Err(Error::LockLost);
        }
        self.take_lock().map_err(|_| Error::LockLost)?;
        self.writing = true;
        Ok(())
    }

    /// xWrite: any offset and length, into the private write set. Without a write transaction it re-takes the writer lock
    /// if the session's own last commit is still the newest (P6), else `LockLost`.
    ///
    /// # Errors
    /// As said; `Full` if a transaction too large for memory finds no room in the cold file.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.store.engine().check()?;
        if !self.writing || !self.holding {
            self.retake_lock()?;
        }
        if self.known_page_size().is_none() {
            let n = bytes.len() as u64;
            let shaped = n.is_power_of_two() && (512..=65536).contains(&n) && offset.is_multiple_of(n);
            self.provisional = if shaped { n as u32 } else { 4096 };
        }
        let page_size = self.known_page_size().unwrap_or(4096);
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let page =
                u32::try_from(at / u64::from(page_size) + 1).map_err(|_| self.store.engine().no_room("a page"))?;
            let within = (at % u64::from(page_size)) as usize;
            let n = (bytes.len() - done).min(page_size as usize - within);
            self.write_in_page(PageNo(page), page_size, within, &bytes[done..done + n])?;
            self.set.end = Some(self.set.end.unwrap_or(0).max(page));
            done += n;
        }
        self.follow_header()
    }

    /// While the database has no page size, the write set is kept in pages of the size that its own page 1 says.
    fn follow_header(&mut self) -> Result<()> {
        if self.page_size().is_some() || self.set.get(PAGE_ONE).is_none() {
            return Ok(());
        }
        let mut header = [0u8; mark::HEADER];
        self.read_in_page(PAGE_ONE, 0, &mut header)?;
        match mark::page_size(&header) {
            Some(size) if size != self.provisional => self.repage(size),
            _ => Ok(()),
        }
    }

    fn write_in_page(&mut self, page: PageNo, page_size: u32, within: usize, bytes: &[u8]) -> Result<()> {
        let mut content = std::mem::take(&mut self.scratch);
        let normal = page != PAGE_ONE || mark::is_normal(bytes);
        let result = if bytes.len() == page_size as usize && normal {
            self.put_page(page, bytes)
        } else {
            content.resize(page_size as usize, 0);
            let read = if bytes.len() < page_size as usize { self.read_in_page(page, 0, &mut content) } else { Ok(()) };
            content[within..within + bytes.len()].copy_from_slice(bytes);
            if page == PAGE_ONE {
                mark::normalise(0, &mut content);
            }
            read.and_then(|()| self.put_page(page, &content))
        };
        self.scratch = content;
        result
    }

    /// Keeps what `content` changes of `page`.
    fn put_page(&mut self, page: PageNo, content: &[u8]) -> Result<()> {
        if page != PAGE_ONE && self.store.too_large(self.set.bytes(), self.set.len()) {
            self.settle_page_size()?;
            return self.put_shadow(page, content);
        }
        let fresh = page.0 > self.committed_pages()?;
        let before = if fresh {
            self.set.put(page, None, content)
        } else {
            // by field, so that the write set stays free to be changed
            let (engine, base) = (self.store.engine(), self.base.as_deref().expect("opened by begin_read"));
            let Some(block) = engine.bring_in_or_make_room(self.slot, page, &self.set, base)? else {
                return self.put_shadow(page, content);
            };
            // the newest version is stable under the writer lock
            self.set.put(page, Some(engine.pages.geo().arena.view(block)), content)
        };
        if let Some(Written::Shadow(v)) = before {
            self.store.engine().pages.give_back(v);
        }
        Ok(())
    }

    /// Writes the whole page to a block of its own, of which the record will hold the number only.
    fn put_shadow(&mut self, page: PageNo, content: &[u8]) -> Result<()> {
        let (engine, base) = self.parts();
        let v = match self.set.get(page) {
            Some(Written::Shadow(v)) => v,
            _ => engine.new_shadow(self.slot, page, &self.set, base)?,
        };
        engine.write_shadow(v, content)?;
        self.set.put_shadow(page, v);
        Ok(())
    }

    /// FCNTL_SYNC: builds the commit and reserves all it needs. Every error of a transaction is returned here. Repeatable.
    ///
    /// # Errors
    /// `Full`, `Io`, `Corrupt`, `Failed`, `Forked`, `LockLost`; never `Busy`.
    pub fn prepare(&mut self) -> Result<()> {
        self.store.engine().check()?;
        self.prepared = None;
        if !self.holding || self.set.is_empty() {
            return Ok(());
        }
        self.settle_page_size()?;
        let size = self.settle_size()?;
        let mut pages = std::mem::take(&mut self.sorted);
        pages.clear();
        pages.extend(self.set.iter().filter(|(p, _)| p.0 <= size));
        pages.sort_unstable_by_key(|p| p.0);
        let result = self.prepare_pages(&pages, size);
        self.sorted = pages;
        result?;
        self.prepared = Some(size);
        Ok(())
    }

    fn prepare_pages(&mut self, pages: &[(PageNo, Written)], size: u32) -> Result<()> {
        let engine = self.store.engine();
        let old_size = self.pages.unwrap_or(0);
        let packer = &mut self.commit.packer;
        packer.clear();
        let mut shadows = 0;
        for &(page, written) in pages {
            match written {
                Written::Ranges { fresh, first, n } => packer.ranges(page, fresh, self.set.ranges(first, n)),
                Written::Shadow(v) => match engine.pages.virt(v).place() {
                    Place::Cold(c) => packer.block(page, c, true),
                    Place::Fast(b) => packer.block(page, b.0, false),
                    Place::Home | Place::Free => return Err(engine.pages.corrupt("write set", "a lost shadow".into())),
                },
            }
            shadows += u32::from(matches!(written, Written::Shadow(_)));
        }
        packer.finish();
        self.commit.pages = pages.len();
        self.commit.shrinks = size < old_size;
        let base = self.base.as_deref().expect("opened by begin_read");
        let n = pages.len() as u32;
        engine.reserve_ring(self.commit.packer.parts(), base)?;
        heads::reserve(&engine.shared, n)?;
        engine.pages.reserve_virts(2 * n + 64)?;
        let undisturbed = self.evictions == engine.evictions();
        engine.reserve_for(self.slot, pages, &self.set, undisturbed, base)?;
        if shadows > 0 {
            engine.persist_shadows(shadows)?;
        }
        Ok(())
    }

    /// Fixes the page size of a new database: what its first page says by now (see [`follow_header`](Self::follow_header)),
    /// or, if a large transaction spills before that is written, the unit in which it writes.
    fn settle_page_size(&mut self) -> Result<()> {
        if self.page_size().is_some() {
            return Ok(());
        }
        self.store.engine().fix_page_size(self.provisional)
    }

    fn repage(&mut self, size: u32) -> Result<()> {
        let (old, end) = (self.provisional, self.set.end.unwrap_or(0));
        let mut bytes = vec![0; old as usize * end as usize];
        for n in 1..=end {
            let at = (n as usize - 1) * old as usize;
            self.read_in_page(PageNo(n), 0, &mut bytes[at..at + old as usize])?;
        }
        let truncated = self.set.truncated;
        self.set.clear();
        self.provisional = size;
        bytes.resize(bytes.len().next_multiple_of(size as usize), 0);
        for (i, page) in bytes.chunks(size as usize).enumerate() {
            self.set.put(PageNo(i as u32 + 1), None, page);
            self.set.end = Some(i as u32 + 1);
        }
        self.set.truncated = truncated;
        Ok(())
    }

    /// Settles the size of the database and its header: what @28 says if it can be believed, else the highest end; a
    /// change counter that the transaction did not raise is raised (P1, P6). Pages it adds without writing them are zero.
    fn settle_size(&mut self) -> Result<u32> {
        let old_pages = self.committed_pages()?;
        let mut first = [0u8; mark::HEADER];
        self.read_in_page(PAGE_ONE, 0, &mut first)?;
        let mut committed = [0u8; 4];
        if old_pages > 0 {
            self.read_committed(PAGE_ONE, 24, &mut committed)?;
        }
        let mut changed = false;
        let end = match self.set.end {
            Some(end) if self.set.truncated => end,
            end => end.unwrap_or(0).max(old_pages),
        };
        let size = mark::pages(&first).unwrap_or(end);
        if old_pages > 0 && first[24..28] == committed {
            let counter = crate::format::get_be32(&first, 24).wrapping_add(1).to_be_bytes();
            crate::format::put(&mut first, 24, &counter);
            crate::format::put(&mut first, 92, &counter);
            changed = true;
        }
        if mark::pages(&first) != Some(size) {
            let counter: [u8; 4] = [first[24], first[25], first[26], first[27]];
            crate::format::put(&mut first, 28, &size.to_be_bytes());
            crate::format::put(&mut first, 92, &counter);
            changed = true;
        }
        if changed {
            let page_size = self.page_size().unwrap_or(4096);
            self.write_in_page(PAGE_ONE, page_size, 0, &first)?;
        }
        let hole = self.store.engine().hole();
        for page in (old_pages + 1..=size).map(PageNo) {
            if self.set.get(page).is_none() && page != hole {
                self.set.put(page, None, &[]);
            }
        }
        Ok(size)
    }

    /// FCNTL_COMMIT_PHASETWO: commits what was prepared; a no-op without a preparation. Fails only by failing the region.
    /// Releases the writer lock as soon as the commit is published, then waits as `durability` says.
    ///
    /// # Errors
    /// `Failed`.
    pub fn commit(&mut self, durability: Durability) -> Result<()> {
        let Some(size) = self.prepared.take() else { return Ok(()) };
        let engine = self.store.engine();
        let at_once = engine.mapped() || durability == Durability::Process;
        let set = &self.set;
        let shadow = |page: PageNo| match set.get(page) {
            Some(Written::Shadow(v)) => Some(v),
            _ => None,
        };
        let jci = engine.publish(self.slot, &mut self.commit, at_once, &shadow);
        // shadows of pages that were cut off never became versions
        self.set.shadows().filter(|(page, _)| page.0 > size).for_each(|(_, v)| engine.pages.give_back(v));
        self.last_commit = jci;
        self.pin = Some(jci);
        self.pages = None;
        engine.pages.pump();
        self.set.clear();
        self.release_lock();
        let (engine, base) = self.parts();
        match durability {
            Durability::Full => engine.flush(self.slot, jci, base),
            Durability::Process => engine.write_through(self.slot, jci, base),
        }?;
        self.store.committed();
        Ok(())
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

    /// FCNTL_SIZE_HINT: a coming size in bytes; advice only.
    pub fn size_hint(&mut self, _size: u64) {}

    /// The store it belongs to.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Makes everything committed durable and writes homes as far as readers allow. Answers (durable, low-water mark).
    ///
    /// # Errors
    /// `Busy` inside a write transaction; those of the base file.
    pub fn checkpoint(&mut self) -> Result<(Jci, Jci)> {
        if self.holding {
            return Err(Error::Busy("a write transaction is open"));
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
