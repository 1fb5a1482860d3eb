//! Retirement: what micro-journals describe becomes durable at its place, and their slots free.
//!
//! On `dax` and `ram` it rides on a commit's fence (`commit`); here is the forced form. On `file` the pages that the log
//! names are written to their homes: the retirer is a reader (P16), it pins what is visible, writes home those versions,
//! syncs the base, and only then attests. A home that an older reader needs is saved to the cold file first.

use crate::base::sync::Ordering;
use crate::base::{Error, Jci, PageNo, Result, VirtNo};
use crate::engine::{Engine, PROCESS, Region, cut_short};
use crate::format::journal::{HEADER, SLOT, groups};
use crate::format::mark;
use crate::medium::{BaseFile, Site};
use crate::pages::heads;
use crate::pages::virt::{Place, Virt};
use crate::shared::{count, tally};
use crate::shm::{BLOCK_SLOTS, Grace, Lock, PinAt, Slot, SlotNo};
use crate::writeset::PageMap;
use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

const R: Ordering = Ordering::Relaxed;
/// Bytes of homes written at once, and synced before more are: what a device has been given to write, the flush of a commit
/// may have to wait for.
const RUN: usize = 256 << 10;

/// How long a round waits for reads in progress before it leaves the homes alone: the reader may be waiting for a slow device,
/// or be stopped.
const GRACE: Duration = Duration::from_millis(100);
/// How long a living holder of the retirement lock may take for one step, at most [`RUN`] bytes synced or a batch of the
/// log, before who waits for it with the writer lock in hand takes it for stopped: longer than any device that works.
const STANDSTILL: Duration = Duration::from_secs(10);
/// How long who cannot go on without a round tries again, before it is told that there is no room.
pub const LAST: Duration = Duration::from_secs(3);

/// Which pages a round of writing homes is about.
pub enum Which {
    /// Those that the log between the low-water mark and the pin names.
    Logged,
    /// These.
    These(Vec<PageNo>),
}

impl Engine {
    /// Makes sure that `parts` slots of the ring can be taken and have storage, retiring what stands in the way. Not only
    /// those: until then, a flush may end a batch, whose last block stays unfinished.
    pub fn reserve_ring(&self, parts: usize, base: &dyn BaseFile) -> Result<()> {
        let need = parts as u64 + 2 * BLOCK_SLOTS;
        if !self.ring_holds(parts) {
            return Err(Error::Full {
                path: self.region.path().to_owned(),
                what: "a commit record",
                cause: format!("{parts} micro-journals of {} in the ring", self.layout.ring_slots),
            });
        }
        let head = self.shared.head();
        let room = || self.layout.ring_slots - (head.ring.head.load(R) - head.ring.tail.load(Ordering::Acquire));
        if room() >= need {
            return self.back_ring(need);
        }
        let began = Instant::now();
        loop {
            let done = self.retire_now(base)?;
            if room() >= need {
                return self.back_ring(need);
            }
            if done {
                return Err(self.pages.corrupt("ring", "a retirement freed nothing".into()));
            }
            let stopped = self.standstill();
            if stopped.is_some() || began.elapsed() > LAST {
                let reader = || "a reader has been in the middle of one read for seconds, is it stopped?".into();
                return Err(Error::Full {
                    path: self.region.path().to_owned(),
                    what: "the log",
                    cause: stopped.unwrap_or_else(reader),
                });
            }
        }
    }

    /// Retires now, by the holder of the writer lock. False if a read in progress or a stopped process keeps homes from being
    /// written, for now: then nothing is attested.
    pub fn retire_now(&self, base: &dyn BaseFile) -> Result<bool> {
        if self.pages.geometry().is_none() {
            return Ok(true); // nothing was ever committed
        }
        let done = self.retire_all(base)?;
        self.give_cold_back();
        Ok(done)
    }

    /// Gives storage of the cold file back that is worth it. Under the writer lock.
    pub fn give_cold_back(&self) {
        if let Err(error) = self.pages.give_cold_back() {
            tracing::warn!(%error, "the cold file stays as large as it is");
        }
    }

