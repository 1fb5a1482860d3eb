//! The commands of the tool. Exit status: 0 good, 1 a finding, 2 usage or environment.

mod database;
mod export;
mod log;
mod output;
mod status;
mod verify;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Looks after databases that are open through the SQLite VFS nvlite.
#[derive(Parser)]
#[command(name = "nvlite", version, arg_required_else_help = true)]
#[command(after_help = "Exit status: 0 good, 1 a finding, 2 wrong usage or an error of the environment.\n\n\
    Examples:\n  nvlite status --db app.db\n  nvlite verify --db app.db --json\n  nvlite export --db app.db --to copy.db")]
pub struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Tell what state a database is in, and its figures.
    #[command(after_help = "Examples:\n  nvlite status --db app.db\n  nvlite status --db app.db --json")]
    Status(Target),
    /// Check a database: its mark and region, and SQLite's integrity check.
    #[command(after_help = "Exit status 1 if a check fails.\n\nExample:\n  nvlite verify --db app.db --json")]
    Verify(Target),
    /// Write a stock SQLite copy of one snapshot of a database, which may be in use.
    #[command(
        after_help = "The copy is checked (PRAGMA integrity_check) and appears under its name when it is complete and on \
        the disk, never before. Exit status 1 if the check finds something.\n\n\
        Example:\n  nvlite export --db app.db --to /backup/app.db"
    )]
    Export(export::Export),
}

/// Which database, and how to answer.
#[derive(Args)]
struct Target {
    /// The database file.
    #[arg(long, value_name = "PATH")]
    db: PathBuf,
    /// Where its side files are, if not beside it (else as NVLITE_REGION_DIR says).
    #[arg(long, value_name = "DIR")]
    region_dir: Option<PathBuf>,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// What ends a command with exit status 2.
type Failed = Box<dyn std::error::Error>;

impl Command {
    /// Runs it. True is a finding.
    pub fn run(self) -> Result<bool, Failed> {
        log::listen();
        let done = match self.action {
            Action::Status(target) => status::run(&target),
            Action::Verify(target) => verify::run(&target),
            Action::Export(export) => export.run(),
        };
        done.map_err(|error| if error.is::<rusqlite::Error>() { log::explained(&*error).into() } else { error })
    }
}
