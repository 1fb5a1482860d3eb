//! All the slots: claiming, giving up, reclaiming from the dead, and the scans that writers and retirers make.

use super::liveness::{AttachmentNo, Liveness};
use super::segment::{Segment, Shared};
use super::shape::{Shape, shape};
use super::slot::{Owner, Slot, SlotNo};
use super::word::{Holder, Word};
use crate::base::limits::MAX_ATTACHMENTS;
use crate::base::sync::{AtomicU32, AtomicU64, Ordering, fence};
use crate::base::{Error, Result, limits};
use std::path::Path;
use std::sync::Arc;

/// Owner of what an attachment left behind whose number another one has now. It is no attachment, so it is dead to everyone.
const ORPHAN: u32 = u32::MAX;
/// Slots whose memory is allocated at a time.
const CHUNK: u32 = 32;

/// Where the slots end.
///
/// | offset | word         | who changes it; what a stale read costs |
/// | ------ | ------------ | --- |
/// | 0      | `high_water` | who claims a slot, only up. A slot above it that a scan misses has not been pinned before the scan's fence |
/// | 4      | `committed`  | the same, after allocating; stale low: allocated twice, which changes nothing |
#[repr(C, align(64))]
#[derive(Debug)]
pub struct SlotsHeader {
    high_water: AtomicU32,
    committed: AtomicU32,
    _spare: [AtomicU32; 14],
}

// SAFETY: repr(C), atomics only.
#[allow(unsafe_code)]
unsafe impl Shared for SlotsHeader {
    const SHAPE: &'static Shape = shape!(SlotsHeader, 64: 0 high_water, 4 committed, 8 _spare);
}

impl Default for SlotsHeader {
    fn default() -> Self {
        SlotsHeader::new()
    }
}

impl SlotsHeader {
    /// No slots, as zeroed memory says.
    #[must_use]
    pub fn new() -> SlotsHeader {
        SlotsHeader {
            high_water: AtomicU32::new(0),
            committed: AtomicU32::new(0),
            _spare: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }
}

/// Where the slots and the locks that name them are.
enum Place {
    /// In the mapping: header, first slot, and the locks, by offset.
    Mapped { segment: Arc<Segment>, header: u64, area: u64, locks: Vec<u64> },
    /// In a model: here.
    #[cfg(loom)]
    Model { header: SlotsHeader, slots: Vec<Slot> },
}

/// The slots of a mapping.
pub struct Slots {
    place: Place,
    max: u32,
}

impl Slots {
    /// Bytes that the slots take: a sparse array, allocated as it is used.
    pub const AREA: u64 = limits::MAX_SLOTS as u64 * 128;

    /// The slots at `area` with the header at `header`. `locks` are the offsets of every [`WriterLock`](super::WriterLock) and
    /// [`OwnedLock`](super::OwnedLock) of the mapping: a dead connection's slot is not used again while one names it.
    #[must_use]
    pub fn new(segment: Arc<Segment>, header: u64, area: u64, locks: &[u64]) -> Slots {
        Slots { place: Place::Mapped { segment, header, area, locks: locks.to_vec() }, max: limits::MAX_SLOTS }
    }

    /// Slots for a model, `max` of them.
    #[cfg(loom)]
    #[must_use]
    pub fn model(max: u32) -> Slots {
        let slots = (0..max).map(|_| Slot::new()).collect();
        Slots { place: Place::Model { header: SlotsHeader::new(), slots }, max }
    }

    fn header(&self) -> &SlotsHeader {
        match &self.place {
            Place::Mapped { segment, header, .. } => segment.at(*header),
            #[cfg(loom)]
            Place::Model { header, .. } => header,
        }
    }

    fn all(&self) -> &[Slot] {
        match &self.place {
            Place::Mapped { segment, area, .. } => segment.slice(*area, self.max as usize),
            #[cfg(loom)]
            Place::Model { slots, .. } => slots,
        }
    }

