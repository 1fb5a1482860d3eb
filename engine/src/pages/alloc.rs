//! Blocks and virtblocks: taken and given back under the writer lock only.
//!
//! The way of a virtblock that was unlinked: `limbo` (until no grace period is running), `grace` (until every read that
//! was in progress has ended, P12), `aging` (until the low-water mark that frees it is durable: what a durable entry or a
//! journal entry refers to is not reused before its replacement is durable, P17), `cleared` (its durable entry is
//! cleared; until the next fence), free. After a holder's death all lists are rebuilt from what is reachable.

use super::virt::{Block, Place, Virt};
use super::{Pages, heads};
use crate::base::bytes::prefetch;
use crate::base::sync::{AtomicU32, Ordering};
use crate::base::{BlockNo, Error, Jci, PageNo, Result, VirtNo};
use crate::format::entry::{ENTRY, Entry};
use crate::format::journal::SLOT;
use crate::medium::Site;
use crate::shared::{List, MAX_VIRTS};
use crate::shm::{Grace, now};
use std::collections::HashSet;
use std::ops::RangeInclusive;

const R: Ordering = Ordering::Relaxed;
/// Bytes by which the fast tier grows.
const GROW: u64 = 1 << 20;
/// Room that blocks leave to what stands beside them in the shared mapping, without which nothing can be committed; and to
/// what the log has yet to get.
const SPARE: u64 = 8 << 20;
/// For how long an attempt to grow that found no room keeps others from trying that can do without.
const NO_ROOM: u64 = 100_000_000;
/// Virtblocks made present at a time.
const GROW_VIRTS: RangeInclusive<u32> = 1024..=16384;
/// How far ahead of a walk through the blocks what stands beside them is asked for.
const AHEAD: usize = 16;
/// Entries cleared under one fence at most.
const CLEAR: usize = 512;

impl Pages {
    pub(super) fn free_stack(&self) -> &[AtomicU32] {
        self.shared.array(self.shared.places.free, u64::from(self.geo().layout.max_blocks))
    }

    /// Fixes the page size in this mapping: makes the arrays beside the blocks present, then publishes it. Another may have
    /// been fixed, of which nothing was committed; then the entries are durable after the caller's next fence. Under the
    /// writer lock, or before anybody is attached.
    pub fn fix_page_size(&self, page_size: u32) -> Result<()> {
        let head = self.shared.head();
        let before = head.page_size.load(R);
        if before == u64::from(page_size) {
            return Ok(());
        }
        let layout = self.shape(page_size).layout;
        let (p, n) = (&self.shared.places, u64::from(layout.max_blocks));
        self.shared.segment.commit(p.free, n * 4)?;
        self.shared.segment.commit(p.touched, n * 8)?;
        if let Some(pmem) = &self.pmem {
            // how long it must be is not known before
            if pmem.len() < layout.len() {
                return Err(self.corrupt("region", format!("{} bytes of {}: it was cut", pmem.len(), layout.len())));
            }
            pmem.allocate(layout.entries_at(), n * ENTRY)?;
        }
        if before == 0 {
            heads::init(&self.shared)?;
        } else {
            self.forget_blocks(layout.entries_at(), n * ENTRY);
        }
        head.page_size.store(u64::from(page_size), Ordering::Release);
        Ok(())
    }

    /// Forgets all blocks, which nothing refers to: they get another size. In an order that leaves a taker over of the writer
    /// lock, if the caller dies, blocks of the old size or none. What stands where entries are going to be, becomes zero.
    fn forget_blocks(&self, entries: u64, len: u64) {
        let head = self.shared.head();
        for virt in (1..head.virts_present.load(R)).map(|v| self.virt(VirtNo(v))) {
            if let Place::Fast(_) = virt.place() {
                virt.move_to(Place::Home); // on its way to be free, after a death: its block must not be
            }
        }
        for b in 0..head.blocks_present.load(R) {
            self.block(BlockNo(b)).stored.store(0, R); // who has bytes noted is not noted again
        }
        head.free_blocks.store(0, Ordering::Release);
        head.blocks_present.store(0, Ordering::Release);
        head.sweep_hand.store(0, R);
        // who took over a dead holder's lock has noted all blocks: of larger ones there may be no such numbers
        head.touched.store(0, R);
        if let Some(pmem) = &self.pmem {
            pmem.zero(entries, len);
            pmem.flush(Site::ForgetEntries, entries, len);
        }
    }

