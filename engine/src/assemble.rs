//! From parts to an engine: recovery or first format, then the mapping filled with what is durable.

use crate::base::sync::Ordering;
use crate::base::{BlockNo, Incarnation, Jci, MediumKind, PageNo, RegionId, Result, VirtNo};
use crate::engine::{Engine, Region};
use crate::format::layout::Layout;
use crate::format::mark;
use crate::format::superblock::Superblock;
use crate::medium::{BaseFile, BaseOpener, Disk, Site};
use crate::pages::virt::Place;
use crate::pages::{Pages, heads};
use crate::recovery;
use crate::shared::{Places, Shared};
use crate::shm::{Liveness, Segment};
use std::sync::Arc;

/// Bytes that the first mark of an empty base writes.
const FIRST_PAGE: usize = 4096;
/// Bytes that a crash keeps whole or not at all; the header's mark lies in the first so many.
const SECTOR: usize = 512;

/// All that an engine stands on.
pub struct Parts {
    /// The region, empty or not.
    pub region: Region,
    /// The cold file.
    pub cold: Arc<dyn Disk>,
    /// The base file.
    pub base: Arc<dyn BaseOpener>,
    /// The mapping: new and zero, at least [`mapping_len`] long.
    pub segment: Segment,
    /// Who is alive.
    pub liveness: Liveness,
    /// Fast-tier budget of a new region.
    pub budget: u64,
    /// Whether recovery believes nothing that its checksum contradicts. Else pages are taken as they are found: for tests of
    /// what lies behind the checksums.
    pub verify: bool,
}

/// Length of the mapping that a budget needs.
#[must_use]
pub fn mapping_len(budget: u64, kind: MediumKind) -> u64 {
    Places::new(&Layout::new(budget, 0, kind != MediumKind::File)).len
}

/// Length of a new region: the page size may not be known yet.
#[must_use]
pub fn region_len(budget: u64, kind: MediumKind) -> u64 {
    Layout::longest(budget, kind != MediumKind::File).next_multiple_of(4096)
}

/// A new region's superblock; everything else in it is zero.
#[must_use]
pub fn new_superblock(id: RegionId, budget: u64, kind: MediumKind, page_size: u32) -> Superblock {
    Superblock {
        page_size,
        region: id,
        sequence: 2,
        incarnation: Incarnation::FIRST,
        low_water: Jci::ZERO,
        budget,
        medium: kind,
        complete: false,
        pages: 0,
        nonce: [0; 16],
        boot: [0; 16],
        shape: 0,
        mapping_len: 0,
        mapping: Vec::new(),
    }
}

/// Makes the fixed part of a new region present, and both copies of its superblock durable: damage to one costs nothing.
///
/// # Errors
/// Of the medium.
pub fn format_region(region: &Region, superblock: &Superblock) -> Result<()> {
    let layout = Layout::new(superblock.budget, 0, matches!(region, Region::Pmem(_)));
    match region {
        Region::Pmem(pmem) => pmem.allocate(0, layout.entries_at())?,
        Region::Disk(disk) => disk.allocate(0, layout.len())?,
    }
    // their sync serves what was allocated, too: nothing refers to the region before the base bears its mark
    let older = Superblock { sequence: superblock.sequence - 1, ..superblock.clone() };
    region.write_superblocks(&[&older, superblock])
}

/// Whether the base holds no database and nothing else: no bytes, or zeros only, no more than our first page is long. A crash
/// in the middle of the first mark of an empty file leaves it so.
///
/// # Errors
/// Of the base.
pub fn is_blank(base: &dyn BaseFile) -> Result<bool> {
    let mut page = [0u8; FIRST_PAGE + 1];
    let found = base.read_at(0, &mut page)?;
    Ok(found <= FIRST_PAGE && page.iter().all(|b| *b == 0))
}

