//! The commit. [`Engine::publish`] is the commit point on one screen; [`Engine::repair`] finishes a dead writer's.

use crate::apply::Apply;
use crate::base::limits::GATE_PAGES;
use crate::base::sync::Ordering;
use crate::base::{Error, Jci, PageNo, Result, VirtNo};
use crate::engine::{COMMITTED, Engine, Region};
use crate::format::journal::{Change, HEADER, Header, MAX_PARTS, Packer, SLOT, groups};
use crate::medium::Site;
use crate::pages::pins::Pins;
use crate::pages::virt::Place;
use crate::shared::count;
use crate::shm::{BLOCK_SLOTS, SlotNo};
use std::collections::HashSet;

const R: Ordering = Ordering::Relaxed;

/// A commit that was prepared: everything it needs is reserved.
#[derive(Default)]
pub struct Prepared {
    /// Its record, headers to be filled in.
    pub packer: Packer,
    /// Pages it touches.
    pub pages: usize,
    /// Pins, gathered at the commit; kept for its memory.
    pub pins: Pins,
    /// Whether it shrinks the database.
    pub shrinks: bool,
}

impl Engine {
    /// Whether the ring has room for a record of `parts` slots at all: half of it, so that the other half may be in use.
    #[must_use]
    pub fn ring_holds(&self, parts: usize) -> bool {
        parts <= MAX_PARTS && parts as u64 + 2 * BLOCK_SLOTS <= self.layout.ring_slots / 2
    }

    /// The commit, under the writer lock: writes the record, persists it once (`dax`, `ram`) or leaves it to the batch
    /// (`file`), applies, publishes. `at_once` makes it visible in the same step. Cannot fail. Answers its JCI.
    pub fn publish(
        &self,
        slot: SlotNo,
        prepared: &mut Prepared,
        at_once: bool,
        shadow: &dyn Fn(PageNo) -> Option<VirtNo>,
    ) -> Jci {
        let (head, slots) = (self.shared.head(), self.shared.slots());
        let change = self.shared.begin();
        self.pages.settle();
        let jci = head.clock.published().next();
        let parts = prepared.packer.parts();
        let position = head.ring.begin(jci, parts as u64, self.mapped());
        let retire = self.write_record(jci, position, &mut prepared.packer);
        if let Region::Pmem(pmem) = &self.region {
            // from here on the commit is durable: stores in place may follow, in any order
            pmem.fence(Site::CommitFence);
            count(&head.counters.fences, 1);
            self.retired_by_fence(retire, position);
            head.clock.set_durable_at_once(jci);
            // before the gate, whose fence keeps the stores in place behind it
            self.say_applied(pmem.as_ref(), jci);
        }

        // more pages keep arriving readers out for longer: only where none can arrive, bar a connection that is just opened
        let gate = at_once && (prepared.pages <= GATE_PAGES || slots.used().nth(2).is_none());
        prepared.pins.make_room(slots);
        if gate {
            head.clock.close_gate(slots.holder(slot));
        }
        prepared.pins.gather(slots, Some(slot), (!gate).then(|| head.clock.visible()));
        self.apply_record(jci, &mut prepared.packer, &prepared.pins, shadow);
        if prepared.shrinks {
            head.shrunk.store(jci.0, R);
        }
        head.ring.publish(position + parts as u64, || {
            slots.get(slot).set_pin(jci);
            slots.get(slot).words[COMMITTED].store(jci.0, R);
            if gate {
                head.clock.open_gate_at(jci, slots.get(slot));
            } else {
                head.clock.publish(jci);
                if at_once {
                    head.clock.set_visible(jci);
                }
            }
        });
        count(&head.counters.commits, 1);
        change.done();
        jci
    }

