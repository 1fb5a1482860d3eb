//! The test of the tester: small stores, right ones and ones with a known bug.
//!
//! A toy has one redo record and its pages. A commit writes the record, persists it, and writes the pages in place; before
//! the next commit overwrites the record, the pages are persisted. Recovery applies the record if its checksum holds.

use super::drive::{Db, Subject};
use super::image::Image;
use super::media::{SimDisk, SimPmem};
use super::model::Submission;
use super::world::World;
use nvlite_engine::base::checksum::checksum;
use nvlite_engine::{Disk, MediumKind, Pmem, Site};
use std::sync::Arc;

/// What is wrong with a toy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Nothing.
    None,
    /// The record is not flushed.
    UnflushedRecord,
    /// Nobody waits for the record.
    MissingFence,
    /// The record is overwritten before its pages are persistent.
    EarlyReuse,
    /// The record has no checksum.
    NoChecksum,
    /// Recovery does not persist what it applied.
    CarelessRecovery,
}

/// What a toy lies on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToyMedium {
    /// Memory.
    Memory,
    /// Two files.
    Files,
}

/// A kind of toy.
#[derive(Clone, Copy, Debug)]
pub struct Toy {
    /// Its bug.
    pub bug: Bug,
    /// Its medium.
    pub medium: ToyMedium,
}

/// Bytes of the record: number, checksum, length, ranges.
const RECORD: u64 = 16 << 10;
const SIZE: u64 = 64 << 10;

impl Subject for Toy {
    type Db = ToyDb;

    fn media(&self) -> Image {
        let mut image = Image::new();
        match self.medium {
            ToyMedium::Memory => _ = image.add_memory(SIZE),
            ToyMedium::Files => _ = (image.add_file(), image.add_file()),
        }
        image
    }

    fn kind(&self) -> MediumKind {
        MediumKind::Dax
    }

    fn open(&self, world: &Arc<World>) -> Result<ToyDb, String> {
        let medium = match self.medium {
            ToyMedium::Memory => Medium::Memory(SimPmem::new(world, 0)),
            ToyMedium::Files => Medium::Files(SimDisk::new(world, 0), SimDisk::new(world, 1)),
        };
        let mut db = ToyDb { medium, bug: self.bug, size: 0, touched: Vec::new() };
        db.recover()?;
        Ok(db)
    }
}

enum Medium {
    Memory(SimPmem),
    Files(SimDisk, SimDisk),
}

/// An open toy.
pub struct ToyDb {
    medium: Medium,
    bug: Bug,
    size: u64,
    /// Ranges applied since they were last persisted.
    touched: Vec<(u64, u64)>,
}

fn text<T>(result: nvlite_engine::Result<T>) -> Result<T, String> {
    result.map_err(|e| e.to_string())
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl ToyDb {
    fn read_record(&self) -> Result<Vec<u8>, String> {
        let mut head = vec![0; 32];
        self.load_record(&mut head)?;
        let len = word(&head, 16).min(RECORD - 32) as usize;
        let mut record = vec![0; 32 + len];
        self.load_record(&mut record)?;
        Ok(record)
    }

    fn load_record(&self, into: &mut [u8]) -> Result<(), String> {
        match &self.medium {
            Medium::Memory(pmem) => pmem.load(0, into),
            Medium::Files(log, _) => _ = text(log.read_at(0, into))?,
        }
        Ok(())
    }

    fn write_record(&self, record: &[u8]) -> Result<(), String> {
        match &self.medium {
            Medium::Memory(pmem) => {
                pmem.store(0, record);
                if self.bug != Bug::UnflushedRecord {
                    pmem.flush(Site::CommitRecord, 0, record.len() as u64);
                }
                if self.bug != Bug::MissingFence {
                    pmem.fence(Site::CommitFence);
                }
            }
            Medium::Files(log, _) => {
                text(log.write_at(0, record))?;
                if !matches!(self.bug, Bug::UnflushedRecord | Bug::MissingFence) {
                    text(log.sync(Site::Batch))?;
                }
            }
        }
        Ok(())
    }

    /// Applies the ranges of a record in place.
    fn apply(&mut self, record: &[u8]) -> Result<(), String> {
        self.size = word(record, 24);
        let mut rest = &record[32..];
        while rest.len() >= 16 {
            let (off, len) = (word(rest, 0), word(rest, 8) as usize);
            let bytes = rest.get(16..16 + len).ok_or("a record that is too short")?;
            match &self.medium {
                Medium::Memory(pmem) => pmem.store(RECORD + off, bytes),
                Medium::Files(_, pages) => text(pages.write_at(off, bytes))?,
            }
            self.touched.push((off, len as u64));
            rest = &rest[16 + len..];
        }
        Ok(())
    }

    fn persist_pages(&mut self, lines: Site, fence: Site, sync: Site) -> Result<(), String> {
        match &self.medium {
            Medium::Memory(pmem) => {
                self.touched.drain(..).for_each(|(off, len)| _ = pmem.flush(lines, RECORD + off, len));
                pmem.fence(fence);
            }
            Medium::Files(_, pages) => {
                self.touched.clear();
                text(pages.sync(sync))?;
            }
        }
        Ok(())
    }

    fn recover(&mut self) -> Result<(), String> {
        let record = self.read_record()?;
        let holds = word(&record, 8) == checksum(1, &record[16..]);
        if word(&record, 0) != 0 && (holds || self.bug == Bug::NoChecksum) {
            self.apply(&record)?;
            if self.bug == Bug::CarelessRecovery {
                self.touched.clear();
            } else {
                self.persist_pages(Site::RecoverRanges, Site::RecoverFence, Site::RecoverHomes)?;
            }
        } else if let Medium::Memory(pmem) = &self.medium {
            // A torn record: the newest size is the one in the pages.
            let mut pages = [0; 4];
            pmem.load(RECORD + 28, &mut pages);
            self.size = u64::from(u32::from_be_bytes(pages)) * 512;
        } else if let Medium::Files(_, pages) = &self.medium {
            let mut header = [0; 32];
            text(pages.read_at(0, &mut header))?;
            self.size = u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]])) * 512;
        }
        Ok(())
    }
}

impl Db for ToyDb {
    fn commit(&mut self, submission: &Submission, _durable: bool) -> Result<(), String> {
        if self.bug != Bug::EarlyReuse {
            self.persist_pages(Site::RetireLines, Site::RetireFence, Site::Homes)?;
        }
        let mut body = Vec::new();
        for (off, bytes) in &submission.writes {
            body.extend_from_slice(&off.to_le_bytes());
            body.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            body.extend_from_slice(bytes);
        }
        let mut record = vec![0; 32];
        record[..8].copy_from_slice(&submission.number.to_le_bytes());
        record[16..24].copy_from_slice(&(body.len() as u64).to_le_bytes());
        record[24..32].copy_from_slice(&submission.size.to_le_bytes());
        record.extend_from_slice(&body);
        let sum = checksum(1, &record[16..]);
        record[8..16].copy_from_slice(&sum.to_le_bytes());
        self.write_record(&record)?;
        self.apply(&record)
    }

    fn content(&mut self) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; self.size as usize];
        match &self.medium {
            Medium::Memory(pmem) => pmem.load(RECORD, &mut bytes),
            Medium::Files(_, pages) => _ = text(pages.read_at(0, &mut bytes))?,
        }
        Ok(bytes)
    }
}
