//! Tests that put words of the shared mapping as a process leaves them that died, or was stopped, between two of its stores
//! there, where no test from outside can stop it.

use crate::assemble::{Parts, format_region, mapping_len, new_superblock, region_len};
use crate::base::sync::Ordering;
use crate::base::{BlockNo, Error, Jci, MediumKind, PageNo, RegionId, Result};
use crate::engine::{COMMITTED, Engine, MAINTENANCE, Region};
use crate::flush::FIRST_SLOTS;
use crate::format::entry::Entry;
use crate::format::{mark, superblock};
use crate::medium::{BaseFile, BaseOpener, Disk, FileDisk, Mapped, Site};
use crate::pages::virt::Place;
use crate::recovery::believed;
use crate::shm::{AttachmentNo, BLOCK_SLOTS, Liveness, Lock, Segment};
use crate::store::{Damage, DamagedPlace, Durability, Remedy, Session, Store};
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tempfile::TempDir;

const R: Ordering = Ordering::Relaxed;
const BUDGET: u64 = 4 << 20;

/// A base file that nobody else has.
struct Base(PathBuf);

/// A handle on it; what is there is called before every write.
struct Handle(FileDisk, Option<Box<dyn Fn() + Send + Sync>>);

impl BaseOpener for Base {
    fn path(&self) -> &Path {
        &self.0
    }
    fn open(&self) -> Result<Box<dyn BaseFile>> {
        Ok(Box::new(Handle(FileDisk::open(&self.0)?, None)))
    }
    fn recover_stock(&self) -> Result<()> {
        Ok(())
    }
    fn identity(&self) -> Result<Option<(u64, u64)>> {
        Ok(Some((0, 0)))
    }
}

impl BaseFile for Handle {
    fn lock_exclusive(&self) -> Result<()> {
        Ok(())
    }
    fn unlock(&self) -> Result<()> {
        Ok(())
    }
}

impl Disk for Handle {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn len(&self) -> Result<u64> {
        self.0.len()
    }
    fn read_at(&self, off: u64, into: &mut [u8]) -> Result<usize> {
        self.0.read_at(off, into)
    }
    fn write_at(&self, off: u64, bytes: &[u8]) -> Result<()> {
        if let Some(before) = &self.1 {
            before();
        }
        self.0.write_at(off, bytes)
    }
    fn sync(&self, site: Site) -> Result<()> {
        self.0.sync(site)
    }
    fn allocate(&self, off: u64, len: u64) -> Result<()> {
        self.0.allocate(off, len)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(len)
    }
}

/// What a store on `kind` is made of: `base` in `dir`, and new files beside it that are called `name`.
fn parts(dir: &Path, name: &str, kind: MediumKind) -> Parts {
    parts_of(dir, name, kind, BUDGET)
}

fn parts_of(dir: &Path, name: &str, kind: MediumKind, budget: u64) -> Parts {
    let region = dir.join(name);
    let mapped = || Mapped::create(&region, region_len(budget, kind), kind).expect("memory that is a file");
    Parts {
        region: match kind {
            MediumKind::File => Region::Disk(Arc::new(FileDisk::create(&region).expect("a new file"))),
            _ => Region::Pmem(Arc::new(mapped())),
        },
        cold: Arc::new(FileDisk::create(&region.with_extension("cold")).expect("a new file")),
        base: Arc::new(Base(dir.join("base"))),
        segment: Segment::private(mapping_len(budget, kind)).expect("memory"),
        liveness: Liveness::solo(),
        budget,
        verify: true,
    }
}

/// An empty base file in a directory of its own.
fn empty_base() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    FileDisk::create(&dir.path().join("base")).expect("a new file");
    dir
}

/// A store on `file` with three pages of 512 bytes, in one commit.
pub fn store() -> (TempDir, Arc<Store>, Session) {
    let dir = empty_base();
    let store = Store::assemble(parts(dir.path(), "region", MediumKind::File)).expect("an empty store");
    let mut session = store.session().expect("a slot");
    commit(&mut session, Durability::Full, &[2, 3], 1);
    (dir, store, session)
}

/// Fills `pages` with `byte`.
fn commit(session: &mut Session, how: Durability, pages: &[u64], byte: u8) {
    let mut made = || -> Result<()> {
        session.begin_write()?;
        session.write(0, &mark::empty(512))?;
        pages.iter().try_for_each(|page| session.write((page - 1) * 512, &[byte; 512]))?;
        session.prepare()?;
        session.commit(how)?;
        session.end_read();
        Ok(())
    };
    made().expect("commits");
}