    /// Writes the parts; on `dax` and `ram` they are on their way to the medium. Answers whether what earlier commits
    /// stored in place is, too, and so will be retired by the coming fence.
    fn write_record(&self, jci: Jci, position: u64, packer: &mut Packer) -> bool {
        let head = self.shared.head();
        let (low_water, durable) = (Jci(head.retired.load(R)), head.clock.durable());
        let parts = packer.parts() as u16;
        count(&head.counters.bytes_logged, packer.used());
        for i in 0..parts {
            let part = packer.part_mut(usize::from(i));
            let len = (part.len() - HEADER) as u16;
            let sum = self.body_sum(part);
            let at = position + u64::from(i);
            Header { jci, low_water, durable, part: i, parts, len }.encode(
                self.seed,
                at % self.layout.ring_slots,
                sum,
                part,
            );
            match &self.region {
                Region::Pmem(pmem) => {
                    let lines = packer.part_in_lines(usize::from(i));
                    pmem.stream(Site::CommitRecord, self.layout.slot_at(at), lines);
                    count(&head.counters.log_bytes_written, lines.len() as u64);
                }
                Region::Disk(_) => self.shared.segment.copy_in(self.mirror_at(at), part),
            }
        }
        let used = position - head.ring.tail.load(R);
        // twice a lap: what is retired now is attested by the next header, and its slots are free then
        let due = used > self.layout.ring_slots / 4 && head.cold_dirty.load(R) == 0;
        self.mapped() && due && {
            let lines = self.pages.flush_touched() + self.pages.clear_entries();
            count(&head.counters.lines_flushed, lines);
            true
        }
    }

    /// After the commit's fence: its header attests the low-water mark it bears, and what was flushed before it is retired.
    fn retired_by_fence(&self, retire: bool, position: u64) {
        let head = self.shared.head();
        head.attested.store(head.retired.load(R), R);
        head.ring.tail.store(head.retired_pos.load(R), Ordering::Release);
        self.pages.after_fence();
        if retire {
            head.retired_up_to(head.clock.published(), position);
            // twice a lap: what the dead pin is copied on write, and what they were reading is not reused
            self.shared.slots().reap_dead(&self.live);
            count(&head.counters.retirements, 1);
        }
    }

    fn apply_record(&self, jci: Jci, packer: &mut Packer, pins: &Pins, shadow: &dyn Fn(PageNo) -> Option<VirtNo>) {
        let apply = Apply { pages: &self.pages, jci, pins, again: false, shadow };
        let page_size = self.pages.geo().arena.size();
        for i in 0..packer.parts() {
            for (page, change) in groups(&packer.part_mut(i)[HEADER..], page_size).flatten() {
                apply.group(page, change);
            }
        }
    }

    /// Under the writer lock, after its holder `dead` died: brings the lists in order, finishes or drops the commit in progress.
    pub fn repair(&self, dead: SlotNo) -> Result<()> {
        let head = self.shared.head();
        let jci = Jci(head.ring.pending.load(Ordering::Acquire));
        let pending = jci > head.clock.published();
        let record = if pending { self.pending_record(jci) } else { None };
        let mut keep = HashSet::new();
        let page_size = self.pages.geometry().map_or(512, |g| g.arena.size());
        for part in record.iter().flatten() {
            for (_, change) in groups(part, page_size).flatten() {
                if let Change::Block { index, cold } = change {
                    let fast = Place::Fast(crate::base::BlockNo(index));
                    keep.insert(if cold { Place::Cold(index) } else { fast });
                }
            }
        }
        self.pages.rebuild(&keep, jci.max(head.clock.published()));
        match record {
            Some(parts) => self.finish(dead, jci, &parts)?,
            // nothing of it was applied, for that comes after the record is whole: its slots stay a hole of the ring
            None if pending => self.drop_pending(jci)?,
            None => {}
        }
        head.ring.pending.store(0, Ordering::Release);
        if self.mapped() {
            // what is published had its fence; its owner may have died before it said so, when nothing is pending any more
            let published = head.clock.published();
            head.clock.set_durable(published);
            head.clock.set_visible(published);
        }
        // nobody has slots that are not published: what the dead one took is finished or a hole
        head.ring.published.fetch_max(head.ring.head.load(Ordering::Acquire), Ordering::AcqRel);
        if head.clock.gate_owner().is_some() {
            head.clock.open_gate_of_the_dead();
        }
        Ok(())
    }

