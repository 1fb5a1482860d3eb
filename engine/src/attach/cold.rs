//! The cold file at an open. Most of what it holds only readers need, and it may go with them; but of a large transaction that
//! is not at home yet the log names blocks in it. Those are as much of the database as the log is.

use super::SideFiles;
use crate::base::{Error, Result};
use crate::engine::Region;
use crate::format::journal::{Change, groups};
use crate::format::superblock::Superblock;
use crate::medium::{Disk, FileDisk};
use crate::recovery::read_log;
use std::sync::Arc;

fn is_missing<T>(opened: &Result<T>) -> bool {
    matches!(opened, Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound)
}

/// The cold file, and whether it was made: the log will name blocks of it, so its name has to be synced first.
pub fn open(files: &SideFiles) -> Result<(Arc<dyn Disk>, bool)> {
    let opened = FileDisk::open(&files.cold);
    if is_missing(&opened) {
        let disk = FileDisk::create(&files.cold)?;
        disk.same_access(&files.base)?;
        return Ok((Arc::new(disk), true));
    }
    Ok((Arc::new(opened?), false))
}

/// The cold file that others are using.
///
/// # Errors
/// `CantOpen` if there is none: what is written to another one, they do not read, and the reverse.
pub fn join(files: &SideFiles) -> Result<Arc<dyn Disk>> {
    let opened = FileDisk::open(&files.cold);
    if is_missing(&opened) {
        let why = "it is gone, while others have the database open: let them close it, or put it back";
        return Err(Error::cant_open(&files.cold, why));
    }
    Ok(Arc::new(opened?))
}

/// Whether all that the log of a region needs is there to be opened; how long it must be, recovery finds out.
///
/// # Errors
/// `CantOpen` if the log names blocks of a cold file that is missing; those of reading the log.
pub fn check(files: &SideFiles, superblock: &Superblock) -> Result<()> {
    if superblock.page_size == 0 || !is_missing(&FileDisk::open(&files.cold)) {
        return Ok(());
    }
    let log = read_log(&Region::Disk(Arc::new(FileDisk::open(&files.region)?)), superblock)?;
    let in_cold = |body: &[u8]| {
        groups(body, superblock.page_size).any(|group| matches!(group, Ok((_, Change::Block { cold: true, .. }))))
    };
    match log.commits.iter().find(|(_, parts)| parts.iter().any(|body| in_cold(body))) {
        Some((jci, _)) => {
            let why = format!("it is missing, and commit {jci} has pages in it that are nowhere else: put it back");
            Err(Error::cant_open(&files.cold, why))
        }
        None => Ok(()),
    }
}
