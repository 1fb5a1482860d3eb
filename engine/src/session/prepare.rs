//! From the write set to a commit: what FCNTL_SYNC and COMMIT_PHASETWO do (P1).

use super::{PAGE_ONE, Session};
use crate::base::{Error, PageNo, Result};
use crate::format::mark;
use crate::pages::heads;
use crate::pages::virt::Place;
use crate::store::Durability;
use crate::writeset::Written;

impl Session {
    /// FCNTL_SYNC: builds the commit and reserves all it needs. Every error of a transaction is returned here. Repeatable.
    ///
    /// # Errors
    /// `Full`, `Io`, `Corrupt`, `Failed`, `Forked`, `LockLost`; never `Busy`.
    pub fn prepare(&mut self) -> Result<()> {
        self.store.engine().check()?;
        self.unprepare();
        if !self.holding || self.set.is_empty() {
            return Ok(());
        }
        self.tell_lent();
        let built = self.build();
        self.fence_streamed();
        self.prepared = Some(built?);
        Ok(())
    }

    /// Answers the pages of the database after the commit.
    fn build(&mut self) -> Result<u32> {
        self.settle_page_size()?;
        let size = self.settle_size()?;
        let shadows = match self.prepare_pages(size) {
            // its own pages or readers fill the fast tier: what is kept as differences goes to shadow blocks, too
            Err(Error::Full { .. }) if self.spill(size)? => self.prepare_pages(size)?,
            other => other?,
        };
        if shadows > 0 {
            self.store.engine().persist_shadows(shadows)?;
        }
        Ok(size)
    }

    /// Builds the record and reserves what it needs; what it did in vain may be done again. Answers its shadow blocks.
    fn prepare_pages(&mut self, size: u32) -> Result<u32> {
        let mut pages = std::mem::take(&mut self.sorted);
        pages.clear();
        pages.extend(self.set.iter().filter(|(p, _)| p.0 <= size));
        pages.sort_unstable_by_key(|p| p.0);
        let result = self.reserve(&pages, size);
        pages.clear();
        pages.shrink_to(1 << 12); // as the write set, it keeps its memory within bounds
        self.sorted = pages;
        result
    }

    fn reserve(&mut self, pages: &[(PageNo, Written)], size: u32) -> Result<u32> {
        let old_size = self.pages.unwrap_or(0);
        self.pack(pages, None)?;
        let engine = self.store.engine();
        let shadows = pages.iter().filter(|(_, w)| matches!(w, Written::Shadow(_))).count() as u32;
        if !engine.ring_holds(self.commit.packer.parts()) && shadows > 0 {
            self.line_up(pages, shadows)?;
        }
        let engine = self.store.engine();
        self.commit.pages = pages.len();
        self.commit.shrinks = size < old_size;
        let base = self.base.as_deref().expect("opened by begin_read");
        engine.reserve_ring(self.commit.packer.parts(), base)?;
        heads::reserve(&engine.shared, pages.len() as u32)?;
        let undisturbed = self.evictions == engine.evictions();
        engine.reserve_for(pages, &self.set, undisturbed, base)?;
        Ok(shadows)
    }

    /// Builds the record. With `lined_up`, as if the shadow blocks were the cold blocks from that one on.
    fn pack(&mut self, pages: &[(PageNo, Written)], lined_up: Option<u32>) -> Result<()> {
        let engine = self.store.engine();
        let base = self.base.as_deref().expect("opened by begin_read");
        let packer = &mut self.commit.packer;
        packer.clear();
        let mut next = lined_up;
        for &(page, written) in pages {
            let place = match written {
                Written::Ranges { fresh, first, n } => {
                    let sum = engine.sum_after(page, fresh, self.set.ranges(first, n), base)?;
                    packer.ranges(page, fresh, sum, self.set.ranges(first, n));
                    continue;
                }
                Written::Shadow(v) => next.map_or_else(|| engine.pages.virt(v).place(), Place::Cold),
            };
            next = next.map(|c| c + 1);
            match place {
                Place::Cold(c) => {
                    packer.block(page, c, true);
                    // of one that is yet to be moved there it is not known yet, and takes as much room
                    packer.sum_up(if lined_up.is_some() { 0 } else { engine.pages.cold_sum(c) });
                }
                Place::Fast(b) => packer.block(page, b.0, false),
                Place::Home | Place::Free => return Err(engine.pages.corrupt("write set", "a lost shadow".into())),
            }
        }
        packer.finish();
        Ok(())
    }

    /// The list of shadow blocks is too long for the ring, because they were taken in another order than that of their
    /// pages. If in that order it would not be, they are moved.
    fn line_up(&mut self, pages: &[(PageNo, Written)], shadows: u32) -> Result<()> {
        let first = self.store.engine().pages.cold_run(shadows)?;
        self.pack(pages, Some(first))?;
        let engine = self.store.engine();
        if !engine.ring_holds(self.commit.packer.parts()) {
            return Ok(()); // the caller finds that it does not fit
        }
        let in_order = pages.iter().filter_map(|&(_, w)| if let Written::Shadow(v) = w { Some(v) } else { None });
        engine.line_up_shadows(in_order, first)?;
        self.pack(pages, None)
    }

    /// Moves what is kept as ranges to shadow blocks, page 1 excepted. Answers whether there was anything to move.
    fn spill(&mut self, size: u32) -> Result<bool> {
        let ranges = |(page, written): (PageNo, Written)| {
            (page != PAGE_ONE && page.0 <= size && matches!(written, Written::Ranges { .. })).then_some(page)
        };
        let pages: Vec<PageNo> = self.set.iter().filter_map(ranges).collect();
        let mut content = vec![0; self.page_size().unwrap_or(0) as usize];
        for &page in &pages {
            self.read_in_page(page, 0, &mut content)?;
            self.put_shadow(page, &content)?;
        }
        Ok(!pages.is_empty())
    }