    /// Free blocks that can be taken at once.
    #[must_use]
    pub fn free_blocks(&self) -> u32 {
        self.shared.head().free_blocks.load(R)
    }

    /// Whether an attempt to grow is worth it for who can do without.
    #[must_use]
    pub fn may_grow(&self) -> bool {
        let since = self.no_room.load(R);
        self.shared.head().blocks_present.load(R) < self.geo().layout.max_blocks
            && (since == 0 || now().saturating_sub(since) > NO_ROOM)
    }

    /// Blocks that there will be at most, as far as this process knows: fewer than the budget allows if there was no room for
    /// more.
    #[must_use]
    pub fn most_blocks(&self) -> u32 {
        let most = self.geo().layout.max_blocks;
        if self.no_room.load(R) == 0 { most } else { self.shared.head().blocks_present.load(R).clamp(16, most) }
    }

    /// Grows the fast tier within its budget. False if it cannot: the budget is reached, or there is no room.
    pub fn grow(&self) -> Result<bool> {
        let (head, geo) = (self.shared.head(), self.geo());
        let present = head.blocks_present.load(R);
        let step = ((GROW / u64::from(geo.arena.size())) as u32).clamp(4, geo.layout.max_blocks);
        let n = step.min(geo.layout.max_blocks - present);
        if n == 0 {
            return Ok(false);
        }
        let bytes = u64::from(n) * u64::from(geo.arena.size());
        let ring = if geo.layout.blocks_inside { 0 } else { geo.layout.ring_slots - head.ring_present.load(R) };
        let spare = SPARE + ring * SLOT as u64;
        let cramped = present > 0 && self.shared.segment.room() < bytes + spare;
        let allocate = || self.back_blocks(present, n).and_then(|()| geo.arena.allocate(present, n));
        match if cramped { None } else { Some(allocate()) } {
            Some(Ok(())) => {}
            None | Some(Err(Error::Full { .. })) => {
                self.no_room.store(now(), R);
                return Ok(false);
            }
            Some(Err(error)) => return Err(error),
        }
        self.no_room.store(0, R);
        // here, where no reader waits: their first stores may be behind a closed gate (P2)
        geo.arena.touch(present, n);
        if let Some(pmem) = &self.pmem {
            pmem.touch(geo.layout.entries_at() + u64::from(present) * ENTRY, u64::from(n) * ENTRY);
        }
        head.blocks_present.store(present + n, Ordering::Release);
        for b in (present..present + n).rev() {
            self.push_block(BlockNo(b));
        }
        Ok(true)
    }

    /// Gives memory to what stands beside `n` blocks, from `first` on.
    pub fn back_blocks(&self, first: u32, n: u32) -> Result<()> {
        let (at, each) = (self.shared.places.blocks, size_of::<Block>() as u64);
        self.shared.segment.commit(at + u64::from(first) * each, u64::from(n) * each)
    }

    /// Puts a block on the free stack.
    pub fn push_block(&self, b: BlockNo) {
        let head = self.shared.head();
        let top = head.free_blocks.load(R);
        self.disconnect(b, VirtNo::NONE);
        self.free_stack()[top as usize].store(b.0, R);
        head.free_blocks.store(top + 1, Ordering::Release); // what a dead holder leaves below the top is free
    }

    /// Takes a free block for `virt`.
    pub fn take_block(&self, virt: VirtNo) -> Option<BlockNo> {
        let head = self.shared.head();
        let top = head.free_blocks.load(R).checked_sub(1)?;
        let b = BlockNo(self.free_stack()[top as usize].load(R));
        head.free_blocks.store(top, R);
        self.disconnect(b, virt);
        Some(b)
    }

