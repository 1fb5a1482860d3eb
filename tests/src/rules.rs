//! A store on simulated media, for the short tests of single rules (`tests/tests/rules_*.rs`).

#![allow(clippy::panic, reason = "for tests only, which it tells what is wrong")]

use crate::sim::drive::Subject;
use crate::sim::nvlite::Nvlite;
use crate::sim::{Image, Policy, SimBase, SimDisk, SimPmem, World};
use nvlite_engine::format::journal::SLOT;
use nvlite_engine::format::layout::Layout;
use nvlite_engine::format::superblock::{SIZE, Superblock};
use nvlite_engine::medium::FileDisk;
use nvlite_engine::shm::{Liveness, Segment};
use nvlite_engine::{
    Disk, Durability, Error, MediumKind, Parts, Region, Result, Session, Site, StatValue, Store, mapping_len,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Page size of every database here.
pub const PAGE: usize = 1024;
/// Budget of every region here: some 80 blocks on `dax`, 160 on `file`.
pub const BUDGET: u64 = 160 << 10;

/// A machine with the three media of one database: 0 the region, 1 the cold file, 2 the base.
#[derive(Clone)]
pub struct Rig {
    /// The machine.
    pub world: Arc<World>,
    kind: MediumKind,
    budget: u64,
}

impl Rig {
    /// A machine with empty media.
    pub fn new(kind: MediumKind) -> Rig {
        Rig::with_budget(kind, BUDGET)
    }

    /// A machine with empty media, for a region of this budget.
    pub fn with_budget(kind: MediumKind, budget: u64) -> Rig {
        let media = Nvlite { kind, budget, finish: false, forges: false }.media();
        Rig { world: World::new(media, kind, Policy::Newest), kind, budget }
    }

    /// The machine after a crash that left `image`.
    #[must_use]
    pub fn from_image(&self, image: Image, policy: Policy) -> Rig {
        Rig { world: World::new(image, self.kind, policy), ..self.clone() }
    }

    /// The machine after a crash now: [`Policy::Newest`] if the processes died, [`Policy::Oldest`] if the power failed.
    #[must_use]
    pub fn crash(&self, policy: Policy) -> Rig {
        self.from_image(self.world.crash_at(self.world.events()), policy)
    }

    /// The machine after a power cut now, had the site `deleted` persisted nothing.
    #[must_use]
    pub fn power_cut_without(&self, deleted: Option<Site>) -> Rig {
        let mut replay = self.world.replay(deleted);
        while replay.step() {}
        self.from_image(replay.image().clone(), Policy::Oldest)
    }

    /// A store on it.
    ///
    /// # Errors
    /// Of recovery.
    pub fn open(&self) -> Result<Arc<Store>> {
        self.open_with(|disk| disk)
    }

    /// A store on it; on `file`, `wrap` puts something between it and its region.
    ///
    /// # Errors
    /// Of recovery.
    pub fn open_with(&self, wrap: impl FnOnce(Arc<dyn Disk>) -> Arc<dyn Disk>) -> Result<Arc<Store>> {
        let mut parts = self.parts(Segment::private(mapping_len(self.budget, self.kind))?, Liveness::solo());
        if let Region::Disk(disk) = parts.region {
            parts.region = Region::Disk(wrap(disk));
        }
        Store::assemble(parts)
    }

    /// What a store on it is made of.
    pub fn parts(&self, segment: Segment, liveness: Liveness) -> Parts {
        Parts {
            region: self.region(),
            cold: Arc::new(SimDisk::new(&self.world, 1)),
            base: Arc::new(SimBase::new(&self.world, 2)),
            segment,
            liveness,
            budget: self.budget,
            verify: true,
        }
    }

    /// The base file.
    pub fn base(&self) -> impl Disk {
        SimDisk::new(&self.world, 2)
    }

    /// Its medium.
    pub fn kind(&self) -> MediumKind {
        self.kind
    }

    /// Budget of its region.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    fn region(&self) -> Region {
        match self.kind {
            MediumKind::File => Region::Disk(Arc::new(SimDisk::new(&self.world, 0))),
            _ => Region::Pmem(Arc::new(SimPmem::new(&self.world, 0))),
        }
    }

    /// Destroys the micro-journals of which `wanted` says so, by JCI and part. Answers how many.
    ///
    /// # Errors
    /// Of the media.
    pub fn destroy(&self, wanted: impl Fn(u64, u16) -> bool) -> Result<usize> {
        let (region, mut n) = (self.region(), 0);
        let layout = Layout::new(self.budget, 0, self.kind != MediumKind::File);
        let mut slot = [0; SLOT];
        for at in (0..layout.ring_slots).map(|position| layout.slot_at(position)) {
            region.load(at, &mut slot)?;
            let jci = u64::from_le_bytes(slot[8..16].try_into().unwrap_or_default());
            let (part, parts) = (u16::from_le_bytes([slot[24], slot[25]]), u16::from_le_bytes([slot[26], slot[27]]));
            if part >= parts || !wanted(jci, part) {
                continue;
            }
            n += 1;
            match &region {
                Region::Pmem(pmem) => pmem.zero(at, SLOT as u64),
                Region::Disk(disk) => disk.write_at(at, &[0; SLOT])?,
            }
        }
        Ok(n)
    }
}