fn head(engine: &Engine) -> &crate::shared::Header {
    engine.shared.head()
}

#[test]
fn a_hole_at_the_end_of_the_log_is_freed() {
    // Failure: a writer died before its record was whole, and nothing came after it. The log is told to end before that hole,
    // and who needs the room is told that the region is damaged.
    let (_dir, store, _session) = store();
    let engine = store.engine();
    let half = engine.layout.ring_slots / 2;
    let end = head(engine).ring.head.fetch_add(half, R) + half;
    head(engine).ring.published.store(end, R);
    let base = engine.base.open().expect("the base");
    engine.reserve_ring((half - 2 * BLOCK_SLOTS) as usize, base.as_ref()).expect("room");
}

#[test]
fn a_version_owns_its_block_after_a_move_that_was_not_finished() {
    // Failure: the block belongs to who was to carry it away, and no sweep finds the version that it holds.
    let (_dir, store, _session) = store();
    let pages = &store.engine().pages;
    let (v, virt) = pages.newest(PageNo(2)).expect("it was written");
    let Place::Fast(b) = virt.place() else { panic!("it is in the fast tier") };
    pages.reserve_virts(1).expect("room");
    let carrier = pages.take_virt(PageNo(2), Jci(1), crate::base::VirtNo::NONE);
    pages.virt(carrier).move_to(Place::Fast(b));
    pages.block(b).virt.store(carrier.0, R);
    pages.rebuild(&HashSet::new(), store.engine().shared.published());
    assert_eq!(pages.block(b).virt.load(R), v.0);
}

#[test]
fn cold_blocks_are_never_less_than_none() {
    // Failure: read without the lock while the table grows, the free ones are more than there are.
    let (_dir, store, _session) = store();
    head(store.engine()).cold_free.store(5, R);
    assert_eq!(store.engine().pages.cold_used(), 0);
}

#[test]
fn a_commit_stores_where_the_ring_has_memory() {
    // Failure: a commit that was not refused stores into a page of the mapping that cannot be had, and the process is killed.
    let (_dir, store, mut session) = store();
    let (engine, mut steps) = (store.engine(), Vec::new());
    let all = engine.layout.ring_slots;
    while head(engine).ring.head.load(R) < 2 * all {
        let how = if steps.len() == 1 { Durability::Full } else { Durability::Process };
        commit(&mut session, how, &[2], 2);
        let (taken, present) = (head(engine).ring.head.load(R), head(engine).ring_present.load(R));
        assert!(taken.min(all) <= present && present <= all, "{taken} of {all} slots, {present} have memory");
        steps.push(present);
    }
    steps.dedup();
    assert_eq!(steps, [FIRST_SLOTS, all]);
}

#[test]
fn a_new_region_stands_the_loss_of_either_superblock() {
    // Failure: a sector that cannot be read costs a database of which nothing else is lost.
    for lost in 0..2 {
        let dir = tempfile::tempdir().expect("a directory");
        let disk: Arc<dyn Disk> = Arc::new(FileDisk::create(&dir.path().join("region")).expect("a new file"));
        let region = Region::Disk(disk.clone());
        let made = new_superblock(RegionId([7; 16]), BUDGET, MediumKind::File, 0);
        format_region(&region, &made).expect("room");
        assert_eq!(region.superblock().expect("two of them"), made);
        disk.write_at(lost * superblock::SIZE as u64, &[0; superblock::SIZE]).expect("writes");
        assert_eq!(region.superblock().map(|s| s.region).ok(), Some(made.region), "without copy {lost}");
    }
}

#[test]
fn p16_a_home_keeps_its_bytes_when_the_version_to_be_written_is_there_already() {
    // Failure: a version that was to be written home turns out to be at home, and the zeros of the buffer go over it.
    let (dir, store, mut session) = store();
    let base = store.engine().base.open().expect("the base");
    assert!(store.engine().retire_now(base.as_ref()).expect("writes homes"));
    commit(&mut session, Durability::Full, &[3], 2);
    let its = store.clone();
    // page 1 is written by itself, because page 2 is at home, before page 3 is read
    let goes_home = move || its.engine().pages.newest(PageNo(3)).expect("not at home").1.move_to(Place::Home);
    let path = dir.path().join("base");
    let watched = Handle(FileDisk::open(&path).expect("the base"), Some(Box::new(goes_home)));
    let said = store.engine().retire_now(&watched);
    let mut home = [0; 512];
    base.read_at(2 * 512, &mut home).expect("the base");
    assert_eq!(home, [1; 512]);
    assert!(matches!(said, Err(Error::Corrupt { .. })), "{said:?}");
}