    fn retire_all(&self, base: &dyn BaseFile) -> Result<bool> {
        self.shared.slots().reap_dead(&self.live);
        match &self.region {
            Region::Pmem(pmem) => {
                let head = self.shared.head();
                let cold_dirty = head.cold_dirty.load(R) != 0;
                if cold_dirty {
                    let is = |virt: &Virt, dirty| virt.is_dirty() == dirty && matches!(virt.place(), Place::Cold(_));
                    let all = || heads::all(&self.shared).map(|(page, v)| (page, self.pages.virt(v)));
                    let dirty = all().filter(|(_, virt)| is(virt, true)).map(|(page, _)| page).collect();
                    if !self.write_homes(self.maintainer, &Which::These(dirty), true, base)? {
                        return Ok(false);
                    }
                    // the home is the place from now on: an older block's entry must not outlive the record, or the next
                    // recovery would believe it. The fence below is soon enough: the record is not retired before. Of all
                    // that is clean there: who wrote some of them home may have died before this
                    let pages: HashSet<PageNo> = all().filter(|(_, v)| is(v, false)).map(|(page, _)| page).collect();
                    self.pages.forget_entries(Site::HomewardEntry, &|page, _| pages.contains(&page));
                }
                let lines = self.pages.flush_touched();
                pmem.fence(Site::RetireFence);
                tally(&head.counters.lines_flushed, lines);
                tally(&head.counters.fences, 1);
                let retired = head.clock.published();
                head.retired_up_to(retired, head.ring.head.load(R));
                self.update_superblock(|s| s.low_water = retired)?;
                head.attested.store(retired.0, R);
                head.ring.tail.store(head.retired_pos.load(R), Ordering::Release);
                tally(&head.counters.retirements, 1);
                if cold_dirty {
                    head.cold_dirty.store(0, R);
                    self.tidy_cold()?;
                }
                loop {
                    self.pages.pump();
                    let lines = self.pages.clear_entries();
                    tally(&head.counters.lines_flushed, lines);
                    if head.cleared.first.load(R) == 0 {
                        return Ok(true);
                    }
                    pmem.fence(Site::ClearFence);
                    if self.pages.after_fence() == 0 {
                        return Ok(true); // pointers are out into all that is left: it would go round until they come back
                    }
                }
            }
            Region::Disk(_) => self.write_homes(self.maintainer, &Which::Logged, true, base),
        }
    }

    /// Writes homes of what is visible, and attests what that retires. `holding` says that the caller has the writer lock,
    /// without which homes that older readers need are left alone. Takes the retirement lock; if somebody has it, waits for
    /// him if `holding`, as long as he gets on, else leaves it to him. False if no home was written and nothing attested.
    /// `slot` has no pin of its own.
    pub fn write_homes(&self, slot: SlotNo, which: &Which, holding: bool, base: &dyn BaseFile) -> Result<bool> {
        let (head, slots) = (self.shared.head(), self.shared.slots());
        if !self.lock_retirement(slot, holding)? {
            return Ok(false);
        }
        debug_assert!(slots.get(slot).pin().is_none(), "the caller's snapshot would be lost");
        let change = self.shared.begin();
        let result = self.write_homes_locked(slot, which, holding, base);
        slots.get(slot).unpin();
        head.retire.unlock(slot);
        change.done();
        result.inspect_err(|error| {
            tracing::warn!(region = %self.region.path().display(), %error, "retirement did not finish");
        })
    }

