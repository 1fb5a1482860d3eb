//! Applying a commit's groups to the pages: in place where nobody looks, else copy on write (P2). Idempotent: the taker
//! over of a dead writer's lock applies the same record again.

use crate::base::sync::Ordering;
use crate::base::{BlockNo, Jci, PageNo, VirtNo};
use crate::format::entry::Entry;
use crate::format::journal::Change;
use crate::pages::pins::Pins;
use crate::pages::virt::{Place, Virt};
use crate::pages::{Pages, heads};
use crate::shared::count;

const R: Ordering = Ordering::Relaxed;

/// The making of one commit's versions.
pub struct Apply<'a> {
    /// The pages.
    pub pages: &'a Pages,
    /// The commit.
    pub jci: Jci,
    /// What readers look at, `visible` included unless the gate is closed: only then are stores in place allowed.
    pub pins: &'a Pins,
    /// Whether a dead writer may have applied some of it.
    pub again: bool,
    /// Virtblocks made for the shadow blocks that the record names; empty when a dead writer's record is applied.
    pub shadow: &'a dyn Fn(PageNo) -> Option<VirtNo>,
}

impl Apply<'_> {
    /// Applies one group. Everything it needs was reserved.
    pub fn group(&self, page: PageNo, change: Change<'_>) {
        match change {
            Change::Block { index, cold } => self.shadow_block(page, index, cold),
            Change::Ranges { fresh, sum, ranges } => {
                let block = self.block_for(page, fresh);
                let arena = &self.pages.geo().arena;
                for (at, bytes) in ranges {
                    self.pages.note_stored(block, at, bytes.len() as u32);
                    arena.store(block, at, bytes);
                }
                self.pages.change_sum(block, sum);
            }
        }
    }

    fn shadow_block(&self, page: PageNo, index: u32, cold: bool) {
        let place = if cold { Place::Cold(index) } else { Place::Fast(BlockNo(index)) };
        let newest = self.pages.newest(page);
        if newest.is_some_and(|(_, virt)| virt.birth() == self.jci) {
            return; // applied before the writer died
        }
        let older = newest.map_or(VirtNo::NONE, |(v, _)| v);
        let v = (self.shadow)(page).unwrap_or_else(|| self.pages.take_virt(page, self.jci, older));
        let virt = self.pages.virt(v);
        virt.birth.store(self.jci.0, R);
        virt.older.store(older.0, R);
        virt.named.store(1, R);
        virt.dirty.store(self.jci.0, R);
        virt.move_to(place);
        match place {
            Place::Fast(b) => {
                self.pages.block(b).virt.store(v.0, R);
                self.pages.change_entry(b, Some(Entry { page, birth: self.jci }));
            }
            _ => self.pages.shared.head().cold_dirty.store(1, R),
        }
        self.link(page, v);
    }

    /// The block of `virt`, if it may be stored to: it is this commit's own, or nobody sees it.
    fn own_block(&self, virt: &Virt) -> Option<BlockNo> {
        let Place::Fast(b) = virt.place() else { return None };
        let unseen = || self.pins.let_store(self.pages.block(b), virt.birth(), self.jci);
        (virt.birth() == self.jci || unseen()).then_some(b)
    }

    /// Why a group of ranges cannot be applied, for who applies what another one reserved for.
    pub fn lacks(&self, page: PageNo, fresh: bool) -> Option<&'static str> {
        let newest = self.pages.newest(page).map(|(_, virt)| virt);
        if newest.is_some_and(|virt| self.own_block(virt).is_some()) {
            return None;
        }
        match newest.map(Virt::place) {
            Some(Place::Fast(_)) => {}
            _ if fresh => {}
            _ => return Some("a page that it changes is not in the fast tier"),
        }
        (self.pages.free_blocks() == 0).then_some("no free block")
    }

    /// The block to store into: the current one, cleared if `fresh`, or a copy.
    fn block_for(&self, page: PageNo, fresh: bool) -> BlockNo {
        let (pages, arena) = (self.pages, &self.pages.geo().arena);
        let newest = pages.newest(page);
        if let Some((_, virt)) = newest
            && let Some(b) = self.own_block(virt)
        {
            let dirty = virt.dirty.load(R);
            if dirty == 0 && self.pages.entry(b).is_none_or(|entry| entry.page != page) {
                // until now its home would have done: from here on the block is the page's place, all of it. A block that is
                // that already stays it since when it was: were its entry as young as this commit, and so not believed after
                // a crash, that of an older version's block would be
                self.pages.note_stored(b, 0, arena.size());
                self.pages.change_entry(b, Some(Entry { page, birth: self.jci }));
            }
            if dirty != self.jci.0 {
                virt.dirty.store(self.jci.0, Ordering::Release);
                count(&pages.shared.head().counters.pages_in_place, 1);
            }
            if fresh {
                self.pages.note_stored(b, 0, arena.size());
                arena.zero(b);
            }
            return b;
        }
        count(&pages.shared.head().counters.pages_copied, 1);
        let older = newest.map_or(VirtNo::NONE, |(v, _)| v);
        let v = pages.take_virt(page, self.jci, older);
        let b = pages.take_block(v).expect("prepare reserved a block for every page");
        self.pages.note_stored(b, 0, arena.size());
        match newest.map(|(_, virt)| virt.place()) {
            Some(Place::Fast(old)) if !fresh => arena.copy(old, b),
            _ => {
                // not for debugging only: the page would be zeros but for what this commit changes
                assert!(fresh, "prepare brought page {page} in");
                arena.zero(b);
            }
        }
        pages.change_entry(b, Some(Entry { page, birth: self.jci }));
        let virt = pages.virt(v);
        virt.dirty.store(self.jci.0, R);
        virt.move_to(Place::Fast(b));
        self.link(page, v);
        b
    }

    /// Publishes `v` as the newest version, and takes out those behind it that nobody sees.
    fn link(&self, page: PageNo, v: VirtNo) {
        let older = self.pages.virt(v).older();
        if self.again && older != VirtNo::NONE {
            self.disown(page, self.pages.virt(older));
        }
        heads::set(&self.pages.shared, page, v, self.pages.virt(v).place());
        self.pages.prune(v, self.pins);
    }

    /// The dead writer may have said of the block of `older` that it is the page's place from this commit on, and begun to
    /// store there; the next one to look found it seen, if only by a reader that came and went, and copied it. The page has
    /// one place of that birth: the copy. That of `older` is its home again, as when the dead writer found it.
    fn disown(&self, page: PageNo, older: &Virt) {
        if let Place::Fast(b) = older.place()
            && self.pages.entry(b) == Some(Entry { page, birth: self.jci })
        {
            older.dirty.store(0, R); // first: who finds that, and the entry gone, makes the entry again
            self.pages.change_entry(b, None);
        }
    }
}