    /// The bodies of the pending commit, if its record is whole.
    fn pending_record(&self, jci: Jci) -> Option<Vec<Vec<u8>>> {
        let head = self.shared.head();
        let (position, parts) = (head.ring.pending_at.load(R), head.ring.pending_parts.load(R));
        if position == u64::MAX {
            return None;
        }
        (0..parts)
            .map(|i| {
                let mut bytes = [0u8; SLOT];
                let header = self.part_at(position + i, &mut bytes)?;
                (header.jci == jci && u64::from(header.part) == i && u64::from(header.parts) == parts)
                    .then(|| bytes[HEADER..HEADER + usize::from(header.len)].to_vec())
            })
            .collect()
    }

    fn finish(&self, dead: SlotNo, jci: Jci, parts: &[Vec<u8>]) -> Result<()> {
        let (head, page_size) = (self.shared.head(), self.pages.geo().arena.size());
        if let Region::Pmem(pmem) = &self.region {
            // its owner may have died before its fence
            for (i, part) in parts.iter().enumerate() {
                let at = self.layout.slot_at(head.ring.pending_at.load(R) + i as u64);
                pmem.flush(Site::FinishRecord, at, (HEADER + part.len()) as u64);
            }
            pmem.fence(Site::FinishFence);
            self.say_applied(pmem.as_ref(), jci);
        }
        let changes: Vec<_> = parts.iter().flat_map(|part| groups(part, page_size).flatten()).collect();
        let pages = changes.len() as u32;
        crate::pages::heads::reserve(&self.pages.shared, pages)?;
        self.pages.reserve_virts(3 * pages)?;
        while self.pages.free_blocks() < pages && self.pages.grow()? {}
        let mut pins = Pins::default();
        let visible = head.clock.gate_owner().is_none().then(|| head.clock.visible());
        // the dead one's would have moved along; our own is not left out: we may be a reader who met a dead writer
        // a closed gate: the dead writer may have stored in place, and only what no pin saw. What a reader sees that has not
        // looked at the gate yet is copied all the same
        pins.gather(self.shared.slots(), Some(dead), visible);
        let apply = Apply { pages: &self.pages, jci, pins: &pins, again: true, shadow: &|_| None };
        for (page, change) in changes {
            // a shadow block has its block already
            if let Change::Ranges { fresh, .. } = change
                && let Some(cause) = apply.lacks(page, fresh)
            {
                return Err(Error::Full {
                    path: self.region.path().to_owned(),
                    what: "the commit of a dead process",
                    cause: cause.into(),
                });
            }
            apply.group(page, change);
        }
        // it may have; to say so of one that did not only makes what an earlier one cut off wait for more readers
        head.shrunk.store(jci.0, R);
        // the order of `Ring::publish`
        let end = head.ring.pending_at.load(R) + parts.len() as u64;
        head.ring.published.fetch_max(end, Ordering::AcqRel);
        head.clock.publish(jci);
        Ok(())
    }

    /// Makes sure that no part of a commit that never was can be taken for one of the next commit of that number.
    fn drop_pending(&self, jci: Jci) -> Result<()> {
        let head = self.shared.head();
        if self.mapped() && self.region.applied(self.id)? >= jci {
            let detail = format!("commit {jci} was stored in place, and its record is damaged");
            return Err(Error::corrupt(self.region.path(), "micro-journals", detail));
        }
        let (position, parts) = (head.ring.pending_at.load(R), head.ring.pending_parts.load(R));
        if position == u64::MAX {
            return Ok(()); // it had written nothing
        }
        for i in 0..parts {
            match &self.region {
                Region::Pmem(pmem) => {
                    let at = self.layout.slot_at(position + i);
                    pmem.zero(at, HEADER as u64);
                    pmem.flush(Site::DropRecord, at, HEADER as u64);
                }
                Region::Disk(_) => self.shared.segment.zero(self.mirror_at(position + i), HEADER as u64),
            }
        }
        if let Region::Pmem(pmem) = &self.region {
            pmem.fence(Site::DropFence);
        }
        Ok(())
    }
}
