//! Page → newest version: an open-addressing hash. Changed only under the writer lock, read by anyone. A reader that probes
//! an abandoned table still finds what was right when it began; a table is cleared for reuse only when no such reader is
//! left.

use super::virt::Place;
use crate::base::sync::{AtomicU64, Ordering};
use crate::base::{BlockNo, PageNo, Result, VirtNo};
use crate::shared::{MAX_HEADS_LOG, Shared};
use crate::shm::{Grace, Shared as InMapping};
use std::time::{Duration, Instant};

const TOMB: u64 = u64::MAX;
const FIRST_LOG: u32 = 12;

/// An entry.
///
/// | offset | field |
/// | --- | --- |
/// | 0 | `page << 32 \| virtblock`, 0 for never used, [`TOMB`] for removed |
/// | 8 | the block that the version lay in when the entry was stored: a guess, so that a reader may ask for it before it knows |
#[repr(C, align(16))]
struct Entry {
    head: AtomicU64,
    guess: AtomicU64,
}
#[cfg(not(loom))]
const _: () = assert!(size_of::<Entry>() as u64 == ENTRY);
/// Bytes of an entry.
pub const ENTRY: u64 = 16;

// SAFETY: repr(C), atomics only, every bit pattern valid.
#[allow(unsafe_code)]
unsafe impl InMapping for Entry {}

impl Entry {
    fn load(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }
}

fn hash(page: PageNo) -> u64 {
    u64::from(page.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

fn area_at(shared: &Shared, area: u32) -> (u64, u64) {
    let (log, side) = (area >> 1, u64::from(area & 1));
    (shared.places.heads + ((2 * ENTRY) << log) + side * (ENTRY << log), 1 << log)
}

fn entries(shared: &Shared, area: u32) -> &[Entry] {
    let (at, n) = area_at(shared, area);
    shared.array(at, n)
}

fn table(shared: &Shared) -> &[Entry] {
    entries(shared, shared.head().heads_area.load(Ordering::Acquire))
}

/// Makes the first table.
pub fn init(shared: &Shared) -> Result<()> {
    open_area(shared, FIRST_LOG << 1)?;
    shared.head().heads_area.store(FIRST_LOG << 1, Ordering::Release);
    Ok(())
}

fn open_area(shared: &Shared, area: u32) -> Result<()> {
    let (at, n) = area_at(shared, area);
    shared.segment.commit(at, n * ENTRY)?;
    shared.segment.prefer_huge(at, n * ENTRY);
    shared.segment.zero(at, n * ENTRY);
    Ok(())
}

/// The newest version of `page`, if it is not at home, and in which block it may lie.
#[must_use]
pub fn find(shared: &Shared, page: PageNo) -> Option<(VirtNo, BlockNo)> {
    let table = table(shared);
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
pub fn set(shared: &Shared, page: PageNo, virt: VirtNo, place: Place) {
    let (table, head) = (table(shared), shared.head());
    let mask = table.len() - 1;
    let mut i = hash(page) as usize & mask;
    let mut free = None;
    let at = loop {
        match table[i].load() {
            0 => {
                let at = free.unwrap_or(i);
                let counter = if free.is_some() { &head.heads_tombs } else { &head.heads_used };
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
pub fn remove(shared: &Shared, page: PageNo) {
    let (table, head) = (table(shared), shared.head());
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
    head.heads_tombs.store(head.heads_tombs.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// Makes room for `n` more pages, so that [`set`] cannot fail. `heads_used` counts entries and tombs that fill the table.
pub fn reserve(shared: &Shared, n: u32) -> Result<()> {
    let head = shared.head();
    let area = head.heads_area.load(Ordering::Relaxed);
    let filled = u64::from(head.heads_used.load(Ordering::Relaxed)) + u64::from(n);
    if filled * 2 <= 1 << (area >> 1) {
        return Ok(());
    }
    let live = u64::from(head.heads_used.load(Ordering::Relaxed) - head.heads_tombs.load(Ordering::Relaxed));
    let mut log = area >> 1;
    while (live + u64::from(n)) * 4 > 1 << log && log < MAX_HEADS_LOG {
        log += 1;
    }
    let mut target = if log == area >> 1 { area ^ 1 } else { log << 1 };
    if target == area ^ 1 && !drained(shared) && log < MAX_HEADS_LOG {
        target = (log + 1) << 1;
    }
    move_to(shared, target)
}

/// Waits shortly for readers that may still probe the table abandoned last.
fn drained(shared: &Shared) -> bool {
    let slots = shared.slots();
    let mut grace = Grace::begin(slots);
    let start = Instant::now();
    while !grace.passed(slots) {
        if start.elapsed() > Duration::from_millis(20) {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

fn move_to(shared: &Shared, target: u32) -> Result<()> {
    open_area(shared, target)?;
    let (head, new) = (shared.head(), entries(shared, target));
    let mask = new.len() - 1;
    let mut live = 0;
    for (e, guess) in table(shared).iter().map(|e| (e.load(), &e.guess)).filter(|&(e, _)| e != 0 && e != TOMB) {
        let mut i = hash(PageNo((e >> 32) as u32)) as usize & mask;
        while new[i].load() != 0 {
            i = (i + 1) & mask;
        }
        new[i].guess.store(guess.load(Ordering::Relaxed), Ordering::Relaxed);
        new[i].head.store(e, Ordering::Relaxed);
        live += 1;
    }
    head.heads_used.store(live, Ordering::Relaxed);
    head.heads_tombs.store(0, Ordering::Relaxed);
    head.heads_area.store(target, Ordering::Release);
    Ok(())
}

/// Every page that has a head, in no order. Whole for the holder of the writer lock; without it, pages that come or go
/// meanwhile may be missed or named twice, and virtblocks be used again: good for figures only.
pub fn all(shared: &Shared) -> impl Iterator<Item = (PageNo, VirtNo)> + '_ {
    table(shared)
        .iter()
        .map(|e| e.head.load(Ordering::Acquire))
        .filter(|&e| e != 0 && e != TOMB)
        .map(|e| (PageNo((e >> 32) as u32), VirtNo(e as u32)))
}

/// Counts afresh after the death of a holder, who may have stored an entry without counting it.
pub fn recount(shared: &Shared) {
    let (mut used, mut tombs) = (0, 0);
    for e in table(shared).iter().map(Entry::load) {
        used += u32::from(e != 0);
        tombs += u32::from(e == TOMB);
    }
    shared.head().heads_used.store(used, Ordering::Relaxed);
    shared.head().heads_tombs.store(tombs, Ordering::Relaxed);
}