    /// True if a lock still needs to know what the connection in this slot left behind.
    fn is_named(&self, no: SlotNo) -> bool {
        match &self.place {
            Place::Mapped { segment, locks, .. } => {
                // Every lock begins with its word.
                locks.iter().any(|&off| Word(segment.at::<AtomicU64>(off).load(Ordering::Acquire)).names(no))
            }
            #[cfg(loom)]
            Place::Model { .. } => false,
        }
    }

    /// A slot. A number that is out of range is a bug here, and panics.
    pub fn get(&self, no: SlotNo) -> &Slot {
        &self.all()[no.0 as usize]
    }

    /// All slots that were ever used are below this number.
    pub fn high_water(&self) -> u32 {
        self.header().high_water.load(Ordering::Acquire).min(self.max)
    }

    pub(super) fn below_high_water(&self) -> impl Iterator<Item = (SlotNo, &Slot)> {
        let n = self.high_water() as usize;
        self.all()[..n].iter().enumerate().map(|(i, slot)| (SlotNo(i as u32), slot))
    }

    /// The slots that have an owner, dead or alive.
    pub fn used(&self) -> impl Iterator<Item = (SlotNo, &Slot)> {
        self.below_high_water().filter(|(_, slot)| slot.owner_now().attachment != 0)
    }

    /// How locks name the connection that owns this slot now.
    pub fn holder(&self, no: SlotNo) -> Holder {
        Holder { slot: no, generation: self.get(no).generation() }
    }

    /// True if this connection is still there: its slot has not changed hands, and its attachment lives.
    pub fn is_alive(&self, holder: Holder, live: &Liveness) -> bool {
        let Some(slot) = self.all().get(holder.slot.0 as usize) else { return false };
        let owner = slot.owner_now();
        owner.generation == holder.generation && owner.attachment != 0 && live.is_alive(AttachmentNo(owner.attachment))
    }

    /// Disowns what a dead attachment of the same number left, so that it is seen to be dead. Attaching does this first thing
    /// after [`Liveness::join`]; [`claim`](Self::claim) does it if it has not been done.
    pub fn inherit(&self, live: &Liveness) {
        live.once(|| {
            let own = live.own().0;
            for (_, slot) in self.below_high_water() {
                let owner = slot.owner_now();
                if owner.attachment == own {
                    // Another process may be reclaiming it, which is as good.
                    change_owner(slot, owner, Owner { attachment: ORPHAN, ..owner });
                }
            }
        });
    }

    /// Takes a slot for a new connection of attachment `own`, cleared.
    ///
    /// # Errors
    /// `CantOpen` if there are [`MAX_SLOTS`](limits::MAX_SLOTS) connections; `Full` if there is no memory for another slot.
    pub fn claim(&self, own: AttachmentNo, live: &Liveness) -> Result<SlotNo> {
        self.inherit(live);
        if let Some(no) = self.take(own, |no, owner| owner.attachment == 0 && !self.is_named(no)) {
            return Ok(no);
        }
        let mut dead = Dead::new(live);
        if let Some(no) = self.take(own, |no, owner| dead.is(owner) && !self.is_named(no)) {
            return Ok(no);
        }
        self.grow(own)
    }

    /// Takes the first slot that is `free`; the order matters: no lock comes to name a slot that has no live owner.
    fn take(&self, own: AttachmentNo, mut free: impl FnMut(SlotNo, Owner) -> bool) -> Option<SlotNo> {
        self.below_high_water().find_map(|(no, slot)| {
            let owner = slot.owner_now();
            (free(no, owner) && become_owner(slot, owner, own)).then_some(no)
        })
    }

