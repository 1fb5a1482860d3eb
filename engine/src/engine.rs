//! The common ground of commit, flush, retirement and recovery: one process's view of one database.

use crate::base::checksum::{checksum, seed};
use crate::base::sync::{AtomicU64, Ordering};
use crate::base::{Error, Incarnation, Jci, MediumKind, PageNo, RegionId, Result};
use crate::format::journal::{HEADER, Header, SLOT};
use crate::format::layout::{APPLIED_AT, Layout, RING_AT};
use crate::format::superblock::{self, Superblock};
use crate::format::{FormatError, applied, get_u64, mark};
use crate::medium::{BaseFile, BaseOpener, Disk, Pmem, Site};
use crate::pages::Pages;
use crate::pages::virt::Virt;
use crate::shared::{Shared, count, tally};
use crate::shm::{ForkGuard, Hold, Liveness, PinAt, Pinned, SlotNo};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest wait for maintenance under the writer lock.
pub const MAINTENANCE: Duration = Duration::from_millis(100);

/// Which of a slot's words holds the last commit of its connection.
pub const COMMITTED: usize = 0;
/// Which of them is 1 while the connection holds the writer lock, or tries to, for maintenance.
const MAINTAINS: usize = 1;
/// Which of them names the process, for messages only, once the connection has had the retirement lock.
pub const PROCESS: usize = 2;
/// Which of them is 1 if the slot is a connection's, and not one of an attachment's own maintenance.
pub const CONNECTION: usize = 3;

/// What the region lies on.
#[derive(Clone)]
pub enum Region {
    /// Byte-addressable: `dax`, `ram`, or a simulation of them.
    Pmem(Arc<dyn Pmem>),
    /// A file with a sync.
    Disk(Arc<dyn Disk>),
}

impl Region {
    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Region::Pmem(p) => p.path(),
            Region::Disk(d) => d.path(),
        }
    }

    /// What it lies on.
    #[must_use]
    pub fn kind(&self) -> MediumKind {
        match self {
            Region::Pmem(p) => p.kind(),
            Region::Disk(_) => MediumKind::File,
        }
    }

    /// Reads bytes; missing ones are zero.
    pub fn load(&self, off: u64, into: &mut [u8]) -> Result<()> {
        match self {
            Region::Pmem(p) if off + into.len() as u64 <= p.len() => p.load(off, into),
            Region::Pmem(_) => into.fill(0),
            Region::Disk(d) => {
                d.read_at(off, into)?;
            }
        }
        Ok(())
    }

    /// How many bytes there are.
    ///
    /// # Errors
    /// Of the file.
    pub fn extent(&self) -> Result<u64> {
        match self {
            Region::Pmem(p) => Ok(p.len()),
            Region::Disk(d) => d.len(),
        }
    }

    /// The newest commit of which something may have been stored in place (`dax`, `ram`); its record was durable before.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn applied(&self, id: RegionId) -> Result<Jci> {
        let mut word = [0; 8];
        self.load(APPLIED_AT, &mut word)?;
        applied::decode(applied_seed(id), get_u64(&word, 0))
            .map_err(|why| Error::corrupt(self.path(), "applied word", why.to_string()))
    }

    /// Reads the superblock that holds.
    pub fn superblock(&self) -> Result<Superblock> {
        let (mut a, mut b) = (vec![0; superblock::SIZE], vec![0; superblock::SIZE]);
        self.load(0, &mut a)?;
        self.load(superblock::SIZE as u64, &mut b)?;
        Superblock::choose(&a, &b).map_err(|why| match why {
            FormatError::Version(_) | FormatError::Foreign => Error::cant_open(self.path(), why.to_string()),
            _ => Error::corrupt(self.path(), "superblock", why.to_string()),
        })
    }

    /// Writes superblocks, each over the copy that its sequence says, and makes them durable.
    pub fn write_superblocks(&self, superblocks: &[&Superblock]) -> Result<()> {
        for (off, bytes) in superblocks.iter().map(|superblock| (superblock.place(), superblock.encode())) {
            match self {
                Region::Pmem(p) => {
                    p.store(off, &bytes);
                    p.flush(Site::Superblock, off, bytes.len() as u64);
                }
                Region::Disk(d) => d.write_at(off, &bytes)?,
            }
        }
        match self {
            Region::Pmem(p) => {
                p.fence(Site::SuperblockFence);
                Ok(())
            }
            Region::Disk(d) => d.sync(Site::SuperblockSync),
        }
    }
}

