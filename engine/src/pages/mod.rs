//! Pages. A page's versions form a chain, newest first: [`heads`] finds the first, each [`Virt`] names the next
//! older; where the chain ends, the page's content is its home, its own offset in the base file. A page without a head is
//! at home. Readers walk to the first version that is not younger than their pin.

pub mod alloc;
pub mod arena;
mod audit;
pub mod chain;
mod cold;
pub mod heads;
pub mod pins;
pub mod virt;

use crate::base::bytes::prefetch;
use crate::base::checksum::checksum;
use crate::base::limits::{MAX_PAGE_SIZE, MIN_PAGE_SIZE};
use crate::base::page_sum::sum_of_zeros;
use crate::base::sync::{AtomicU64, Ordering};
use crate::base::{BlockNo, Error, Jci, PageNo, RegionId, Result, VirtNo};
use crate::format::entry::{ENTRY, Entry, SUM_AT};
use crate::format::get_u64;
use crate::format::journal::SLOT;
use crate::format::layout::Layout;
use crate::medium::{Disk, Pmem, Site};
use crate::shared::{Header, MAX_VIRTS, Places, Shared};
use crate::shm::{Grace, Shared as InMapping, Slot};
use arena::{Arena, Memory};
use chain::Chain;
use pins::Pins;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use virt::{Block, Place, Virt};

/// Sizes that pages may have: the powers of two from the smallest to the largest.
const SIZES: usize = (MAX_PAGE_SIZE.ilog2() - MIN_PAGE_SIZE.ilog2()) as usize + 1;
/// The flag beside the page size in the shared mapping: it cannot change any more.
const SETTLED: u64 = 1 << 63;

impl Places {
    /// Changes whenever the mapping's layout or the records in its ring do, so that two builds never share one (P13).
    /// What is the same and means something else gets the next number.
    #[must_use]
    pub fn shape(&self) -> u64 {
        let elements = [Header::SHAPE, Slot::SHAPE, Virt::SHAPE, Block::SHAPE, heads::Entry::SHAPE];
        checksum(2, format!("{self:?} {elements:?} {SLOT} v8").as_bytes())
    }
}

/// What follows from the page size, once that is known.
pub struct Geometry {
    /// Where things lie in the region.
    pub layout: Layout,
    /// The data blocks.
    pub arena: Arena,
    /// Checksum of a page of zeros.
    pub sum_of_zeros: u64,
}

/// The pages of one database, as one process sees them.
pub struct Pages {
    /// The mapping.
    pub shared: Arc<Shared>,
    /// The region as memory, on `dax` and `ram`.
    pub pmem: Option<Arc<dyn Pmem>>,
    /// The cold file.
    pub cold: Arc<dyn Disk>,
    budget: u64,
    /// Seed of the durable entries.
    entry_seed: u64,
    /// The geometry, once the page size cannot change any more.
    settled: OnceLock<Geometry>,
    /// Those of page sizes that no commit has used yet, by their logarithm.
    tried: [OnceLock<Geometry>; SIZES],
    /// The grace period of the list `grace` as this process measures it: epoch of the list, and who must go away.
    grace: Mutex<(u32, Option<Grace>)>,
    /// When the fast tier last could not grow for lack of room, as this process found; 0 if never.
    no_room: AtomicU64,
}

impl Chain for Pages {
    fn virt(&self, v: VirtNo) -> &Virt {
        self.virt(v)
    }

    fn discard(&self, v: VirtNo, until: Jci, quiet: bool) {
        self.discard(v, until, quiet);
    }
}