/// Byte at which `page` begins.
pub fn offset(page: u32) -> u64 {
    u64::from(page - 1) * PAGE as u64
}

/// Writes page 1 with the next change counter and this size, in a write transaction.
///
/// # Errors
/// Of the store.
pub fn put_header(s: &mut Session, pages: u32) -> Result<()> {
    let mut counter = [0; 4];
    s.read(24, &mut counter)?;
    let counter = (u32::from_be_bytes(counter) + 1).to_be_bytes();
    let mut page = [0; PAGE];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..18].copy_from_slice(&(PAGE as u16).to_be_bytes());
    page[18..24].copy_from_slice(&[1, 1, 0, 64, 32, 32]);
    page[24..28].copy_from_slice(&counter);
    page[28..32].copy_from_slice(&pages.to_be_bytes());
    page[92..96].copy_from_slice(&counter);
    s.write(0, &page)
}

/// A page full of `byte`, in which no two words are equal to those of another page or byte.
pub fn content(page: u32, byte: u8) -> Vec<u8> {
    let mix = |i: usize| (i as u32).wrapping_mul(page.wrapping_mul(2_654_435_761)) >> 24;
    (0..PAGE).map(|i| if i % 2 == 0 { byte } else { mix(i) as u8 ^ byte }).collect()
}

/// Writes and prepares a transaction that fills `pages` with `byte`; the database has `size` pages afterwards.
///
/// # Errors
/// Of the store.
pub fn prepare(s: &mut Session, size: u32, pages: impl IntoIterator<Item = u32>, byte: u8) -> Result<()> {
    s.begin_write()?;
    put_header(s, size)?;
    for page in pages {
        s.write(offset(page), &content(page, byte))?;
    }
    s.prepare()
}

/// As [`prepare`], and commits.
///
/// # Errors
/// Of the store.
pub fn commit(
    s: &mut Session,
    size: u32,
    pages: impl IntoIterator<Item = u32>,
    byte: u8,
    how: Durability,
) -> Result<()> {
    let done = prepare(s, size, pages, byte).and_then(|()| s.commit(how));
    s.end_write();
    s.end_read();
    done
}

/// The byte that `page` is full of; `None` if it is not what [`commit`] wrote.
///
/// # Errors
/// Of the store.
pub fn byte(s: &mut Session, page: u32) -> Result<Option<u8>> {
    let mut got = vec![0; PAGE];
    s.read(offset(page), &mut got)?;
    Ok((got == content(page, got[0])).then_some(got[0]))
}

/// Whether each of `pages` is full of `want`, in the snapshot that the session has or a new one.
///
/// # Errors
/// Of the store.
pub fn all_are(s: &mut Session, pages: impl IntoIterator<Item = u32>, want: u8) -> Result<bool> {
    for page in pages {
        if byte(s, page)? != Some(want) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A figure of `nvlite_stat`.
pub fn stat(store: &Store, name: &str) -> u64 {
    let row = store.stats().into_iter().find(|row| row.name == name);
    match row.map(|row| row.value) {
        Some(StatValue::Int(n)) => n,
        other => panic!("{name} is {other:?}"),
    }
}

/// The shared mapping's file, as the superblock of a region in use names it.
///
/// # Errors
/// The region cannot be read, or is none.
pub fn mapping_of(region: &Path) -> Result<PathBuf> {
    let mut bytes = [0; 2 * SIZE];
    FileDisk::open(region)?.read_at(0, &mut bytes)?;
    match Superblock::choose(&bytes[..SIZE], &bytes[SIZE..]) {
        Ok(said) => Ok(PathBuf::from(OsStr::from_bytes(&said.mapping))),
        Err(why) => Err(Error::corrupt(region, "superblock", why.to_string())),
    }
}

/// Waits until commit `jci` is published.
pub fn await_published(store: &Store, jci: u64) {
    while stat(store, "jci_published") < jci {
        std::thread::yield_now();
    }
}

/// Tries until the queue grants the writer lock: RESERVED needs the newest snapshot, visible or not.
///
/// # Errors
/// Any but that it is busy.
pub fn until_granted(mut commit: impl FnMut() -> Result<()>) -> Result<()> {
    loop {
        match commit() {
            Err(Error::BusySnapshot | Error::Busy(_)) => _ = nvlite_engine::store::sleep(Duration::from_millis(1)),
            other => return other,
        }
    }
}
