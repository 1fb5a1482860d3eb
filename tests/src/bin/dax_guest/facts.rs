//! What the medium finds out about the platform, against what the platform says of itself.

use crate::{Finding, report};
use nvlite_engine::medium::{Flush, Mapped, Site, is_tmpfs, probe};
use nvlite_engine::{Error, MediumKind, Pmem};
use std::path::Path;
use std::process::ExitCode;

/// Runs all checks; each reports for itself.
pub fn check(dir: &Path, domain: &str) -> ExitCode {
    let flush = expected_flush(domain);
    let checks: [(&str, Finding<String>); 4] = [
        ("detected", detected(dir)),
        ("primitive", flush.clone().and_then(|want| primitive(dir, want))),
        ("refused_elsewhere", refused_elsewhere(dir)),
        ("full", full(dir)),
    ];
    let failed = checks.map(|(name, finding)| report(name, finding)).into_iter().any(|code| code != ExitCode::SUCCESS);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// From the kernel's list of CPU features, not from CPUID: a second opinion.
fn expected_flush(domain: &str) -> Finding<Flush> {
    let info = std::fs::read_to_string("/proc/cpuinfo").map_err(|e| e.to_string())?;
    let has = |feature| info.split_ascii_whitespace().any(|word| word == feature);
    match domain {
        "cpu_cache" => Ok(Flush::Unneeded),
        "memory_controller" if has("clwb") => Ok(Flush::Clwb),
        "memory_controller" if has("clflushopt") => Ok(Flush::ClflushOpt),
        "memory_controller" => Ok(Flush::Clflush),
        other => Err(format!("unknown persistence domain {other}")),
    }
}

fn ensure(holds: bool, what: &str) -> Finding {
    if holds { Ok(()) } else { Err(format!("not so: {what}")) }
}

fn detected(dir: &Path) -> Finding<String> {
    ensure(probe(dir), "MAP_SYNC on the DAX file system")?;
    ensure(!probe(Path::new("/tmp")), "no MAP_SYNC on tmpfs")?;
    ensure(is_tmpfs(Path::new("/tmp")).is_ok_and(|yes| yes), "/tmp is tmpfs")?;
    ensure(is_tmpfs(dir).is_ok_and(|yes| !yes), "the DAX file system is not tmpfs")?;
    Ok("MAP_SYNC".into())
}

/// A region that is removed at the end of a check.
struct Scratch(Mapped);

impl Scratch {
    fn new(dir: &Path, len: u64) -> Finding<Scratch> {
        Mapped::create(&dir.join("scratch"), len, MediumKind::Dax).map(Scratch).map_err(|e| e.to_string())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0.path());
    }
}

fn primitive(dir: &Path, want: Flush) -> Finding<String> {
    let Scratch(region) = &Scratch::new(dir, 1 << 20)?;
    let got = region.primitive();
    ensure(got == want, &format!("{} expected, {} chosen", want.name(), got.name()))?;
    region.allocate(0, 8192).map_err(|e| e.to_string())?;
    region.store(60, &[7; 72]); // the last 4 bytes of a line, a line, the first 4 of another
    let lines = region.flush(Site::RetireLines, 60, 72);
    region.fence(Site::CommitFence);
    let expected = if got == Flush::Unneeded { 0 } else { 3 };
    ensure(lines == expected, &format!("{lines} lines flushed instead of {expected}"))?;
    Ok(format!("{} lines={lines}", got.name()))
}

fn refused_elsewhere(_dir: &Path) -> Finding<String> {
    match Mapped::create(Path::new("/tmp/region"), 1 << 20, MediumKind::Dax) {
        Err(Error::CantOpen { reason, .. }) if reason.contains("MAP_SYNC") => Ok("tmpfs".into()),
        Err(other) => Err(other.to_string()),
        Ok(_) => Err("medium=dax was granted on tmpfs".into()),
    }
}

/// A full file system is an error of `allocate`, not the death of the program at a store.
fn full(dir: &Path) -> Finding<String> {
    let Scratch(region) = &Scratch::new(dir, 4 << 30)?;
    match region.allocate(0, 4 << 30) {
        Err(Error::Full { .. }) => Ok("no room for 4 GiB".into()),
        Err(other) => Err(other.to_string()),
        Ok(()) => Err("4 GiB were allocated on a smaller device".into()),
    }
}