/// Of all incarnations: the word only goes up.
fn applied_seed(id: RegionId) -> u64 {
    seed(id, Incarnation(0))
}

/// A page of the database whose place is its home, which the base file is too short for.
pub fn cut_short(base: &dyn BaseFile, page: PageNo) -> Error {
    Error::corrupt(base.path(), "database file", format!("page {page} lies past its end: it was cut"))
}

/// One process's view of one database.
pub struct Engine {
    /// The mapping.
    pub shared: Arc<Shared>,
    /// Its pages.
    pub pages: Pages,
    /// The region.
    pub region: Region,
    /// The base file.
    pub base: Arc<dyn BaseOpener>,
    /// Who is alive.
    pub live: Liveness,
    /// Held while this process changes the superblock: of its threads, one may have the writer lock and one the retirement
    /// lock. Other processes change it under the same locks, and under both at once never: before the first commit there is
    /// nothing to retire, and after it (`file`) only who retires changes it.
    superblock: Mutex<()>,
    /// The layout with the page size unknown: all that the log needs.
    pub layout: Layout,
    /// Seed of the log's checksums in this incarnation.
    pub seed: u64,
    /// Identity.
    pub id: RegionId,
    /// Base file's device and inode when it was attached (P14).
    pub base_identity: Option<(u64, u64)>,
    /// Connection slot of the process's own maintenance, by whoever does it under the writer lock. The keeper, a thread that
    /// works without that lock, has one of its own.
    pub maintainer: SlotNo,
    /// Steps of retirement after which one who waited for the next gave up: nobody of this process waits for that again.
    pub stood_at: AtomicU64,
    fork: ForkGuard,
}

impl Engine {
    /// An engine over these parts, in an incarnation that recovery has settled.
    pub fn new(
        shared: Arc<Shared>,
        region: Region,
        cold: Arc<dyn Disk>,
        base: Arc<dyn BaseOpener>,
        live: Liveness,
        superblock: &Superblock,
    ) -> Result<Engine> {
        let pmem = match &region {
            Region::Pmem(p) => Some(p.clone()),
            Region::Disk(_) => None,
        };
        let layout = Layout::new(superblock.budget, 0, pmem.is_some());
        let id = superblock.region;
        let seed = seed(id, superblock.incarnation);
        let pages = Pages::new(shared.clone(), pmem, cold, id, superblock.budget);
        let maintainer = shared.slots().claim(live.own(), &live)?;
        let base_identity = base.identity()?;
        let fork = ForkGuard::new()?;
        Ok(Engine {
            shared,
            pages,
            region,
            base,
            live,
            superblock: Mutex::default(),
            layout,
            seed,
            id,
            base_identity,
            maintainer,
            stood_at: AtomicU64::new(u64::MAX),
            fork,
        })
    }

    /// True on `dax` and `ram`.
    #[must_use]
    pub fn mapped(&self) -> bool {
        matches!(self.region, Region::Pmem(_))
    }

    /// Refuses use after a failure of the region, or in a forked child.
    pub fn check(&self) -> Result<()> {
        if self.fork.in_child() {
            return Err(Error::Forked);
        }
        self.shared.check()
    }

    /// True in a forked child.
    #[must_use]
    pub fn forked(&self) -> bool {
        self.fork.in_child()
    }

