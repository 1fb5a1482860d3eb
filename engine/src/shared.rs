//! The shared mapping of one database: what lies where, and the words that all processes share.
//!
//! Volatile: built by the first process that attaches, never reused once nobody is attached (P13). Everything that
//! allocates or links changes only under the writer lock, so that the next taker of a dead owner's lock can rebuild
//! every list from what is reachable; a reader never needs those lists.

use crate::base::limits::MIN_PAGE_SIZE;
use crate::base::sync::{AtomicU32, AtomicU64, Ordering};
use crate::base::{Error, Jci, Result};
use crate::format::journal::SLOT;
use crate::format::layout::Layout;
use crate::shm::{
    Batches, Clock, OwnedLock, Ring, Segment, Shape, Shared as InMapping, Slots, SlotsHeader, WriterLock, shape,
};
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Bytes of a virtblock.
pub const VIRT: u64 = 64;
/// Bytes of what stands beside a block.
pub const BLOCK_STATE: u64 = 32;
/// Most virtblocks; sparse.
pub const MAX_VIRTS: u64 = 1 << 26;
/// Most blocks of the cold file.
pub const MAX_COLD: u64 = 1 << 26;
/// Largest table of heads, as a power of two.
pub const MAX_HEADS_LOG: u32 = 27;

/// A first-in first-out list of virtblocks, threaded through their `link`.
#[repr(C)]
#[derive(Default)]
pub struct List {
    /// First virtblock, 0 if empty.
    pub first: AtomicU32,
    /// Last virtblock.
    pub last: AtomicU32,
}

/// Counters: monotonic, read by anyone; a stale read costs nothing. Those of the commit path are changed under the writer
/// lock with plain loads and stores ([`count`]), the others by [`tally`].
#[repr(C)]
#[derive(Default)]
#[allow(missing_docs)]
pub struct Counters {
    pub commits: AtomicU64,
    pub batches: AtomicU64,
    pub fences: AtomicU64,
    pub syncs: AtomicU64,
    pub lines_flushed: AtomicU64,
    pub bytes_logged: AtomicU64,
    pub log_bytes_written: AtomicU64,
    pub pages_in_place: AtomicU64,
    pub pages_copied: AtomicU64,
    pub shadow_blocks: AtomicU64,
    pub retirements: AtomicU64,
    pub homes_written: AtomicU64,
    pub homes_saved: AtomicU64,
    pub faults: AtomicU64,
    pub evictions: AtomicU64,
    pub repairs: AtomicU64,
    /// At RESERVED: `SQLITE_BUSY` and `SQLITE_BUSY_SNAPSHOT`.
    pub refusals: AtomicU64,
}

