//! xFetch and xUnfetch: pointers to pages, without a copy.
//!
//! A pointer that is out is counted in its block's flags and in the connection's slot (P12), so that nobody stores into the
//! block or reuses it. While this connection holds the writer lock, it alone could do that: the pointers handed out
//! meanwhile are only remembered here, and are counted before it commits, makes room or gives the lock back. Nearly all
//! have come back by then, and so cost no store that another processor sees.

use super::{PAGE_ONE, R, Session};
use crate::base::{BlockNo, PageNo, Result};
use crate::pages::virt::{Place, Virt};

/// A pointer that is out and not counted yet.
#[derive(Clone, Copy)]
pub(super) struct Lent {
    address: usize,
    block: BlockNo,
}

impl Session {
    /// xFetch: a pointer to `len` bytes at `offset`, valid and unchanged until [`unfetch`](Self::unfetch); `None` at any
    /// time (not in the fast tier, page 1, written by this transaction, not within one page, under pressure).
    ///
    /// # Errors
    /// `Failed`, `Forked`.
    pub fn fetch(&mut self, offset: u64, len: usize) -> Result<Option<*const u8>> {
        self.store.engine().check()?;
        let (Some(pin), Some(page_size)) = (self.pin, self.page_size()) else { return Ok(None) };
        let Some((page, within)) = PageNo::at(offset, page_size) else { return Ok(None) };
        let whole = u64::from(within) + len as u64 <= u64::from(page_size);
        let own = self.set.get(page).is_some() || self.set.has_cut(page);
        if !whole || page == PAGE_ONE || own || page.0 > self.committed_pages()? {
            return Ok(None);
        }
        let engine = self.store.engine();
        let head = engine.shared.head();
        if engine.pages.free_blocks() == 0 && head.grace.first.load(R) != 0 {
            return Ok(None);
        }
        let found = |virt: Option<&Virt>| match virt.map(Virt::place) {
            Some(Place::Fast(b)) => {
                virt.into_iter().for_each(Virt::touch);
                Some((engine.pages.geo().arena.address(b, within), b))
            }
            _ => None,
        };
        if self.holding {
            let found = found(engine.pages.version(page, pin));
            self.lent.extend(found.map(|(at, block)| Lent { address: at.addr(), block }));
            return Ok(found.map(|(at, _)| at));
        }
        let slot = engine.shared.slots().get(self.slot);
        slot.begin_copy();
        let found = found(engine.pages.version(page, pin));
        if let Some((_, block)) = found {
            engine.pages.block(block).lend(slot);
        }
        slot.end_copy();
        Ok(found.map(|(at, _)| at))
    }

    /// Counts the pointers that were only remembered.
    pub(super) fn tell_lent(&mut self) {
        if self.lent.is_empty() {
            return;
        }
        let engine = self.store.engine();
        let slot = engine.shared.slots().get(self.slot);
        slot.begin_copy();
        for lent in self.lent.drain(..) {
            engine.pages.block(lent.block).lend(slot);
        }
        slot.end_copy();
    }

    /// xUnfetch of one pointer that [`fetch`](Self::fetch) answered.
    pub fn unfetch(&mut self, _offset: u64, pointer: *const u8) {
        // the last one handed out is nearly always the first to come back
        if let Some(i) = self.lent.iter().rposition(|lent| lent.address == pointer.addr()) {
            self.lent.swap_remove(i);
            return;
        }
        let engine = self.store.engine();
        if !engine.forked() {
            let slot = engine.shared.slots().get(self.slot);
            match engine.pages.geo().arena.block_at(pointer) {
                Some(b) => engine.pages.block(b).give_back(slot),
                None => slot.drop_fetch(),
            }
        }
    }
}
