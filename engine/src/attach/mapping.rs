//! The file of a shared mapping: made by the first who attaches, removed by the last who leaves, or, if that one was killed, by
//! the first who attaches after it.
//!
//! Its name says whose it is: `nvlite-<region>-<device>-<inode>-<nonce>`, device and inode of the region file. So it is found
//! even if whoever made it died before the superblock named it, or in the middle of a clean close, which takes the name out
//! of the superblock. And who attaches to a copy of the files leaves the mapping of the original alone, which may be in use:
//! the attach lock, under which all of this runs, is one of the region file, not of its identity.

use super::{SideFiles, boot_id, random, remove};
use crate::assemble::mapping_len;
use crate::base::{Error, RegionId, Result};
use crate::format::superblock::Superblock;
use crate::medium::{FileDisk, is_tmpfs};
use crate::shared::Places;
use crate::shm::Segment;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where mappings lie if there is room.
const SHM: &str = "/dev/shm";

fn prefix(files: &SideFiles, id: RegionId) -> Result<String> {
    let region = std::fs::metadata(&files.region).map_err(|e| Error::io(&files.region, "look at", e))?;
    Ok(format!("nvlite-{id}-{:x}-{:x}-", region.dev(), region.ino()))
}

/// A new mapping.
pub struct New {
    /// Where it is.
    pub path: PathBuf,
    len: u64,
    /// What tells it from others there.
    nonce: [u8; 16],
}

impl New {
    /// Lets the superblock name it, so that others join.
    pub fn describe(&self, superblock: &mut Superblock, places: &Places) {
        superblock.mapping = self.path.as_os_str().as_bytes().to_vec();
        superblock.mapping_len = self.len;
        superblock.nonce = self.nonce;
        superblock.boot = boot_id();
        superblock.shape = places.shape();
    }
}

/// Makes a mapping: on tmpfs where that has room, else beside the region.
pub fn create(files: &SideFiles, superblock: &Superblock) -> Result<(Segment, New)> {
    let (id, budget) = (superblock.region, superblock.budget);
    let len = mapping_len(budget, superblock.medium);
    let mut nonce = [0u8; 16];
    random(&mut nonce)?;
    let tail: String = nonce[..8].iter().map(|b| format!("{b:02x}")).collect();
    let name = prefix(files, id)? + &tail;
    let shm = Path::new(SHM);
    let room = rustix::fs::statvfs(shm).map_or(0, |s| s.f_bavail * s.f_frsize);
    let on_tmpfs = is_tmpfs(shm).unwrap_or(false) && room > budget.min(64 << 20) + (16 << 20);
    let dir = if on_tmpfs { shm } else { &files.dir };
    let path = std::path::absolute(dir.join(&name)).map_err(|e| Error::io(dir, "resolve", e))?;
    let segment = Segment::create(&path, len + 4096)?;
    let made = FileDisk::open(&path).and_then(|disk| disk.same_access(&files.base)).and_then(|()| {
        segment.commit(len, 4096)?;
        segment.copy_in(len, &nonce);
        Ok(())
    });
    made.inspect_err(|_| remove(&path))?;
    let len = segment.len();
    Ok((segment, New { path, len, nonce }))
}

/// Removes the mappings of this region, which nobody is attached to: those of killed processes, and of an earlier boot.
pub fn remove_dead(files: &SideFiles, superblock: &Superblock) {
    let Ok(prefix) = prefix(files, superblock.region) else { return };
    let named = PathBuf::from(std::ffi::OsString::from_vec(superblock.mapping.clone()));
    let starts_with =
        |path: &Path, prefix: &str| path.file_name().is_some_and(|n| n.as_bytes().starts_with(prefix.as_bytes()));
    // beside a region that has been somewhere else; of another boot, nobody can have it
    let other_boot = superblock.boot != boot_id() && starts_with(&named, &format!("nvlite-{}-", superblock.region));
    if (other_boot || starts_with(&named, &prefix)) && named.exists() {
        remove(&named);
    }
    for dir in [Path::new(SHM), &files.dir] {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| starts_with(path, &prefix)).for_each(|path| remove(&path));
    }
}