    /// The history that is open.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.shared.head().incarnation.load(Ordering::Relaxed))
    }

    /// Whose snapshot is the oldest that is read at (P16). Of an attachment that is all there is to know: its file lock names
    /// no process, but a process knows its own number (`attachment` in `nvlite_stat`).
    #[must_use]
    pub fn oldest_reader(&self) -> String {
        let slots = self.shared.slots();
        let Some((jci, no)) = slots.oldest_reader() else { return "nobody".into() };
        let attachment = slots.get(no).attachment().map_or(0, |attachment| attachment.0);
        format!("attachment {attachment}, slot {no}, at commit {jci}")
    }

    /// Pins a snapshot in `slot`. Repairs the gate if its owner is dead (P2).
    pub fn pin(&self, slot: SlotNo, at: PinAt, at_least: Option<Jci>) -> Result<Jci> {
        let slots = self.shared.slots();
        // the gate of a region that has failed is not opened any more: not to be waited for
        let alive = |holder| slots.is_alive(holder, &self.live) && self.shared.check().is_ok();
        loop {
            match self.shared.head().clock.pin(slots.get(slot), at, at_least, &alive) {
                Pinned::At(jci) => return Ok(jci),
                Pinned::OwnerDead(_) => {
                    self.check()?;
                    if self.hold(slot)? {
                        self.shared.head().writer.release(slots, slot);
                    }
                    self.check()?;
                }
            }
        }
    }

    /// Takes the writer lock, repairing what a dead holder left (P13). False if it is busy.
    pub fn hold(&self, slot: SlotNo) -> Result<bool> {
        let (head, slots) = (self.shared.head(), self.shared.slots());
        match head.writer.try_hold(slots, slot, &self.live) {
            Hold::Busy => Ok(false),
            Hold::Held => Ok(true),
            Hold::HeldAfterDeath { dead } => {
                tracing::warn!(region = %self.region.path().display(), ?dead, "finishing what a dead writer left");
                count(&head.counters.repairs, 1);
                if let Err(error) = self.repair(dead) {
                    let failed = self.shared.fail(&error);
                    head.writer.release(slots, slot);
                    return Err(failed);
                }
                head.writer.repair_done(slots, slot);
                slots.reap_dead(&self.live);
                Ok(true)
            }
        }
    }

    /// As [`hold`](Self::hold), but a lock held for maintenance is waited for, for a while: it is given back soon.
    pub fn hold_past_maintenance(&self, slot: SlotNo) -> Result<bool> {
        let (head, slots) = (self.shared.head(), self.shared.slots());
        let mut began = None;
        loop {
            let turns = head.maintained.load(Ordering::Relaxed);
            if self.hold(slot)? {
                return Ok(true);
            }
            // The holder first: one that is not found any more, or not as a maintainer, has counted its turn, perhaps before
            // we looked at the count; and has given the lock back.
            let maintains = |no| slots.get(no).words[MAINTAINS].load(Ordering::Relaxed) != 0;
            let met = head.writer.holder().is_some_and(maintains)
                || head.writer.is_free()
                || head.maintained.load(Ordering::Relaxed) != turns;
            let waited = began.get_or_insert_with(Instant::now).elapsed();
            if !met || waited > MAINTENANCE {
                return Ok(false);
            }
            self.check()?;
            std::thread::yield_now();
        }
    }

    /// Does `work` under the writer lock if nobody wants it; `None` if somebody does.
    pub fn maintain<T>(&self, slot: SlotNo, work: impl FnOnce() -> T) -> Option<T> {
        let (head, slots) = (self.shared.head(), self.shared.slots());
        let word = &slots.get(slot).words[MAINTAINS];
        // before it is held: who finds us holding it finds what for
        word.store(1, Ordering::Relaxed);
        let held = head.writer.try_hold_idle(slots, slot) == Hold::Held;
        let done = held.then(|| {
            let change = self.shared.begin();
            let done = work();
            change.done();
            count(&head.maintained, 1);
            head.writer.release(slots, slot);
            done
        });
        word.store(0, Ordering::Relaxed);
        done
    }

    /// Says that stores in place of `jci`, whose record is durable, may follow: no flush, no fence. After the processes have
    /// died it says so, too; after a power cut it may not.
    pub fn say_applied(&self, pmem: &dyn Pmem, jci: Jci) {
        pmem.store_u64(APPLIED_AT, applied::encode(applied_seed(self.id), jci));
    }

    /// Slots of the ring in use, for who has no lock: the tail first, as it never passes a head that was read later.
    pub fn ring_used(&self) -> u64 {
        let head = self.shared.head();
        let tail = head.ring.tail.load(Ordering::Acquire);
        head.ring.head.load(Ordering::Relaxed).saturating_sub(tail)
    }

    /// Copies a whole slot of the ring out.
    pub fn load_slot(&self, position: u64, into: &mut [u8; SLOT]) {
        match &self.region {
            Region::Pmem(p) => p.load(self.layout.slot_at(position), into),
            Region::Disk(_) => self.shared.segment.copy_out(self.mirror_at(position), into),
        }
    }

    /// Where a slot of the ring lies in the mapping (`file`).
    pub fn mirror_at(&self, position: u64) -> u64 {
        self.shared.places.ring + self.layout.slot_at(position) - RING_AT
    }

    /// Reads and verifies the slot at `position`; `None` if it holds no valid part.
    #[must_use]
    pub fn part_at(&self, position: u64, into: &mut [u8; SLOT]) -> Option<Header> {
        self.load_slot(position, into);
        Header::decode(self.seed, position % self.layout.ring_slots, into)
    }

    /// The content of `page` as `virt` (or its home, if `None`) has it, from byte `within` on. For a caller whose pin or
    /// lock keeps that version.
    pub fn read_page(
        &self,
        page: PageNo,
        virt: Option<&Virt>,
        within: u32,
        into: &mut [u8],
        base: &dyn BaseFile,
    ) -> Result<()> {
        if let Some(virt) = virt
            && self.pages.read_version(virt, within, into)?
        {
            return Ok(());
        }
        // the page that is never used may lie past the end
        if self.read_home(page, within, into, base)? < into.len() && page != self.hole() {
            return Err(cut_short(base, page));
        }
        Ok(())
    }

    /// The home of `page`, from byte `within` on. Answers how much of it there is; the rest is zero.
    pub fn read_home(&self, page: PageNo, within: u32, into: &mut [u8], base: &dyn BaseFile) -> Result<usize> {
        let size = u64::from(self.pages.geo().arena.size());
        let found = base.read_at(u64::from(page.0 - 1) * size + u64::from(within), into)?;
        if page.0 == 1 {
            mark::normalise(u64::from(within), into);
        }
        Ok(found)
    }

    /// Pages of the database at `pin`, from its header; 0 if it is empty, which it is before the first commit only: to take
    /// what cannot be read for empty would be to drop all pages.
    pub fn pages_at(&self, pin: Jci, base: &dyn BaseFile) -> Result<u32> {
        if self.pages.geometry().is_none() {
            return Ok(0);
        }
        let mut header = [0u8; mark::HEADER];
        if let Some(virt) = self.pages.version(PageNo(1), pin) {
            self.read_page(PageNo(1), Some(virt), 0, &mut header, base)?;
        }
        match mark::pages(&header) {
            None if pin > Jci::ZERO => {
                let detail = format!("it does not say how many pages the database has at commit {pin}");
                Err(Error::corrupt(self.base.path(), "database header", detail))
            }
            pages => Ok(pages.unwrap_or(0)),
        }
    }

    /// Checksum of a body in this incarnation.
    #[must_use]
    pub fn body_sum(&self, part: &[u8]) -> u64 {
        checksum(self.seed, &part[HEADER..])
    }

    /// Changes the superblock and makes it durable. Under the writer or the retirement lock, or before anybody is attached.
    pub fn update_superblock(&self, change: impl FnOnce(&mut Superblock)) -> Result<()> {
        let _one_at_a_time = self.superblock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.shared.check()?;
        let head = self.shared.head();
        let mut next = self.region.superblock()?;
        change(&mut next);
        // Over the copy that is not durable, though it may hold: who died in the middle of this has left it.
        let durable = head.superblock_sequence.load(Ordering::Relaxed);
        next.sequence += if next.sequence.abs_diff(durable).is_multiple_of(2) { 1 } else { 2 };
        // what became of this copy is not known then: the next attempt would be on the other, which is good
        head.unsettled.fetch_add(1, Ordering::AcqRel);
        self.region.write_superblocks(&[&next]).map_err(|error| self.shared.fail(&error))?;
        head.unsettled.fetch_sub(1, Ordering::AcqRel);
        head.superblock_sequence.store(next.sequence, Ordering::Relaxed);
        let counters = &head.counters;
        tally(if self.mapped() { &counters.fences } else { &counters.syncs }, 1);
        Ok(())
    }
}
