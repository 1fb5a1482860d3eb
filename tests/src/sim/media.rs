//! The engine's media over a [`World`]: memory, files, and the base file with its handles.

use super::cells::{GRANULE, SECTOR};
use super::event::{Dev, Event, this_thread};
use super::world::World;
use nvlite_engine::base::Result;
use nvlite_engine::{BaseFile, BaseOpener, Disk, MediumKind, Pmem, Site};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Byte-addressable memory of a world.
pub struct SimPmem {
    world: Arc<World>,
    dev: Dev,
    path: PathBuf,
}

impl SimPmem {
    /// The memory number `dev` of `world`.
    pub fn new(world: &Arc<World>, dev: Dev) -> SimPmem {
        SimPmem { world: Arc::clone(world), dev, path: World::path(dev) }
    }

    fn check(&self, off: u64, len: u64) {
        assert!(off + len <= self.len(), "bytes {off}+{len} of a mapping of {}", self.len());
    }

    fn put(&self, off: u64, len: u64, fill: impl FnOnce(&mut [u8])) {
        self.world.step();
        self.check(off, len);
        if len == 0 {
            return;
        }
        let memory = self.world.memory(self.dev);
        let (first, end) = (off / GRANULE, (off + len).div_ceil(GRANULE));
        let mut inner = self.world.lock();
        // What surrounds the bytes in their granules is stored again as it is.
        if !off.is_multiple_of(GRANULE) {
            inner.see_words(memory, self.dev, off, 1);
        }
        if !(off + len).is_multiple_of(GRANULE) {
            inner.see_words(memory, self.dev, off + len - 1, 1);
        }
        let words = &memory.words[first as usize..end as usize];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
        let at = (off - first * GRANULE) as usize;
        fill(&mut bytes[at..at + len as usize]);
        inner.overwrite_words(self.dev, first, end - first);
        let new: Vec<u64> =
            bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("eight bytes"))).collect();
        inner.push(Event::Store { dev: self.dev, unit: first, words: new.as_slice().into() });
        words.iter().zip(new).for_each(|(word, value)| word.store(value, Ordering::Release));
    }
}

impl Pmem for SimPmem {
    fn path(&self) -> &Path {
        &self.path
    }

    fn kind(&self) -> MediumKind {
        self.world.kind()
    }

    fn base(&self) -> *const u8 {
        self.world.memory(self.dev).words.as_ptr().cast()
    }

    fn len(&self) -> u64 {
        self.world.memory(self.dev).words.len() as u64 * GRANULE
    }

    fn allocate(&self, off: u64, len: u64) -> Result<()> {
        self.check(off, len);
        self.world.lock().strike(self.dev, "allocate")
    }

    fn load(&self, off: u64, into: &mut [u8]) {
        let len = into.len() as u64;
        self.check(off, len);
        let memory = self.world.memory(self.dev);
        self.world.lock().see_words(memory, self.dev, off, len);
        let mut at = off as usize;
        let mut rest = into;
        while !rest.is_empty() {
            let word = memory.words[at / 8].load(Ordering::Relaxed).to_ne_bytes();
            let (part, more) = rest.split_at_mut((8 - at % 8).min(rest.len()));
            part.copy_from_slice(&word[at % 8..at % 8 + part.len()]);
            at += part.len();
            rest = more;
        }
    }

    fn store(&self, off: u64, bytes: &[u8]) {
        self.put(off, bytes.len() as u64, |target| target.copy_from_slice(bytes));
    }

    fn zero(&self, off: u64, len: u64) {
        self.put(off, len, |target| target.fill(0));
    }

    fn store_u64(&self, off: u64, value: u64) {
        assert_eq!(off % GRANULE, 0, "a word is aligned");
        self.put(off, GRANULE, |target| target.copy_from_slice(&value.to_ne_bytes()));
    }

    fn stream(&self, site: Site, off: u64, bytes: &[u8]) {
        self.store(off, bytes);
        self.flush(site, off, bytes.len() as u64);
    }

    fn flush(&self, site: Site, off: u64, len: u64) -> u64 {
        self.world.step();
        self.check(off, len);
        if len == 0 {
            return 0;
        }
        self.world.lock().push(Event::Flush { dev: self.dev, site, thread: this_thread(), off, len });
        (off + len).div_ceil(64) - off / 64
    }

    fn fence(&self, site: Site) {
        self.world.step();
        self.world.lock().push(Event::Fence { dev: self.dev, site, thread: this_thread() });
    }
}

/// A file of a world.
pub struct SimDisk {
    world: Arc<World>,
    dev: Dev,
    path: PathBuf,
}

