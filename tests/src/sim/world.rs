//! One machine: its media, the log of what happened to them, and what a crash before it left undecided.

use super::cells::{GRANULE, LINE, Open, SECTOR, Sector, Unit, Version};
use super::event::{Dev, Event, this_thread};
use super::history::Death;
use super::image::{Image, Remains, Replay};
use super::oracle::{Oracle, Policy};
use nvlite_engine::base::{Error, Result};
use nvlite_engine::{MediumKind, Site};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Memory as the running machine sees it.
pub(super) struct Memory {
    pub words: Box<[AtomicU64]>,
}

/// A file as the running machine sees it.
#[derive(Default)]
pub(super) struct File {
    pub bytes: Vec<u8>,
    open: BTreeMap<u64, Open<Sector>>,
    lens: Vec<Version<u64>>,
}

/// The operation on a file that fails, counted over all files of the world, and those after it.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Operations (write, sync, allocate, set_len) that still succeed.
    pub after: u64,
    /// The error of those that fail.
    pub errno: i32,
    /// How many fail.
    pub times: u64,
}

/// What is guarded: one lock, so that the log's order is the order in which things happened.
pub(super) struct Inner {
    log: Vec<Event>,
    oracle: Oracle,
    open_words: Vec<BTreeMap<u64, Open<u64>>>,
    pub files: Vec<File>,
    fault: Option<Fault>,
    struck: u64,
}

/// One machine.
pub struct World {
    start: Image,
    memories: Vec<Option<Memory>>,
    kind: MediumKind,
    /// Operations until somebody dies.
    left: AtomicU64,
    /// That fails, if it is a sync.
    fails: AtomicBool,
    inner: Mutex<Inner>,
}

/// What [`World::dies_after`] unwinds with.
pub struct Died;

