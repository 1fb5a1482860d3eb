//! nvlite on simulated media.

use super::drive::{Db, Left, Subject};
use super::event::{Dev, as_another_thread};
use super::history::Death;
use super::image::Image;
use super::media::{SimBase, SimDisk, SimPmem};
use super::model::Submission;
use super::world::{Died, World};
use nvlite_engine::base::checksum::seed;
use nvlite_engine::base::{Incarnation, Jci, PageNo};
use nvlite_engine::format::entry::Entry;
use nvlite_engine::format::mark;
use nvlite_engine::shm::{AttachmentNo, Liveness, Segment};
use nvlite_engine::store::sleep;
use nvlite_engine::{
    BaseOpener, Durability, Error, MediumKind, Parts, Region, Session, Store, keep_unmarked, mapping_len,
};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const REGION: Dev = 0;
const COLD: Dev = 1;
const BASE: Dev = 2;

/// nvlite on one medium, with a budget in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Nvlite {
    /// The medium.
    pub kind: MediumKind,
    /// The budget.
    pub budget: u64,
    /// Whether a clean close writes everything home (else the store is left as a dead process leaves it); then a stock program
    /// may cut off zeros that the last page ends in.
    pub finish: bool,
    /// Whether the first transaction is one with another page size, whose pages hold [what they should not](forgery), and is
    /// rolled back.
    pub forges: bool,
}

/// Page size of that transaction, and how many pages it has, to fill most blocks.
const FORGED: (usize, u64) = (4096, 46);

/// Entries where the array is going to reach with small pages, and headers where the blocks will be that they name: of
/// commits 0 to 11, of pages 1 to 8.
fn forgery(seed: u64) -> Vec<u8> {
    let entry = |i: u64| Entry { page: PageNo(1 + (i + 5) as u32 % 8), birth: Jci(i / 8) }.encode(seed);
    let whole = |i| entry(i).into_iter().chain([0]);
    let mut page: Vec<u8> = (0..96).flat_map(whole).flat_map(u64::to_le_bytes).collect();
    let mut header = mark::empty(512);
    header[28..32].copy_from_slice(&3_u32.to_be_bytes());
    while page.len() < FORGED.0 {
        page.extend_from_slice(&header[..512]);
    }
    page
}

/// An empty database gets the other page size, and loses it again.
fn forge(store: &Arc<Store>) -> Result<(), String> {
    let page = forgery(seed(store.region_id(), Incarnation(0)));
    let mut session = text(store.session())?;
    text(session.begin_write())?;
    for n in 0..FORGED.1 {
        text(session.write(n * FORGED.0 as u64, &page))?;
    }
    session.end_write();
    Ok(())
}

fn text<T>(result: nvlite_engine::Result<T>) -> Result<T, String> {
    result.map_err(|e| format!("{e} ({e:?})"))
}

impl Nvlite {
    /// What `attach` does with the region of an unmarked base: it is set aside, and a new one is empty.
    fn set_aside(&self, world: &Arc<World>) -> Result<(), String> {
        let mut header = [0; 20];
        let handle = text(SimBase::new(world, BASE).open())?;
        text(handle.read_at(0, &mut header))?;
        if header[18..20] != [3, 3] && text(keep_unmarked(handle.as_ref()))? {
            world.renew(REGION);
        }
        Ok(())
    }

    /// What stock SQLite takes for the same: without zeros that the last page ends in.
    fn shorten(&self, world: &Arc<World>) -> Result<(), String> {
        let handle = text(SimBase::new(world, BASE).open())?;
        let mut header = [0; mark::HEADER];
        text(handle.read_at(0, &mut header))?;
        let (len, size) = (text(handle.len())?, mark::page_size(&header).unwrap_or(0));
        if len <= u64::from(size) {
            return Ok(()); // page 1, which says so much, or nothing
        }
        let mut last = vec![0; size as usize];
        text(handle.read_at(len - u64::from(size), &mut last))?;
        let zeros = last[1..].iter().rev().take_while(|byte| **byte == 0).count();
        text(handle.set_len(len - zeros as u64))
    }

    fn region(&self, world: &Arc<World>) -> Region {
        if self.kind == MediumKind::File {
            return Region::Disk(Arc::new(SimDisk::new(world, REGION)));
        }
        Region::Pmem(Arc::new(SimPmem::new(world, REGION)))
    }

