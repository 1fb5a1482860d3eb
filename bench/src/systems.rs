//! The systems that are compared: how each is set up from one loaded file, and how a connection to it is opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use nvlite_vfs::{OpenOptions, uri_path};
use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

use crate::cli::{Job, Level, Medium};
use crate::error::{Context, Error, Result};
use crate::session::WriteLock;
use crate::stock_vfs;

/// Page size of every database.
pub const PAGE_SIZE: u32 = 4096;

/// The count of device flushes: the syncs of all its files.
pub const DEVICE_FLUSHES: &str = "device_flushes";

/// The count of bytes written to the log: of WAL, to the `-wal` file.
pub const LOG_BYTES: &str = "log_bytes_written";

/// A system's own counts by name.
pub type Counts = BTreeMap<String, f64>;

/// A system under comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum System {
    /// SQLite with nvlite's VFS.
    Nvlite,
    /// Stock SQLite, WAL, synchronous=FULL.
    WalFull,
    /// The same with fdatasync, its writers behind a mutex in the application.
    WalFair,
    /// Stock SQLite, WAL, synchronous=NORMAL.
    WalNormal,
    /// `:memory:`, one connection.
    Memory,
    /// SQLite's memdb VFS, shared by the threads.
    Memdb,
}

impl System {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            System::Nvlite => "nvlite",
            System::WalFull => "wal_full",
            System::WalFair => "wal_fair",
            System::WalNormal => "wal_normal",
            System::Memory => "memory",
            System::Memdb => "memdb",
        }
    }
}

impl System {
    /// Whether its database lies in files.
    pub fn has_files(self) -> bool {
        !matches!(self, System::Memory | System::Memdb)
    }
}

/// One system with its loaded database.
pub struct Instance {
    /// Which system.
    pub system: System,
    /// The mutex before its write transactions, if it has one.
    pub queue: Option<WriteLock>,
    job: Job,
    /// The loaded file that `:memory:` is filled from.
    source: PathBuf,
    /// Its own file, where it has one.
    file: PathBuf,
    uri: String,
    /// Keeps a shared in-memory database alive.
    _keeper: Option<Connection>,
}

impl Instance {
    /// Gives `system` a copy of the database `source` under `dir`.
    pub fn create(system: System, source: &Path, dir: &Path, job: &Job) -> Result<Self> {
        let file = dir.join(format!("{}.db", system.name()));
        let path = uri_path(&file);
        let mut instance = Self {
            system,
            queue: None,
            job: job.clone(),
            source: source.to_owned(),
            uri: format!("file:{path}?vfs={}", stock_vfs::STOCK.to_string_lossy()),
            file,
            _keeper: None,
        };
        stock_vfs::register()?;
        match system {
            System::Nvlite => {
                nvlite_vfs::register().during("registering nvlite")?;
                instance.copy_file()?;
                instance.uri = nvlite_options(job).uri(&instance.file);
            }
            System::WalFair => {
                instance.queue = Some(WriteLock::default());
                let name = stock_vfs::FDATASYNC.to_string_lossy();
                instance.uri = format!("file:{path}?vfs={name}");
                instance.copy_file()?;
                instance.enable_wal()?;
            }
            System::WalFull | System::WalNormal => {
                instance.copy_file()?;
                instance.enable_wal()?;
            }
            System::Memory => instance.uri = ":memory:".to_owned(),
            System::Memdb => {
                instance.uri = format!("file:/{}-{path}?vfs=memdb", std::process::id());
                let mut keeper = instance.connect()?;
                fill(&instance.source, &mut keeper)?;
                instance._keeper = Some(keeper);
            }
        }
        Ok(instance)
    }

    /// Opens a connection with the run's settings.
    pub fn connect(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(&self.uri, flags).during(&format!("opening {}", self.uri))?;
        if self.system == System::Memory {
            fill(&self.source, &mut conn)?;
        }
        configure(&conn, self.synchronous(), &self.job)?;
        Ok(conn)
    }

    /// The file that a clean close leaves to stock SQLite, if this system promises one.
    pub fn stock_file(&self) -> Option<&Path> {
        matches!(self.system, System::Nvlite).then_some(&self.file)
    }

    /// What is counted about its files up to now, by the names of the columns of the report; nothing if it has none.
    pub fn counters(&self) -> Counts {
        if !self.system.has_files() || self.system == System::Nvlite {
            return Counts::new();
        }
        let mut wal = self.file.clone().into_os_string();
        wal.push("-wal");
        let (base, wal) = (stock_vfs::totals(&self.file), stock_vfs::totals(Path::new(&wal)));
        let named =
            [(DEVICE_FLUSHES, base.syncs + wal.syncs), (LOG_BYTES, wal.bytes), ("base_bytes_written", base.bytes)];
        named.map(|(name, n)| (name.to_owned(), n as f64)).into()
    }

