//! Shadow blocks: pages of transactions too large for micro-journals, written whole to blocks of their own before the
//! commit; the record holds only their numbers. And what else a transaction reserves before it may commit.

use crate::base::page_sum::{page_sum, sum_after};
use crate::base::sync::Ordering;
use crate::base::{BlockNo, Jci, PageNo, Result, VirtNo};
use crate::engine::{Engine, Region};
use crate::medium::{BaseFile, Site};
use crate::pages::virt::{Place, Virt};
use crate::shared::tally;
use crate::shm::SlotNo;
use crate::writeset::{WriteSet, Written};

impl Engine {
    /// A virtblock with a block for `page`, which nothing refers to: in the fast tier on `dax` and `ram` while there is
    /// room, else in the cold file (frames of `file` survive nothing).
    pub fn new_shadow(&self, page: PageNo, set: &WriteSet, base: &dyn BaseFile) -> Result<VirtNo> {
        self.pages.reserve_virts(1)?;
        if self.mapped() && self.pages.free_blocks() <= self.pages.geo().layout.max_blocks / 4 {
            let present = self.shared.head().blocks_present.load(Ordering::Relaxed);
            if present < self.pages.geo().layout.max_blocks {
                self.ensure_blocks(1, &|p| set.builds_on(p), base)?;
            }
        }
        self.pages.reserve_virts(1)?;
        let v = self.pages.take_virt(page, Jci::ZERO, VirtNo::NONE);
        // each page that is kept as ranges may need a block for its next version
        let kept = set.in_ranges() as u32;
        let room = self.pages.free_blocks() > self.pages.geo().layout.max_blocks / 8 + kept;
        let block = if self.mapped() && room { self.pages.take_block(v) } else { None };
        match block {
            Some(b) => self.pages.virt(v).move_to(Place::Fast(b)),
            None => match self.pages.take_cold(v) {
                Ok(c) => self.pages.virt(v).move_to(Place::Cold(c)),
                Err(error) => {
                    self.pages.give_back(v);
                    return Err(error);
                }
            },
        }
        Ok(v)
    }

    /// Writes a shadow block. Answers whether it was streamed: durable after [`fence_shadows`](Self::fence_shadows), else after
    /// [`persist_shadows`](Self::persist_shadows).
    pub fn write_shadow(&self, v: VirtNo, content: &[u8]) -> Result<bool> {
        match self.pages.virt(v).place() {
            Place::Fast(b) => {
                self.pages.geo().arena.stream(Site::ShadowBlock, b, content);
                // the record does not say it, and recovery asks the entry
                let sum = page_sum(content);
                self.pages.block(b).sum.store(sum, Ordering::Relaxed);
                self.pages.store_entry_sum(b, sum);
                self.pages.flush_entry(Site::ShadowSum, b);
                Ok(self.mapped())
            }
            Place::Cold(c) => self.pages.write_cold(c, content).map(|()| false),
            Place::Home | Place::Free => Err(self.pages.corrupt("write set", "a shadow block was lost".into())),
        }
    }

    /// Moves shadow blocks to the cold blocks from `first` on, in the order given, so that a record may name them as runs.
    pub fn line_up_shadows(&self, shadows: impl Iterator<Item = VirtNo>, first: u32) -> Result<()> {
        let mut content = vec![0; self.pages.geo().arena.size() as usize];
        for (v, c) in shadows.zip(first..) {
            self.pages.read_version(self.pages.virt(v), 0, &mut content)?;
            self.pages.write_cold(c, &content)?;
            self.pages.settle_in_cold(v, c);
        }
        Ok(())
    }

    /// Makes the shadow blocks that this thread has streamed durable (H1): a connection may go on in another one.
    pub fn fence_shadows(&self) {
        if let Region::Pmem(pmem) = &self.region {
            pmem.fence(Site::ShadowFence);
            tally(&self.shared.head().counters.fences, 1);
        }
    }

    /// Makes the shadow blocks in the cold file durable before the record that names them may be (P18, H6).
    pub fn persist_shadows(&self, n: u32) -> Result<()> {
        let counters = &self.shared.head().counters;
        if self.pages.cold_used() > 0 {
            // tried again, it would say that all is well of what the failed one lost
            self.pages.cold.sync(Site::ShadowCold).map_err(|error| self.shared.fail(&error))?;
            tally(&counters.syncs, 1);
        }
        tally(&counters.shadow_blocks, u64::from(n));
        Ok(())
    }

    /// Brings `page` in for a comparison, evicting others if there is no free block. If that fails it stays where it is.
    pub fn bring_in_or_make_room(&self, page: PageNo, set: &WriteSet, base: &dyn BaseFile) -> Result<Option<BlockNo>> {
        if let Some(block) = self.bring_in(page, base)? {
            return Ok(Some(block));
        }
        let keep = |p: PageNo| p == page || set.builds_on(p);
        self.ensure_blocks(1, &keep, base)?;
        self.bring_in(page, base)
    }