    fn parts(&self, world: &Arc<World>, segment: Segment, liveness: Liveness) -> Parts {
        Parts {
            region: self.region(world),
            cold: Arc::new(SimDisk::new(world, COLD)),
            base: Arc::new(SimBase::new(world, BASE)),
            segment,
            liveness,
            budget: self.budget,
            verify: true,
        }
    }

    fn open_over(
        &self,
        world: &Arc<World>,
        segment: Segment,
        liveness: Liveness,
        others: Option<Others>,
    ) -> Result<NvliteDb, String> {
        self.set_aside(world)?;
        let store = text(Store::assemble(self.parts(world, segment, liveness)))?;
        let sessions = [text(store.session())?, text(store.session())?];
        Ok(NvliteDb { sessions, readers: BTreeMap::new(), store, others, subject: *self, world: Arc::clone(world) })
    }
}

impl Subject for Nvlite {
    type Db = NvliteDb;

    fn media(&self) -> Image {
        let mut image = Image::new();
        let region = match self.kind {
            MediumKind::File => image.add_file(),
            // Enough for the small pages that histories have; less to copy for each state.
            _ => image.add_memory(self.budget + (128 << 10)),
        };
        assert_eq!((region, image.add_file(), image.add_file()), (REGION, COLD, BASE), "numbered in this order");
        image
    }

    fn kind(&self) -> MediumKind {
        self.kind
    }

    fn open(&self, world: &Arc<World>) -> Result<NvliteDb, String> {
        let segment = text(Segment::private(mapping_len(self.budget, self.kind)))?;
        self.open_over(world, segment, Liveness::solo(), None)
    }

    fn open_shared(&self, world: &Arc<World>) -> Result<NvliteDb, String> {
        let others = Others { dir: tempfile::tempdir().map_err(|e| e.to_string())?, alive: Arc::default(), last: 1 };
        let segment = text(Segment::create(&others.mapping(), mapping_len(self.budget, self.kind)))?;
        let first = world.events() == 0;
        let db = self.open_over(world, segment, others.liveness(1), Some(others))?;
        if self.forges && first {
            forge(&db.store)?;
        }
        Ok(db)
    }
}

/// Other processes, one at a time, over the mapping of the first.
struct Others {
    dir: TempDir,
    /// The number of the one that lives; 0 for none.
    alive: Arc<AtomicU32>,
    last: u32,
}

impl Others {
    fn mapping(&self) -> std::path::PathBuf {
        self.dir.path().join("mapping")
    }

    fn liveness(&self, own: u32) -> Liveness {
        let alive = Arc::clone(&self.alive);
        Liveness::solo_as(AttachmentNo(own), Arc::new(move |no| no.0 == 1 || no.0 == alive.load(Ordering::SeqCst)))
    }
}

/// An open nvlite database.
pub struct NvliteDb {
    /// They take turns.
    sessions: [Session; 2],
    readers: BTreeMap<usize, Session>,
    store: Arc<Store>,
    others: Option<Others>,
    subject: Nvlite,
    world: Arc<World>,
}

impl NvliteDb {
    fn session(&mut self, submission: &Submission) -> &mut Session {
        &mut self.sessions[submission.number as usize % 2]
    }

    /// Whoever wants to write next finishes what a dead process left, and finds all of it.
    fn take_over(&mut self) -> Result<Vec<u8>, String> {
        let [session, _] = &mut self.sessions;
        let content = begin_write(session).and_then(|()| all(session));
        session.end_write();
        session.end_read();
        content
    }

    /// The store itself, for its figures.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }
}

/// Takes the writer lock. On `file` there may be a dead process's commit that nobody has made durable, and so visible:
/// who is refused for it waits for its turn, and then sees it (P10).
fn begin_write(session: &mut Session) -> Result<(), String> {
    let mut begun = session.begin_write();
    if matches!(begun, Err(Error::BusySnapshot)) {
        session.end_read();
        sleep(Duration::from_secs(1)); // not so long: the lock is free
        begun = session.begin_write();
    }
    text(begun)
}

fn write(session: &mut Session, submission: &Submission) -> Result<(), String> {
    begin_write(session)?;
    for (offset, bytes) in &submission.writes {
        text(session.write(*offset, bytes))?;
    }
    if submission.shrinks {
        text(session.truncate(submission.size))?;
    }
    text(session.prepare())
}

