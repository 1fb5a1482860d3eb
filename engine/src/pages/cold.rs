//! Blocks of the cold file: which are in use, by which virtblock, and the checksum of what they hold. Taken and given back under
//! the writer lock only.

use super::Pages;
use super::virt::Place;
use crate::base::checksum::checksum;
use crate::base::sync::{AtomicU32, AtomicU64, Ordering};
use crate::base::{Error, PageNo, Result, VirtNo};
use crate::shared::MAX_COLD;

const R: Ordering = Ordering::Relaxed;
/// Cold blocks made known at a time.
const GROW_COLD: u32 = 16384;
/// Bytes worth a look at all blocks.
const GIVE_BACK: u64 = 1 << 20;
/// Calls of the system at most while others wait for the lock.
const CALLS: u32 = 64;

impl Pages {
    /// Checksum of what cold block `c` holds.
    pub fn sum_of_cold(c: u32, content: &[u8]) -> u64 {
        checksum(u64::from(c), content)
    }

    pub(super) fn cold_owner(&self, c: u32) -> &AtomicU32 {
        self.shared.segment.at(self.shared.places.cold + u64::from(c) * 4)
    }

    /// The virtblock that a block is in use by, 0 if it is free.
    pub fn cold_owner_of(&self, c: u32) -> u32 {
        self.cold_owner(c).load(R)
    }

    /// What a block was written with. For who knows that it was.
    pub fn cold_sum(&self, c: u32) -> u64 {
        self.cold_sum_at(c).load(R)
    }

    /// Checksum of a block, written before anything refers to that, by who took it.
    fn cold_sum_at(&self, c: u32) -> &AtomicU64 {
        self.shared.segment.at(self.shared.places.cold_sums + u64::from(c) * 8)
    }

    /// Makes `n` more numbers of cold blocks known, a multiple of [`GROW_COLD`]. Unused ones cost no room on the disk.
    fn grow_cold(&self, n: u32) -> Result<()> {
        let head = self.shared.head();
        let present = head.cold_present.load(R);
        if u64::from(present) + u64::from(n) > MAX_COLD {
            return Err(Error::Full {
                path: self.cold.path().to_owned(),
                what: "cold blocks",
                cause: format!("all {MAX_COLD} are in use"),
            });
        }
        for (at, each) in [(self.shared.places.cold, 4), (self.shared.places.cold_sums, 8)] {
            self.shared.segment.commit(at + u64::from(present) * each, u64::from(n) * each)?;
        }
        (present..present + n).for_each(|c| self.cold_owner(c).store(0, R));
        head.cold_present.store(present + n, R);
        head.cold_free.store(head.cold_free.load(R) + n, R);
        Ok(())
    }

    /// Takes a block of the cold file for `virt`: the next free one, so that what is written in a row lies in a row.
    pub fn take_cold(&self, virt: VirtNo) -> Result<u32> {
        let head = self.shared.head();
        if head.cold_free.load(R) == 0 {
            head.cold_hand.store(head.cold_present.load(R), R);
            self.grow_cold(GROW_COLD)?;
        }
        let present = head.cold_present.load(R);
        let start = head.cold_hand.load(R);
        let c = (start..present)
            .chain(0..start)
            .find(|&c| self.cold_owner(c).load(R) == 0)
            .ok_or_else(|| self.corrupt("cold file's free count", "no block is free".into()))?;
        self.own_cold(c, virt);
        head.cold_hand.store(c + 1, R);
        Ok(c)
    }

    fn own_cold(&self, c: u32, virt: VirtNo) {
        self.cold_owner(c).store(virt.0, R);
        let head = self.shared.head();
        head.cold_free.store(head.cold_free.load(R) - 1, R);
    }

    /// Finds `n` free cold blocks in a row, growing the table if there are none. They are free still.
    pub fn cold_run(&self, n: u32) -> Result<u32> {
        let present = self.shared.head().cold_present.load(R);
        let mut run = 0;
        for c in 0..present {
            run = if self.cold_owner(c).load(R) == 0 { run + 1 } else { 0 };
            if run == n {
                return Ok(c + 1 - n);
            }
        }
        self.grow_cold((n - run).next_multiple_of(GROW_COLD))?;
        Ok(present - run)
    }

