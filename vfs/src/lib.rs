//! nvlite as a VFS of SQLite.
//!
//! A Rust program that links SQLite calls [`open()`], or [`register`] and then opens `file:app.db?vfs=nvlite` as it
//! likes. A program that loads SQLite's extensions at run time uses the library that `nvlite-ext` builds on [`load()`].
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("app.db");
//! let db = nvlite_vfs::open(&path)?;
//! db.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)")?;
//! let mode = db.query_row("PRAGMA journal_mode", (), |row| row.get::<_, String>(0))?;
//! assert_eq!(mode, "memory");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! How SQLite's calls are served: `vfs` decides whether a file is ours; `file` is a connection's database file, which
//! attaches to the engine through `registry`, at its first lock or earlier if it may write: `sql`, which is what can be
//! asked in SQL, then has a statement of its own run on every new connection. `base` lets the engine reach the base
//! file through the default VFS; `error` turns what goes wrong into SQLite's codes.
//!
//! Errors go to SQLite's error log (`SQLITE_CONFIG_LOG`). What is worth knowing without being one (a region that is not
//! the file's is set aside, a dead writer's work is finished, a log is recovered) are `tracing` events of the target
//! `nvlite_engine`: in a program into which this is linked they are for its own subscriber, if it has one. The
//! extension forwards warnings to the error log.
//!
//! A cache that connections share (`cache=shared`) is served like any other: every call that reaches a file, those of
//! the SQL functions included, comes from SQLite under that cache's mutex.
//!
//! Two limits come with the journal in memory (SQLite's own rules): VACUUM does not change the page size, and a backup
//! into a database that has another page size is refused.
#![deny(unsafe_code)]

mod api;
mod base;
mod config;
mod error;
mod file;
mod instance;
mod journal;
mod load;
mod lock;
mod log;
mod names;
mod open;
mod process;
mod registry;
mod sql;
mod sys;
mod vfs;

pub use config::environment;
pub use load::load;
pub use log::GOES_ON as LOG_GOES_ON;
pub use open::{Medium, OpenOptions, open, uri_path};

/// Registers the VFS `nvlite` in the SQLite that is linked into this program, and its SQL functions on every connection
/// opened from then on. Idempotent.
///
/// # Errors
/// SQLite's, if it refuses the registration.
pub fn register() -> rusqlite::Result<()> {
    match instance::register(api::Api::linked()) {
        Ok(_) => Ok(()),
        Err(code) => {
            Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some("nvlite: cannot register".into())))
        }
    }
}