fn commit(
    session: &mut Session,
    submission: &Submission,
    durable: bool,
    beside: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let done = write(session, submission)
        .and_then(|()| beside())
        .and_then(|()| text(session.commit(if durable { Durability::Full } else { Durability::Process })));
    session.end_write();
    session.end_read();
    done
}

fn all(session: &mut Session) -> Result<Vec<u8>, String> {
    let size = text(session.size())?;
    let mut bytes = vec![0; size as usize];
    let got = text(session.read(0, &mut bytes))?;
    if got == bytes.len() { Ok(bytes) } else { Err(format!("{got} of {size} bytes were read")) }
}

impl Db for NvliteDb {
    fn commit(&mut self, submission: &Submission, durable: bool) -> Result<(), String> {
        commit(self.session(submission), submission, durable, || Ok(()))
    }

    fn commit_beside(&mut self, submission: &Submission) -> Result<(), String> {
        let store = Arc::clone(&self.store);
        commit(self.session(submission), submission, true, || {
            let mut other = text(store.session())?;
            text(other.begin_read())?;
            all(&mut other)?;
            text(store.checkpoint()).map(|_| ())
        })
    }

    fn die(&mut self, submission: &Submission, death: Death) -> Result<Option<Left>, String> {
        let Some(others) = &mut self.others else { return Ok(None) };
        others.last += 1;
        let number = others.last;
        others.alive.store(number, Ordering::SeqCst);
        let len = mapping_len(self.subject.budget, self.subject.kind);
        let segment = text(Segment::open(&others.mapping(), len))?;
        let parts = self.subject.parts(&self.world, segment, others.liveness(number));
        let store = text(Store::assemble_beside(parts))?;
        let mut session = text(store.session())?;
        let mut acknowledged = false;
        let ended = as_another_thread(|| {
            let ended = catch_unwind(AssertUnwindSafe(|| {
                text(session.begin_write())?;
                if !death.retires {
                    self.world.dies(death);
                }
                commit(&mut session, submission, death.durable, || Ok(()))?;
                if death.durable {
                    acknowledged = true;
                    self.world.acknowledged(submission.number);
                }
                if death.retires {
                    self.world.dies(death);
                    text(session.checkpoint())?;
                }
                Ok::<_, String>(())
            }));
            self.world.dies_after(u64::MAX);
            self.world.ended();
            ended
        });
        others.alive.store(0, Ordering::SeqCst);
        store.forget_failure();
        // the dead clean nothing up
        std::mem::forget((session, store));
        match ended {
            Ok(done) => done?,
            Err(payload) if payload.is::<Died>() => {}
            Err(payload) => resume_unwind(payload),
        }
        let durable = self.subject.kind != MediumKind::File;
        let content = self.take_over().map_err(|e| format!("repair: {e}"))?;
        Ok(Some(Left { content, acknowledged, durable }))
    }

    fn abort(&mut self, submission: &Submission) -> Result<(), String> {
        let session = self.session(submission);
        let done = write(session, submission);
        session.end_write();
        session.end_read();
        done
    }

    fn content(&mut self) -> Result<Vec<u8>, String> {
        let [session, _] = &mut self.sessions;
        text(session.begin_read())?;
        let bytes = all(session);
        session.end_read();
        bytes
    }

    fn pin(&mut self, reader: usize) -> Result<(), String> {
        let mut session = text(self.store.session())?;
        text(session.begin_read())?;
        self.readers.insert(reader, session);
        Ok(())
    }

    fn seen(&mut self, reader: usize) -> Result<Option<Vec<u8>>, String> {
        self.readers.get_mut(&reader).map(all).transpose()
    }

    fn unpin(&mut self, reader: usize) {
        self.readers.remove(&reader);
    }

    fn checkpoint(&mut self) -> Result<(), String> {
        text(self.store.checkpoint()).map(|_| ())
    }

    fn close(self) -> Result<(), String> {
        let NvliteDb { sessions, readers, store, subject, world, .. } = self;
        drop((sessions, readers));
        if !subject.finish {
            return text(store.close());
        }
        if !text(store.finish())? {
            return Err("the store did not finish".to_owned());
        }
        text(store.close())?;
        world.renew(REGION); // removed, and for good at once
        subject.shorten(&world)
    }
}
