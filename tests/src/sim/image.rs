//! All media of a world together: what a crash may leave of them, and how that changes from event to event.

use super::cells::{Cells, GRANULE, LINE, SECTOR, Sector, Unit, Version};
use super::event::{Dev, Event, Thread};
use nvlite_engine::Site;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// What a crash may leave of a file.
#[derive(Clone)]
pub struct FileCells {
    /// Its sectors.
    pub cells: Cells<Sector>,
    /// Every length it may have, oldest first; never empty.
    pub lens: Vec<Version<u64>>,
    /// Sectors that were open when a sync failed, and have not been written since: the system may take them for clean, so
    /// that no later sync writes them, and reads show them all the same.
    lost: BTreeSet<u64>,
}

impl FileCells {
    fn new() -> Self {
        FileCells { cells: Cells::new(0), lens: vec![Version { stamp: 0, value: 0 }], lost: BTreeSet::new() }
    }

    fn len(&self) -> u64 {
        self.lens.last().map_or(0, |version| version.value)
    }

    fn set_len(&mut self, stamp: u32, len: u64) {
        let old = self.len();
        if len == old {
            return;
        }
        self.cells.reach(len);
        if len > old {
            self.grow(stamp, old, len);
        }
        self.lens.push(Version { stamp, value: len });
    }

    /// What was cut off earlier reads as zeros when the file grows over it again.
    fn grow(&mut self, stamp: u32, old: u64, new: u64) {
        for unit in old / SECTOR..new.div_ceil(SECTOR) {
            let mut bytes = vec![0; SECTOR as usize];
            let kept = old.saturating_sub(unit * SECTOR).min(SECTOR) as usize;
            let before = self.cells.newest(unit);
            before.put(&mut bytes);
            bytes[kept..].fill(0);
            self.cells.store(unit, stamp, Sector::take(&bytes));
        }
    }

    fn write(&mut self, stamp: u32, unit: u64, bytes: &[u8], len: u64) {
        self.set_len(stamp, len);
        self.cells.reach(unit * SECTOR + bytes.len() as u64);
        for (i, sector) in bytes.chunks_exact(SECTOR as usize).enumerate() {
            self.lost.remove(&(unit + i as u64));
            self.cells.store(unit + i as u64, stamp, Sector::take(sector));
        }
    }

    fn sync(&mut self) {
        self.lens.drain(..self.lens.len() - 1);
        let lost: Vec<_> = self.lost.iter().filter_map(|unit| self.cells.open.remove_entry(unit)).collect();
        self.cells.settle_all();
        self.cells.open.extend(lost);
        self.cells.cut(self.len());
    }

    fn sync_failed(&mut self) {
        self.lost.extend(self.cells.open.keys());
    }
}

/// What a crash may leave of one medium.
#[derive(Clone)]
pub enum Remains {
    /// Of byte-addressable memory.
    Memory(Cells<u64>),
    /// Of a file.
    File(FileCells),
}

/// What a crash may leave of a whole world.
#[derive(Clone)]
pub struct Image {
    /// Its media.
    pub media: Vec<Remains>,
    /// Stamp of the last event.
    pub stamp: u32,
    /// Newest transaction that must survive.
    pub acknowledged: u64,
    /// Newest transaction that may survive.
    pub submitted: u64,
}

impl Image {
    /// A world without media.
    pub fn new() -> Self {
        Image { media: Vec::new(), stamp: 0, acknowledged: 0, submitted: 0 }
    }

    /// Adds memory of `len` zero bytes.
    pub fn add_memory(&mut self, len: u64) -> Dev {
        self.media.push(Remains::Memory(Cells::new(len as usize)));
        self.media.len() - 1
    }

    /// Adds an empty file.
    pub fn add_file(&mut self) -> Dev {
        self.media.push(Remains::File(FileCells::new()));
        self.media.len() - 1
    }

    /// The events that gave the open units values, with the newest stamp last.
    pub fn open_stamps(&self) -> BTreeSet<u32> {
        let mut stamps = BTreeSet::new();
        for medium in &self.media {
            match medium {
                Remains::Memory(cells) => {
                    cells.open.values().for_each(|open| stamps.extend(open[1..].iter().map(|v| v.stamp)));
                }
                Remains::File(file) => {
                    file.cells.open.values().for_each(|open| stamps.extend(open[1..].iter().map(|v| v.stamp)));
                    stamps.extend(file.lens[1..].iter().map(|v| v.stamp));
                }
            }
        }
        stamps
    }

    /// Number of open units of all media.
    pub fn open_units(&self) -> usize {
        let of = |medium: &Remains| match medium {
            Remains::Memory(cells) => cells.open.len(),
            Remains::File(file) => file.cells.open.len() + usize::from(file.lens.len() > 1),
        };
        self.media.iter().map(of).sum()
    }

