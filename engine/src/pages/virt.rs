//! Virtblocks: one per version of a page, wherever its content lies. Heads and chains name virtblocks, never blocks, so
//! that moving a block is one store.

use crate::base::sync::{AtomicU32, AtomicU64, Ordering};
use crate::base::{BlockNo, Jci, PageNo, VirtNo};
use crate::shm::{Shape, Shared as InMapping, Slot, shape};

/// Where a version's content is. One word, so that moving it is one store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// Nowhere: the virtblock is free.
    Free,
    /// In a block of the fast tier.
    Fast(BlockNo),
    /// At the page's own offset in the base file.
    Home,
    /// In a block of the cold file.
    Cold(u32),
}

impl Place {
    fn word(self) -> u64 {
        match self {
            Place::Free => 0,
            Place::Fast(b) => 1 | u64::from(b.0) << 2,
            Place::Home => 2,
            Place::Cold(c) => 3 | u64::from(c) << 2,
        }
    }

    fn of(word: u64) -> Place {
        match word & 3 {
            1 => Place::Fast(BlockNo((word >> 2) as u32)),
            2 => Place::Home,
            3 => Place::Cold((word >> 2) as u32),
            _ => Place::Free,
        }
    }
}

/// One version of one page.
///
/// | offset | field | changed by |
/// | --- | --- | --- |
/// | 0 | page | holder of the writer lock, while unreachable |
/// | 4 | next older version, 0 at the end of the chain (older content is at home) | holder of the writer lock |
/// | 8 | next of the list that an unlinked virtblock stands in | holder of the writer lock |
/// | 12 | used since the sweep passed: 1, set by any reader; a lost race forgets one use | anyone |
/// | 16 | birth: the JCI that made it; readers pinned below look further | while unreachable |
/// | 24 | dirty: newest JCI stored into it, 0 if its home holds the same | holder of the writer lock; to 0 by the retirer |
/// | 32 | place | holder of the writer lock |
/// | 40 | until: low-water mark that must be durable before its block is reused | holder of the writer lock |
/// | 48 | named: 1 if a journal entry names its block | while unreachable |
#[repr(C, align(64))]
#[derive(Default)]
#[allow(missing_docs)]
pub struct Virt {
    pub page: AtomicU32,
    pub older: AtomicU32,
    pub link: AtomicU32,
    pub used: AtomicU32,
    pub birth: AtomicU64,
    pub dirty: AtomicU64,
    place: AtomicU64,
    pub until: AtomicU64,
    pub named: AtomicU64,
}

// SAFETY: repr(C), atomics only, every bit pattern valid.
#[allow(unsafe_code)]
unsafe impl InMapping for Virt {
    const SHAPE: &'static Shape = shape!(Virt, 64:
        0 page, 4 older, 8 link, 12 used, 16 birth, 24 dirty, 32 place, 40 until, 48 named
    );
}

#[cfg(not(loom))]
const _: () =
    assert!(size_of::<Virt>() as u64 == crate::shared::VIRT && size_of::<Block>() as u64 == crate::shared::BLOCK_STATE);

impl Virt {
    /// Its place.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::of(self.place.load(Ordering::Acquire))
    }

    /// Moves it: readers see the old place or the new, both valid.
    pub fn move_to(&self, place: Place) {
        self.place.store(place.word(), Ordering::Release);
    }

    /// The commit that made it.
    #[must_use]
    pub fn birth(&self) -> Jci {
        Jci(self.birth.load(Ordering::Relaxed))
    }

    /// Its page.
    #[must_use]
    pub fn page(&self) -> PageNo {
        PageNo(self.page.load(Ordering::Relaxed))
    }

    /// The next older version.
    #[must_use]
    pub fn older(&self) -> VirtNo {
        VirtNo(self.older.load(Ordering::Acquire))
    }

    /// Notes that it was used, for the sweep.
    pub fn touch(&self) {
        if self.used.load(Ordering::Relaxed) == 0 {
            self.used.store(1, Ordering::Relaxed);
        }
    }

    /// Whether its home lacks something of it.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire) != 0
    }
}

/// What stands beside a block of the fast tier.
///
/// | offset | field |
/// | --- | --- |
/// | 0 | the virtblock whose content it is, 0 if free |
/// | 4 | pointers into it that are out (any reader) |
/// | 8 | which 64ths of it (or lines, if it has fewer) were stored to since the last retirement |
/// | 16 | checksum of what it holds: the newest version, unless a commit is being applied to it |
/// | 24 | 1 if its entry or that checksum changed since the last retirement |
#[repr(C)]
#[derive(Default)]
#[allow(missing_docs)]
pub struct Block {
    pub virt: AtomicU32,
    pub fetched: AtomicU32,
    pub stored: AtomicU64,
    pub sum: AtomicU64,
    pub entry_changed: AtomicU64,
}

// SAFETY: repr(C), atomics only, every bit pattern valid.
#[allow(unsafe_code)]
unsafe impl InMapping for Block {
    const SHAPE: &'static Shape = shape!(Block, 32: 0 virt, 4 fetched, 8 stored, 16 sum, 24 entry_changed);
}

impl Block {
    /// Counts a pointer into it that the connection in `slot` gets: pinned, and between `begin_copy` and `end_copy`. Either
    /// count may be first: nobody relies on them before the pin is gone (who stores in place) or the read has ended (who
    /// reuses).
    pub fn lend(&self, slot: &Slot) {
        self.fetched.fetch_add(1, Ordering::AcqRel);
        slot.add_fetch();
    }

    /// Counts a pointer given back. Release: who finds it back finds what was read through it read.
    pub fn give_back(&self, slot: &Slot) {
        self.fetched.fetch_sub(1, Ordering::AcqRel);
        slot.drop_fetch();
    }

    /// Whether pointers into it are out, or were when a process died.
    pub fn is_fetched(&self) -> bool {
        self.fetched.load(Ordering::Acquire) > 0
    }
}