#[test]
fn p17_a_page_has_one_place_when_a_reader_was_met_at_a_dead_writers_gate() {
    // Failure: a commit in place says that a block is its page's place from now on, and dies. Who finishes it meets a reader
    // that has pinned and not looked at the gate yet, and copies the page: two blocks, of one age, claim to be its place.
    let dir = empty_base();
    let of_region = |name| Store::assemble(parts(dir.path(), name, MediumKind::Ram)).expect("a store");
    let stock = of_region("one");
    commit(&mut stock.session().expect("a slot"), Durability::Full, &[2, 3], 1);
    assert!(stock.finish().expect("all is home"));
    let store = of_region("two");
    let (engine, mut dying) = (store.engine(), store.session().expect("a slot"));
    commit(&mut dying, Durability::Full, &[2], 2);
    let (slots, clock, jci) = (engine.shared.slots(), &head(engine).clock, engine.shared.published());
    let (_, virt) = engine.pages.newest(PageNo(2)).expect("it was written");
    let Place::Fast(stored) = virt.place() else { panic!("it is in the fast tier") };
    let entry = Some(Entry { page: PageNo(2), birth: jci });
    assert!(engine.pages.entry(stored) == entry && virt.birth() < jci, "in place, and without an entry before");

    // as before the commit's last step
    let dead = slots.used().find(|(_, slot)| slot.words[COMMITTED].load(R) == jci.0).expect("its slot").0;
    clock.init(Jci(jci.0 - 1));
    head(engine).ring.pending_at.store(head(engine).ring.head.load(R) - 1, R);
    head(engine).ring.pending_parts.store(1, R);
    head(engine).ring.pending.store(jci.0, R);
    clock.close_gate(slots.holder(dead));
    let reader = slots.get(slots.claim(engine.live.own(), &engine.live).expect("a slot"));
    reader.set_pin(clock.visible());
    engine.repair(dead).expect("finishes it");
    reader.unpin();

    let places: Vec<_> =
        (0..head(engine).blocks_present.load(R)).filter(|b| engine.pages.entry(BlockNo(*b)) == entry).collect();
    let (_, newest) = engine.pages.newest(PageNo(2)).expect("it was copied");
    assert!(newest.place() != Place::Fast(stored) && newest.birth() == jci, "it was copied");
    assert_eq!(places.into_iter().map(|b| Place::Fast(BlockNo(b))).collect::<Vec<_>>(), [newest.place()]);
    assert!(!virt.is_dirty(), "its home is the other one's place: who stores there again makes an entry");
}

#[test]
fn p17_two_places_of_one_age_are_not_chosen_between() {
    // Failure: recovery believes one of the two, and the other may be the one that has the commit.
    let dir = empty_base();
    let store = Store::assemble(parts(dir.path(), "region", MediumKind::Ram)).expect("a store");
    commit(&mut store.session().expect("a slot"), Durability::Full, &[2, 3], 1);
    let pages = &store.engine().pages;
    let say = |block, birth| pages.store_entry(BlockNo(block), Some(Entry { page: PageNo(9), birth: Jci(birth) }));
    say(10, 4);
    say(11, 4);
    let said = believed(pages, Jci(7));
    assert!(matches!(said, Err(Error::Corrupt { .. })), "{said:?}");
    say(12, 5);
    let said = believed(pages, Jci(7)).expect("a younger one, which neither of them matters to");
    assert_eq!(said.get(&PageNo(9)), Some(&(BlockNo(12), Jci(5))));
    say(13, 8);
    assert!(believed(pages, Jci(7)).expect("one that is too young").get(&PageNo(9)) == Some(&(BlockNo(12), Jci(5))));
}

