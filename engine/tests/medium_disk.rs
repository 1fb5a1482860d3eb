//! Positioned I/O: short reads are zeros, what was written is there, a read-only handle writes nothing.
#![allow(missing_docs)]

#[allow(dead_code, reason = "not all of it is needed here")]
#[path = "../../tests/src/needs.rs"]
mod needs;

use nvlite_engine::medium::{FileDisk, Site, sync_dir};
use nvlite_engine::{Disk, Error, Result};

#[test]
fn reads_past_the_end_are_zeros_and_say_so() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("disk");
    let disk = FileDisk::create(&path)?;
    assert!(disk.is_empty()?);
    disk.write_at(10, b"abc")?;
    disk.sync(Site::ShadowCold)?;
    sync_dir(dir.path(), Site::SideNames)?;
    let mut got = [0xEE; 8];
    assert_eq!(disk.read_at(8, &mut got)?, 5);
    assert_eq!(&got, b"\0\0abc\0\0\0");
    assert_eq!(disk.read_at(100, &mut got)?, 0);
    assert_eq!(got, [0; 8]);

    disk.allocate(0, 8192)?;
    assert_eq!(disk.len()?, 8192);
    disk.allocate(0, 4096)?;
    assert_eq!(disk.len()?, 8192, "an allocation never cuts");
    disk.set_len(12)?;
    assert_eq!(disk.len()?, 12);

    let other = FileDisk::open_read_only(&path)?;
    assert_eq!(other.read_at(10, &mut got)?, 2);
    assert!(matches!(other.write_at(0, b"x"), Err(Error::Io { .. })));
    Ok(())
}

#[test]
fn what_was_written_is_in_no_hole() -> Result<()> {
    // Failure: recovery, which reads what was written only, does not see a record that lies in allocated storage.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = FileDisk::create(&dir.path().join("disk"))?;
    let (len, at) = (1 << 20, [0, 300 << 10, (1 << 20) - 1]);
    disk.set_len(len)?;
    disk.allocate(0, len / 2)?;
    let seen = || -> Result<u64> {
        let (mut from, mut seen) = (0, 0);
        while from < len {
            let written = disk.next_written(from..len)?;
            assert!(from <= written.start && written.end <= len, "{written:?}");
            if written.is_empty() {
                break;
            }
            seen += at.iter().filter(|at| written.contains(at)).count() as u64;
            from = written.end;
        }
        Ok(seen)
    };
    for (n, byte) in at.into_iter().enumerate() {
        disk.write_at(byte, b"x")?;
        assert!(seen()? > n as u64, "{n}, as soon as it is written");
    }
    disk.sync(Site::Batch)?;
    assert_eq!(seen()?, 3);
    Ok(())
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    let missing = std::path::Path::new("no such directory/file");
    let Err(Error::Io { path, .. }) = FileDisk::open(missing) else { unreachable!("it opened") };
    assert_eq!(path, missing);
}
