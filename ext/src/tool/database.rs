//! A database as the tool looks at it: never adopting, never closing what others have open.

use super::{Failed, Target};
use nvlite_engine::base::limits::MAX_ATTACHMENTS;
use nvlite_engine::format::mark::{self, HEADER};
use nvlite_engine::shm::LOCK_BASE;
use nvlite_vfs::OpenOptions;
use rusqlite::Connection;
use serde::Serialize;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// What the first bytes of a file say.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No bytes yet.
    Empty,
    /// A stock SQLite file, complete by itself.
    Stock,
    /// Open through nvlite, or left by a process that died: only nvlite reads it.
    Marked,
    /// Not a SQLite database.
    Foreign,
}

/// A database's file, looked at from outside.
#[derive(Serialize)]
pub struct Outside {
    /// What it is.
    pub state: State,
    /// Its length.
    pub bytes: u64,
    /// SQLite's page size.
    pub page_size: Option<u32>,
    /// The region that the mark names.
    pub region: Option<String>,
    /// Whether a process has it open through nvlite.
    pub open: bool,
}

/// Looks at the header of a file.
///
/// # Errors
/// The file cannot be read.
pub fn look(target: &Target) -> Result<Outside, Failed> {
    let told = |error: std::io::Error| format!("{}: {error}", target.db.display());
    let mut file = File::open(&target.db).map_err(told)?;
    let bytes = file.metadata().map_err(told)?.len();
    let mut header = [0; HEADER];
    let known = file.by_ref().take(HEADER as u64).read(&mut header).map_err(told)?;
    let region = mark::identity(&header).map(|id| id.to_string());
    let state = match () {
        () if known == 0 => State::Empty,
        () if region.is_some() => State::Marked,
        () if header[..16] == mark::SQLITE[..] => State::Stock,
        () => State::Foreign,
    };
    let page_size = matches!(state, State::Stock | State::Marked).then(|| mark::page_size(&header)).flatten();
    let open = state == State::Marked && is_open(target);
    Ok(Outside { state, bytes, page_size, region, open })
}

/// Where the region of a database is, if it has one.
pub fn region_path(target: &Target) -> PathBuf {
    let name = target.db.file_name().unwrap_or_default().to_string_lossy().into_owned() + "-nvlite";
    match &target.region_dir {
        Some(dir) => dir.join(name),
        None => target.db.with_file_name(name),
    }
}

/// True if a process is attached to the region: each holds a lock on a byte of its own (P13).
#[allow(unsafe_code)]
fn is_open(target: &Target) -> bool {
    let Ok(file) = File::open(region_path(target)) else { return false };
    // SAFETY: plain integers, for which zero is good.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_start = (LOCK_BASE + 1).cast_signed();
    lock.l_len = i64::from(MAX_ATTACHMENTS);
    // SAFETY: an open descriptor and a lock request, which the kernel changes; nothing is locked.
    let asked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) };
    asked == 0 && i32::from(lock.l_type) != libc::F_UNLCK
}

/// A connection that only reads. A stock file is read as one. A region that nobody has open is kept as it is; one that
/// others have open is closed as they wished, should they all have gone before us.
///
/// # Errors
/// SQLite's.
pub fn open(target: &Target) -> rusqlite::Result<Connection> {
    let mut options = OpenOptions::new().read_only(true).only_looks();
    if let Some(dir) = &target.region_dir {
        options = options.region_dir(dir);
    }
    let db = options.open(&target.db)?;
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    Ok(db)
}
