//! `nvlite export`: a stock file in one piece.

use super::database::{State, look, look_at, open};
use super::{Failed, Target, output, verify};
use clap::Args;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use serde::Serialize;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// `nvlite export`.
#[derive(Args)]
pub struct Export {
    #[command(flatten)]
    target: Target,
    /// Where the copy goes.
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
    /// Replace a file that is there, if nobody uses it.
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Exported {
    db: String,
    to: String,
    bytes: u64,
    pages: i64,
    page_size: i64,
}

/// How long another connection may keep the source from being read.
const PATIENCE: Duration = Duration::from_secs(30);

impl Export {
    /// Runs it.
    ///
    /// # Errors
    /// The source cannot be read, or the copy cannot be written; then there is no copy.
    pub fn run(&self) -> Result<bool, Failed> {
        self.may_be_replaced()?;
        let temporary = Temporary::beside(&self.to)?;
        let (pages, page_size) = copy(&self.target, &temporary.path)?;
        if let Some(finding) = check(&temporary.path)? {
            eprintln!("nvlite: {}: not written, the copy fails its check: {finding}", self.to.display());
            return Ok(true);
        }
        // What was nobody's when we began may be somebody's by now.
        self.may_be_replaced()?;
        let bytes = temporary.put(&self.to)?;
        let exported = Exported {
            db: self.target.db.display().to_string(),
            to: self.to.display().to_string(),
            bytes,
            pages,
            page_size,
        };
        let lines = [("exported", &exported.db), ("to", &exported.to), ("bytes", &exported.bytes.to_string())]
            .map(|(name, value)| (name.to_owned(), value.clone()));
        output::print(self.target.json, &exported, &lines)?;
        Ok(false)
    }
}

impl Export {
    /// Makes sure that nothing is lost or mixed up where the copy goes.
    fn may_be_replaced(&self) -> Result<(), Failed> {
        let to = &self.to;
        let refuse = |why: &str| Err(Failed::from(format!("{}: {why}", to.display())));
        for suffix in ["-journal", "-wal"] {
            let file = beside(to, suffix);
            if file.symlink_metadata().is_ok() {
                return refuse(&format!(
                    "{} stands beside it, and SQLite would apply that to the copy: close the database there, or remove it",
                    file.display()
                ));
            }
        }
        if to.symlink_metadata().is_err() {
            return Ok(());
        }
        if !self.force {
            return refuse("is there already (--force replaces it)");
        }
        let identity = |path: &Path| fs::metadata(path).map(|data| (data.dev(), data.ino())).ok();
        if identity(to).is_some() && identity(to) == identity(&self.target.db) {
            return refuse("is the database itself");
        }
        match fs::metadata(to) {
            Ok(data) if data.is_file() => {}
            Ok(_) => return refuse("is not a file"),
            // a link to nowhere
            Err(_) => return Ok(()),
        }
        match look_at(to)?.0 {
            State::Marked => {
                refuse("is a database of nvlite, open or not yet recovered: its newest data is in its region")
            }
            State::Stock if is_in_use(to) => refuse("is a database that another program uses"),
            State::Stock | State::Empty | State::Foreign => Ok(()),
        }
    }
}

/// True if somebody is in the middle of a transaction on a stock database. (With a WAL, that stands beside it.)
fn is_in_use(path: &Path) -> bool {
    let asked = Connection::open_with_flags_and_vfs(path, OpenFlags::SQLITE_OPEN_READ_WRITE, c"unix").and_then(|db| {
        db.busy_timeout(Duration::ZERO)?;
        db.execute_batch("BEGIN EXCLUSIVE; ROLLBACK")
    });
    asked.is_err_and(|error| error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
}

/// What stock SQLite finds wrong with the copy.
fn check(copy: &Path) -> Result<Option<String>, Failed> {
    let db = Connection::open_with_flags_and_vfs(copy, OpenFlags::SQLITE_OPEN_READ_WRITE, c"unix")?;
    let check = verify::integrity(&db)?;
    Ok((!check.ok).then_some(check.detail))
}

/// Copies one snapshot into a file of the default VFS.
fn copy(target: &Target, to: &Path) -> Result<(i64, i64), Failed> {
    look(target)?;
    let from = open(target)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut copy = Connection::open_with_flags_and_vfs(to, flags, c"unix")?;
    // Nobody has the copy before it is complete and synced as a whole.
    copy.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF")?;
    {
        let backup = Backup::new(&from, &mut copy)?;
        let start = Instant::now();
        // All pages in one step are one snapshot.
        while backup.step(-1)? != StepResult::Done {
            if start.elapsed() > PATIENCE {
                return Err(format!("{}: the database stays busy", target.db.display()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let figure = |sql| copy.query_row(sql, (), |row| row.get::<_, i64>(0));
    let figures = (figure("PRAGMA page_count")?, figure("PRAGMA page_size")?);
    copy.close().map_err(|(_, error)| error)?;
    Ok(figures)
}

/// The file whose name goes on with `suffix`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A file beside the copy's place, removed unless it gets there.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn beside(to: &Path) -> Result<Temporary, Failed> {
        let name = to.file_name().ok_or_else(|| format!("{}: not a file name", to.display()))?;
        let mut name = name.to_owned();
        name.push(format!(".{}.part", std::process::id()));
        Ok(Temporary { path: to.with_file_name(name) })
    }

    /// Syncs it, gives it its name, syncs the directory. Answers its length.
    fn put(self, to: &Path) -> Result<u64, Failed> {
        let file = File::options().read(true).write(true).open(&self.path)?;
        file.sync_all()?;
        fs::rename(&self.path, to)?;
        let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()?;
        Ok(file.metadata()?.len())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone if it was renamed.
        let _ = fs::remove_file(&self.path);
    }
}