    /// Gives a block that nobody looks at to `virt`, or to nobody.
    fn disconnect(&self, b: BlockNo, virt: VirtNo) {
        let block = self.block(b);
        block.virt.store(virt.0, R);
        block.fetched.store(0, R);
        block.entry_changed.store(0, R);
    }

    fn touched_list(&self) -> &[AtomicU32] {
        // there is room for twice the blocks, of which each is noted once
        self.shared.array(self.shared.places.touched, 2 * u64::from(self.geo().layout.max_blocks))
    }

    /// Notes bytes of a block that the next retirement has to flush (`dax`, `ram`), before they are stored: a dead writer's
    /// stores are known, too. Of no bytes, that its entry is to change.
    pub fn note_stored(&self, b: BlockNo, at: u32, len: u32) {
        if self.pmem.is_none() {
            return;
        }
        let block = self.block(b);
        let seen = block.stored.load(R);
        if seen == 0 && block.entry_changed.load(R) == 0 {
            self.push_touched(b);
        }
        if len > 0 {
            let unit = self.unit();
            let (first, last) = (at / unit, (at + len - 1) / unit);
            let mask = (u64::MAX >> (63 - last)) & (u64::MAX << first);
            block.stored.store(seen | mask, R);
        }
    }

    /// Changes a block's durable entry; the next retirement flushes it, whoever dies meanwhile.
    pub fn change_entry(&self, b: BlockNo, entry: Option<Entry>) {
        if self.pmem.is_some() {
            self.note_stored(b, 0, 0);
            self.block(b).entry_changed.store(1, R);
            self.store_entry(b, entry);
        }
    }

    /// Notes the checksum of what a block that was noted holds now; the next retirement makes it durable with the entry.
    pub fn change_sum(&self, b: BlockNo, sum: u64) {
        self.block(b).sum.store(sum, R);
        self.block(b).entry_changed.store(1, R);
    }

    /// Bytes for which one bit of a block's mask stands: a 64th, but no less than a line.
    fn unit(&self) -> u32 {
        (self.geo().arena.size() / 64).max(64)
    }

    fn push_touched(&self, b: BlockNo) {
        let head = self.shared.head();
        let n = head.touched.load(R);
        self.touched_list()[n as usize].store(b.0, R);
        head.touched.store(n + 1, Ordering::Release);
    }

    /// Starts the write-back of every line and entry stored to since the last retirement, each once (P17); durable after
    /// the caller's fence. Answers the lines flushed.
    pub fn flush_touched(&self) -> u64 {
        let (head, arena, unit) = (self.shared.head(), &self.geo().arena, self.unit());
        let mut lines = 0;
        let touched = &self.touched_list()[..head.touched.load(R) as usize];
        for (i, b) in touched.iter().enumerate() {
            if let Some(coming) = touched.get(i + AHEAD) {
                prefetch(self.block(BlockNo(coming.load(R))));
            }
            let b = BlockNo(b.load(R));
            let block = self.block(b);
            // no read-modify-write between the flushes: it would wait for each of them. Noted until they are flushed, for a
            // taker over of this lock
            let mut mask = block.stored.load(R);
            while mask != 0 {
                let first = mask.trailing_zeros();
                let run = (!(mask >> first)).trailing_zeros();
                lines += arena.flush(Site::RetireLines, b, first * unit, run * unit);
                mask = if first + run == 64 { 0 } else { mask >> (first + run) << (first + run) };
            }
            block.stored.store(0, R);
            if block.entry_changed.load(R) != 0 {
                self.store_entry_sum(b, block.sum.load(R));
                lines += self.flush_entry(Site::RetireEntry, b);
                block.entry_changed.store(0, R);
            }
        }
        head.touched.store(0, R);
        lines
    }