    /// Fixes the page size of a new database: what its first page says by now (see [`follow_header`](Self::follow_header)),
    /// or, if a large transaction spills before that is written, the unit in which it writes.
    pub(super) fn settle_page_size(&mut self) -> Result<()> {
        if self.page_size().is_some() {
            return Ok(());
        }
        if self.provisional == 0 {
            self.provisional = 4096; // nothing was written, only cut
        }
        self.store.engine().fix_page_size(self.provisional)?;
        self.fixed = true;
        Ok(())
    }

    pub(super) fn repage(&mut self, size: u32) -> Result<()> {
        let (old, end) = (self.provisional, self.set.end.unwrap_or(0));
        let mut bytes = vec![0; old as usize * end as usize];
        for n in 1..=end {
            let at = (n as usize - 1) * old as usize;
            self.read_in_page(PageNo(n), 0, &mut bytes[at..at + old as usize])?;
        }
        let truncated = self.set.truncated;
        self.set.clear();
        self.provisional = size;
        bytes.resize(bytes.len().next_multiple_of(size as usize), 0);
        for (i, page) in bytes.chunks(size as usize).enumerate() {
            self.set.put(PageNo(i as u32 + 1), None, page);
            self.set.end = Some(i as u32 + 1);
        }
        self.set.truncated = truncated;
        Ok(())
    }

    /// Refuses a header of pages of another size: its counts would be taken for counts of ours.
    fn check_page_size(&self, header: &[u8]) -> Result<()> {
        match (mark::page_size(header), self.page_size()) {
            (Some(said), Some(is)) if said != is => {
                let reason = format!("its pages have {is} bytes each, which cannot become {said}");
                Err(Error::ReadOnly { path: self.store.engine().base.path().to_owned(), reason })
            }
            _ => Ok(()),
        }
    }

    /// Settles the size of the database and its header: what @28 says if it can be believed, else the highest end; a
    /// change counter that the transaction did not raise is raised (P1, P6). Pages it adds without writing them are zero.
    fn settle_size(&mut self) -> Result<u32> {
        let old_pages = self.committed_pages()?;
        let mut first = [0u8; mark::HEADER];
        self.read_in_page(PAGE_ONE, 0, &mut first)?;
        self.check_page_size(&first)?;
        let mut committed = [0u8; 4];
        if old_pages > 0 {
            self.read_committed(PAGE_ONE, 24, &mut committed)?;
        }
        let mut changed = false;
        let end = match self.set.end {
            Some(end) if self.set.truncated => end,
            end => end.unwrap_or(0).max(old_pages),
        };
        let size = mark::pages(&first).unwrap_or(end);
        if old_pages > 0 && first[24..28] == committed {
            let counter = crate::format::get_be32(&first, 24).wrapping_add(1).to_be_bytes();
            crate::format::put(&mut first, 24, &counter);
            crate::format::put(&mut first, 92, &counter);
            changed = true;
        }
        if mark::pages(&first) != Some(size) {
            let counter: [u8; 4] = [first[24], first[25], first[26], first[27]];
            crate::format::put(&mut first, 28, &size.to_be_bytes());
            crate::format::put(&mut first, 92, &counter);
            changed = true;
        }
        if changed {
            let page_size = self.page_size().unwrap_or(4096);
            self.write_in_page(PAGE_ONE, page_size, 0, &first)?;
        }
        let hole = self.store.engine().hole();
        let kept = self.set.kept.map_or(old_pages, |kept| kept.min(old_pages));
        for page in (kept + 1..=size).map(PageNo) {
            if self.set.get(page).is_none() && page != hole {
                self.put_zeros(page)?;
            }
        }
        Ok(size)
    }

    /// FCNTL_COMMIT_PHASETWO: commits what was prepared; a no-op without a preparation. Fails only by failing the region.
    /// Releases the writer lock as soon as the commit is published, then waits as `durability` says.
    ///
    /// # Errors
    /// `Failed`, `Forked`.
    pub fn commit(&mut self, durability: Durability) -> Result<()> {
        self.store.engine().check()?;
        let Some(size) = self.prepared.take() else { return Ok(()) };
        self.tell_lent(); // the commit stores in place where no pointer is out
        let engine = self.store.engine();
        let at_once = engine.mapped() || durability == Durability::Process;
        let set = &self.set;
        let shadow = |page: PageNo| match set.get(page) {
            Some(Written::Shadow(v)) => Some(v),
            _ => None,
        };
        let jci = engine.publish(self.slot, &mut self.commit, at_once, &shadow);
        // shadows of pages that were cut off never became versions
        self.set.shadows().filter(|(page, _)| page.0 > size).for_each(|(_, v)| engine.pages.give_back(v));
        self.last_commit = jci;
        self.newest = jci;
        self.pin = Some(jci);
        self.pages = None;
        engine.pages.pump();
        self.set.clear();
        self.release_lock();
        let engine = self.store.engine();
        match durability {
            Durability::Full => engine.flush(self.slot, jci),
            Durability::Process => engine.write_through(self.slot),
        }?;
        self.store.committed();
        crate::refusal::forget();
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_a_large_transaction_is_let_go() -> Result<()> {
        // Failure: a connection keeps, as long as it lives, a list as long as its largest transaction has pages.
        let (_dir, _store, mut session) = crate::whitebox::store();
        session.begin_write()?;
        session.write(0, &mark::empty(512))?;
        (1..20_000).try_for_each(|page| session.write(page * 512, &[7; 512]))?;
        session.prepare()?;
        assert!(session.sorted.capacity() < 10_000, "{} pages", session.sorted.capacity());
        Ok(())
    }
}