    /// Takes the first slot above the high water.
    fn grow(&self, own: AttachmentNo) -> Result<SlotNo> {
        loop {
            let no = self.high_water();
            if no >= self.max {
                let path = match &self.place {
                    Place::Mapped { segment, .. } => segment.path(),
                    #[cfg(loom)]
                    Place::Model { .. } => None,
                };
                let path = path.unwrap_or(Path::new("(private mapping)"));
                return Err(Error::cant_open(path, format!("there are {no} connections already, the most possible")));
            }
            self.commit(no)?;
            let slot = self.get(SlotNo(no));
            let owner = slot.owner_now();
            let mine = owner.attachment == 0 && become_owner(slot, owner, own);
            // Also for a slot whose taker died right here; and before the slot's first pin, see `high_water`.
            self.header().high_water.fetch_max(no + 1, Ordering::AcqRel);
            if mine {
                return Ok(SlotNo(no));
            }
        }
    }

    fn commit(&self, no: u32) -> Result<()> {
        #[cfg_attr(not(loom), allow(irrefutable_let_patterns))]
        let Place::Mapped { segment, area, .. } = &self.place else { return Ok(()) };
        if no >= self.header().committed.load(Ordering::Acquire) {
            let first = no / CHUNK * CHUNK;
            segment.commit(area + u64::from(first) * 128, u64::from(CHUNK) * 128)?;
            self.header().committed.fetch_max(first + CHUNK, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Gives a slot up. Its connection holds no lock any more.
    pub fn release(&self, no: SlotNo) {
        debug_assert!(!self.is_held_by(no), "slot {no} given up with a lock held");
        let slot = self.get(no);
        slot.clear();
        slot.owner.store(Owner { attachment: 0, ..slot.owner_now() }.pack(), Ordering::Release);
    }

    fn is_held_by(&self, no: SlotNo) -> bool {
        match &self.place {
            Place::Mapped { segment, locks, .. } => locks.iter().any(|&off| {
                let word = Word(segment.at::<AtomicU64>(off).load(Ordering::Relaxed));
                word.state() == super::word::State::Held(self.holder(no))
            }),
            #[cfg(loom)]
            Place::Model { .. } => false,
        }
    }

    /// Frees the slots of dead owners, with their pins and fetches; answers how many. One that a lock names stays until the
    /// lock's next holder has settled what its connection left.
    pub fn reap_dead(&self, live: &Liveness) -> usize {
        let mut dead = Dead::new(live);
        let mut reaped = 0;
        for (no, slot) in self.used() {
            let owner = slot.owner_now();
            // First own it, then clear it: clearing what is another's could undo a new owner's pin.
            if dead.is(owner) && !self.is_named(no) && become_owner(slot, owner, live.own()) {
                self.release(no);
                reaped += 1;
            }
        }
        reaped
    }
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.used()).finish()
    }
}

fn change_owner(slot: &Slot, from: Owner, to: Owner) -> bool {
    slot.owner.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// Takes a free or dead owner's slot, as a new generation, cleared.
fn become_owner(slot: &Slot, from: Owner, own: AttachmentNo) -> bool {
    let mine = change_owner(slot, from, Owner { generation: from.generation.wrapping_add(1), attachment: own.0 });
    if mine {
        // What the dead one last stored may still be unread; its pin must not be cleared before its loads are seen done.
        fence(Ordering::SeqCst);
        slot.clear();
    }
    mine
}

/// Which attachments are dead, asking the kernel once for each.
struct Dead<'a> {
    live: &'a Liveness,
    asked: [Option<bool>; MAX_ATTACHMENTS as usize + 1],
}

impl<'a> Dead<'a> {
    fn new(live: &'a Liveness) -> Self {
        Dead { live, asked: [None; MAX_ATTACHMENTS as usize + 1] }
    }

    fn is(&mut self, owner: Owner) -> bool {
        let no = AttachmentNo(owner.attachment);
        match self.asked.get_mut(owner.attachment as usize) {
            Some(_) if owner.attachment == 0 => false,
            Some(answer) => *answer.get_or_insert_with(|| !self.live.is_alive(no)),
            None => true,
        }
    }
}