    /// Makes sure that `n` virtblocks can be taken.
    pub fn reserve_virts(&self, n: u32) -> Result<()> {
        let head = self.shared.head();
        // a repair goes through all: no more than a small fast tier may use
        let small = self.geometry().map_or(u32::MAX, |g| g.layout.max_blocks.saturating_mul(8));
        let step = small.clamp(*GROW_VIRTS.start(), *GROW_VIRTS.end());
        while head.free_virts.load(R) < n {
            let present = head.virts_present.load(R);
            let first = present.max(1);
            if u64::from(present) + u64::from(step) > MAX_VIRTS {
                return Err(Error::Full {
                    path: self.shared.region().to_owned(),
                    what: "page versions",
                    cause: format!("all {MAX_VIRTS} virtblocks are in use"),
                });
            }
            let size = size_of::<Virt>() as u64;
            let (at, len) = (self.shared.places.virts + u64::from(present) * size, u64::from(step) * size);
            self.shared.segment.commit(at, len)?;
            self.shared.segment.prefer_huge(at, len);
            for v in (first..present + step).rev() {
                self.push_virt(VirtNo(v));
            }
            head.virts_present.store(present + step, Ordering::Release);
        }
        Ok(())
    }

    fn push_virt(&self, v: VirtNo) {
        let (head, virt) = (self.shared.head(), self.virt(v));
        virt.move_to(Place::Free);
        virt.link.store(head.free_virt.load(R), R);
        head.free_virt.store(v.0, R);
        head.free_virts.store(head.free_virts.load(R) + 1, R);
    }

    /// Takes a virtblock and fills it in; unreachable until linked. Room was made by [`reserve_virts`](Self::reserve_virts).
    pub fn take_virt(&self, page: PageNo, birth: Jci, older: VirtNo) -> VirtNo {
        let head = self.shared.head();
        let v = VirtNo(head.free_virt.load(R));
        assert!(v != VirtNo::NONE, "virtblocks were reserved");
        let virt = self.virt(v);
        head.free_virt.store(virt.link.load(R), R);
        head.free_virts.store(head.free_virts.load(R) - 1, R);
        virt.page.store(page.0, R);
        virt.birth.store(birth.0, R);
        virt.older.store(older.0, R);
        virt.used.store(1, R);
        virt.dirty.store(0, R);
        virt.until.store(0, R);
        virt.named.store(0, R);
        v
    }

    /// Gives back at once a virtblock that nothing refers to and nobody reads, with its block.
    pub fn give_back(&self, v: VirtNo) {
        self.free_place(self.virt(v).place());
        self.push_virt(v);
    }

    /// Gives back at once the block of a place that nothing refers to.
    pub fn free_place(&self, place: Place) {
        match place {
            Place::Fast(b) => self.push_block(b),
            Place::Cold(c) => {
                self.cold_owner(c).store(0, R);
                let head = self.shared.head();
                head.cold_free.store(head.cold_free.load(R) + 1, R);
                head.cold_unused.store(head.cold_unused.load(R) + 1, R);
            }
            Place::Home | Place::Free => {}
        }
    }

    /// Gives back a virtblock with its block once the low-water mark has passed `until`.
    pub fn retire_block(&self, v: VirtNo, until: Jci) {
        self.virt(v).until.store(until.0, R);
        self.append(&self.shared.head().aging, v);
    }

    fn append(&self, list: &List, v: VirtNo) {
        self.virt(v).link.store(0, R);
        match list.last.load(R) {
            0 => list.first.store(v.0, R),
            last => self.virt(VirtNo(last)).link.store(v.0, R),
        }
        list.last.store(v.0, R);
    }

    fn pop(&self, list: &List) -> Option<VirtNo> {
        let v = VirtNo(list.first.load(R));
        if v == VirtNo::NONE {
            return None;
        }
        let next = self.virt(v).link.load(R);
        list.first.store(next, R);
        if next == 0 {
            list.last.store(0, R);
        }
        Some(v)
    }

    /// Gives back a virtblock that was just unlinked: see [`Chain::discard`](super::chain::Chain::discard).
    pub fn discard(&self, v: VirtNo, until: Jci, quiet: bool) {
        let virt = self.virt(v);
        let head = self.shared.head();
        let must_clear = matches!(virt.place(), Place::Fast(_)) && self.pmem.is_some();
        let must_age = must_clear || virt.named.load(R) != 0;
        if quiet && !must_age && !self.is_fetched(v) {
            return self.give_back(v);
        }
        virt.until.store(if must_age { until.0 } else { 0 }, R);
        self.append(if quiet { &head.aging } else { &head.limbo }, v);
    }