    fn memory(&mut self, dev: Dev) -> &mut Cells<u64> {
        match &mut self.media[dev] {
            Remains::Memory(cells) => cells,
            Remains::File(_) => panic!("medium {dev} is a file"),
        }
    }

    fn file(&mut self, dev: Dev) -> &mut FileCells {
        match &mut self.media[dev] {
            Remains::File(file) => file,
            Remains::Memory(_) => panic!("medium {dev} is memory"),
        }
    }
}

impl Default for Image {
    fn default() -> Self {
        Self::new()
    }
}

/// Walks along a log and knows at each event what a crash there may leave.
pub struct Replay {
    image: Image,
    deleted: Option<Site>,
    events: Arc<[Event]>,
    next: usize,
    /// Lines that a thread has flushed and not yet fenced: (medium, line) and the stamp of the last flush.
    flushed: HashMap<(Thread, Dev), HashMap<u64, u32>>,
}

impl Replay {
    /// From `start` along `events`, as if every flush, fence and sync of the site `deleted` were missing.
    pub fn new(start: Image, events: Arc<[Event]>, deleted: Option<Site>) -> Self {
        Replay { image: start, deleted, events, next: 0, flushed: HashMap::new() }
    }

    /// What a crash may leave here.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The number of events passed.
    pub fn position(&self) -> usize {
        self.next
    }

    /// The event that comes next.
    pub fn peek(&self) -> Option<&Event> {
        self.events.get(self.next)
    }

    /// Passes the next event.
    pub fn step(&mut self) -> bool {
        let Some(event) = self.events.get(self.next).cloned() else { return false };
        self.next += 1;
        self.image.stamp += 1;
        self.apply(&event);
        true
    }

    /// Goes on to the next point worth a crash: before what makes something persistent, after a mark, or the end.
    /// Between two of them the possible states only become more, so that nothing is missed.
    pub fn next_point(&mut self) -> bool {
        while self.step() {
            let marked = self.events[self.next - 1].is_mark();
            match self.peek() {
                None => return true,
                Some(event) if marked || event.persists() => return true,
                Some(_) => {}
            }
        }
        false
    }

    fn apply(&mut self, event: &Event) {
        let stamp = self.image.stamp;
        let gone = |site: &Site| self.deleted == Some(*site);
        match event {
            Event::Store { dev, unit, words } => {
                let cells = self.image.memory(*dev);
                for (i, word) in words.iter().enumerate() {
                    cells.store(unit + i as u64, stamp, *word);
                }
            }
            Event::Flush { dev, site, thread, off, len } if !gone(site) => {
                let lines = self.flushed.entry((*thread, *dev)).or_default();
                (off / LINE..(off + len).div_ceil(LINE)).for_each(|line| _ = lines.insert(line, stamp));
            }
            Event::Fence { site, thread, .. } if !gone(site) => self.fence(*thread),
            Event::Write { dev, unit, bytes, len } => self.image.file(*dev).write(stamp, *unit, bytes, *len),
            Event::SetLen { dev, len } => self.image.file(*dev).set_len(stamp, *len),
            Event::Sync { dev, site } if !gone(site) => self.image.file(*dev).sync(),
            Event::SyncFailed { dev } => self.image.file(*dev).sync_failed(),
            Event::SawWord { dev, unit, word } => self.image.memory(*dev).observe(*unit, word),
            Event::SawSector { dev, unit, bytes } => {
                self.image.file(*dev).cells.observe(*unit, &Sector::take(bytes));
            }
            Event::SawLen { dev, len } => {
                let file = self.image.file(*dev);
                file.lens = vec![Version { stamp: 0, value: *len }];
                file.cells.reach(*len);
                file.cells.cut(*len);
            }
            Event::Ended { thread } => self.fence(*thread),
            Event::Renew { dev } => self.renew(*dev),
            Event::Submitted(n) => self.image.submitted = *n,
            Event::Acknowledged(n) => self.image.acknowledged = *n,
            Event::Flush { .. } | Event::Fence { .. } | Event::Sync { .. } => {}
        }
    }

    fn renew(&mut self, dev: Dev) {
        match &mut self.image.media[dev] {
            Remains::Memory(cells) => *cells = Cells::new(cells.bytes.len()),
            Remains::File(file) => *file = FileCells::new(),
        }
        self.flushed.retain(|(_, other), _| *other != dev);
    }

    /// A fence of the instruction set knows no media: it waits for all flushes of its thread.
    fn fence(&mut self, thread: Thread) {
        for dev in 0..self.image.media.len() {
            let Some(lines) = self.flushed.remove(&(thread, dev)) else { continue };
            let cells = self.image.memory(dev);
            for (line, stamp) in lines {
                let first = line * (LINE / GRANULE);
                (first..first + LINE / GRANULE).for_each(|unit| cells.settle(unit, stamp));
            }
        }
    }
}