impl World {
    /// A machine after a crash that left `image`, of which it finds what `policy` chooses. `kind` is what its memory claims to be.
    pub fn new(image: Image, kind: MediumKind, policy: Policy) -> Arc<World> {
        let mut open_words = Vec::new();
        let mut files = Vec::new();
        let mut memories = Vec::new();
        for medium in &image.media {
            let (words, memory, file) = match medium {
                Remains::Memory(cells) => {
                    let words = cells.bytes.chunks_exact(8).map(|word| AtomicU64::new(u64::take(word))).collect();
                    (cells.open.clone(), Some(Memory { words }), File::default())
                }
                Remains::File(file) => {
                    let mut bytes = file.cells.bytes.clone();
                    let mut lens = file.lens.clone();
                    if lens.len() == 1 {
                        bytes.truncate(lens.remove(0).value as usize);
                    }
                    (BTreeMap::new(), None, File { bytes, open: file.cells.open.clone(), lens })
                }
            };
            open_words.push(words);
            memories.push(memory);
            files.push(file);
        }
        let inner = Inner { log: Vec::new(), oracle: Oracle::new(policy), open_words, files, fault: None, struck: 0 };
        Arc::new(World {
            start: image,
            memories,
            kind,
            left: AtomicU64::new(u64::MAX),
            fails: AtomicBool::new(false),
            inner: Mutex::new(inner),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn memory(&self, dev: Dev) -> &Memory {
        self.memories[dev].as_ref().unwrap_or_else(|| panic!("medium {dev} is a file"))
    }

    /// What its memory claims to be.
    pub fn kind(&self) -> MediumKind {
        self.kind
    }

    /// The path that a medium gives in messages.
    pub fn path(dev: Dev) -> PathBuf {
        Path::new("/simulated").join(dev.to_string())
    }

    /// Notes that transaction `n` is about to be committed.
    pub fn submitted(&self, n: u64) {
        self.lock().log.push(Event::Submitted(n));
    }

    /// Notes that transaction `n` was acknowledged as durable.
    pub fn acknowledged(&self, n: u64) {
        self.lock().log.push(Event::Acknowledged(n));
    }

    /// Lets operations on files fail.
    pub fn fail(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
    }

    /// Notes that the calling thread has died.
    pub fn ended(&self) {
        self.lock().log.push(Event::Ended { thread: this_thread() });
    }

    /// Whoever is in front of the `n`-th operation from now on that changes or persists something, counted from 0, dies:
    /// unwinds with [`Died`]. `u64::MAX` for nobody.
    pub fn dies_after(&self, n: u64) {
        self.left.store(n, Ordering::Relaxed);
    }

    /// As [`dies_after`](Self::dies_after), in the way that `death` says.
    pub fn dies(&self, death: Death) {
        self.fails.store(death.fails, Ordering::Relaxed);
        self.dies_after(death.at);
    }

    /// In front of a sync: as [`step`](Self::step), and who dies may have been told by the kernel that it failed.
    pub(super) fn step_to_sync(&self, dev: Dev) {
        if self.left.load(Ordering::Relaxed) == 0 && self.fails.swap(false, Ordering::Relaxed) {
            self.lock().push(Event::SyncFailed { dev });
        }
        self.step();
    }

    /// In front of an operation that changes or persists something.
    pub(super) fn step(&self) {
        match self.left.load(Ordering::Relaxed) {
            u64::MAX => {}
            0 => {
                self.dies_after(u64::MAX);
                std::panic::resume_unwind(Box::new(Died))
            }
            left => self.left.store(left - 1, Ordering::Relaxed),
        }
    }

    /// Number of operations that failed so far.
    pub fn struck(&self) -> u64 {
        self.lock().struck
    }

    /// Number of events so far.
    pub fn events(&self) -> usize {
        self.lock().log.len()
    }

    /// Numbers of the events with which `wanted` persisted something.
    pub fn positions(&self, wanted: Site) -> Vec<usize> {
        let of = |event: &Event| match event {
            Event::Flush { site, .. } | Event::Fence { site, .. } | Event::Sync { site, .. } => *site == wanted,
            _ => false,
        };
        let inner = self.lock();
        inner.log.iter().enumerate().filter(|(_, event)| of(event)).map(|(i, _)| i).collect()
    }

    /// The last `count` events of the first `until`, for people.
    pub fn trace(&self, until: usize, count: usize) -> String {
        let inner = self.lock();
        let from = until.saturating_sub(count);
        let lines = inner.log[from..until].iter().enumerate();
        lines.map(|(i, event)| format!("  {} {event}", from + i + 1)).collect::<Vec<_>>().join("\n")
    }

    /// Walks along what happened here, as if the site `deleted` persisted nothing.
    pub fn replay(&self, deleted: Option<Site>) -> Replay {
        Replay::new(self.start.clone(), self.lock().log.clone().into(), deleted)
    }

    /// What a crash may leave after the first `events` events.
    pub fn crash_at(&self, events: usize) -> Image {
        let mut replay = self.replay(None);
        while replay.position() < events && replay.step() {}
        replay.image().clone()
    }

    /// Puts a new, empty medium in the place of this one, durably.
    pub fn renew(&self, dev: Dev) {
        let mut inner = self.lock();
        inner.open_words[dev].clear();
        inner.files[dev] = File::default();
        if let Some(memory) = &self.memories[dev] {
            memory.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
        inner.push(Event::Renew { dev });
    }

    /// Decides everything that the crash left open and recovery has not read. After this, memory may be read through its pointer.
    pub fn materialise(&self) {
        let mut inner = self.lock();
        inner.oracle.end_script();
        for dev in 0..self.memories.len() {
            if let Some(memory) = &self.memories[dev] {
                let units: Vec<u64> = inner.open_words[dev].keys().copied().collect();
                units.into_iter().for_each(|unit| inner.see_word(memory, dev, unit));
            } else {
                inner.see_file(dev);
            }
        }
    }

    /// The script that follows the choices made here.
    pub fn next_script(&self) -> Option<Policy> {
        self.lock().oracle.next_script()
    }

    /// How many scripts there are, if all meet the choices that were met here.
    pub fn scripts(&self) -> usize {
        self.lock().oracle.scripts()
    }
}

impl Inner {
    pub fn push(&mut self, event: Event) {
        self.log.push(event);
    }

    /// Fails as [`World::fail`] says.
    pub fn strike(&mut self, dev: Dev, op: &'static str) -> Result<()> {
        let Some(fault) = &mut self.fault else { return Ok(()) };
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        if fault.times == 0 {
            return Ok(());
        }
        fault.times -= 1;
        self.struck += 1;
        Err(Error::io(&World::path(dev), op, io::Error::from_raw_os_error(fault.errno)))
    }

    /// Decides an open granule.
    pub fn see_word(&mut self, memory: &Memory, dev: Dev, unit: u64) {
        let Some(open) = self.open_words[dev].remove(&unit) else { return };
        let line = unit / (LINE / GRANULE);
        let rest = &self.open_words[dev];
        let stamps = || {
            let others = rest.range(line * (LINE / GRANULE)..(line + 1) * (LINE / GRANULE)).map(|(_, open)| open);
            others.chain([&open]).flat_map(|open| open[1..].iter().map(|v| v.stamp)).collect()
        };
        let word = open[self.oracle.choose_in_line((dev, line), &open, stamps)].value;
        memory.words[unit as usize].store(word, Ordering::Relaxed);
        self.push(Event::SawWord { dev, unit, word });
    }

    /// Decides the open granules of a range of bytes.
    pub fn see_words(&mut self, memory: &Memory, dev: Dev, off: u64, len: u64) {
        if self.open_words[dev].is_empty() {
            return;
        }
        let range = off / GRANULE..(off + len).div_ceil(GRANULE);
        let units: Vec<u64> = self.open_words[dev].range(range).map(|(unit, _)| *unit).collect();
        units.into_iter().for_each(|unit| self.see_word(memory, dev, unit));
    }

    /// Whole granules are about to be stored: what they held does not matter to the running machine any more.
    pub fn overwrite_words(&mut self, dev: Dev, unit: u64, count: u64) {
        if self.open_words[dev].is_empty() {
            return;
        }
        let units: Vec<u64> = self.open_words[dev].range(unit..unit + count).map(|(unit, _)| *unit).collect();
        units.iter().for_each(|unit| _ = self.open_words[dev].remove(unit));
    }

    /// Decides how long a file is.
    pub fn see_len(&mut self, dev: Dev) -> u64 {
        let lens = std::mem::take(&mut self.files[dev].lens);
        if !lens.is_empty() {
            let len = lens[self.oracle.choose(&lens)].value;
            let file = &mut self.files[dev];
            file.bytes.truncate(len as usize);
            file.bytes.resize(len as usize, 0);
            file.open.split_off(&len.div_ceil(SECTOR));
            self.push(Event::SawLen { dev, len });
        }
        self.files[dev].bytes.len() as u64
    }

    /// Decides the open sectors of a range of bytes.
    pub fn see_sectors(&mut self, dev: Dev, off: u64, len: u64) {
        self.see_len(dev);
        let range = off / SECTOR..(off + len).div_ceil(SECTOR);
        let units: Vec<u64> = self.files[dev].open.range(range).map(|(unit, _)| *unit).collect();
        for unit in units {
            let Some(open) = self.files[dev].open.remove(&unit) else { continue };
            let mut bytes = vec![0; SECTOR as usize];
            open[self.oracle.choose(&open)].value.put(&mut bytes);
            let file = &mut self.files[dev].bytes;
            let at = (unit * SECTOR) as usize;
            let kept = (file.len() - at).min(SECTOR as usize);
            bytes[kept..].fill(0);
            file[at..at + kept].copy_from_slice(&bytes[..kept]);
            self.push(Event::SawSector { dev, unit, bytes: bytes.into() });
        }
    }

    /// Whole sectors are about to be written.
    pub fn overwrite_sectors(&mut self, dev: Dev, unit: u64, count: u64) {
        let units: Vec<u64> = self.files[dev].open.range(unit..unit + count).map(|(unit, _)| *unit).collect();
        units.iter().for_each(|unit| _ = self.files[dev].open.remove(unit));
    }

    fn see_file(&mut self, dev: Dev) {
        let len = self.see_len(dev);
        self.see_sectors(dev, 0, len);
    }
}
