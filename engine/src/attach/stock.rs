//! What stock SQLite leaves beside its file.

use crate::base::{Error, Result};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

fn beside(base: &Path, suffix: &str) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn there<T>(path: &Path, looked: io::Result<T>) -> Result<Option<T>> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, "look at", error)),
    }
}

/// Whether a journal or a WAL belongs to what stands in the file `base`, which the caller has exclusively locked, so that whoever
/// left it is dead. As stock SQLite sees it: a journal that was ended is empty, or begins with a zero.
///
/// # Errors
/// They cannot be looked at.
pub fn is_unfinished(base: &Path) -> Result<bool> {
    let journal = beside(base, "-journal");
    if let Some(mut file) = there(&journal, File::open(&journal))? {
        let mut first = [0];
        let found = file.read(&mut first).map_err(|error| Error::io(&journal, "read", error))?;
        if found > 0 && first != [0] {
            return Ok(true);
        }
    }
    let wal = beside(base, "-wal");
    Ok(there(&wal, std::fs::metadata(&wal))?.is_some_and(|data| data.len() > 0))
}
