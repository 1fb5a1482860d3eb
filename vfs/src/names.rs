//! The databases that this process is attached to through nvlite, by name: for the calls that SQLite makes about a journal
//! (`xAccess` twice in every transaction, P8), which carry nothing but a name.

use crate::process::PerProcess;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

type Open = RwLock<HashMap<PathBuf, usize>>;

/// Those of this process. A forked child has those of its parent besides, so that closing an inherited connection touches no
/// journal of a stock file; but for a fork in the middle of a change to them.
fn open() -> &'static Open {
    static OPEN: PerProcess<Open> = PerProcess::new();
    OPEN.get(|parents| RwLock::new(parents.and_then(|open| Some(open.try_read().ok()?.clone())).unwrap_or_default()))
}

/// Set once a main database was handed to the default VFS; until then every journal that is asked for is one of ours.
static STOCK_SEEN: AtomicBool = AtomicBool::new(false);

/// A connection attached to `path`.
pub fn add(path: &Path) {
    *open().write().unwrap_or_else(PoisonError::into_inner).entry(path.to_owned()).or_default() += 1;
}

/// A connection that was attached to `path` is closed.
pub fn remove(path: &Path) {
    let mut open = open().write().unwrap_or_else(PoisonError::into_inner);
    if let Some(count) = open.get_mut(path) {
        *count -= 1;
        if *count == 0 {
            open.remove(path);
        }
    }
}

/// From now on some journals are the default VFS's business.
pub fn stock_seen() {
    STOCK_SEEN.store(true, Ordering::Relaxed);
}

/// True if `name` is the journal or WAL of a database that is attached through nvlite. No system call.
#[must_use]
pub fn is_our_journal(name: &[u8]) -> bool {
    let Some(database) = database_of(name) else { return false };
    !STOCK_SEEN.load(Ordering::Relaxed) || is_open(database)
}

fn database_of(name: &[u8]) -> Option<&Path> {
    let database = name.strip_suffix(b"-journal").or_else(|| name.strip_suffix(b"-wal"))?;
    Some(Path::new(OsStr::from_bytes(database)))
}

fn is_open(path: &Path) -> bool {
    open().read().unwrap_or_else(PoisonError::into_inner).contains_key(path)
}

/// As [`is_our_journal`], but only for a database that is attached now: for calls that change something.
#[must_use]
pub fn is_journal_of_open(name: &[u8]) -> bool {
    database_of(name).is_some_and(is_open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::tests::in_child;

    #[test]
    fn p13_a_child_of_a_process_that_was_just_opening_one_opens_its_own() {
        let path = Path::new("/names/in/a/child.db");
        let journal = b"/names/in/a/child.db-journal";
        let open_and_close = || {
            add(path);
            let seen = is_journal_of_open(journal);
            remove(path);
            seen && !is_journal_of_open(journal)
        };
        let held = open().write();
        assert!(in_child(open_and_close));
        drop(held);
        add(path);
        assert!(in_child(|| is_journal_of_open(journal)), "the parent's are known");
        remove(path);
        assert!(open_and_close());
    }
}