    /// Whether a pointer into its block is out. A count that a dead process left does not stand longer than the pointers
    /// of the living.
    fn is_fetched(&self, v: VirtNo) -> bool {
        match self.virt(v).place() {
            Place::Fast(b) => self.block(b).is_fetched() && self.shared.slots().fetches_out(),
            _ => false,
        }
    }

    /// The first virtblock of `aging` whose time has come, taken off; those with pointers out go round once more.
    fn pop_aged(&self) -> Option<VirtNo> {
        let head = self.shared.head();
        let (attested, last) = (head.attested.load(R), head.aging.last.load(R));
        loop {
            let v = VirtNo(head.aging.first.load(R));
            if v == VirtNo::NONE || self.virt(v).until.load(R) > attested {
                return None;
            }
            self.pop(&head.aging);
            if !self.is_fetched(v) {
                return Some(v);
            }
            self.append(&head.limbo, v);
            if v.0 == last {
                return None;
            }
        }
    }

    /// Replaces a virtblock's block, fast or cold, by another place, and gives the block back when nobody reads it any more.
    pub fn vacate(&self, v: VirtNo, place: Place, until: Jci) {
        let virt = self.virt(v);
        let old = virt.place();
        let carrier = self.take_virt(virt.page(), virt.birth(), VirtNo::NONE);
        let taken = self.virt(carrier);
        taken.named.store(virt.named.load(R), R);
        taken.move_to(old);
        match old {
            Place::Fast(b) => self.block(b).virt.store(carrier.0, R),
            Place::Cold(c) => self.cold_owner(c).store(carrier.0, R),
            Place::Home | Place::Free => {}
        }
        virt.move_to(place);
        virt.named.store(0, R); // it is the old block that the journal names
        self.discard(carrier, until, false);
    }

    /// Clears the durable entries of the versions behind `newest`, which readers may still need but recovery must not
    /// believe once the newest one's only place is its home. Durable after the caller's fence, which comes before the
    /// low-water mark moves and the newest one's entry is cleared.
    pub fn clear_older_entries(&self, newest: VirtNo) {
        if self.pmem.is_none() {
            return;
        }
        let page = self.virt(newest).page();
        let mut at = self.virt(newest).older();
        while at != VirtNo::NONE {
            // one that a dead writer cleared is flushed by the next retirement: its rebuild has noted that
            if let Place::Fast(b) = self.virt(at).place()
                && self.entry(b).is_some_and(|entry| entry.page == page)
            {
                self.store_entry(b, None);
                self.flush_entry(Site::OlderEntry, b);
            }
            at = self.virt(at).older();
        }
    }

    /// Whether blocks are on their way to be free.
    #[must_use]
    pub fn waiting(&self) -> bool {
        let head = self.shared.head();
        [&head.limbo, &head.grace, &head.aging].iter().any(|list| list.first.load(R) != 0)
    }

    /// Moves what can move: a few list operations, no waiting.
    pub fn pump(&self) {
        let head = self.shared.head();
        if head.limbo.first.load(R) == 0 && head.grace.first.load(R) == 0 && head.aging.first.load(R) == 0 {
            return;
        }
        if head.grace.first.load(R) != 0 && self.grace_over() {
            while let Some(v) = self.pop(&head.grace) {
                // a frame survives nothing and is named by nothing: only pointers into it can keep it
                let waits = self.pmem.is_some() || self.virt(v).until.load(R) != 0 || self.is_fetched(v);
                if waits { self.append(&head.aging, v) } else { self.give_back(v) }
            }
        }
        if head.grace.first.load(R) == 0 && head.limbo.first.load(R) != 0 {
            while let Some(v) = self.pop(&head.limbo) {
                self.append(&head.grace, v);
            }
            head.grace_epoch.store(head.grace_epoch.load(R).wrapping_add(1), R);
            self.grace_over();
        }
        if self.pmem.is_none() {
            while let Some(v) = self.pop_aged() {
                self.give_back(v);
            }
        }
    }