#[test]
fn p18_what_a_dead_leader_wrote_is_doubted_by_who_need_not_lead() {
    // Failure: a waiter finds that the leader of the next batch is dead, and that its own commit became durable meanwhile. It
    // leaves, nobody else is told of the death, and what the dead one failed to sync is taken for written.
    let dir = empty_base();
    let told = Arc::new(OnceLock::<Arc<Store>>::new());
    let its = told.clone();
    let becomes_durable = move |_: AttachmentNo| {
        if let Some(store) = its.get() {
            let clock = &head(store.engine()).clock;
            clock.set_durable(clock.published());
        }
        false
    };
    let mut parts = parts(dir.path(), "region", MediumKind::File);
    parts.liveness = Liveness::solo_as(AttachmentNo(1), Arc::new(becomes_durable));
    let store = Store::assemble(parts).expect("an empty store");
    let (engine, mut session) = (store.engine(), store.session().expect("a slot"));
    commit(&mut session, Durability::Full, &[2, 3], 1);
    commit(&mut session, Durability::Process, &[2], 2);
    let (slots, ring) = (engine.shared.slots(), &head(engine).ring);
    assert!(ring.written.load(R) > ring.flushed.load(R), "below full it is written, and not synced");
    let dead = slots.claim(AttachmentNo(2), &engine.live).expect("a slot");
    assert_eq!(head(engine).flush.try_lock(slots, dead, &engine.live), Lock::Locked);
    let waits = slots.claim(engine.live.own(), &engine.live).expect("a slot");
    assert!(told.set(store.clone()).is_ok(), "from now on");
    engine.flush(waits, engine.shared.published()).expect("nothing to write");
    assert_eq!(head(engine).flush.holder(), None);
    assert_eq!(ring.written.load(R), ring.flushed.load(R));
}

#[test]
fn nobody_is_refused_for_maintenance_that_ends_as_he_looks() {
    // Failure: a writer finds the lock held, and when it looks by whom, maintenance has given it back: the only writer there
    // is told that another one writes.
    let (_dir, store, mut session) = store();
    let engine = store.engine();
    let upkeep = engine.shared.slots().claim(engine.live.own(), &engine.live).expect("a slot");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                engine.maintain(upkeep, || ());
            }
        });
        let refused = (0..300_000).find_map(|n| {
            let began = Instant::now();
            let begun = session.begin_write();
            session.end_write();
            session.end_read();
            // one that was stopped while it held the lock is not waited for, for ever
            begun.err().filter(|_| began.elapsed() < MAINTENANCE).map(|error| (n, error))
        });
        stop.store(true, Ordering::Relaxed);
        assert!(refused.is_none(), "{refused:?}");
    });
}

#[test]
fn p2_no_commit_allocates_behind_the_gate() {
    // Failure: the first commit in place that meets so many readers lets the list of their pins grow behind the closed gate, and
    // all readers wait for what another thread does with the heap.
    let (_dir, store, _session) = store();
    let (engine, mut pins) = (store.engine(), crate::pages::pins::Pins::default());
    let slots = engine.shared.slots();
    let open = |n: usize| {
        for _ in 0..n {
            let slot = slots.claim(engine.live.own(), &engine.live).expect("a slot");
            slots.get(slot).set_pin(Jci(1));
        }
    };
    open(100);
    pins.make_room(slots);
    let room = pins.room();
    open(40); // as connections are opened meanwhile
    pins.gather(slots, None, Some(Jci(1)));
    assert!(pins.room() == room && room > 140, "{room} before, {} then", pins.room());
}

/// KiB of the mapping of the file at `path` that lie on huge pages.
fn on_huge_pages(path: &Path) -> u64 {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("procfs");
    let name = path.display().to_string();
    let of_it = smaps.lines().skip_while(|line| !line.ends_with(&name));
    let counted = of_it.filter_map(|line| line.strip_prefix("ShmemPmdMapped:")).next();
    counted.and_then(|kib| kib.trim().strip_suffix(" kB")).map_or(0, |kib| kib.parse().expect("a number"))
}

