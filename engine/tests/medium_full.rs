//! No room is an error that names the file and the limit; never a signal, which would kill the host program.
//!
//! `SIGBUS` would come from a store to a page of a full tmpfs, `SIGXFSZ` from a file that grows over `RLIMIT_FSIZE`.
#![allow(missing_docs)]

#[allow(dead_code, reason = "not all of it is needed here")]
#[path = "../../tests/src/needs.rs"]
mod needs;

use nvlite_engine::medium::{FileDisk, Mapped, MediumKind};
use nvlite_engine::shm::Segment;
use nvlite_engine::{Disk, Error, Pmem, Result};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

/// A tmpfs of its own, unmounted at the end.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// `None` where this process may not mount.
    fn new(kib: u64) -> Option<Tmpfs> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        needs::tmpfs(dir.path(), kib).then_some(Tmpfs(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_tmpfs_is_an_error_before_the_store() -> Result<()> {
    let Some(tmpfs) = Tmpfs::new(1024) else { return Ok(()) };
    let region = Mapped::create(&tmpfs.0.path().join("region"), 64 << 20, MediumKind::Ram)?;
    region.allocate(0, 512 << 10)?;
    region.store((512 << 10) - 8, &[7; 8]);
    let Err(Error::Full { path, cause, .. }) = region.allocate(512 << 10, 1 << 20) else {
        return Err(Error::Busy("not full"));
    };
    assert_eq!(path, region.path());
    assert!(cause.contains("No space left"), "{cause}");
    region.allocate(0, 512 << 10)?; // what it had, it keeps
    Ok(())
}

#[test]
fn a_full_disk_is_an_error_and_room_given_back_is_usable() -> Result<()> {
    let Some(tmpfs) = Tmpfs::new(1024) else { return Ok(()) };
    let disk = FileDisk::create(&tmpfs.0.path().join("cold"))?;
    disk.allocate(0, 768 << 10)?;
    assert!(matches!(disk.allocate(768 << 10, 1 << 20), Err(Error::Full { .. })));
    assert!(matches!(disk.write_at(0, &vec![1; 2 << 20]), Err(Error::Full { .. })));
    disk.set_len(256 << 10)?;
    disk.write_at(256 << 10, &vec![2; 128 << 10])?;
    Ok(())
}

#[test]
fn a_mapping_on_a_full_tmpfs_is_an_error_before_it_is_touched() -> Result<()> {
    let Some(tmpfs) = Tmpfs::new(1024) else { return Ok(()) };
    let path = tmpfs.0.path().join("map");
    let segment = Segment::create(&path, 1 << 40)?; // a sparse file has room
    segment.commit(4096, 4096)?;
    for len in [2 << 20, 64 << 20] {
        assert!(matches!(segment.commit(0, len), Err(Error::Full { path: full, .. }) if full == path));
    }
    segment.at::<AtomicU64>(4096).store(1, Ordering::Relaxed); // what it had, it keeps
    Ok(())
}

const CHILD: &str = "NVLITE_TEST_FILE_LIMIT_DIR";

/// The limit cannot be raised again, so a child of this very test lives under it. Its death by `SIGXFSZ` is the failure.
#[test]
fn the_file_size_limit_is_an_error_that_names_it() -> Result<()> {
    if let Some(dir) = std::env::var_os(CHILD) {
        return under_the_limit(Path::new(&dir));
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let me = std::env::current_exe().expect("this program");
    let out = Command::new(me)
        .args(["--exact", "the_file_size_limit_is_an_error_that_names_it", "--nocapture"])
        .env(CHILD, dir.path())
        .output()
        .expect("a child");
    assert!(out.status.success(), "{:?}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    Ok(())
}

fn under_the_limit(dir: &Path) -> Result<()> {
    let above = FileDisk::create(&dir.join("above"))?;
    above.set_len(1 << 20)?;
    let small = Mapped::create(&dir.join("small"), 64 << 10, MediumKind::Ram)?;
    let limit = Some(64 << 10);
    setrlimit(Resource::Fsize, Rlimit { current: limit, maximum: limit }).expect("a lower limit");

    fn named<T>(result: Result<T>) -> bool {
        matches!(result, Err(Error::Full { cause, .. }) if cause.contains("RLIMIT_FSIZE of 65536"))
    }
    let disk = FileDisk::create(&dir.join("disk"))?;
    disk.write_at((64 << 10) - 4096, &[1; 4096])?;
    assert!(named(disk.write_at((64 << 10) - 4095, &[1; 4096])));
    assert!(named(disk.write_at(u64::MAX - 8, &[1; 4096])));
    assert!(named(disk.allocate(60 << 10, 4097)));
    assert!(named(disk.set_len((64 << 10) + 1)));
    assert!(named(above.write_at(512 << 10, &[1])), "the limit counts for bytes that exist, too");
    above.set_len(512 << 10)?; // a cut is allowed
    assert!(named(Mapped::create(&dir.join("large"), 128 << 10, MediumKind::Ram)));
    assert!(!dir.join("large").exists());
    small.allocate(0, 64 << 10)?;
    Ok(())
}