/// Marks the base as the region's, under stock SQLite's exclusive lock, which the caller holds. The change counter moves,
/// so that a stock connection that has pages cached reads the header again, and is refused. Answers the page size, 0 if
/// the base is empty.
///
/// # Errors
/// `Foreign` if it is not a database.
pub fn mark_base(base: &dyn BaseFile, id: RegionId) -> Result<u32> {
    let len = base.len()?;
    if is_blank(base)? {
        let mut page = mark::empty(FIRST_PAGE as u32);
        mark::set(&mut page, id);
        base.write_at(0, &page)?;
        base.sync(Site::MarkBlank)?;
        return Ok(0);
    }
    let mut header = [0u8; mark::HEADER];
    base.read_at(0, &mut header)?;
    let foreign = |reason: &str| crate::base::Error::Foreign { path: base.path().to_owned(), reason: reason.into() };
    if header[..16] != mark::SQLITE[..] {
        return Err(foreign("it does not begin as a SQLite database does"));
    }
    let page_size = mark::page_size(&header).ok_or_else(|| foreign("its page size is not one"))?;
    if header[18] > 2 || header[19] > 2 {
        return Err(foreign("its format is newer than SQLite's or it is marked by another region"));
    }
    // a last page that is short ends in zeros, as for stock SQLite
    let there = u32::try_from(len.div_ceil(u64::from(page_size))).unwrap_or(u32::MAX);
    let pages = mark::pages(&header).unwrap_or(there).max(1);
    if pages > there {
        return Err(crate::base::Error::corrupt(
            base.path(),
            "database header",
            format!("it says {pages} pages, the file has {there}"),
        ));
    }
    let whole = u64::from(there) * u64::from(page_size);
    if len < whole {
        // durable before the mark: of a marked base, whose pages are all whole, a short one would be taken for damage
        base.set_len(whole)?;
        base.sync(Site::LastPage)?;
    }
    let counter = crate::format::get_be32(&header, 24).wrapping_add(1).to_be_bytes();
    crate::format::put(&mut header, 24, &counter);
    crate::format::put(&mut header, 28, &pages.to_be_bytes());
    crate::format::put(&mut header, 92, &counter);
    mark::set(&mut header, id);
    base.write_at(0, &header)?;
    base.sync(Site::MarkStock)?;
    Ok(page_size)
}

/// Takes the mark off; what is left is a complete stock file of `pages` pages. The change counter moves with it, in one sector:
/// a stock connection that was refused has page 1 with the mark in its cache, and would go on refusing. Where the mark is off
/// already it has moved.
///
/// # Errors
/// Of the base.
pub fn unmark_base(base: &dyn BaseFile, pages: u32, page_size: u32) -> Result<()> {
    base.set_len(u64::from(pages) * u64::from(page_size))?;
    if pages > 0 {
        let mut header = [0u8; mark::HEADER];
        base.read_at(0, &mut header)?;
        if mark::identity(&header).is_some() {
            for at in [24, 92] {
                let counter = crate::format::get_be32(&header, at).wrapping_add(1);
                crate::format::put(&mut header, at, &counter.to_be_bytes());
            }
        }
        mark::normalise(0, &mut header);
        base.write_at(0, &header)?;
    }
    base.sync(Site::Unmark)
}

/// Makes it durable that the base bears no mark, before a region beside it is given up for that: the sync that was to take
/// the mark off may have failed, or its process may have died before it. Were the region gone when the mark comes back,
/// nothing could open the base. Written again, because after a failed sync the system may take for clean what never reached
/// the disk. Answers false if it bears a mark by now.
///
/// # Errors
/// Of the base, `Busy` if a stock connection has it: then everything is as it was.
pub fn keep_unmarked(base: &dyn BaseFile) -> Result<bool> {
    base.lock_exclusive()?;
    let keep = || {
        // all that a mark is in, and as much of it as is there
        let mut sector = [0u8; SECTOR];
        let there = base.read_at(0, &mut sector)?;
        if sector.first_chunk().and_then(mark::identity).is_some() {
            return Ok(false);
        }
        base.write_at(0, &sector[..there])?;
        base.sync(Site::KeepUnmarked)?;
        Ok(true)
    };
    let kept = keep();
    base.unlock()?;
    kept
}