    /// Moves what nothing refers to yet, a shadow block, to the free cold block `c`, which holds the same bytes.
    pub fn settle_in_cold(&self, v: VirtNo, c: u32) {
        self.own_cold(c, v);
        self.free_place(self.virt(v).place());
        self.virt(v).move_to(Place::Cold(c));
    }

    /// Writes a whole block.
    ///
    /// # Errors
    /// Of the file.
    pub fn write_cold(&self, c: u32, bytes: &[u8]) -> Result<()> {
        self.cold_sum_at(c).store(Self::sum_of_cold(c, bytes), R);
        self.cold.write_at(u64::from(c) * bytes.len() as u64, bytes)
    }

    /// Reads a part of the block that holds `page`, and verifies all of it.
    ///
    /// # Errors
    /// Of the file; `Corrupt` if it does not hold what was written.
    pub fn read_cold(&self, c: u32, page: PageNo, within: u32, into: &mut [u8]) -> Result<()> {
        let size = self.geo().arena.size() as usize;
        let verify = |content: &[u8]| {
            if Self::sum_of_cold(c, content) == self.cold_sum(c) {
                return Ok(());
            }
            let detail = format!("block {c}, which has page {page}, does not hold what was written there (checksum)");
            Err(Error::corrupt(self.cold.path(), "cold file", detail))
        };
        if into.len() == size {
            self.load_cold(c, into)?;
            return verify(into);
        }
        let mut content = vec![0; size];
        self.load_cold(c, &mut content)?;
        verify(&content)?;
        into.copy_from_slice(&content[within as usize..within as usize + into.len()]);
        Ok(())
    }

    /// Reads a whole block of which no checksum is known: one that a record names, in recovery.
    ///
    /// # Errors
    /// Of the file; `Corrupt` if that is too short.
    pub fn load_cold(&self, c: u32, into: &mut [u8]) -> Result<()> {
        if self.cold.read_at(u64::from(c) * into.len() as u64, into)? == into.len() {
            return Ok(());
        }
        let detail = format!("block {c} lies past its end: it was cut");
        Err(Error::corrupt(self.cold.path(), "cold file", detail))
    }

    /// Gives the storage of free blocks back to the file system, if it is worth it: all of it when no block is in use, else when
    /// it is [`GIVE_BACK`] bytes, in so many calls at most. Under the writer lock.
    ///
    /// # Errors
    /// Of the file: then it keeps some.
    pub fn give_cold_back(&self) -> Result<()> {
        let (head, unused) = (self.shared.head(), self.shared.head().cold_unused.load(R));
        let size = self.geometry().map_or(0, |geo| u64::from(geo.arena.size()));
        if unused == 0 || self.cold_used() > 0 && u64::from(unused) * size < GIVE_BACK {
            return Ok(());
        }
        let (present, mut at, mut calls) = (head.cold_present.load(R), 0, 0);
        let is_free = |c: &u32| self.cold_owner(*c).load(R) == 0;
        while at < present && calls < CALLS {
            let end = (at..present).find(|c| !is_free(c)).unwrap_or(present);
            // of those that were never written since, nothing is known, and nothing is there
            if (at..end).any(|c| self.cold_sum(c) != 0) {
                self.cold.give_back(u64::from(at) * size, u64::from(end - at) * size)?;
                let given = (at..end).filter(|&c| self.cold_sum_at(c).swap(0, R) != 0).count() as u32;
                head.cold_unused.store(head.cold_unused.load(R).saturating_sub(given), R);
                calls += 1;
            }
            at = (end..present).find(is_free).unwrap_or(present);
        }
        if at == present {
            head.cold_unused.store(0, R); // what a repair has freed was not counted, or twice
        }
        Ok(())
    }

    /// Cold blocks in use; without the writer lock about so many.
    #[must_use]
    pub fn cold_used(&self) -> u32 {
        let free = self.shared.head().cold_free.load(R); // first: there may be more of both a moment later
        self.shared.head().cold_present.load(R).saturating_sub(free)
    }
}
