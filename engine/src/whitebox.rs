//! Tests that put words of the shared mapping as a process leaves them that died, or was stopped, between two of its stores
//! there, where no test from outside can stop it.

use crate::assemble::{Parts, format_region, mapping_len, new_superblock};
use crate::base::sync::Ordering;
use crate::base::{Jci, MediumKind, PageNo, RegionId, Result};
use crate::commit::BLOCK_SLOTS;
use crate::engine::{Engine, Region};
use crate::flush::FIRST_SLOTS;
use crate::format::{mark, superblock};
use crate::medium::{BaseFile, BaseOpener, Disk, FileDisk, Site};
use crate::pages::virt::Place;
use crate::shm::{Liveness, Segment};
use crate::store::{Durability, Session, Store};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

const R: Ordering = Ordering::Relaxed;
const BUDGET: u64 = 4 << 20;

/// A base file that nobody else has.
struct Base(PathBuf);

struct Handle(FileDisk);

impl BaseOpener for Base {
    fn path(&self) -> &Path {
        &self.0
    }
    fn open(&self) -> Result<Box<dyn BaseFile>> {
        Ok(Box::new(Handle(FileDisk::open(&self.0)?)))
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

/// A store on `file` with three pages of 512 bytes, in one commit.
fn store() -> (TempDir, Arc<Store>, Session) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name| FileDisk::create(&dir.path().join(name)).expect("a new file");
    file("base");
    let parts = Parts {
        region: Region::Disk(Arc::new(file("region"))),
        cold: Arc::new(file("cold")),
        base: Arc::new(Base(dir.path().join("base"))),
        segment: Segment::private(mapping_len(BUDGET, MediumKind::File)).expect("memory"),
        liveness: Liveness::solo(),
        budget: BUDGET,
    };
    let store = Store::assemble(parts).expect("an empty store");
    let mut session = store.session().expect("a slot");
    commit(&mut session, Durability::Full, 1);
    (dir, store, session)
}

fn commit(session: &mut Session, how: Durability, byte: u8) {
    let mut made = || -> Result<()> {
        session.begin_write()?;
        session.write(0, &mark::empty(512))?;
        (1..3).try_for_each(|page| session.write(page * 512, &[byte; 512]))?;
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
    let end = head(engine).ring_head.fetch_add(half, R) + half;
    head(engine).published_pos.store(end, R);
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
    while head(engine).ring_head.load(R) < 2 * all {
        let how = if steps.len() == 1 { Durability::Full } else { Durability::Process };
        commit(&mut session, how, 2);
        let (taken, present) = (head(engine).ring_head.load(R), head(engine).ring_present.load(R));
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
