//! Page → newest version: an open-addressing hash. Changed only under the writer lock, read by anyone. A reader that probes
//! an abandoned table still finds what was right when it began; a table is cleared for reuse only when no such reader is
//! left.

use super::virt::Place;
use crate::base::sync::{AtomicU32, AtomicU64, Ordering, yield_now};
use crate::base::{BlockNo, Error, PageNo, Result, VirtNo};
use crate::shared::{MAX_HEADS_LOG, Shared};
use crate::shm::{Grace, Shape, Shared as InMapping, Slots, now, shape};
use std::sync::Arc;

const TOMB: u64 = u64::MAX;
const FIRST_LOG: u32 = 12;
/// How long a move waits for those who probe the table that it would clear, in nanoseconds.
const DRAIN: u64 = 20_000_000;

/// An entry.
///
/// | offset | field |
/// | --- | --- |
/// | 0 | `page << 32 \| virtblock`, 0 for never used, [`TOMB`] for removed |
/// | 8 | the block that the version lay in when the entry was stored: a guess, so that a reader may ask for it before it knows |
#[repr(C, align(16))]
pub struct Entry {
    head: AtomicU64,
    guess: AtomicU64,
}
/// Bytes of an entry.
pub const ENTRY: u64 = 16;

// SAFETY: repr(C), atomics only, every bit pattern valid.
#[allow(unsafe_code)]
unsafe impl InMapping for Entry {
    const SHAPE: &'static Shape = shape!(Entry, 16: 0 head, 8 guess);
}

impl Entry {
    fn load(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// As zeroed memory is one.
    #[cfg(loom)]
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Entry {
        Entry { head: AtomicU64::new(0), guess: AtomicU64::new(0) }
    }

    /// What zeroing its memory does.
    #[cfg(loom)]
    pub fn zero(&self) {
        self.head.store(0, Ordering::Relaxed);
        self.guess.store(0, Ordering::Relaxed);
    }
}

/// Where tables lie, the words about them, and who may be probing one: the mapping, or a model.
pub trait Tables {
    /// The current table: log2 of its size << 1 | side.
    fn area(&self) -> &AtomicU32;
    /// How many of its entries are not 0.
    fn used(&self) -> &AtomicU32;
    /// How many of these are tombs.
    fn tombs(&self) -> &AtomicU32;
    /// The table at `area`.
    fn entries(&self, area: u32) -> &[Entry];
    /// Gives the table at `area` memory, and clears it.
    fn open(&self, area: u32) -> Result<()>;
    /// The slots of those who read.
    fn slots(&self) -> &Slots;
}

impl Tables for Arc<Shared> {
    fn area(&self) -> &AtomicU32 {
        &self.head().heads_area
    }

    fn used(&self) -> &AtomicU32 {
        &self.head().heads_used
    }

    fn tombs(&self) -> &AtomicU32 {
        &self.head().heads_tombs
    }

    fn entries(&self, area: u32) -> &[Entry] {
        let (at, n) = area_at(self, area);
        self.array(at, n)
    }

    fn open(&self, area: u32) -> Result<()> {
        let (at, n) = area_at(self, area);
        self.segment.commit(at, n * ENTRY)?;
        self.segment.prefer_huge(at, n * ENTRY);
        self.segment.zero(at, n * ENTRY);
        Ok(())
    }

