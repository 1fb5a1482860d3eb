//! SQLite databases for the tests: on nvlite, and on stock SQLite to compare with.

#![allow(clippy::panic, reason = "a test support that cannot go on has nobody to tell but the test")]

pub mod bank;
pub mod compare;
mod cursor;
pub mod generate;
pub mod log;

use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What a database lies on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum System {
    /// Stock SQLite in WAL mode: its readers see snapshots too.
    Stock,
    /// nvlite on a disk.
    File,
    /// nvlite in memory that outlives the process.
    Ram,
}

impl System {
    /// The two media of nvlite that every machine has.
    pub const NVLITE: [System; 2] = [System::File, System::Ram];

    /// By the name that [`name`](Self::name) gives.
    pub fn named(name: &str) -> Option<System> {
        [System::Stock, System::File, System::Ram].into_iter().find(|system| system.name() == name)
    }

    /// A short name.
    pub fn name(self) -> &'static str {
        match self {
            System::Stock => "stock",
            System::File => "file",
            System::Ram => "ram",
        }
    }

    /// True for stock SQLite, and for all with `NVLITE_TESTS_ON_STOCK`: then the tests test themselves.
    pub fn is_stock(self) -> bool {
        self == System::Stock || std::env::var_os("NVLITE_TESTS_ON_STOCK").is_some()
    }

    /// A directory for databases of this system: on tmpfs for `ram`.
    pub fn scratch(self) -> Scratch {
        let shm = Path::new("/dev/shm");
        let dir = if self == System::Ram && shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        Scratch { dir: dir.unwrap_or_else(|e| panic!("no scratch directory: {e}")) }
    }

    /// The connection string of the database at `path`, with more URI parameters as `&name=value`.
    pub fn uri(self, path: &Path, more: &str) -> String {
        let path = path.display();
        match self {
            _ if self.is_stock() => format!("file:{path}"),
            System::Stock => format!("file:{path}"),
            System::File => format!("file:{path}?vfs=nvlite&medium=file{more}"),
            System::Ram => format!("file:{path}?vfs=nvlite&medium=ram{more}"),
        }
    }

    /// Opens a connection; it waits up to `busy_ms` for a lock.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn open(self, path: &Path, busy_ms: u64) -> rusqlite::Result<Connection> {
        self.open_with(path, busy_ms, "")
    }

    /// The same with more URI parameters.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn open_with(self, path: &Path, busy_ms: u64, more: &str) -> rusqlite::Result<Connection> {
        register();
        let db = Connection::open_with_flags(self.uri(path, more), OpenFlags::default() | OpenFlags::SQLITE_OPEN_URI)?;
        db.busy_timeout(std::time::Duration::from_millis(busy_ms))?;
        if self.is_stock() {
            // Asking for WAL again may find the database locked; reading never does.
            db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
            if db.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0))? != "wal" {
                db.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
            }
            db.execute_batch("PRAGMA wal_autocheckpoint=100")?;
        }
        Ok(db)
    }
}

/// Registers the VFS, once.
fn register() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| nvlite_vfs::register().unwrap_or_else(|e| panic!("the VFS cannot be registered: {e}")));
}

/// A directory that goes away with this.
pub struct Scratch {
    dir: TempDir,
}

impl Scratch {
    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Names of what is in it, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.dir.path())
            .map(|dir| dir.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }
}

/// What `PRAGMA integrity_check` says, "ok" if all is well.
///
/// # Errors
/// As SQLite says.
pub fn integrity(db: &Connection) -> rusqlite::Result<String> {
    let mut statement = db.prepare("PRAGMA integrity_check")?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.join("; "))
}

/// The file alone, as stock SQLite sees it: what `PRAGMA integrity_check` says.
///
/// # Errors
/// As SQLite says.
pub fn stock_integrity(path: &Path) -> rusqlite::Result<String> {
    integrity(&Connection::open(path)?)
}

/// Makes a stock file with a table `t` of one row.
///
/// # Errors
/// As SQLite says.
pub fn stock_file(path: &Path) -> rusqlite::Result<()> {
    Connection::open(path)?.execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t(b) VALUES(1)")
}