/// An engine over parts: the base is adopted if the region is new.
///
/// # Errors
/// As [`Engine::first`].
pub fn from_parts(parts: Parts) -> Result<Engine> {
    let handle = parts.base.open()?;
    let mut header = [0u8; mark::HEADER];
    handle.read_at(0, &mut header)?;
    if mark::identity(&header).is_none() {
        let mut id = RegionId::default();
        id.0[..8].copy_from_slice(&0x6e76_6c69_7465_0001u64.to_le_bytes());
        let page_size = if is_blank(handle.as_ref())? { 0 } else { mark::page_size(&header).unwrap_or(0) };
        let superblock = new_superblock(id, parts.budget, parts.region.kind(), page_size);
        format_region(&parts.region, &superblock)?;
        mark_base(handle.as_ref(), id)?;
        return Engine::adopted(parts, &superblock);
    }
    Engine::first(parts, |_, _| {})
}

impl Engine {
    /// Recovers the region, fills the new mapping, and answers an engine over it. The base bears the region's mark.
    /// `describe` adds to the superblock where the mapping is.
    ///
    /// # Errors
    /// Of recovery and of the media.
    pub fn first(parts: Parts, describe: impl FnOnce(&mut Superblock, &Places)) -> Result<Engine> {
        let (superblock, verify) = (parts.region.superblock()?, parts.verify);
        Engine::begin(parts, &superblock, |region, pages, base| {
            recovery::recover(region, &superblock, pages, base, verify, |next| describe(next, &pages.shared.places))
        })
    }

    /// As [`first`](Self::first), of a base that was just adopted: nothing was ever committed, and `superblock`, which is
    /// durable, is the region's first. Its history is the one that begins.
    ///
    /// # Errors
    /// Of the media.
    pub fn adopted(parts: Parts, superblock: &Superblock) -> Result<Engine> {
        Engine::begin(parts, superblock, |_, _, _| Ok(superblock.clone()))
    }

    /// An engine over a new mapping, filled, of the history that `settle` answers, durable.
    fn begin(
        parts: Parts,
        superblock: &Superblock,
        settle: impl FnOnce(&Region, &Pages, &dyn BaseFile) -> Result<Superblock>,
    ) -> Result<Engine> {
        let Parts { region, cold, base, segment, liveness, .. } = parts;
        let layout = Layout::new(superblock.budget, 0, matches!(region, Region::Pmem(_)));
        let known = Layout::new(superblock.budget, superblock.page_size, layout.blocks_inside);
        let whole = if superblock.page_size == 0 { layout.entries_at() } else { known.len() };
        let len = region.extent()?;
        if len < whole {
            let detail = format!("{len} bytes of {whole}: it was cut");
            return Err(crate::base::Error::corrupt(region.path(), "region", detail));
        }
        let places = Places::new(&layout);
        let shared = Arc::new(Shared::new(Arc::new(segment), places, region.path())?);
        let pmem = match &region {
            Region::Pmem(p) => Some(p.clone()),
            Region::Disk(_) => None,
        };
        let handle = base.open()?;
        let pages = Pages::new(shared.clone(), pmem, cold.clone(), superblock.region, superblock.budget);
        if superblock.page_size != 0 {
            pages.fix_page_size(superblock.page_size)?;
        }
        let next = settle(&region, &pages, handle.as_ref())?;
        let head = shared.head();
        head.incarnation.store(next.incarnation.0, Ordering::Relaxed);
        head.superblock_sequence.store(next.sequence, Ordering::Relaxed);
        head.clock.init(next.low_water);
        head.retired.store(next.low_water.0, Ordering::Relaxed);
        head.attested.store(next.low_water.0, Ordering::Relaxed);
        let engine = Engine::new(shared, region, cold, base, liveness, &next)?;
        engine.fill(handle.as_ref())?;
        Ok(engine)
    }

    /// Another attachment of a mapping that lives.
    ///
    /// # Errors
    /// Of the media.
    pub fn join(parts: Parts, superblock: &Superblock) -> Result<Engine> {
        let Parts { region, cold, base, segment, liveness, .. } = parts;
        let places = Places::new(&Layout::new(superblock.budget, 0, matches!(region, Region::Pmem(_))));
        let shared = Arc::new(Shared::new(Arc::new(segment), places, region.path())?);
        shared.slots().inherit(&liveness);
        shared.slots().reap_dead(&liveness);
        Engine::new(shared, region, cold, base, liveness, superblock)
    }