    fn slots(&self) -> &Slots {
        Shared::slots(self)
    }
}

/// Where the search for `page` begins, in the bits that the size of the table leaves.
#[must_use]
pub fn hash(page: PageNo) -> u64 {
    u64::from(page.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

fn area_at(shared: &Shared, area: u32) -> (u64, u64) {
    let (log, side) = (area >> 1, u64::from(area & 1));
    (shared.places.heads + ((2 * ENTRY) << log) + side * (ENTRY << log), 1 << log)
}

fn table(tables: &impl Tables) -> &[Entry] {
    tables.entries(tables.area().load(Ordering::Acquire))
}

/// Makes the first table.
pub fn init(tables: &impl Tables) -> Result<()> {
    tables.open(FIRST_LOG << 1)?;
    tables.area().store(FIRST_LOG << 1, Ordering::Release);
    Ok(())
}

/// The newest version of `page`, if it is not at home, and in which block it may lie.
#[must_use]
pub fn find(tables: &impl Tables, page: PageNo) -> Option<(VirtNo, BlockNo)> {
    let table = table(tables);
    let mask = table.len() - 1;
    let mut i = hash(page) as usize & mask;
    loop {
        match table[i].head.load(Ordering::Acquire) {
            0 => return None,
            e if e >> 32 == u64::from(page.0) && e != TOMB => {
                return Some((VirtNo(e as u32), BlockNo(table[i].guess.load(Ordering::Relaxed) as u32)));
            }
            _ => i = (i + 1) & mask,
        }
    }
}

/// Publishes `virt`, which lies at `place`, as the newest version of `page`. Room was made by [`reserve`].
pub fn set(tables: &impl Tables, page: PageNo, virt: VirtNo, place: Place) {
    let table = table(tables);
    let mask = table.len() - 1;
    let mut i = hash(page) as usize & mask;
    let mut free = None;
    let at = loop {
        match table[i].load() {
            0 => {
                let at = free.unwrap_or(i);
                let counter = if free.is_some() { tables.tombs() } else { tables.used() };
                let step = if free.is_some() { u32::MAX } else { 1 };
                counter.store(counter.load(Ordering::Relaxed).wrapping_add(step), Ordering::Relaxed);
                break at;
            }
            TOMB => {
                free.get_or_insert(i);
            }
            e if e >> 32 == u64::from(page.0) => break i,
            _ => {}
        }
        i = (i + 1) & mask;
    };
    let guess = if let Place::Fast(block) = place { block.0 } else { 0 };
    table[at].guess.store(u64::from(guess), Ordering::Relaxed);
    table[at].head.store(u64::from(page.0) << 32 | u64::from(virt.0), Ordering::Release);
}

/// Takes `page` out: it is at home from now on.
pub fn remove(tables: &impl Tables, page: PageNo) {
    let table = table(tables);
    let mask = table.len() - 1;
    let mut i = hash(page) as usize & mask;
    loop {
        match table[i].load() {
            0 => return,
            e if e != TOMB && e >> 32 == u64::from(page.0) => break,
            _ => i = (i + 1) & mask,
        }
    }
    table[i].head.store(TOMB, Ordering::Release);
    tables.tombs().store(tables.tombs().load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// Makes room for `n` more pages, so that [`set`] cannot fail. `heads_used` counts entries and tombs that fill the table.
pub fn reserve(tables: &impl Tables, n: u32) -> Result<()> {
    let area = tables.area().load(Ordering::Relaxed);
    let filled = u64::from(tables.used().load(Ordering::Relaxed)) + u64::from(n);
    if filled * 2 <= 1 << (area >> 1) {
        return Ok(());
    }
    let live = u64::from(tables.used().load(Ordering::Relaxed) - tables.tombs().load(Ordering::Relaxed));
    let mut log = area >> 1;
    while (live + u64::from(n)) * 4 > 1 << log && log < MAX_HEADS_LOG {
        log += 1;
    }
    let mut target = if log == area >> 1 { area ^ 1 } else { log << 1 };
    if target == area ^ 1 && !drained(tables) {
        if log == MAX_HEADS_LOG {
            return Err(Error::Busy("a reader stands still in the middle of a read"));
        }
        target = (log + 1) << 1;
    }
    move_to(tables, target)
}

/// Waits shortly for readers that may still probe the table abandoned last.
fn drained(tables: &impl Tables) -> bool {
    let slots = tables.slots();
    let mut grace = Grace::begin(slots);
    let start = now();
    while !grace.passed(slots) {
        if now().saturating_sub(start) > DRAIN {
            return false;
        }
        yield_now();
    }
    true
}

fn move_to(tables: &impl Tables, target: u32) -> Result<()> {
    tables.open(target)?;
    let new = tables.entries(target);
    let mask = new.len() - 1;
    let mut live = 0;
    for (e, guess) in table(tables).iter().map(|e| (e.load(), &e.guess)).filter(|&(e, _)| e != 0 && e != TOMB) {
        let mut i = hash(PageNo((e >> 32) as u32)) as usize & mask;
        while new[i].load() != 0 {
            i = (i + 1) & mask;
        }
        new[i].guess.store(guess.load(Ordering::Relaxed), Ordering::Relaxed);
        new[i].head.store(e, Ordering::Relaxed);
        live += 1;
    }
    tables.used().store(live, Ordering::Relaxed);
    tables.tombs().store(0, Ordering::Relaxed);
    tables.area().store(target, Ordering::Release);
    Ok(())
}

/// Every page that has a head, in no order. Whole for the holder of the writer lock; without it, pages that come or go
/// meanwhile may be missed or named twice, and virtblocks be used again: good for figures only.
pub fn all(tables: &impl Tables) -> impl Iterator<Item = (PageNo, VirtNo)> {
    table(tables)
        .iter()
        .map(|e| e.head.load(Ordering::Acquire))
        .filter(|&e| e != 0 && e != TOMB)
        .map(|e| (PageNo((e >> 32) as u32), VirtNo(e as u32)))
}

/// Counts afresh after the death of a holder, who may have stored an entry without counting it.
pub fn recount(tables: &impl Tables) {
    let (mut used, mut tombs) = (0, 0);
    for e in table(tables).iter().map(Entry::load) {
        used += u32::from(e != 0);
        tombs += u32::from(e == TOMB);
    }
    tables.used().store(used, Ordering::Relaxed);
    tables.tombs().store(tombs, Ordering::Relaxed);
}
