//! The fast tier as a cache of homes: pages come in when they are written (or read, where nobody wants the writer lock),
//! and cold ones go when blocks run out: clean ones by one store, dirty ones after their homes were written, old versions
//! that only a reader needs to the cold file.

use crate::base::bytes::prefetch;
use crate::base::limits::PENDING_BYTE;
use crate::base::page_sum::page_sum;
use crate::base::sync::Ordering;
use crate::base::{BlockNo, Error, Jci, PageNo, Result, VirtNo};
use crate::engine::{Engine, Region};
use crate::medium::{BaseFile, Site};
use crate::pages::heads;
use crate::pages::pins::Pins;
use crate::pages::virt::Place;
use crate::retire::{LAST, Which};
use crate::shared::tally;
use crate::shm::SlotNo;
use std::time::{Duration, Instant};

const R: Ordering = Ordering::Relaxed;
/// Blocks freed at a time, at least.
const BATCH: u32 = 32;
/// How long to wait for readers that stand in the way of reuse.
const PATIENCE: Duration = Duration::from_millis(200);

impl Engine {
    /// Brings the newest version of `page` into the fast tier, if it is not there. Under the writer lock; takes a free
    /// block and a virtblock that the caller reserved. Answers its block; `None` if there is no free one.
    pub fn bring_in(&self, page: PageNo, base: &dyn BaseFile) -> Result<Option<BlockNo>> {
        let newest = self.pages.newest(page);
        if let Some((_, virt)) = newest
            && let Place::Fast(block) = virt.place()
        {
            prefetch(self.pages.block(block)); // the commit will note there what it stores
            return Ok(Some(block));
        }
        let in_cold = newest.is_some_and(|(_, virt)| matches!(virt.place(), Place::Cold(_)));
        if in_cold && self.mapped() && page.0 > self.pages_at(self.shared.published(), base)? {
            return Ok(None); // cut off, and there for an older reader: the block that it had may bear the same birth still
        }
        self.pages.reserve_virts(2)?;
        heads::reserve(&self.shared, 1)?;
        let v = newest.map_or_else(|| self.pages.take_virt(page, Jci::ZERO, VirtNo::NONE), |(v, _)| v);
        let Some(block) = self.pages.take_block(v) else {
            if newest.is_none() {
                self.pages.discard(v, Jci::ZERO, true);
            }
            return Ok(None);
        };
        let arena = &self.pages.geo().arena;
        let mut content = vec![0; arena.size() as usize];
        if let Err(error) = self.read_page(page, newest.map(|n| n.1), 0, &mut content, base) {
            self.pages.push_block(block);
            if newest.is_none() {
                self.pages.discard(v, Jci::ZERO, true);
            }
            return Err(error);
        }
        arena.store(block, 0, &content);
        self.pages.block(block).sum.store(page_sum(&content), R);
        let virt = self.pages.virt(v);
        if let Place::Cold(_) = virt.place() {
            if self.mapped() && virt.is_dirty() {
                self.pages.note_stored(block, 0, arena.size());
                let birth = Jci(virt.dirty.load(R));
                self.pages.change_entry(block, Some(crate::format::entry::Entry { page, birth }));
            }
            self.pages.vacate(v, Place::Fast(block), self.shared.published());
        } else {
            virt.move_to(Place::Fast(block));
        }
        heads::set(&self.shared, page, v, Place::Fast(block));
        tally(&self.shared.head().counters.faults, 1);
        Ok(Some(block))
    }

    /// Brings a page that was just read from its home in, if a block is free and nobody wants the writer lock.
    pub fn fault_in(&self, slot: SlotNo, page: PageNo, base: &dyn BaseFile) {
        let head = self.shared.head();
        if self.pages.free_blocks() == 0 && !self.pages.may_grow() {
            return;
        }
        self.maintain(slot, || {
            let before = head.blocks_present.load(R);
            let room = self.pages.free_blocks() > 0 || self.pages.grow().unwrap_or(false);
            let grown = head.blocks_present.load(R) - before;
            if grown > 0 {
                // here, where no commit waits for it
                self.pages.geo().arena.prefer_huge(before, grown);
            }
            if room && let Err(error) = self.bring_in(page, base) {
                tracing::debug!(%error, "a page was not brought in");
            }
        });
    }