    /// Fills the new mapping: what the durable array says (`dax`, `ram`), and page 1, which always is in the fast tier.
    fn fill(&self, base: &dyn BaseFile) -> Result<()> {
        let pages = &self.pages;
        let Some(geo) = pages.geometry() else { return Ok(()) };
        let low_water = self.shared.head().clock.published();
        pages.reserve_virts(1)?;
        if self.mapped() {
            let entries: Vec<(BlockNo, PageNo, Jci)> = (0..geo.layout.max_blocks)
                .map(BlockNo)
                .filter_map(|b| pages.entry(b).map(|e| (b, e.page, e.birth)))
                .collect();
            let best = recovery::believed(pages, low_water)?;
            let n = entries.len() as u32;
            pages.reserve_virts(n + 1)?;
            heads::reserve(&self.shared, best.len() as u32 + 1)?;
            let present = entries.iter().map(|e| e.0.0 + 1).max().unwrap_or(0);
            if present > 0 {
                pages.back_blocks(0, present)?;
                geo.arena.allocate(0, present)?;
                self.shared.head().blocks_present.store(present, Ordering::Relaxed);
            }
            let mut used = vec![false; present as usize];
            for (b, page, birth) in entries {
                used[b.0 as usize] = true;
                let v = pages.take_virt(page, birth, VirtNo::NONE);
                pages.virt(v).move_to(Place::Fast(b));
                pages.block(b).virt.store(v.0, Ordering::Relaxed);
                pages.block(b).sum.store(pages.entry_sum(b), Ordering::Relaxed);
                if best.get(&page).is_some_and(|best| best.0 == b) {
                    pages.virt(v).dirty.store(birth.0.max(1), Ordering::Relaxed);
                    heads::set(&self.shared, page, v, Place::Fast(b));
                } else {
                    pages.retire_block(v, Jci::ZERO);
                }
            }
            (0..present).rev().filter(|&b| !used[b as usize]).for_each(|b| pages.push_block(BlockNo(b)));
        }
        let mut header = [0u8; mark::HEADER];
        base.read_at(0, &mut header)?;
        if pages.newest(PageNo(1)).is_none() && mark::pages(&header).is_some() {
            if pages.free_blocks() == 0 && !pages.grow()? {
                return Err(self.no_room("page 1"));
            }
            self.bring_in(PageNo(1), base)?;
        }
        let size = self.pages_at(low_water, base)?;
        if size > 0 || low_water > Jci::ZERO {
            pages.settle();
        }
        let beyond: Vec<(PageNo, VirtNo)> = heads::all(&self.shared).filter(|(p, _)| p.0 > size).collect();
        for (page, v) in beyond {
            heads::remove(&self.shared, page);
            pages.retire_block(v, Jci::ZERO);
        }
        Ok(())
    }

    /// The clean end, by the last attachment: everything goes home, the base becomes a complete stock file. Answers false
    /// if the region has failed or somebody has the writer lock, and nothing was done.
    ///
    /// # Errors
    /// Of the media; the region then stays, and the next open recovers it.
    pub fn finish_all(&self) -> Result<bool> {
        if self.shared.check().is_err() {
            return Ok(false);
        }
        let base = self.base.open()?;
        let base = base.as_ref();
        let head = self.shared.head();
        self.shared.slots().reap_dead(&self.live);
        if !self.hold(self.maintainer)? {
            return Ok(false);
        }
        let result = self.write_all_home(base);
        head.writer.release(self.shared.slots(), self.maintainer);
        result
    }

    fn write_all_home(&self, base: &dyn BaseFile) -> Result<bool> {
        let published = self.shared.published();
        self.flush(self.maintainer, published)?;
        let mut size = (0, 4096);
        if let Some(geo) = self.pages.geometry() {
            // what the superblock is going to attest must be durable at its place, which on `file` is the home
            if self.mapped() && !self.retire_now(base)? {
                return Ok(false);
            }
            let dirty = crate::retire::Which::These(self.dirty_pages());
            if !self.write_homes(self.maintainer, &dirty, true, base)? {
                return Ok(false);
            }
            size = (self.pages_at(published, base)?, geo.arena.size());
        }
        // of this very handle: what it is unmarked and cut by must not be a file that took the base's place
        self.check_base(base)?;
        self.update_superblock(|s| {
            s.low_water = published;
            s.complete = true;
            s.pages = size.0;
            s.mapping.clear();
        })?;
        unmark_base(base, size.0, size.1)?;
        Ok(true)
    }
}