impl SimDisk {
    /// The file number `dev` of `world`.
    pub fn new(world: &Arc<World>, dev: Dev) -> SimDisk {
        SimDisk { world: Arc::clone(world), dev, path: World::path(dev) }
    }
}

impl Disk for SimDisk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        Ok(self.world.lock().see_len(self.dev))
    }

    fn read_at(&self, off: u64, into: &mut [u8]) -> Result<usize> {
        let mut inner = self.world.lock();
        inner.see_sectors(self.dev, off, into.len() as u64);
        let bytes = &inner.files[self.dev].bytes;
        let from = bytes.len().min(off as usize);
        let there = &bytes[from..bytes.len().min(off as usize + into.len())];
        into[..there.len()].copy_from_slice(there);
        into[there.len()..].fill(0);
        Ok(there.len())
    }

    fn write_at(&self, off: u64, new: &[u8]) -> Result<()> {
        self.world.step();
        let mut inner = self.world.lock();
        inner.strike(self.dev, "write")?;
        if new.is_empty() {
            return Ok(());
        }
        let end = off + new.len() as u64;
        let (first, last) = (off / SECTOR, (end - 1) / SECTOR);
        inner.see_len(self.dev);
        if !off.is_multiple_of(SECTOR) {
            inner.see_sectors(self.dev, off, 1);
        }
        if !end.is_multiple_of(SECTOR) {
            inner.see_sectors(self.dev, end - 1, 1);
        }
        inner.overwrite_sectors(self.dev, first, last + 1 - first);
        let file = &mut inner.files[self.dev].bytes;
        if file.len() < end as usize {
            file.resize(end as usize, 0);
        }
        file[off as usize..end as usize].copy_from_slice(new);
        let len = file.len();
        let mut sectors = file[(first * SECTOR) as usize..len.min(((last + 1) * SECTOR) as usize)].to_vec();
        sectors.resize(((last + 1 - first) * SECTOR) as usize, 0);
        inner.push(Event::Write { dev: self.dev, unit: first, bytes: sectors.into(), len: len as u64 });
        Ok(())
    }

    fn sync(&self, site: Site) -> Result<()> {
        self.world.step_to_sync(self.dev);
        let mut inner = self.world.lock();
        if let Err(error) = inner.strike(self.dev, "sync") {
            inner.push(Event::SyncFailed { dev: self.dev });
            return Err(error);
        }
        inner.push(Event::Sync { dev: self.dev, site });
        Ok(())
    }

    fn allocate(&self, off: u64, len: u64) -> Result<()> {
        if self.len()? < off + len {
            return self.set_len(off + len);
        }
        self.world.lock().strike(self.dev, "allocate")
    }

    /// Zeros, of which a crash may leave any part.
    fn give_back(&self, off: u64, len: u64) -> Result<()> {
        let end = (off + len).min(self.len()?);
        self.write_at(off, &vec![0; end.saturating_sub(off) as usize])
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.world.step();
        let mut inner = self.world.lock();
        inner.strike(self.dev, "set the length")?;
        inner.see_len(self.dev);
        if !len.is_multiple_of(SECTOR) {
            inner.see_sectors(self.dev, len - 1, 1);
        }
        let file = &mut inner.files[self.dev];
        file.bytes.resize(len as usize, 0);
        inner.overwrite_sectors(self.dev, len.div_ceil(SECTOR), u64::MAX / SECTOR - len.div_ceil(SECTOR));
        inner.push(Event::SetLen { dev: self.dev, len });
        Ok(())
    }
}

/// Opens the base file of a world. Nobody else has it, so that its locks are always free.
pub struct SimBase {
    world: Arc<World>,
    dev: Dev,
    path: PathBuf,
}

impl SimBase {
    /// The base file is file number `dev` of `world`.
    pub fn new(world: &Arc<World>, dev: Dev) -> SimBase {
        SimBase { world: Arc::clone(world), dev, path: World::path(dev) }
    }
}

impl BaseOpener for SimBase {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> Result<Box<dyn BaseFile>> {
        Ok(Box::new(SimDisk::new(&self.world, self.dev)))
    }

    fn recover_stock(&self) -> Result<()> {
        Ok(())
    }

    fn identity(&self) -> Result<Option<(u64, u64)>> {
        Ok(Some((1, self.dev as u64)))
    }
}

impl BaseFile for SimDisk {
    fn lock_exclusive(&self) -> Result<()> {
        Ok(())
    }

    fn unlock(&self) -> Result<()> {
        Ok(())
    }
}