/// Adds to a counter whose only writer is the caller (a lock holder).
pub fn count(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// Adds to a counter that several classes of holders change.
pub fn tally(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// The head of the mapping.
///
/// | words | who changes them; what a stale read costs |
/// | --- | --- |
/// | `clock`, `writer`, `batches`, `flush`, `log`, `retire`, `ring`, `slots`, `counters` | as their own types say |
/// | `incarnation` | who builds the mapping, before anybody else has it: never stale |
/// | `page_size` | holder of the writer lock, until the first commit settles it. Stale: a database that looks empty a moment longer, as it is to any reader from before that commit |
/// | `failed` | anyone, once, 0 to 1. Stale: a call that goes on; a flush looks again under its lock (P18) |
/// | `zeroed` | holder of the log lock, who alone reads it |
/// | `retired`, `retired_pos`, `attested` | holder of the retirement lock (`file`), of the writer lock (`dax`, `ram`), only up. Stale: a header that bears an older mark, blocks that are free later |
/// | `retire_steps` | holder of the retirement lock, only up. Stale: who waits for it looks again |
/// | `superblock_sequence` | who changes the superblock, under the lock that this takes, when it is durable; read by nobody else |
/// | `shrunk`, `sweep_hand`, `touched`, `cold_dirty`, `cold_hand`, `cold_unused`, `heads_used`, `heads_tombs`, `ring_present`, `virts_present`, `free_virt`, `free_virts`, `grace_epoch` | holder of the writer lock, who alone reads them |
/// | `blocks_present`, `free_blocks`, `cold_present`, `cold_free`, the lists | holder of the writer lock. Read without it only to see whether work is worth while. Stale: work in vain, or put off |
/// | `heads_area` | holder of the writer lock. Stale: an abandoned table, which still says what was right when the read began |
/// | `maintained` | holder of the writer lock. Stale: `SQLITE_BUSY` a moment too early |
/// | `unsettled` | who changes the superblock, by adding: a death leaves it above 0 for good. Stale: excluded, the death that matters was told by the kernel. Above 0 for nothing: a leader writes more |
/// | `wishes` | who attaches; bits that are only ever set. Read by the last who leaves, when all others are gone: never stale |
#[repr(C)]
#[allow(missing_docs)]
pub struct Header {
    pub clock: Clock,
    pub writer: WriterLock,
    pub batches: Batches,
    /// Leadership of the batch (`file`). Its holder may take `log`, not the other way round.
    pub flush: OwnedLock,
    /// Writing of the log file: for as long as a write takes, never while one syncs (`file`).
    pub log: OwnedLock,
    pub retire: OwnedLock,
    /// The records: how far they are taken, published, written, flushed.
    pub ring: Ring,
    pub slots: SlotsHeader,
    pub incarnation: AtomicU64,
    pub page_size: AtomicU64,
    pub failed: AtomicU32,
    /// Counts the fillings of `grace`.
    pub grace_epoch: AtomicU32,
    /// Slots below this have storage in the mapping (`file`).
    pub ring_present: AtomicU64,
    /// Slots below this were really written once (`file`).
    pub zeroed: AtomicU64,
    /// Counts what the holder of the retirement lock has done, so that a slow one can be told from one that stands still.
    pub retire_steps: AtomicU64,
    /// The low-water mark: everything up to this JCI is durable at its place...
    pub retired: AtomicU64,
    /// ...and its slots end here.
    pub retired_pos: AtomicU64,
    /// The low-water mark that a durable header or superblock attests: slots below the ring's `tail` are free.
    pub attested: AtomicU64,
    /// Last JCI that shrank the database, or may have.
    pub shrunk: AtomicU64,
    pub blocks_present: AtomicU32,
    pub free_blocks: AtomicU32,
    pub sweep_hand: AtomicU32,
    pub touched: AtomicU32,
    pub virts_present: AtomicU32,
    pub free_virt: AtomicU32,
    pub free_virts: AtomicU32,
    pub cold_present: AtomicU32,
    pub cold_free: AtomicU32,
    pub cold_hand: AtomicU32,
    /// Blocks of the cold file that came free and still have storage.
    pub cold_unused: AtomicU32,
    /// Whether a newest version lies in the cold file and may lack its home: no durable entry says so, and so nothing is
    /// retired on `dax` and `ram` before it is written home.
    pub cold_dirty: AtomicU32,
    /// Current table of heads: log2 of its size << 1 | side.
    pub heads_area: AtomicU32,
    pub heads_used: AtomicU32,
    pub heads_tombs: AtomicU32,
    /// Counts how often the writer lock was held for maintenance: short, and no reason to tell anybody that the database is
    /// busy. Changed before it is given back.
    pub maintained: AtomicU64,
    /// Unlinked virtblocks: waiting for a grace period to begin, in one, waiting for the low-water mark, for a fence.
    pub limbo: List,
    pub grace: List,
    pub aging: List,
    pub cleared: List,
    pub superblock_sequence: AtomicU64,
    /// What those who attached wish about the last close, in bits that are only ever set (`attach`).
    pub wishes: AtomicU32,
    /// Syncs of the superblock in the log's file that have begun and not succeeded (`file`).
    pub unsettled: AtomicU32,
    pub counters: Counters,
}

// SAFETY: repr(C), atomics only, every bit pattern valid.
#[allow(unsafe_code)]
unsafe impl InMapping for Header {
    const SHAPE: &'static Shape = shape!(Header, 1408:
        0 clock, 384 writer, 512 batches, 640 flush, 704 log, 768 retire, 832 ring, 896 slots, 960 incarnation,
        page_size, failed, grace_epoch, ring_present, zeroed, retire_steps, retired, retired_pos, attested, shrunk,
        blocks_present, free_blocks, sweep_hand, touched, virts_present, free_virt, free_virts, cold_present,
        cold_free, cold_hand, cold_unused, cold_dirty, heads_area, heads_used, heads_tombs, maintained, limbo, grace, aging, cleared,
        superblock_sequence, wishes, unsettled, counters
    );
}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl InMapping for List {
    const SHAPE: &'static Shape = shape!(List, 8: 0 first, 4 last);
}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl InMapping for Counters {
    const SHAPE: &'static Shape = shape!(Counters, 136:
        commits, batches, fences, syncs, lines_flushed, bytes_logged, log_bytes_written, pages_in_place, pages_copied,
        shadow_blocks, retirements, homes_written, homes_saved, faults, evictions, repairs, refusals
    );
}

