//! A database as the tool looks at it: never adopting, never closing what others have open.

use super::{Failed, Target};
use nvlite_engine::base::RegionId;
use nvlite_engine::format::mark::{self, HEADER};
use nvlite_engine::store;
use nvlite_vfs::OpenOptions;
use rusqlite::Connection;
use serde::{Serialize, Serializer};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

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
    #[serde(serialize_with = "in_words")]
    pub region: Option<RegionId>,
    /// Whether a process has it open through nvlite.
    pub open: bool,
}

fn in_words<S: Serializer>(region: &Option<RegionId>, to: S) -> Result<S::Ok, S::Error> {
    region.map(|id| id.to_string()).serialize(to)
}

/// Looks at the header of a file.
///
/// # Errors
/// The file cannot be read.
pub fn look(target: &Target) -> Result<Outside, Failed> {
    let (state, bytes, header) = look_at(&target.db)?;
    let region = mark::identity(&header);
    let page_size = matches!(state, State::Stock | State::Marked).then(|| mark::page_size(&header)).flatten();
    let open = state == State::Marked && is_open(target)?;
    Ok(Outside { state, bytes, page_size, region, open })
}

/// What a file is, its length, its header.
///
/// # Errors
/// The file cannot be read.
pub fn look_at(path: &Path) -> Result<(State, u64, [u8; HEADER]), Failed> {
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = File::open(path).map_err(told)?;
    let bytes = file.metadata().map_err(told)?.len();
    let mut header = [0; HEADER];
    let known = file.by_ref().take(HEADER as u64).read(&mut header).map_err(told)?;
    let state = match () {
        () if known == 0 => State::Empty,
        () if mark::identity(&header).is_some() => State::Marked,
        () if header[..16] == mark::SQLITE[..] => State::Stock,
        () => State::Foreign,
    };
    Ok((state, bytes, header))
}

/// The database where the VFS, which follows symbolic links, looks for it, and the directory of its side files if it is
/// another one.
fn places(target: &Target) -> Result<(PathBuf, Option<PathBuf>), Failed> {
    let db = target.db.canonicalize().map_err(|error| format!("{}: {error}", target.db.display()))?;
    let dir = target.region_dir.clone().or_else(|| nvlite_vfs::environment("region_dir").map(PathBuf::from));
    Ok((db, dir))
}

/// Where the region of a database is, if it has one.
///
/// # Errors
/// The database cannot be found.
pub fn region_path(target: &Target) -> Result<PathBuf, Failed> {
    let (db, dir) = places(target)?;
    Ok(store::region_path(&db, dir.as_deref()))
}

/// What an open answers of a database whose mark names region `id`, which is not there.
///
/// # Errors
/// The database cannot be found.
pub fn missing(target: &Target, id: RegionId) -> Result<String, Failed> {
    let (db, dir) = places(target)?;
    Ok(store::missing_region(&db, dir.as_deref(), id).to_string())
}

/// True if a process is attached to the region.
fn is_open(target: &Target) -> Result<bool, Failed> {
    let path = region_path(target)?;
    if path.exists() { Ok(store::is_attached(&path)?) } else { Ok(false) }
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