    /// Takes the retirement lock. False if somebody has it and `holding` does not say that the caller must wait for him, or he
    /// stands still. What stopped him may go on for ever, and the caller has the writer lock.
    fn lock_retirement(&self, slot: SlotNo, holding: bool) -> Result<bool> {
        let (head, slots) = (self.shared.head(), self.shared.slots());
        let (mut began, mut seen) = (Instant::now(), head.retire_steps.load(R));
        loop {
            match head.retire.try_lock(slots, slot, &self.live) {
                Lock::Locked | Lock::LockedAfterDeath { .. } => break,
                Lock::Busy if !holding => return Ok(false),
                Lock::Busy => self.check()?,
            }
            let steps = head.retire_steps.load(R);
            if steps != seen {
                (began, seen) = (Instant::now(), steps);
            }
            if began.elapsed() > STANDSTILL {
                self.stood_at.store(steps, R);
                let cause = self.standstill();
                tracing::warn!(region = %self.region.path().display(), cause, "retirement stands still");
            }
            if self.stood_at.load(R) == steps {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        slots.get(slot).words[PROCESS].store(u64::from(std::process::id()), R);
        self.step();
        Ok(true)
    }

    /// Under the retirement lock: gets on, as far as others can see.
    fn step(&self) {
        count(&self.shared.head().retire_steps, 1);
    }

    /// Who has the retirement lock, if somebody waited for his next step in vain.
    #[must_use]
    pub fn standstill(&self) -> Option<String> {
        let (head, slots) = (self.shared.head(), self.shared.slots());
        let slot = head.retire.holder().filter(|_| self.stood_at.load(R) == head.retire_steps.load(R))?;
        let (process, attachment) = (slots.get(slot).words[PROCESS].load(R), slots.get(slot).attachment()?);
        let who = format!("process {process} (attachment {attachment}, connection {slot})");
        Some(format!("{who} is writing pages home and has not got on for {} s, is it stopped?", STANDSTILL.as_secs()))
    }

    fn write_homes_locked(&self, slot: SlotNo, which: &Which, holding: bool, base: &dyn BaseFile) -> Result<bool> {
        let (head, reader) = (self.shared.head(), self.shared.slots().get(slot));
        if self.pages.geometry().is_none() {
            return Ok(true);
        }
        if holding {
            self.flush(slot, head.clock.published())?;
        }
        let pin = self.pin(slot, PinAt::Visible, None)?;
        self.flush(slot, pin)?;
        self.step();
        self.check_base(base)?;
        let (pages, end) = match which {
            Which::Logged => self.logged_pages(pin)?,
            Which::These(pages) => (pages.iter().copied().collect(), None),
        };
        let size = reader.copying(|| self.pages_at(pin, base))?;
        let mut written = self.write_versions(reader, &pages, pin, size, holding, base)?;
        if written.is_none() && self.shared.slots().reap_dead(&self.live) > 0 {
            written = self.write_versions(reader, &pages, pin, size, holding, base)?; // it was the dead that were in the way
        }
        let Some(written) = written else { return Ok(false) };
        // a version is called clean only when the sync of its home has succeeded: without any other, nothing is to be synced
        if !written.is_empty() {
            self.sync_homes(base)?;
        }
        tally(&head.counters.homes_written, written.len() as u64);
        for (v, page) in written {
            let virt = self.pages.virt(v);
            let dirty = virt.dirty.load(Ordering::Acquire);
            // while the pin stands, a version that it sees is not stored to: its home holds all of it
            if virt.page() == page && virt.birth() <= pin && dirty <= pin.0 {
                let _ = virt.dirty.compare_exchange(dirty, 0, Ordering::AcqRel, R);
            }
        }
        if let (Some(end), Region::Disk(_)) = (end, &self.region)
            && end > head.ring.tail.load(R)
        {
            head.retired_up_to(pin, end);
            self.update_superblock(|s| s.low_water = pin)?;
            head.attested.store(pin.0, Ordering::Release);
            head.ring.tail.store(end, Ordering::Release);
            tally(&head.counters.retirements, 1);
        }
        Ok(true)
    }

    fn sync_homes(&self, base: &dyn BaseFile) -> Result<()> {
        base.sync(Site::Homes).map_err(|error| self.shared.fail(&error))?; // what a failed sync kept is unknown
        self.step();
        tally(&self.shared.head().counters.syncs, 1);
        Ok(())
    }

    /// The base must still be the file that was attached, and bear our mark (P14).
    ///
    /// # Errors
    /// `Failed`, of the region, if not; those of the base.
    pub fn check_base(&self, base: &dyn BaseFile) -> Result<()> {
        let mut header = [0u8; mark::HEADER];
        base.read_at(0, &mut header)?;
        let same = self.base.identity()? == self.base_identity;
        if same && mark::identity(&header) == Some(self.id) {
            return Ok(());
        }
        let what = if same { "its mark was changed by another program" } else { "it was replaced by another file" };
        Err(self.shared.fail(&Error::cant_open(self.base.path(), what)))
    }

    /// Pages that commits up to `pin` in the ring name, and where those commits end.
    fn logged_pages(&self, pin: Jci) -> Result<(BTreeSet<PageNo>, Option<u64>)> {
        let head = self.shared.head();
        let (mut pages, mut bytes) = (BTreeSet::new(), [0u8; SLOT]);
        let (tail, floor) = (head.ring.tail.load(Ordering::Acquire), head.retired.load(R));
        let published = head.ring.published.load(Ordering::Acquire);
        let (mut end, page_size) = (tail, self.pages.geo().arena.size());
        for at in tail..published {
            let Some(header) = self.part_at(at, &mut bytes).filter(|h| h.jci.0 > floor) else { continue };
            if header.jci > pin {
                return Ok((pages, Some(end)));
            }
            end = at + 1;
            for group in groups(&bytes[HEADER..HEADER + usize::from(header.len)], page_size) {
                let group = group.map_err(|why| self.pages.corrupt("micro-journal in the mapping", why.to_string()))?;
                pages.insert(group.0);
            }
        }
        // what is left is holes, of commits that never were: nothing in them is waited for
        Ok((pages, Some(published)))
    }

    /// Writes the versions at `pin` of `pages` to their homes. Answers which, or `None` if an older reader needs a home
    /// and the caller may not save it, or somebody may be reading one just now and does not come to an end.
    ///
    /// The pin keeps the versions that it sees, but without the writer lock neither what a walk to them passes nor the
    /// places that they lie in: each look-up, and each copy with the look at the place, is a read as any other (P12).
    fn write_versions(
        &self,
        reader: &Slot,
        pages: &BTreeSet<PageNo>,
        pin: Jci,
        size: u32,
        holding: bool,
        base: &dyn BaseFile,
    ) -> Result<Option<Vec<(VirtNo, PageNo)>>> {
        let page_size = self.pages.geo().arena.size() as usize;
        let wanted: Vec<(VirtNo, PageNo, &Virt)> =
            pages.iter().filter(|p| p.0 <= size).filter_map(|&p| reader.copying(|| self.dirty_at(p, pin))).collect();
        let mut pins = Vec::new();
        self.shared.slots().pins(&mut pins);
        let oldest = pins.iter().copied().min().map_or(pin, Jci).min(pin);
        for &(_, page, virt) in wanted.iter().filter(|w| w.2.birth() > oldest) {
            self.step();
            if reader.copying(|| self.home_needed(page, virt.birth(), &pins)) {
                if !holding {
                    return Ok(None);
                }
                self.save_home(page, &pins, base)?;
            }
        }
        if !wanted.is_empty() && !self.nobody_reads_homes()? {
            return Ok(None);
        }
        let (mut run, mut run_at, mut unsynced): (Vec<u8>, u64, usize) = (Vec::new(), 0, 0);
        for &(_, page, virt) in &wanted {
            self.step();
            let at = u64::from(page.0 - 1) * page_size as u64;
            if !run.is_empty() && (at != run_at + run.len() as u64 || run.len() >= RUN) {
                base.write_at(run_at, &run)?;
                unsynced += run.len();
                run.clear();
            }
            if unsynced >= RUN {
                self.sync_homes(base)?;
                unsynced = 0;
            }
            if run.is_empty() {
                run_at = at;
            }
            let start = run.len();
            run.resize(start + page_size, 0);
            if !reader.copying(|| self.pages.read_version(virt, 0, &mut run[start..]))? {
                let detail = format!("a version of page {page} that its home lacks is at home");
                return Err(self.pages.corrupt("a page's version chain", detail));
            }
            if page.0 == 1 {
                mark::set(&mut run[start..], self.id);
            }
        }
        if !run.is_empty() {
            base.write_at(run_at, &run)?;
        }
        Ok(Some(wanted.into_iter().map(|(v, page, _)| (v, page)).collect()))
    }

    /// A read that found a page at home, before it was brought in or saved, may still be in progress (P12): waits for its
    /// end. False if it takes too long. What such a read is about to find cannot be put elsewhere any more, and we hold locks
    /// that others need.
    fn nobody_reads_homes(&self) -> Result<bool> {
        let mut grace = Grace::begin(self.shared.slots());
        let began = Instant::now();
        while !grace.passed(self.shared.slots()) {
            self.check()?;
            grace.forget_dead(self.shared.slots(), &self.live);
            if began.elapsed() > GRACE {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(true)
    }

    /// The version of `page` at `pin`, if its home lacks it.
    fn dirty_at(&self, page: PageNo, pin: Jci) -> Option<(VirtNo, PageNo, &Virt)> {
        let (mut at, _) = heads::find(&self.shared, page)?;
        while at != VirtNo::NONE && self.pages.virt(at).birth() > pin {
            at = self.pages.virt(at).older();
        }
        let virt = (at != VirtNo::NONE).then(|| self.pages.virt(at))?;
        (virt.is_dirty() && virt.place() != Place::Home).then_some((at, page, virt))
    }

    /// Whether a pin below `birth` sees the home of `page`.
    fn home_needed(&self, page: PageNo, birth: Jci, pins: &[u64]) -> bool {
        pins.iter()
            .map(|&p| Jci(p))
            .filter(|&p| p < birth)
            .any(|p| self.pages.version(page, p).is_none_or(|virt| virt.place() == Place::Home))
    }

    /// Saves the home of `page` to the cold file, as the oldest version of its chain. Under the writer lock.
    fn save_home(&self, page: PageNo, pins: &[u64], base: &dyn BaseFile) -> Result<()> {
        self.pages.reserve_virts(1)?;
        let mut content = vec![0; self.pages.geo().arena.size() as usize];
        if self.read_home(page, 0, &mut content, base)? < content.len() {
            // it never had one if it was added after the readers came; they see zeros there, if they look at all
            for &pin in pins {
                let at_home = self.pages.version(page, Jci(pin)).is_none_or(|virt| virt.place() == Place::Home);
                if at_home && self.pages_at(Jci(pin), base)? >= page.0 {
                    return Err(cut_short(base, page));
                }
            }
        }
        let mut last = heads::find(&self.shared, page).map_or(VirtNo::NONE, |(v, _)| v);
        let mut home = VirtNo::NONE;
        while last != VirtNo::NONE {
            if self.pages.virt(last).place() == Place::Home {
                home = last;
            }
            match self.pages.virt(last).older() {
                VirtNo::NONE => break,
                older => last = older,
            }
        }
        let v = if home == VirtNo::NONE { self.pages.take_virt(page, Jci::ZERO, VirtNo::NONE) } else { home };
        let put = self.put_in_cold(v, &content);
        if home == VirtNo::NONE && put.is_err() {
            self.pages.give_back(v);
        }
        let cold = put?;
        self.pages.virt(v).move_to(Place::Cold(cold));
        if home == VirtNo::NONE {
            self.pages.virt(last).older.store(v.0, Ordering::Release);
        }
        tally(&self.shared.head().counters.homes_saved, 1);
        Ok(())
    }

    /// Writes `content` to a cold block of `v`. Under the writer lock. Answers its number.
    pub fn put_in_cold(&self, v: VirtNo, content: &[u8]) -> Result<u32> {
        let cold = self.pages.take_cold(v)?;
        match self.pages.write_cold(cold, content) {
            Ok(()) => Ok(cold),
            Err(error) => {
                self.pages.free_place(Place::Cold(cold));
                Err(error)
            }
        }
    }

    /// Every page whose newest version its home lacks.
    #[must_use]
    pub fn dirty_pages(&self) -> Vec<PageNo> {
        let mut pages: Vec<PageNo> =
            heads::all(&self.shared).filter(|&(_, v)| self.pages.virt(v).is_dirty()).map(|(page, _)| page).collect();
        pages.sort_unstable();
        pages
    }

    /// Pages per usage, for the status: (hot and clean, hot and dirty, in the cold file).
    #[must_use]
    pub fn usage(&self) -> (u64, u64, u64) {
        let mut seen: PageMap<()> = PageMap::default();
        let mut n = (0, 0, 0);
        for (page, v) in heads::all(&self.shared) {
            if seen.insert(page, ()).is_none() {
                let virt = self.pages.virt(v);
                match virt.place() {
                    Place::Cold(_) => n.2 += 1,
                    _ if virt.is_dirty() => n.1 += 1,
                    _ => n.0 += 1,
                }
            }
        }
        n
    }
}
