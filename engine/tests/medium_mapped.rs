//! A mapping holds what was stored, in whole granules, and never lets a caller outside of it.
#![allow(missing_docs)]

use nvlite_engine::medium::{Flush, Mapped, MediumKind, Site, is_tmpfs, probe};
use nvlite_engine::{Error, Pmem, Result};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

const LEN: u64 = 64 << 10;

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// What a mapping in this directory is of: `tests/dax/run.sh` runs these tests on persistent memory.
fn kind(dir: &Path) -> MediumKind {
    if probe(dir) { MediumKind::Dax } else { MediumKind::Ram }
}

fn read(region: &Mapped, off: u64, len: usize) -> Vec<u8> {
    let mut got = vec![0xEE; len];
    region.load(off, &mut got);
    got
}

#[test]
fn stores_of_any_alignment_reach_the_file_and_only_their_bytes() -> Result<()> {
    let dir = scratch();
    let path = dir.path().join("region");
    let source: Vec<u8> = (0..600u32).map(|i| i as u8 | 1).collect();
    let region = Mapped::create(&path, LEN, kind(dir.path()))?;
    region.allocate(0, LEN)?;
    for skew in 0..9usize {
        for len in [0, 1, 7, 8, 9, 63, 64, 65, 511] {
            region.zero(0, 1024);
            region.store(64 + skew as u64, &source[skew..skew + len]);
            let got = read(&region, 0, 1024);
            assert_eq!(got[64 + skew..64 + skew + len], source[skew..skew + len]);
            assert_eq!(got.iter().filter(|&&b| b != 0).count(), len, "skew {skew} len {len}");
            assert_eq!(read(&region, 64 + skew as u64, len), source[skew..skew + len]);
        }
    }
    region.zero(3, 1001);
    region.stream(Site::CommitRecord, 4096 + 5, &source);
    region.store_u64(8192, 0x0102_0304_0506_0708);
    region.fence(Site::CommitFence);
    drop(region);
    let file = std::fs::read(&path).expect("the region as a file");
    assert_eq!(file.len() as u64, LEN);
    assert_eq!(file[4101..4701], source);
    assert_eq!(file[8192..8200], 0x0102_0304_0506_0708u64.to_ne_bytes());
    let again = Mapped::open(&path, kind(dir.path()))?;
    assert_eq!(read(&again, 4101, 600), source);
    Ok(())
}

#[test]
fn flush_tells_the_lines_it_wrote_back() -> Result<()> {
    let dir = scratch();
    let region = Mapped::create(&dir.path().join("region"), LEN, kind(dir.path()))?;
    region.allocate(0, LEN)?;
    let per_line = u64::from(region.primitive() != Flush::Unneeded);
    assert_eq!(region.flush(Site::RetireLines, 0, 0), 0);
    assert_eq!(region.flush(Site::RetireLines, 60, 8), 2 * per_line);
    assert_eq!(region.flush(Site::RetireLines, 0, LEN), LEN / 64 * per_line);
    Ok(())
}

#[test]
fn creation_takes_no_storage_and_hides_the_file_from_others() -> Result<()> {
    let dir = scratch();
    let path = dir.path().join("region");
    let model = dir.path().join("app.db");
    std::fs::write(&model, "").expect("a model");
    std::fs::set_permissions(&model, PermissionsExt::from_mode(0o640)).expect("its mode");
    let region = Mapped::create(&path, 1 << 40, kind(dir.path()))?;
    let mode = || region.file().metadata().expect("metadata").mode() & 0o777;
    assert_eq!(mode(), 0o600);
    region.same_access(&model)?;
    assert_eq!(mode(), 0o640);
    region.allocate(1 << 30, 4096)?;
    assert!(region.file().metadata().expect("metadata").blocks() <= 64);
    assert!(matches!(Mapped::create(&path, LEN, kind(dir.path())), Err(Error::Io { .. })), "it exists already");
    Ok(())
}

#[test]
fn eight_bytes_past_the_end_are_readable() -> Result<()> {
    let dir = scratch();
    let region = Mapped::create(&dir.path().join("region"), LEN, kind(dir.path()))?;
    let end = region.base().wrapping_add(LEN as usize);
    let mut copy = [0xEEu8; 8];
    // The kernel reads them for us: a fault would be an error of the call.
    let mut pipe = std::io::pipe().expect("a pipe");
    // SAFETY: writes 8 bytes from an address that the mapping promises to be readable.
    #[allow(unsafe_code)]
    let wrote = unsafe { libc::write(std::os::fd::AsRawFd::as_raw_fd(&pipe.1), end.cast(), 8) };
    assert_eq!(wrote, 8, "{}", std::io::Error::last_os_error());
    std::io::Read::read_exact(&mut pipe.0, &mut copy).expect("8 bytes");
    assert_eq!(copy, [0; 8]);
    Ok(())
}

#[test]
#[should_panic(expected = "of a mapping of")]
fn a_range_outside_is_refused() {
    let dir = scratch();
    let region = Mapped::create(&dir.path().join("region"), LEN, kind(dir.path())).expect("a region");
    region.store(LEN - 4, &[1; 8]);
}

#[test]
fn files_that_cannot_be_a_region_are_errors() {
    let dir = scratch();
    let path = dir.path().join("region");
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("a file");
        matches!(Mapped::open(&path, kind(dir.path())), Err(Error::Corrupt { .. }))
    };
    assert!(refused(b""));
    assert!(refused(&[0; 4097]));
    assert!(matches!(Mapped::open(dir.path(), kind(dir.path())), Err(Error::Io { .. })));
    assert!(matches!(Mapped::create(&dir.path().join("f"), LEN, MediumKind::File), Err(Error::CantOpen { .. })));
    assert!(!dir.path().join("f").exists());
}

/// Where this machine has no persistent memory: `dax` is refused with the reason, and leaves nothing behind.
#[test]
fn dax_is_refused_where_map_sync_is() -> Result<()> {
    for dir in [scratch(), tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| scratch())] {
        let found = probe(dir.path());
        assert_eq!(std::fs::read_dir(dir.path()).expect("a listing").count(), 0, "the probe left something");
        let path = dir.path().join("region");
        match Mapped::create(&path, LEN, MediumKind::Dax) {
            Ok(_) => assert!(found),
            Err(Error::CantOpen { reason, .. }) => {
                assert!(!found && reason.contains("MAP_SYNC"), "{reason}");
                assert!(!path.exists());
            }
            Err(other) => return Err(other),
        }
        if is_tmpfs(dir.path())? {
            assert!(!found);
        }
    }
    assert!(!probe(Path::new("/no such directory")));
    Ok(())
}
