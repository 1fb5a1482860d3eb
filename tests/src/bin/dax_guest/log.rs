//! Records in a mapping, one to a page never touched before: durable only if stores reach the device *and* the file
//! system's metadata is durable before a page becomes writable. No call syncs anything.

use crate::Finding;
use nvlite_engine::base::checksum::checksum;
use nvlite_engine::medium::{Mapped, Site, sync_dir};
use nvlite_engine::{MediumKind, Pmem};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PAGE: u64 = 4096;
const PAGES: u64 = 16 << 10;
/// Pages allocated at a time, so that the file's metadata changes while records are acknowledged.
const CHUNK: u64 = 32;
/// Number, length, checksum.
const HEAD: usize = 24;

fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.region"))
}

/// Record `n`: its bytes follow from its number.
fn record(n: u64) -> Vec<u8> {
    let body: Vec<u8> = (0..n * 37 % 4000).map(|i| (n * 31 + i) as u8).collect();
    let sum = checksum(n, &body);
    [&n.to_le_bytes()[..], &(body.len() as u64).to_le_bytes(), &sum.to_le_bytes(), &body].concat()
}

/// Appends and acknowledges records until the machine dies.
pub fn run(dir: &Path, name: &str, kind: MediumKind) -> Finding<String> {
    let region = Mapped::create(&file(dir, name), PAGES * PAGE, kind).map_err(|e| e.to_string())?;
    if kind != MediumKind::Dax {
        // Only what MAP_SYNC adds is to be missing, not the file itself.
        region.file().sync_all().map_err(|e| e.to_string())?;
        sync_dir(dir, Site::SideNames).map_err(|e| e.to_string())?;
    }
    for n in 1..PAGES {
        if n % CHUNK == 1 {
            let from = (n - 1) * PAGE;
            let len = ((CHUNK + 1) * PAGE).min(region.len() - from);
            region.allocate(from, len).map_err(|e| e.to_string())?;
        }
        region.stream(Site::CommitRecord, n * PAGE, &record(n));
        region.fence(Site::CommitFence);
        region.store_u64(0, n);
        region.flush(Site::RetireEntry, 0, 8);
        region.fence(Site::CommitFence);
        println!("ACK {name} {n}");
    }
    loop {
        std::thread::sleep(Duration::from_secs(1)); // all pages used: wait for the end
    }
}

/// What the region says, and how many of the records up to there hold.
fn survey(dir: &Path, name: &str) -> Finding<(u64, u64)> {
    let region = Mapped::open(&file(dir, name), MediumKind::Ram).map_err(|e| e.to_string())?;
    let mut word = [0; 8];
    region.load(0, &mut word);
    let counter = u64::from_le_bytes(word);
    if counter >= PAGES {
        return Err(format!("counter {counter} of {PAGES} pages"));
    }
    let holds = |&n: &u64| {
        let want = record(n);
        let mut got = vec![0; want.len()];
        region.load(n * PAGE, &mut got);
        assert!(want.len() >= HEAD);
        got == want
    };
    Ok((counter, (1..=counter).filter(holds).count() as u64))
}

/// Everything acknowledged is there.
pub fn verify(dir: &Path, acked: u64) -> Finding<String> {
    let (counter, good) = survey(dir, "medium")?;
    if counter < acked || good < counter {
        return Err(format!("{acked} records acknowledged, counter {counter}, {good} records hold"));
    }
    Ok(format!("acknowledged={acked} found={good}"))
}

/// The counter-proof: without `MAP_SYNC` the same workload must lose something, or this test could not see a loss.
pub fn verify_loss(dir: &Path, acked: u64) -> Finding<String> {
    match survey(dir, "control") {
        Ok((counter, good)) if counter >= acked && good >= acked => {
            Err(format!("nothing of {acked} was lost without MAP_SYNC: this test cannot fail"))
        }
        Ok((_, good)) => Ok(format!("acknowledged={acked} found={good} as expected without MAP_SYNC")),
        Err(why) => Ok(format!("acknowledged={acked} found=0 as expected without MAP_SYNC ({why})")),
    }
}
