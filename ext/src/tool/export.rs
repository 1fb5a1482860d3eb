//! `nvlite export`: a stock file in one piece.

use super::database::{look, open};
use super::{Failed, Target, output};
use clap::Args;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use std::fs::{self, File};
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
    /// Replace a file that is there.
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
        if self.to.exists() && !self.force {
            return Err(format!("{}: is there already (--force replaces it)", self.to.display()).into());
        }
        let temporary = Temporary::beside(&self.to)?;
        let (pages, page_size) = copy(&self.target, &temporary.path)?;
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

/// Copies one snapshot into a file of the default VFS, and checks it.
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
