//! What a process that died leaves behind: the three files of a small database, made by the engine itself.

use super::media::{File, Memory};
use nvlite_engine::base::limits::MIN_REGION;
use nvlite_engine::format::superblock::{SIZE, Superblock};
use nvlite_engine::format::{COUNT_MAX, mark};
use nvlite_engine::shm::{Liveness, Segment};
use nvlite_engine::{Durability, Error, MediumKind, Parts, Region, Result, Session, Store, mapping_len};
use std::path::Path;
use std::sync::Arc;

/// Page size of the databases here.
pub const PAGE: usize = 1024;
/// Budget of their regions.
const BUDGET: u64 = 160 << 10;
/// Bytes of a database that are looked at: its header may say that it is larger.
const LOOKED_AT: u64 = 256 << 10;

/// Three files.
#[derive(Clone)]
pub struct Left {
    /// What the region lay on.
    pub kind: MediumKind,
    /// The region.
    pub region: Vec<u8>,
    /// The cold file.
    pub cold: Vec<u8>,
    /// The base file.
    pub base: Vec<u8>,
    /// Whether pages are compared with their checksums when it is opened.
    pub verify: bool,
    /// Whether there is a database in them.
    used: bool,
}

/// A database's bytes, and how many it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    size: u64,
    bytes: Vec<u8>,
}

impl Content {
    /// Whether it begins as SQLite's files do.
    pub fn is_sqlite(&self) -> bool {
        self.bytes.starts_with(mark::SQLITE)
    }

    /// Whether a stock file holds the same, but for the change counter, which a clean close moves.
    pub fn is_in(&self, file: &[u8]) -> bool {
        let mut moved = self.bytes.clone();
        for at in [24, 92] {
            if let Some(counter) = moved.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
                *counter = u32::from_be_bytes(*counter).wrapping_add(1).to_be_bytes();
            }
        }
        file.len() as u64 == self.size && file.starts_with(&moved)
    }
}

impl Left {
    /// No database yet.
    pub fn new(kind: MediumKind) -> Left {
        let region = if kind == MediumKind::File { Vec::new() } else { vec![0; BUDGET as usize + (128 << 10)] };
        Left { kind, region, cold: Vec::new(), base: Vec::new(), verify: true, used: false }
    }

    /// The superblock that holds, if one does.
    pub fn superblock(&self) -> Option<Superblock> {
        let copy = |at: usize| self.region.get(at..at + SIZE).unwrap_or_default();
        Superblock::choose(copy(0), copy(SIZE)).ok()
    }

    /// Whether it has no numbers left for a next incarnation, as only a forged one can.
    pub fn is_at_its_end(&self) -> bool {
        let near = |s: Superblock| [s.sequence, s.incarnation.0, s.low_water.0].iter().any(|&n| n > COUNT_MAX / 2);
        self.superblock().is_none_or(near)
    }

    /// Opens the database, works with it, and dies. As `attach` does, this holds the base's mark against the superblock, of
    /// which it takes the medium and, for the mapping, the budget.
    ///
    /// # Errors
    /// The engine's.
    pub fn run<T>(&mut self, work: impl FnOnce(&Arc<Store>) -> Result<T>) -> Result<T> {
        let refused = |why| Error::cant_open(Path::new("region"), why);
        let superblock = self.superblock();
        let mark = self.base.first_chunk().and_then(mark::identity);
        if self.used && (mark.is_none() || superblock.as_ref().is_some_and(|s| mark != Some(s.region))) {
            return Err(refused("the base is not its own"));
        }
        let (kind, budget) = superblock.map_or((self.kind, BUDGET), |s| (s.medium, s.budget));
        if budget > 16 * MIN_REGION {
            // memory in proportion to the budget is what a budget is for
            return Err(refused("a larger budget than is tried here"));
        }
        self.used = true;
        let (cold, base) = (File::new("cold", &self.cold), File::new("base", &self.base));
        let file = File::new("region", &self.region);
        let memory = Arc::new(Memory::new(kind, if kind == MediumKind::File { &[] } else { &self.region }));
        let region =
            if kind == MediumKind::File { Region::Disk(Arc::new(file.clone())) } else { Region::Pmem(memory.clone()) };
        let done = Segment::private(mapping_len(budget, kind)).and_then(|segment| {
            let (cold, base) = (Arc::new(cold.clone()), Arc::new(base.clone()));
            let parts = Parts { region, cold, base, segment, liveness: Liveness::solo(), budget, verify: self.verify };
            work(&Store::assemble(parts)?)
        });
        self.region = if kind == MediumKind::File { file.bytes().clone() } else { memory.bytes() };
        (self.cold, self.base) = (cold.bytes().clone(), base.bytes().clone());
        done
    }