impl Pages {
    /// Pages over these parts; nothing is touched.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        pmem: Option<Arc<dyn Pmem>>,
        cold: Arc<dyn Disk>,
        region: RegionId,
        budget: u64,
    ) -> Pages {
        let entry_seed = crate::base::checksum::seed(region, crate::base::Incarnation(0));
        Pages {
            shared,
            pmem,
            cold,
            budget,
            entry_seed,
            settled: OnceLock::new(),
            tried: Default::default(),
            grace: Mutex::default(),
            no_room: AtomicU64::new(0),
        }
    }

    /// The geometry, if a page size is fixed. While there are no pages another may be (see [`settled`](Self::settled)).
    pub fn geometry(&self) -> Option<&Geometry> {
        if let Some(g) = self.settled.get() {
            return Some(g);
        }
        let word = self.shared.head().page_size.load(Ordering::Acquire);
        let size = (word & !SETTLED) as u32;
        let cell = match word {
            0 => return None,
            _ if word & SETTLED != 0 => &self.settled,
            _ => &self.tried[(size.ilog2() - MIN_PAGE_SIZE.ilog2()) as usize],
        };
        Some(cell.get_or_init(|| self.shape(size)))
    }

    /// The geometry, if the page size cannot change any more: the database has pages, or a commit is about to give it some.
    pub fn settled(&self) -> Option<&Geometry> {
        if self.settled.get().is_none() {
            self.geometry()?;
        }
        self.settled.get()
    }

    /// Ends the time in which the page size can be fixed again. Under the writer lock, before the first commit.
    pub fn settle(&self) {
        if self.settled.get().is_none() {
            self.shared.head().page_size.fetch_or(SETTLED, Ordering::AcqRel);
        }
    }

    /// What follows from a page size.
    #[must_use]
    pub fn shape(&self, page_size: u32) -> Geometry {
        let layout = Layout::new(self.budget, page_size, self.pmem.is_some());
        let arena = match &self.pmem {
            Some(pmem) => Arena::new(Memory::Inside(pmem.clone()), layout.blocks_at(), page_size),
            None => Arena::new(Memory::Frames(self.shared.segment.clone()), self.shared.places.frames, page_size),
        };
        Geometry { layout, arena, sum_of_zeros: sum_of_zeros(page_size) }
    }

    /// The geometry, where the page size is known by the protocol: it was fixed before any page could be written.
    pub fn geo(&self) -> &Geometry {
        self.geometry().expect("the page size is fixed before pages are touched")
    }

    /// A virtblock.
    #[must_use]
    pub fn virt(&self, v: VirtNo) -> &Virt {
        self.shared.element(self.shared.places.virts, u64::from(v.0), MAX_VIRTS)
    }

    /// Takes every version behind `newer` out of its chain that no pin sees. Answers how many are left there.
    pub fn prune(&self, newer: VirtNo, pins: &Pins) -> usize {
        chain::prune(self, newer, pins)
    }

    /// What stands beside a block.
    #[must_use]
    pub fn block(&self, b: BlockNo) -> &Block {
        self.shared.element(self.shared.places.blocks, u64::from(b.0), self.shared.places.most_blocks)
    }

    /// The version of `page` that a reader pinned at `pin` sees; `None` is the home.
    #[must_use]
    pub fn version(&self, page: PageNo, pin: Jci) -> Option<&Virt> {
        let (at, guess) = heads::find(&self.shared, page)?;
        // both are nearly always far away in memory, and needed next
        prefetch(self.virt(at));
        self.geo().arena.prefetch(guess);
        chain::seen(self, at, pin)
    }

    /// The newest version.
    #[must_use]
    pub fn newest(&self, page: PageNo) -> Option<(VirtNo, &Virt)> {
        heads::find(&self.shared, page).map(|(v, _)| (v, self.virt(v)))
    }

    /// Reads the content of a version into `into`, from byte `within` of its page. Homes are read by the caller.
    /// Answers false if the content is at home.
    pub fn read_version(&self, virt: &Virt, within: u32, into: &mut [u8]) -> Result<bool> {
        match virt.place() {
            Place::Fast(b) => {
                self.geo().arena.load(b, within, into);
                virt.touch();
                Ok(true)
            }
            Place::Cold(c) => {
                self.read_cold(c, virt.page(), within, into)?;
                Ok(true)
            }
            Place::Home => Ok(false),
            Place::Free => Err(self.corrupt("a page's version chain", "it leads to a free virtblock".into())),
        }
    }

    /// An error about the shared mapping or the region.
    #[must_use]
    pub fn corrupt(&self, what: &'static str, detail: String) -> Error {
        Error::Corrupt { path: PathBuf::from(self.shared.region()), what, detail }
    }

    /// Offset of a block's entry in the region.
    fn entry_at(&self, b: BlockNo) -> u64 {
        self.geo().layout.entries_at() + u64::from(b.0) * ENTRY
    }

    /// The durable entry of a block.
    #[must_use]
    pub fn entry(&self, b: BlockNo) -> Option<Entry> {
        Entry::decode(self.entry_seed, self.entry_words(b)?)
    }

    /// The words of a block's entry but for the checksum.
    fn entry_words(&self, b: BlockNo) -> Option<[u64; 3]> {
        let mut bytes = [0u8; SUM_AT as usize];
        self.pmem.as_ref()?.load(self.entry_at(b), &mut bytes);
        Some([0, 8, 16].map(|at| get_u64(&bytes, at)))
    }

    /// Whether a block's entry stands there as it was stored: not torn, not damaged, or none at all.
    #[must_use]
    pub fn entry_is_whole(&self, b: BlockNo) -> bool {
        let words = self.entry_words(b);
        words == Some(self.entry(b).map_or([0; 3], |entry| entry.encode(self.entry_seed)))
    }

    /// Whether a block's entry is neither one nor none, nor torn between those.
    #[must_use]
    pub fn entry_is_damaged(&self, b: BlockNo) -> bool {
        self.entry_words(b).is_some_and(|words| Entry::is_damaged(self.entry_seed, words))
    }

    /// Stores a block's entry but for the checksum, not yet persistent.
    pub fn store_entry(&self, b: BlockNo, entry: Option<Entry>) {
        if let Some(pmem) = &self.pmem {
            let words = entry.map_or([0; 3], |e| e.encode(self.entry_seed));
            (0..).zip(words).for_each(|(i, word)| pmem.store_u64(self.entry_at(b) + 8 * i, word));
        }
    }

    /// The durable checksum of a block: of what it held at the last retirement, or has got since.
    #[must_use]
    pub fn entry_sum(&self, b: BlockNo) -> u64 {
        let mut bytes = [0u8; 8];
        self.pmem.iter().for_each(|pmem| pmem.load(self.entry_at(b) + SUM_AT, &mut bytes));
        u64::from_le_bytes(bytes)
    }

    /// Stores that.
    pub fn store_entry_sum(&self, b: BlockNo, sum: u64) {
        self.pmem.iter().for_each(|pmem| pmem.store_u64(self.entry_at(b) + SUM_AT, sum));
    }

    /// Clears the entries of all blocks for which `which` says so; persistent after the caller's fence.
    pub fn forget_entries(&self, site: Site, which: &dyn Fn(PageNo, BlockNo) -> bool) {
        for b in (0..self.geo().layout.max_blocks).map(BlockNo) {
            if self.entry(b).is_some_and(|entry| which(entry.page, b)) {
                self.store_entry(b, None);
                self.flush_entry(site, b);
            }
        }
    }

    /// Starts the write-back of a block's entry; answers the lines flushed.
    pub fn flush_entry(&self, site: Site, b: BlockNo) -> u64 {
        self.pmem.as_ref().map_or(0, |pmem| pmem.flush(site, self.entry_at(b), ENTRY))
    }
}