impl Header {
    /// Everything up to `jci`, whose slots end at `end`, is durable at its place. The commit first: were its holder to die in
    /// between, slots would be given back that no header attests.
    pub fn retired_up_to(&self, jci: Jci, end: u64) {
        self.retired.store(jci.0, Ordering::Relaxed);
        self.retired_pos.store(end, Ordering::Release);
    }
}

/// Room for the header.
const HEADER_ROOM: u64 = 16384;
const _: () = assert!(size_of::<Header>() as u64 <= HEADER_ROOM);

/// Offsets of the arrays in the mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Places {
    pub slots: u64,
    pub free: u64,
    pub blocks: u64,
    pub touched: u64,
    pub ring: u64,
    pub virts: u64,
    pub heads: u64,
    pub cold: u64,
    pub cold_sums: u64,
    pub frames: u64,
    pub len: u64,
    pub most_blocks: u64,
}

impl Places {
    /// The offsets for a region of this layout; independent of the page size, which may still be unknown.
    #[must_use]
    pub fn new(layout: &Layout) -> Places {
        let most_blocks = (layout.budget / u64::from(MIN_PAGE_SIZE)).max(64);
        let mut at = HEADER_ROOM;
        let mut take = |bytes: u64| {
            let here = at;
            at = (at + bytes).next_multiple_of(65536);
            here
        };
        let slots = take(Slots::AREA);
        let free = take(most_blocks * 4);
        let blocks = take(most_blocks * BLOCK_STATE);
        let touched = take(most_blocks * 8);
        let ring = take(if layout.blocks_inside { 0 } else { layout.ring_slots * SLOT as u64 });
        let virts = take(MAX_VIRTS * VIRT);
        let heads = take(64 << MAX_HEADS_LOG); // two tables of 16-byte entries for every size
        let cold = take(MAX_COLD * 4);
        let cold_sums = take(MAX_COLD * 8);
        let frames = take(if layout.blocks_inside { 0 } else { layout.budget.max(16 * 65536) + 65536 });
        Places { slots, free, blocks, touched, ring, virts, heads, cold, cold_sums, frames, len: at, most_blocks }
    }
}

/// The mapping of one database in this process.
pub struct Shared {
    /// The memory.
    pub segment: Arc<Segment>,
    /// Where things lie in it.
    pub places: Places,
    slots: Slots,
    /// First byte of the mapping.
    start: *const u8,
    region: PathBuf,
    /// Why the region failed, where this process saw it.
    reason: Mutex<Option<String>>,
}

// SAFETY: `start` points into the mapping that `segment` keeps, which belongs to no thread.
#[allow(unsafe_code)]
unsafe impl Send for Shared {}
// SAFETY: as above; what is reached through it is atomics only.
#[allow(unsafe_code)]
unsafe impl Sync for Shared {}

impl Shared {
    /// A view of `segment`, whose fixed part is made present. `region` is named in messages.
    pub fn new(segment: Arc<Segment>, places: Places, region: &Path) -> Result<Shared> {
        segment.commit(0, HEADER_ROOM)?;
        let at = |offset: usize| offset as u64;
        let locks = [
            offset_of!(Header, writer),
            offset_of!(Header, flush),
            offset_of!(Header, log),
            offset_of!(Header, retire),
        ]
        .map(at);
        let slots = Slots::new(segment.clone(), at(offset_of!(Header, slots)), places.slots, &locks);
        assert!(segment.len() >= places.len, "the mapping is as long as its layout");
        let start = segment.ptr(0, 1).cast_const();
        Ok(Shared { segment, places, slots, start, region: region.to_owned(), reason: Mutex::new(None) })
    }

