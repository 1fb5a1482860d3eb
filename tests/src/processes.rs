//! Several processes with one database, without processes: stores over one mapping, each an attachment of its own, whose
//! deaths are told.

use crate::mortal::Mortal;
use crate::rules::Rig;
use nvlite_engine::shm::{AttachmentNo, Liveness, Segment};
use nvlite_engine::{Region, Result, Store, mapping_len};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tempfile::TempDir;

/// Most processes.
const MOST: usize = 8;

/// A machine on which processes share one database.
pub struct Processes {
    rig: Rig,
    mapping: TempDir,
    alive: Arc<[AtomicBool; MOST]>,
}

impl Processes {
    /// None yet, on the media of `rig`.
    ///
    /// # Errors
    /// No place for the mapping.
    pub fn new(rig: &Rig) -> std::io::Result<Processes> {
        Ok(Processes { rig: rig.clone(), mapping: tempfile::tempdir()?, alive: Arc::default() })
    }

    /// The store of process `no`, from 1; the first to be started recovers. `wrap` puts something before its region.
    ///
    /// # Errors
    /// Of the engine.
    pub fn start(&self, no: u32, wrap: impl FnOnce(Region) -> Region) -> Result<Arc<Store>> {
        let alive = self.alive.clone();
        let is_alive = move |other: AttachmentNo| alive[other.0 as usize % MOST].load(Ordering::SeqCst);
        let (path, kind) = (self.mapping.path().join("mapping"), self.rig.kind());
        let len = mapping_len(self.rig.budget(), kind);
        let first = !path.exists();
        let segment = if first { Segment::create(&path, len) } else { Segment::open(&path, len) }?;
        let mut parts = self.rig.parts(segment, Liveness::solo_as(AttachmentNo(no), Arc::new(is_alive)));
        parts.region = wrap(parts.region);
        self.alive[no as usize % MOST].store(true, Ordering::SeqCst);
        if first { Store::assemble(parts) } else { Store::assemble_beside(parts) }
    }

    /// As [`start`](Self::start), of a process that dies when it is told to.
    ///
    /// # Errors
    /// Of the engine.
    pub fn start_mortal(&self, no: u32) -> Result<(Arc<Store>, Arc<Mortal>)> {
        let mut mortal = None;
        let store = self.start(no, |region| {
            let (region, user) = Mortal::over(region, &self.rig.world);
            mortal = Some(user);
            region
        })?;
        Ok((store, mortal.unwrap_or_else(|| unreachable!("it was wrapped"))))
    }

    /// Sets the clock's word of what is visible back to `jci`: as it was before the last step of a commit.
    ///
    /// # Errors
    /// No mapping.
    pub fn unsee(&self, jci: u64) -> Result<()> {
        const VISIBLE: u64 = 16; // see the table of `Clock`, which the header begins with
        let len = mapping_len(self.rig.budget(), self.rig.kind());
        let segment = Segment::open(&self.mapping.path().join("mapping"), len)?;
        segment.at::<AtomicU64>(VISIBLE).store(jci, Ordering::SeqCst);
        Ok(())
    }

    /// Process `no` is dead.
    pub fn kill(&self, no: u32) {
        self.alive[no as usize % MOST].store(false, Ordering::SeqCst);
    }
}
