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
fn a_missing_file_is_an_error_that_names_it() {
    let missing = std::path::Path::new("no such directory/file");
    let Err(Error::Io { path, .. }) = FileDisk::open(missing) else { unreachable!("it opened") };
    assert_eq!(path, missing);
}