    /// Whether every read that could reach the list `grace` when it was filled is gone. A process that
    /// sees the list for the first time measures from now on, which is later than needed and so right.
    fn grace_over(&self) -> bool {
        let epoch = self.shared.head().grace_epoch.load(R);
        let mut state = self.grace.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let slots = self.shared.slots();
        if state.0 != epoch || state.1.is_none() {
            *state = (epoch, Some(Grace::begin(slots)));
        }
        state.1.as_mut().is_some_and(|grace| grace.passed(slots))
    }

    /// Clears the durable entries of blocks whose time has come; persistent, and so free, after the caller's fence and
    /// [`after_fence`](Self::after_fence). One page never twice under one fence: were the younger entry cleared and the
    /// older not, a crash would bring old content back. Answers the lines flushed.
    pub fn clear_entries(&self) -> u64 {
        let head = self.shared.head();
        let attested = head.attested.load(R);
        let (mut lines, mut pages) = (0, HashSet::new());
        loop {
            let v = VirtNo(head.aging.first.load(R));
            if v == VirtNo::NONE || self.virt(v).until.load(R) > attested || pages.len() >= CLEAR {
                return lines;
            }
            if !pages.insert(self.virt(v).page()) {
                return lines;
            }
            self.pop(&head.aging);
            if let Place::Fast(b) = self.virt(v).place()
                && self.pmem.is_some()
            {
                self.store_entry(b, None);
                lines += self.flush_entry(Site::ClearEntry, b);
            }
            self.append(&head.cleared, v);
        }
    }

    /// Frees what [`clear_entries`](Self::clear_entries) cleared, after a fence of the same thread. Those with pointers
    /// out go round once more; their entries are gone already, in the order that recovery needs. Answers how many are free.
    pub fn after_fence(&self) -> u32 {
        let (head, mut freed) = (self.shared.head(), 0);
        while let Some(v) = self.pop(&head.cleared) {
            if self.is_fetched(v) {
                self.append(&head.limbo, v);
            } else {
                self.give_back(v);
                freed += 1;
            }
        }
        freed
    }

    /// Rebuilds every list after the death of a lock holder, from what is reachable. What is not, somebody may still be
    /// reading, and the journal may name it: it goes the whole way. `keep` are places that the commit which the dead one
    /// left half done names; they stay out of use until that is done. `newest` is that commit, or the newest published: what
    /// it superseded may be reused no sooner than it is durable.
    pub fn rebuild(&self, keep: &HashSet<Place>, newest: Jci) {
        let head = self.shared.head();
        if self.geometry().is_none() {
            return;
        }
        heads::recount(&self.shared);
        for list in [&head.limbo, &head.grace, &head.aging, &head.cleared] {
            list.first.store(0, R);
            list.last.store(0, R);
        }
        head.free_virt.store(0, R);
        head.free_virts.store(0, R);
        let mut live = vec![false; head.virts_present.load(R) as usize];
        for (_, first) in heads::all(&self.shared) {
            let mut at = first;
            while at != VirtNo::NONE && !std::mem::replace(&mut live[at.0 as usize], true) {
                at = self.virt(at).older();
            }
        }
        let mut used: HashSet<Place> = keep.clone();
        for v in (1..live.len()).filter(|&v| live[v]).map(|v| VirtNo(v as u32)) {
            let place = self.virt(v).place();
            if let Place::Fast(b) = place {
                // a move that was not finished had given it to another, and no sweep would find it again
                self.block(b).virt.store(v.0, R);
            }
            used.insert(place);
        }
        self.rebuild_stack(&mut used);
        self.rebuild_touched();
        let mut gone = Vec::new();
        for v in (1..live.len()).filter(|&v| !live[v]).map(|v| VirtNo(v as u32)) {
            match self.virt(v).place() {
                Place::Free => self.push_virt(v),
                place @ (Place::Fast(_) | Place::Cold(_)) if !used.insert(place) => self.push_virt(v),
                _ => gone.push(v),
            }
        }
        let blocks = (0..head.blocks_present.load(R)).map(|b| Place::Fast(BlockNo(b)));
        gone.extend(blocks.filter(|place| !used.contains(place)).filter_map(|place| self.orphan(place)));
        let mut free = 0;
        for c in 0..head.cold_present.load(R) {
            match (self.cold_owner(c).load(R), used.contains(&Place::Cold(c))) {
                (0, false) => free += 1,
                (0, true) => self.cold_owner(c).store(u32::MAX, R),
                (_, true) => {}
                (_, false) => gone.extend(self.orphan(Place::Cold(c))),
            }
        }
        head.cold_free.store(free, R);
        self.rebuild_limbo(gone, newest);
    }

