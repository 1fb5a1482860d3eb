//! What happens between two turns: whatever a system left to be done in the background ends, and is charged to it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cli::Medium;
use crate::clock::{process_cpu, thread_cpu};
use crate::error::{Error, Result};

const STEP: Duration = Duration::from_millis(4);
const LIMIT: Duration = Duration::from_millis(250);

/// How a turn ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settled {
    /// After so long the process and the device were idle.
    pub after: Duration,
    /// Writes of [`PROBE`] bytes that were made to find that out.
    pub probes: u64,
}

/// Bytes that a probe of the device writes.
pub const PROBE: u64 = 4096;

/// Waits until neither the process nor, on a disk, the device has anything to do.
pub struct Quiet {
    probe: Option<Probe>,
}

/// A block that is overwritten and synced; how long that takes tells how busy the disk is.
struct Probe {
    file: File,
    best: Duration,
}

impl Quiet {
    /// For databases under `dir`.
    pub fn new(dir: &Path, medium: Medium) -> Result<Self> {
        let probe = match medium {
            Medium::Ram => None,
            Medium::File => Some(Probe::new(&dir.join("probe")).map_err(|error| Error::io(dir, error))?),
        };
        Ok(Self { probe })
    }

    /// Waits, at most a quarter of a second.
    pub fn wait(&mut self) -> Settled {
        let (start, mut probes) = (Instant::now(), 0);
        while start.elapsed() < LIMIT {
            let (process, own) = (process_cpu(), thread_cpu());
            std::thread::sleep(STEP);
            let others = (process_cpu() - process).saturating_sub(thread_cpu() - own);
            probes += u64::from(self.probe.is_some());
            let device_rests = self.probe.as_mut().is_none_or(Probe::rests);
            if device_rests && Duration::from_nanos(others) < STEP / 50 {
                break;
            }
        }
        Settled { after: start.elapsed(), probes }
    }
}

impl Probe {
    fn new(path: &Path) -> std::io::Result<Self> {
        let file = File::options().create(true).truncate(true).write(true).open(path)?;
        file.write_all_at(&[0; PROBE as usize], 0)?;
        file.sync_all()?;
        Ok(Self { file, best: Duration::MAX })
    }

    fn rests(&mut self) -> bool {
        let start = Instant::now();
        // An error here is an error of the disk, which the systems will meet and report themselves.
        if self.file.write_all_at(&[1; PROBE as usize], 0).and_then(|()| self.file.sync_data()).is_err() {
            return true;
        }
        let took = start.elapsed();
        self.best = self.best.min(took);
        took < self.best * 2
    }
}