    /// Element `i` of the array at `at`, of `most` elements, that [`Places`] laid out. On the path of every access to a
    /// page: one comparison, where [`Segment::at`] makes three.
    pub fn element<T: InMapping>(&self, at: u64, i: u64, most: u64) -> &T {
        assert!(i < most, "element {i} of {most}");
        debug_assert!(
            at.is_multiple_of(align_of::<T>() as u64) && at + most * size_of::<T>() as u64 <= self.places.len
        );
        // SAFETY: the array lies in the mapping (`places`, whose length `new` checked), `at` is a multiple of 64 KiB or 0
        // and the mapping page-aligned, so the element is in range and aligned; `InMapping` types are atomics, valid for
        // any bytes; the mapping lives as long as `self.segment`.
        #[allow(unsafe_code)]
        unsafe {
            &*self.start.add((at + i * size_of::<T>() as u64) as usize).cast::<T>()
        }
    }

    /// The array of `n` elements at `at`.
    pub fn array<T: InMapping>(&self, at: u64, n: u64) -> &[T] {
        assert!(at + n * (size_of::<T>() as u64) <= self.places.len, "array of {n} at {at}");
        // SAFETY: as in `element`; `at` is aligned for words wherever `Places` and the tables of heads put an array.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.start.add(at as usize).cast::<T>(), n as usize)
        }
    }

    /// The words that all share.
    #[must_use]
    pub fn head(&self) -> &Header {
        self.element(0, 0, 1)
    }

    /// The reader slots.
    #[must_use]
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Fails the region (P18): every attached connection gets an error until all are closed.
    pub fn fail(&self, why: &Error) -> Error {
        if matches!(why, Error::Failed { .. }) {
            return self.failure();
        }
        let mut reason = self.reason.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        reason.get_or_insert_with(|| why.to_string());
        self.head().failed.store(1, Ordering::SeqCst);
        tracing::error!(region = %self.region.display(), %why, "the region has failed");
        drop(reason);
        self.failure()
    }

    fn failure(&self) -> Error {
        let reason = self.reason.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let reason =
            reason.clone().unwrap_or_else(|| "in another process; close all connections and open again".into());
        Error::Failed { path: self.region.clone(), reason }
    }

    /// Refuses everything once the region has failed.
    pub fn check(&self) -> Result<()> {
        if self.head().failed.load(Ordering::Relaxed) == 0 { Ok(()) } else { Err(self.failure()) }
    }

    /// Begins a change that must not be left half done: a panic in the middle of it fails the region. Its locks are given
    /// back, or kept, as if nothing had happened, and who made it lives, so that nobody would finish it.
    pub fn begin(&self) -> Unfinished<'_> {
        Unfinished(self)
    }

    /// The region's path.
    #[must_use]
    pub fn region(&self) -> &Path {
        &self.region
    }

    /// Newest published commit.
    #[must_use]
    pub fn published(&self) -> Jci {
        self.head().clock.published()
    }
}

/// A change in progress: [`Shared::begin`].
#[must_use]
pub struct Unfinished<'a>(&'a Shared);

impl Unfinished<'_> {
    /// It is whole.
    pub fn done(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let what = "a defect of nvlite was caught in the middle of a change to it";
        self.0.fail(&Error::corrupt(&self.0.region, "shared mapping", what));
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn p13_slots_are_never_free_before_what_retired_them_is_known() {
        // Failure: a holder dies between the two stores, and the next header frees slots above the low-water mark in it.
        let segment = Segment::private(HEADER_ROOM).expect("memory");
        let head: &Header = segment.at(0);
        let (seen, mut last) = (AtomicU32::new(0), 0);
        let not_yet = || seen.load(Ordering::Relaxed) < 20_000;
        std::thread::scope(|scope| {
            scope.spawn(|| (1..).take_while(|_| not_yet()).for_each(|n| head.retired_up_to(Jci(n), n)));
            while not_yet() {
                let end = head.retired_pos.load(Ordering::Acquire);
                let retired = head.retired.load(Ordering::Relaxed);
                if retired < end {
                    seen.store(u32::MAX, Ordering::Relaxed);
                    panic!("slots up to {end} are free, and {retired} is what is retired");
                }
                seen.fetch_add(u32::from(end != last), Ordering::Relaxed);
                last = end;
            }
        });
    }
}