    /// Sends what nothing leads to on the way to be free, in the order in which a page's entries are to be cleared: the oldest
    /// first (see [`clear_entries`](Self::clear_entries)).
    fn rebuild_limbo(&self, mut gone: Vec<VirtNo>, until: Jci) {
        gone.iter().for_each(|&v| self.disown(self.virt(v).place()));
        let entry = |v: VirtNo| if let Place::Fast(b) = self.virt(v).place() { self.entry(b) } else { None };
        gone.sort_by_cached_key(|&v| entry(v).map_or(Jci::ZERO, |entry| entry.birth));
        for v in gone {
            self.virt(v).until.store(until.0, R);
            self.append(&self.shared.head().limbo, v);
        }
    }

    /// Notes afresh what the next retirement has to flush: with it the entries that are cleared, for the dead one may have
    /// stored that and not begun to write it back.
    fn rebuild_touched(&self) {
        let head = self.shared.head();
        head.touched.store(0, R);
        for b in (0..head.blocks_present.load(R)).map(BlockNo).filter(|_| self.pmem.is_some()) {
            let block = self.block(b);
            if self.entry(b).is_none() {
                block.entry_changed.store(1, R);
            }
            if block.stored.load(R) != 0 || block.entry_changed.load(R) != 0 {
                self.push_touched(b);
            }
        }
    }

    /// Keeps of the free stack what is free: below its top, in use by nobody, and only once. Until that is done the top stays,
    /// for what is above it when a repair dies is out of use, and the next one may lack it to finish a commit.
    fn rebuild_stack(&self, used: &mut HashSet<Place>) {
        let (head, stack, mut kept) = (self.shared.head(), self.free_stack(), 0);
        for i in 0..head.free_blocks.load(R) as usize {
            let b = BlockNo(stack[i].load(R));
            if b.0 < head.blocks_present.load(R) && used.insert(Place::Fast(b)) {
                self.disconnect(b, VirtNo::NONE);
                stack[kept].store(b.0, R); // read already
                kept += 1;
            }
        }
        head.free_blocks.store(kept as u32, Ordering::Release);
    }

    /// Clears the entry of an unreachable block if its page is to have another place of the same birth: that of the commit in
    /// progress, which is not believed yet, or that of a version in the cold file that was being brought in.
    fn disown(&self, place: Place) {
        let Place::Fast(b) = place else { return };
        let Some(Entry { page, birth }) = self.entry(b) else { return };
        let in_cold = |virt: &Virt| matches!(virt.place(), Place::Cold(_)) && virt.dirty.load(R) == birth.0;
        if birth > self.shared.published() || self.newest(page).is_some_and(|(_, virt)| in_cold(virt)) {
            self.change_entry(b, None);
        }
    }

    /// A virtblock for a block that nothing names.
    fn orphan(&self, place: Place) -> Option<VirtNo> {
        self.reserve_virts(1).ok()?; // lost until the mapping is built anew: less room, nothing wrong
        let page = match place {
            Place::Fast(b) => self.entry(b).map_or(PageNo(u32::MAX), |e| e.page),
            _ => PageNo(u32::MAX),
        };
        let v = self.take_virt(page, Jci::ZERO, VirtNo::NONE);
        let virt = self.virt(v);
        virt.move_to(place);
        virt.named.store(1, R);
        Some(v)
    }
}