#[test]
fn blocks_on_file_lie_on_huge_pages() {
    // Failure: what is looked up at random in blocks costs a walk of the page tables each time, as they are mapped in pages of
    // 4 KiB, one by one.
    const SIZE: usize = 4096;
    let (dir, shm) = (empty_base(), tempfile::tempdir_in("/dev/shm").expect("a directory in memory"));
    let control = Segment::create(&shm.path().join("control"), 8 << 20).expect("memory");
    control.commit(0, 8 << 20).expect("room");
    control.prefer_huge(0, 8 << 20);
    if on_huge_pages(&shm.path().join("control")) == 0 {
        return eprintln!("skipped: no huge pages in /dev/shm here");
    }
    let (pages, budget) = (2000, 32 << 20);
    let stock = Store::assemble(parts_of(dir.path(), "one", MediumKind::File, budget)).expect("a store");
    let mut s = stock.session().expect("a slot");
    s.begin_write().expect("free");
    s.write(0, &mark::empty(SIZE as u32)).expect("writes");
    (1..pages).for_each(|page| s.write(page * SIZE as u64, &[1; SIZE]).expect("writes"));
    s.prepare().expect("room");
    s.commit(Durability::Full).expect("commits");
    drop(s);
    assert!(stock.finish().expect("all is home"));

    let mapping = shm.path().join("mapping");
    let segment = Segment::create(&mapping, mapping_len(budget, MediumKind::File)).expect("memory");
    let made = Parts { segment, ..parts_of(dir.path(), "two", MediumKind::File, budget) };
    let store = Store::assemble(made).expect("a store");
    let mut s = store.session().expect("a slot");
    (0..pages).for_each(|page| _ = s.read(page * SIZE as u64, &mut [0; SIZE]).expect("reads"));
    let (huge, blocks) = (on_huge_pages(&mapping), u64::from(head(store.engine()).blocks_present.load(R)) * 4);
    assert!(blocks > 7 << 10 && huge > blocks / 2, "{huge} of {blocks} KiB");
}

#[test]
fn a_bit_that_flips_in_memory_is_found_and_what_is_left_of_its_page() {
    for kind in [MediumKind::File, MediumKind::Ram] {
        let dir = empty_base();
        let store = Store::assemble(parts(dir.path(), "region", kind)).expect("a store");
        let (mut s, mut reader) = (store.session().expect("a slot"), store.session().expect("a slot"));
        commit(&mut s, Durability::Full, &[2, 3], 1);
        store.checkpoint().expect("all is home");
        reader.begin_read().expect("reads");
        commit(&mut s, Durability::Full, &[2], 2);
        let (engine, mut block) = (store.engine(), [0; 1]);
        let pages = &engine.pages;
        let newest = |page| pages.newest(PageNo(page)).expect("it is not at home").1;
        let old = pages.virt(newest(2).older());
        for (virt, page, remedy) in
            [(newest(3), 3, Remedy::Home), (newest(2), 2, Remedy::None), (old, 2, Remedy::OldVersion)]
        {
            let Place::Fast(b) = virt.place() else { panic!("{kind:?}: page {page} is at {:?}", virt.place()) };
            assert_eq!(s.verify().expect("verifies"), []);
            pages.geo().arena.load(b, 77, &mut block);
            pages.geo().arena.store(b, 77, &[block[0] ^ 4]);
            let damage = Damage { page: PageNo(page), place: DamagedPlace::Fast(b.0), remedy };
            assert_eq!(s.verify().expect("verifies"), [damage], "{kind:?}");
            pages.geo().arena.store(b, 77, &block);
        }
        assert!(matches!(reader.verify(), Err(Error::Busy(_))), "it has a snapshot");
        reader.end_read();
    }
}

#[test]
fn room_in_the_cold_file_is_given_back() {
    // Failure: after one large transaction, or one old reader, a disk is short of as many bytes until the last close.
    for kind in [MediumKind::File, MediumKind::Ram] {
        let dir = empty_base();
        let store = Store::assemble(parts_of(dir.path(), "region", kind, 256 << 10)).expect("an empty store");
        let room = || std::fs::metadata(dir.path().join("region.cold")).expect("the cold file").blocks() * 512;
        let mut s = store.session().expect("a slot");
        for byte in 1..4 {
            commit(&mut s, Durability::Full, &(2..3000).collect::<Vec<_>>(), byte);
            let taken = room();
            assert!(taken > 1 << 20, "{kind:?}: {taken} bytes");
            store.checkpoint().expect("all goes home");
            store.checkpoint().expect("and what was read until then is free");
            let (left, used) = (room(), store.engine().pages.cold_used());
            assert!(used == 0 && left == 0, "{kind:?}: {left} bytes of {taken} for {used} blocks");
            assert_eq!(head(store.engine()).cold_unused.load(R), 0);
            let mut content = [0; 512];
            s.begin_read().expect("reads");
            for page in 2..3000 {
                s.read((page - 1) * 512, &mut content).expect("it is at home");
                assert_eq!(content, [byte; 512], "{kind:?}: page {page}");
            }
            s.end_read();
        }
        // an old reader has some, and they stay
        let mut reader = store.session().expect("a slot");
        reader.begin_read().expect("reads");
        (4..7).for_each(|byte| commit(&mut s, Durability::Full, &(2..3000).collect::<Vec<_>>(), byte));
        store.checkpoint().expect("what is not read goes");
        let (left, used) = (room(), u64::from(store.engine().pages.cold_used()));
        assert!(used >= 2998 && left < 3 * 2998 * 512, "{kind:?}: {left} bytes for {used} blocks");
        let mut content = [0; 512];
        for page in 2..3000 {
            reader.read((page - 1) * 512, &mut content).expect("it was kept");
            assert_eq!(content, [3; 512], "{kind:?}: page {page}");
        }
        reader.end_read();
    }
}