    /// Checksum of `page` when `ranges` are laid over its newest version, or over zeros if `fresh`. Under the writer lock.
    pub fn sum_after<'a>(
        &self,
        page: PageNo,
        fresh: bool,
        ranges: impl Iterator<Item = (u32, &'a [u8])>,
        base: &dyn BaseFile,
    ) -> Result<u64> {
        let geo = self.pages.geo();
        if fresh {
            return Ok(sum_after(geo.sum_of_zeros, None, ranges));
        }
        let newest = self.pages.newest(page).map(|(_, virt)| virt);
        if let Some(Place::Fast(b)) = newest.map(Virt::place) {
            let sum = self.pages.block(b).sum.load(Ordering::Relaxed);
            return Ok(sum_after(sum, Some(geo.arena.view(b)), ranges));
        }
        // it has left the fast tier since it was written
        let mut content = vec![0; geo.arena.size() as usize];
        self.read_page(page, newest, 0, &mut content, base)?;
        Ok(sum_after(page_sum(&content), Some(&content), ranges))
    }

    /// How often pages were evicted: while it does not move, a page brought in under the writer lock stays in.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.shared.head().counters.evictions.load(Ordering::Relaxed)
    }

    /// Makes sure that applying these pages will not lack a block or a virtblock: every one may have to be copied. `undisturbed`
    /// says that nothing was evicted since the first of them was brought in.
    pub fn reserve_for(
        &self,
        pages: &[(PageNo, Written)],
        set: &WriteSet,
        undisturbed: bool,
        base: &dyn BaseFile,
    ) -> Result<()> {
        let copies = pages.iter().filter(|(_, w)| matches!(w, Written::Ranges { .. })).count() as u32;
        let keep = |p: PageNo| set.builds_on(p);
        for &(page, written) in pages.iter().filter(|_| !undisturbed) {
            if let Written::Ranges { fresh: false, .. } = written
                && self.bring_in_or_make_room(page, set, base)?.is_none()
            {
                return Err(self.no_room("a page to change"));
            }
        }
        // One more than it can use itself: a block that a writer took and died before it gave it to a page is out of use until
        // its commit is finished, and whoever finishes that takes another (P13).
        let n = if copies == 0 { 0 } else { copies + 1 };
        if self.pages.free_blocks() < n && self.ensure_blocks(n, &keep, base)? < n {
            return Err(self.no_room("the versions of a commit"));
        }
        // the last step: those before it take virtblocks, too
        self.pages.reserve_virts(2 * pages.len() as u32 + 64)
    }

    /// Fixes the page size of a database without pages: durable before anything depends on it, in both copies of the
    /// superblock, for one that does not know it is of no use when the other is damaged. Their fences serve the entries, too:
    /// a crash may leave the page size without them, but then nothing is retired, and recovery believes none and clears all.
    /// A transaction that is rolled back leaves it fixed, and the next may fix another. Under the writer lock.
    pub fn fix_page_size(&self, page_size: u32) -> Result<()> {
        self.pages.fix_page_size(page_size)?;
        self.update_superblock(|s| s.page_size = page_size)?;
        self.update_superblock(|s| s.page_size = page_size)
    }

    /// Makes everything committed durable, and writes homes as far as readers allow. Answers (durable, low-water mark). On
    /// `dax` and `ram` it writes none while another connection has the writer lock.
    pub fn checkpoint(&self, slot: SlotNo, base: &dyn BaseFile) -> Result<(Jci, Jci)> {
        let head = self.shared.head();
        self.flush(slot, head.clock.published())?;
        if self.hold(slot)? {
            let tidy = || self.tidy_cold().map(|()| self.give_cold_back());
            let result = self.retire_now(base).and_then(|_| self.write_dirty_home(slot, base)).and_then(|()| tidy());
            head.writer.release(self.shared.slots(), slot);
            result?;
        } else if !self.mapped() {
            self.write_homes(slot, &crate::retire::Which::Logged, false, base)?;
        }
        Ok((head.clock.durable(), Jci(head.retired.load(Ordering::Relaxed))))
    }

    /// On `dax` and `ram` a retirement leaves pages in their blocks, where they are durable: brings the base file up to date
    /// as well, which is what a checkpoint is asked for.
    fn write_dirty_home(&self, slot: SlotNo, base: &dyn BaseFile) -> Result<()> {
        if !self.mapped() {
            return Ok(());
        }
        self.write_homes(slot, &crate::retire::Which::These(self.dirty_pages()), true, base).map(|_| ())
    }
}
