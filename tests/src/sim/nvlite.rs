//! nvlite on simulated media.

use super::drive::{Db, Subject};
use super::event::Dev;
use super::image::Image;
use super::media::{SimBase, SimDisk, SimPmem};
use super::model::Submission;
use super::world::World;
use nvlite_engine::shm::{Liveness, Segment};
use nvlite_engine::{BaseOpener, Disk, Durability, MediumKind, Parts, Pmem, Region, Session, Site, Store, mapping_len};
use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// Whether a clean close writes everything home (else the store is left as a dead process leaves it).
    pub finish: bool,
}

fn text<T>(result: nvlite_engine::Result<T>) -> Result<T, String> {
    result.map_err(|e| format!("{e} ({e:?})"))
}

impl Nvlite {
    /// What `attach` does with the region of an unmarked base: it is set aside, and a new one is empty.
    fn region(&self, world: &Arc<World>, base: &SimBase) -> Result<Region, String> {
        let mut header = [0; 20];
        let handle = text(base.open())?;
        text(handle.read_at(0, &mut header))?;
        let unmarked = header[18..20] != [3, 3];
        if self.kind == MediumKind::File {
            let disk = SimDisk::new(world, REGION);
            if unmarked && !text(disk.is_empty())? {
                text(disk.set_len(0))?;
                text(disk.sync(Site::Format))?;
            }
            return Ok(Region::Disk(Arc::new(disk)));
        }
        let pmem = SimPmem::new(world, REGION);
        if unmarked {
            pmem.zero(0, pmem.len());
            pmem.flush(Site::Format, 0, pmem.len());
            pmem.fence(Site::Format);
        }
        Ok(Region::Pmem(Arc::new(pmem)))
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
        let base = SimBase::new(world, BASE);
        let region = self.region(world, &base)?;
        let parts = Parts {
            region,
            cold: Arc::new(SimDisk::new(world, COLD)),
            base: Arc::new(base),
            segment: text(Segment::private(mapping_len(self.budget, self.kind)))?,
            liveness: Liveness::solo(),
            budget: self.budget,
        };
        let store = text(Store::assemble(parts))?;
        let session = text(store.session())?;
        Ok(NvliteDb { session, readers: BTreeMap::new(), store, finish: self.finish })
    }
}

/// An open nvlite database.
pub struct NvliteDb {
    session: Session,
    readers: BTreeMap<usize, Session>,
    store: Arc<Store>,
    finish: bool,
}

impl NvliteDb {
    fn write(&mut self, submission: &Submission) -> Result<(), String> {
        text(self.session.begin_write())?;
        for (offset, bytes) in &submission.writes {
            text(self.session.write(*offset, bytes))?;
        }
        if submission.shrinks {
            text(self.session.truncate(submission.size))?;
        }
        text(self.session.prepare())
    }

    /// The store itself, for its figures.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }
}

fn all(session: &mut Session) -> Result<Vec<u8>, String> {
    let size = text(session.size())?;
    let mut bytes = vec![0; size as usize];
    let got = text(session.read(0, &mut bytes))?;
    if got == bytes.len() { Ok(bytes) } else { Err(format!("{got} of {size} bytes were read")) }
}

impl Db for NvliteDb {
    fn commit(&mut self, submission: &Submission, durable: bool) -> Result<(), String> {
        let done = self
            .write(submission)
            .and_then(|()| text(self.session.commit(if durable { Durability::Full } else { Durability::Process })));
        self.session.end_write();
        self.session.end_read();
        done
    }

    fn abort(&mut self, submission: &Submission) -> Result<(), String> {
        let done = self.write(submission);
        self.session.end_write();
        self.session.end_read();
        done
    }

    fn content(&mut self) -> Result<Vec<u8>, String> {
        text(self.session.begin_read())?;
        let bytes = all(&mut self.session);
        self.session.end_read();
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
        let NvliteDb { session, readers, store, finish } = self;
        drop((session, readers));
        if finish && !text(store.finish())? {
            return Err("the store did not finish".to_owned());
        }
        text(store.close())
    }
}