    fn synchronous(&self) -> &'static str {
        match (self.system, self.job.level) {
            (System::Nvlite, Level::Full) | (System::WalFull | System::WalFair, _) => "FULL",
            (System::Nvlite, Level::Normal) | (System::WalNormal, _) => "NORMAL",
            (System::Nvlite, Level::Off) | (System::Memory | System::Memdb, _) => "OFF",
        }
    }

    fn copy_file(&self) -> Result<()> {
        std::fs::copy(&self.source, &self.file).map_err(|error| Error::io(&self.file, error))?;
        Ok(())
    }

    fn enable_wal(&self) -> Result<()> {
        let conn = self.connect()?;
        let mode: String =
            conn.query_row("PRAGMA journal_mode=WAL", (), |row| row.get(0)).during("PRAGMA journal_mode=WAL")?;
        if mode == "wal" { Ok(()) } else { Err(Error::Usage(format!("{}: no WAL, but {mode}", self.uri))) }
    }
}

/// The settings that every connection gets, whatever the system.
fn configure(conn: &Connection, synchronous: &str, job: &Job) -> Result<()> {
    conn.busy_timeout(Duration::from_secs(10)).during("PRAGMA busy_timeout")?;
    conn.pragma_update(None, "cache_size", -i64::from(job.cache)).during("PRAGMA cache_size")?;
    conn.pragma_update(None, "synchronous", synchronous).during("PRAGMA synchronous")?;
    if let Some(mib) = job.mmap {
        let sql = format!("PRAGMA mmap_size={}", u64::from(mib) << 20);
        conn.query_row(&sql, (), |_| Ok(())).or_else(no_row_is_fine).during("PRAGMA mmap_size")?;
    }
    let page_size: u32 = conn.query_row("PRAGMA page_size", (), |row| row.get(0)).during("PRAGMA page_size")?;
    if page_size == PAGE_SIZE { Ok(()) } else { Err(Error::Usage(format!("page size {page_size}, not {PAGE_SIZE}"))) }
}

fn no_row_is_fine(error: rusqlite::Error) -> rusqlite::Result<()> {
    if error == rusqlite::Error::QueryReturnedNoRows { Ok(()) } else { Err(error) }
}

/// Copies the file `source` into an in-memory database, page by page.
fn fill(source: &Path, target: &mut Connection) -> Result<()> {
    let source = Connection::open_with_flags(source, OpenFlags::SQLITE_OPEN_READ_ONLY).during("opening the load")?;
    let copy =
        |target: &mut Connection| Backup::new(&source, target)?.run_to_completion(i32::MAX, Duration::ZERO, None);
    copy(target).during("copying the load into memory")
}

fn nvlite_options(job: &Job) -> OpenOptions {
    let options = OpenOptions::new().medium(match job.medium {
        Medium::Ram => nvlite_vfs::Medium::Ram,
        Medium::File => nvlite_vfs::Medium::File,
    });
    job.region.iter().fold(options, |options, size| options.region(size.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Compare;
    use crate::workloads::rows;

    #[test]
    fn every_connection_has_the_settings_of_the_run_and_the_fair_wal_a_queue() {
        let dir = tempfile::tempdir().expect("dir");
        let source = dir.path().join("load.db");
        rows::load(&Connection::open(&source).expect("open"), 10).expect("load");
        let args = ["--medium", "file", "--cache", "777", "--mmap", "3"];
        for &system in System::value_variants() {
            let instance = Instance::create(system, &source, dir.path(), &Compare::parsed(&args).job).expect("created");
            assert_eq!(instance.queue.is_some(), system == System::WalFair, "{system:?}");
            let synchronous = match system {
                System::Nvlite | System::WalFull | System::WalFair => 2,
                System::WalNormal => 1,
                System::Memory | System::Memdb => 0,
            };
            let first = instance.connect().expect("connected");
            for conn in [&first, &instance.connect().expect("connected")] {
                let value = |pragma| conn.query_row(pragma, (), |row| row.get::<_, i64>(0)).expect(pragma);
                let settings = ["PRAGMA cache_size", "PRAGMA synchronous", "PRAGMA page_size"].map(value);
                assert_eq!(settings, [-777, synchronous, 4096], "{system:?}");
                if system.has_files() {
                    assert_eq!(value("PRAGMA mmap_size"), 3 << 20, "{system:?}");
                }
            }
        }
    }

    #[test]
    fn names_on_the_command_line_and_in_reports_agree() {
        for system in System::value_variants() {
            assert_eq!(System::from_str(system.name(), false), Ok(*system));
        }
    }
}