#[test]
fn what_is_looked_for_between_commits_gets_its_turn() {
    // Failure: writers who wait for each other in the queue never leave the lock to who verifies; or what one of them is in the
    // middle of is taken for damage.
    let dir = empty_base();
    let store = Store::assemble(parts(dir.path(), "region", MediumKind::Ram)).expect("a store");
    let mut s = store.session().expect("a slot");
    commit(&mut s, Durability::Full, &(2..200).collect::<Vec<_>>(), 1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for byte in 2..5 {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                let mut s = store.session().expect("a slot");
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    s.begin_read().expect("reads");
                    match s.begin_write() {
                        Ok(()) => {
                            (2..50).try_for_each(|page| s.write((page - 1) * 512, &[byte; 512])).expect("writes");
                            s.prepare().and_then(|()| s.commit(Durability::Full)).expect("commits");
                            s.end_write();
                            s.end_read();
                        }
                        Err(_) => {
                            s.end_read();
                            crate::store::sleep(std::time::Duration::from_millis(10));
                        }
                    }
                }
            });
        }
        let found: Vec<_> = (0..50).map(|_| s.verify()).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        found.into_iter().for_each(|found| assert_eq!(found.expect("its turn"), []));
    });
}

#[test]
fn a_bit_that_flips_in_the_cold_file_is_noticed() {
    // Failure: a page that was purged comes back with what a failing disk, or another program, left in its place.
    let (dir, pages, budget) = (empty_base(), 1000u64, 256 << 10);
    let store = Store::assemble(parts_of(dir.path(), "region", MediumKind::File, budget)).expect("an empty store");
    let mut s = store.session().expect("a slot");
    let all: Vec<u64> = (2..=pages).collect();
    commit(&mut s, Durability::Full, &all, 7);
    let cold = dir.path().join("region.cold");
    let flip = |at: usize| {
        let mut bytes = std::fs::read(&cold).expect("the cold file");
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&cold, bytes).expect("writes");
    };
    let mut wrong = |what: &str| -> usize {
        let read = |page: &u64, s: &mut Session| {
            let (mut whole, mut part) = ([0; 512], [0; 16]);
            let both = (s.read((page - 1) * 512, &mut whole), s.read((page - 1) * 512 + 24, &mut part));
            match both {
                (Ok(_), Ok(_)) => assert!(whole == [7; 512] && part == [7; 16], "{what}: page {page}"),
                (Err(Error::Corrupt { detail, .. }), Err(_)) => {
                    assert!(detail.contains(&format!("page {page},")), "{detail}")
                }
                both => unreachable!("{what}: page {page}: {both:?}"),
            }
            whole != [7; 512] || part != [7; 16]
        };
        s.begin_read().expect("reads");
        let wrong: Vec<_> = all.iter().filter(|page| read(page, &mut s)).copied().collect();
        s.end_read();
        let mut found: Vec<_> = s.verify().expect("verifies").iter().map(|damage| u64::from(damage.page.0)).collect();
        found.sort_unstable();
        assert_eq!(found, wrong, "{what}");
        wrong.len()
    };
    assert_eq!(wrong("whole"), 0);
    let len = std::fs::metadata(&cold).expect("the cold file").len() as usize;
    assert!(len > 100 * 512, "{len} bytes are cold");
    let mut found = 0;
    for at in (0..len).step_by(1511) {
        flip(at);
        found += wrong(&format!("byte {at}"));
        flip(at);
    }
    assert!(found > 10, "{found} were needed");
    assert_eq!(wrong("whole again"), 0);
}