    /// Makes sure that `n` blocks are free, without touching the pages in `keep`. Under the writer lock.
    /// Answers how many are free: fewer only if the fast tier is too small or readers pin it.
    pub fn ensure_blocks(&self, n: u32, keep: &dyn Fn(PageNo) -> bool, base: &dyn BaseFile) -> Result<u32> {
        self.pages.pump();
        while self.pages.free_blocks() < n && self.pages.grow()? {}
        if self.pages.free_blocks() >= n {
            return Ok(self.pages.free_blocks());
        }
        let start = Instant::now();
        for round in 0.. {
            self.shared.slots().reap_dead(&self.live);
            let swept = self.sweep(n.max(BATCH), round > 1, keep, base);
            if let Region::Pmem(pmem) = &self.region {
                // now, whatever came of it: another thread may be the next to retire, whose fence is none for us (H1)
                pmem.fence(Site::OlderFence);
            }
            let swept = swept?;
            let (freed, held_up) = (swept.unwrap_or(0), swept.is_none());
            if self.mapped() {
                self.retire_now(base)?;
            }
            self.pages.pump();
            self.pages.pump();
            if self.pages.free_blocks() < n && (self.mapped() || round == 2) {
                self.retire_now(base)?;
                self.pages.pump();
            }
            if self.pages.free_blocks() >= n {
                break;
            }
            let waiting = self.pages.waiting();
            let patience = if held_up { LAST } else { PATIENCE };
            let stopped = held_up && self.standstill().is_some();
            if stopped || freed == 0 && round > 2 && !waiting && !held_up || start.elapsed() > patience {
                break;
            }
            if freed == 0 && waiting {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        Ok(self.pages.free_blocks())
    }

    /// One pass of the second-chance hand: gives back what nobody needs, evicts what is clean, writes home what is dirty.
    /// Answers how many blocks are on their way to be free; `None` if a read in progress, or who is writing
    /// homes and stands still, keeps them from being written.
    fn sweep(
        &self,
        want: u32,
        urgent: bool,
        keep: &dyn Fn(PageNo) -> bool,
        base: &dyn BaseFile,
    ) -> Result<Option<u32>> {
        let (head, present) = (self.shared.head(), self.shared.head().blocks_present.load(R));
        let mut pins = Pins::default();
        pins.gather(self.shared.slots(), None, Some(head.clock.visible()));
        let (mut freed, mut dirty) = (0, Vec::new());
        // beyond the end of the database nothing is current; what a reader from before the cut needs stays
        let size = self.pages_at(head.clock.published(), base)?;
        let cut = Jci(head.shrunk.load(R));
        let gone = |page: PageNo| page.0 > size && !pins.below(cut);
        let mut hand = head.sweep_hand.load(R);
        for _ in 0..present {
            if freed + dirty.len() as u32 >= want {
                break;
            }
            hand = if hand + 1 >= present { 0 } else { hand + 1 };
            let block = self.pages.block(BlockNo(hand));
            let v = VirtNo(block.virt.load(R));
            if v == VirtNo::NONE {
                continue;
            }
            let virt = self.pages.virt(v);
            let page = virt.page();
            let Some((newest, _)) = heads::find(&self.shared, page) else { continue };
            if newest != v {
                freed += self.free_old(newest, v, &pins, urgent)?;
                continue;
            }
            if page.0 == 1 || keep(page) {
                continue;
            }
            if gone(page) {
                freed += self.drop_page(page, v);
                continue;
            }
            if page.0 > size {
                // cut off, but a reader from before the cut needs it: it has no home to go to
                freed += if urgent { self.move_to_cold(v)? } else { 0 };
                continue;
            }
            if virt.used.load(R) != 0 && !urgent {
                virt.used.store(0, R);
                continue;
            }
            if virt.is_dirty() {
                dirty.push(page);
            } else {
                freed += u32::from(self.evict(newest, &pins)?);
            }
        }
        head.sweep_hand.store(hand, R);
        if freed < want && !dirty.is_empty() {
            let which = if self.mapped() { Which::These(dirty.clone()) } else { Which::Logged };
            if !self.write_homes(self.maintainer, &which, true, base)? {
                return Ok(None);
            }
            for page in dirty {
                if let Some((v, virt)) = self.pages.newest(page)
                    && !virt.is_dirty()
                {
                    freed += u32::from(self.evict(v, &pins)?);
                }
            }
        }
        Ok(Some(freed))
    }

    /// Forgets a page beyond the end of the database, with all its versions.
    fn drop_page(&self, page: PageNo, newest: VirtNo) -> u32 {
        let (mut at, mut n) = (newest, 0);
        heads::remove(&self.shared, page);
        while at != VirtNo::NONE {
            let older = self.pages.virt(at).older();
            self.pages.discard(at, self.shared.published(), false);
            (at, n) = (older, n + 1);
        }
        n
    }

    /// Lets go of cold blocks whose content is at home by now. Under the writer lock.
    pub fn tidy_cold(&self) -> Result<()> {
        if self.pages.cold_used() == 0 {
            return Ok(());
        }
        let is_done = |v: VirtNo| {
            let virt = self.pages.virt(v);
            !virt.is_dirty() && matches!(virt.place(), Place::Cold(_))
        };
        let done: Vec<VirtNo> = heads::all(&self.shared).map(|(_, v)| v).filter(|&v| is_done(v)).collect();
        self.pages.reserve_virts(done.len() as u32)?;
        let until = self.shared.published();
        done.into_iter().for_each(|v| self.pages.vacate(v, Place::Home, until));
        self.pages.pump();
        Ok(())
    }

    /// Frees the block of a clean newest version: its home has the same content.
    fn evict(&self, v: VirtNo, pins: &Pins) -> Result<bool> {
        let virt = self.pages.virt(v);
        let Place::Fast(_) = virt.place() else { return Ok(false) };
        self.pages.clear_older_entries(v);
        let until = self.shared.published();
        if virt.older() == VirtNo::NONE && !pins.below(virt.birth()) {
            heads::remove(&self.shared, virt.page());
            self.pages.discard(v, until, false);
        } else {
            self.pages.reserve_virts(1)?;
            self.pages.vacate(v, Place::Home, until);
        }
        tally(&self.shared.head().counters.evictions, 1);
        Ok(true)
    }

    /// A version that is not the newest: taken out of its chain if no pin sees it, else, if it is urgent, moved to the cold
    /// file.
    fn free_old(&self, newest: VirtNo, v: VirtNo, pins: &Pins, urgent: bool) -> Result<u32> {
        let (mut newer, mut at) = (VirtNo::NONE, newest);
        while at != v && at != VirtNo::NONE {
            newer = at;
            at = self.pages.virt(at).older();
        }
        if at != v {
            return Ok(0); // unlinked already
        }
        let (virt, upper) = (self.pages.virt(v), self.pages.virt(newer).birth());
        if !pins.within(virt.birth(), upper) {
            self.pages.virt(newer).older.store(virt.older().0, Ordering::Release);
            self.pages.discard(v, upper, false);
            return Ok(1);
        }
        if urgent { self.move_to_cold(v) } else { Ok(0) }
    }

    /// Moves a version that only readers need to the cold file. Answers the blocks that come free.
    fn move_to_cold(&self, v: VirtNo) -> Result<u32> {
        let virt = self.pages.virt(v);
        let Place::Fast(b) = virt.place() else { return Ok(0) };
        self.pages.reserve_virts(1)?;
        let cold = self.put_in_cold(v, self.pages.geo().arena.view(b))?;
        self.pages.vacate(v, Place::Cold(cold), self.shared.published());
        Ok(1)
    }

    /// The page that contains SQLite's pending byte: never written, never read.
    #[must_use]
    pub fn hole(&self) -> PageNo {
        PageNo((PENDING_BYTE / u64::from(self.pages.geo().arena.size())) as u32 + 1)
    }

    /// Room ran out although everything that can go has gone.
    #[must_use]
    pub fn no_room(&self, what: &'static str) -> Error {
        let (present, most) = (self.shared.head().blocks_present.load(R), self.pages.geo().layout.max_blocks);
        let tier = match present < most {
            true => format!(
                "no space left on device for more than {present} of the {most} blocks of the fast tier, and those are"
            ),
            false => format!("the fast tier of {most} blocks is"),
        };
        let cause = format!("{tier} pinned by readers; the oldest: {}", self.oldest_reader());
        Error::Full { path: self.region.path().to_owned(), what, cause }
    }
}