    /// The region as who only looks at it sees it.
    pub fn region_from_outside(&self) -> Region {
        Region::Disk(Arc::new(File::new("region", &self.region)))
    }

    /// Opens, reads, dies.
    ///
    /// # Errors
    /// The engine's.
    pub fn content(&mut self) -> Result<Content> {
        self.run(|store| content(&mut store.session()?))
    }
}

/// All that a new snapshot holds.
///
/// # Errors
/// The engine's.
pub fn content(s: &mut Session) -> Result<Content> {
    s.begin_read()?;
    let read = s.size().and_then(|size| {
        let mut bytes = vec![0; size.min(LOOKED_AT) as usize];
        s.read(0, &mut bytes)?;
        Ok(Content { size, bytes })
    });
    s.end_read();
    read
}

/// Commits `writes`, (offset, bytes), after which the database has `pages`.
///
/// # Errors
/// The engine's.
pub fn commit(s: &mut Session, pages: u32, writes: &[(u64, Vec<u8>)]) -> Result<()> {
    let write = |s: &mut Session| {
        s.begin_write()?;
        let mut header = [0; 100];
        s.read(0, &mut header)?;
        let size = s.page_size().unwrap_or(PAGE as u32);
        let counter =
            u32::from_be_bytes([header[24], header[25], header[26], header[27]]).wrapping_add(1).to_be_bytes();
        header[..16].copy_from_slice(b"SQLite format 3\0");
        header[16..18].copy_from_slice(&if size == 65536 { 1 } else { size as u16 }.to_be_bytes());
        header[18..24].copy_from_slice(&[1, 1, 0, 64, 32, 32]);
        header[24..28].copy_from_slice(&counter);
        header[28..32].copy_from_slice(&pages.to_be_bytes());
        header[92..96].copy_from_slice(&counter);
        s.write(0, &header)?;
        writes.iter().try_for_each(|(at, bytes)| s.write(*at, bytes))?;
        s.prepare()?;
        s.commit(Durability::Full)
    };
    let done = write(s);
    s.end_write();
    s.end_read();
    done
}

/// Bytes that no delta makes shorter.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A database that has seen everything that gets into a record, and how it was after each commit since its last checkpoint.
pub struct History {
    /// As the last process left it.
    pub left: Left,
    /// From the low-water mark to the newest commit.
    pub states: Vec<Content>,
}

impl History {
    /// On this medium.
    ///
    /// # Errors
    /// The engine's.
    pub fn new(kind: MediumKind) -> Result<History> {
        let mut left = Left::new(kind);
        let at = |page: u64| (page - 1) * PAGE as u64;
        let states = left.run(|store| {
            let mut s = store.session()?;
            for n in 1..=3 {
                commit(&mut s, 8, &(2..=8).map(|page| (at(page), noise(n * page, PAGE))).collect::<Vec<_>>())?;
            }
            store.checkpoint()?;
            let mut states = vec![content(&mut s)?];
            // ranges in pages that are there, a page that is new, one that grows the database without being written
            for n in 0..2 {
                commit(&mut s, 10, &[(at(2 + n), noise(n, 40)), (at(3 + n) + 500, vec![n as u8; 300])])?;
                states.push(content(&mut s)?);
            }
            // too large for the ring: shadow blocks, in a row and on their own
            let pages = (4..=50).chain((52..60).step_by(2));
            commit(&mut s, 60, &pages.map(|page| (at(page), noise(page, PAGE))).collect::<Vec<_>>())?;
            states.push(content(&mut s)?);
            for n in 0..3 {
                commit(&mut s, 60, &[(at(20 + n) + 8, noise(n, 700)), (at(58), noise(n, 9))])?;
                states.push(content(&mut s)?);
            }
            Ok(states)
        })?;
        Ok(History { left, states })
    }
}
