//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::{Error, Result};
use crate::systems::System;

const EXAMPLES: &str = "\
Examples:
  nvlite-bench
      TPC-C, 1 warehouse, 1 thread, memory-speed medium, beside WAL and :memory:; under two minutes
  nvlite-bench compare --workload tpcc --threads 8 --medium file --peers wal_full,wal_fair
      durable commits of eight writers on the disk under the current directory
  nvlite-bench compare --workload update --cache 65536 --peers wal_full,memory,memdb --json out.json --svg out.svg
  nvlite-bench compare --workload mixed --threads 4 --peers wal_full
      one writer at full speed beside three scanning readers; both rates are reported
  nvlite-bench compare --peers wal_full,wal_normal --peers-only --seconds 3
      only the peers among themselves

Exit status: 0 every system was consistent and has a score, 1 a finding, 2 usage or environment.";

/// Compares nvlite with stock SQLite, by turns in one run.
#[derive(Debug, Parser)]
#[command(name = "nvlite-bench", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without it: `compare` with its defaults.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs nvlite and its peers by turns, and prints figures and ratios.
    #[command(after_help = EXAMPLES)]
    Compare(Box<Compare>),
    /// Runs a fixed number of transactions on one system; `--syscalls` runs this under strace.
    #[command(hide = true)]
    Count(Box<Count>),
}

/// The kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The five transactions of TPC-C in the specified mix.
    Tpcc,
    /// Appends 100-byte rows, one per transaction.
    Insert,
    /// Adds one to the integer of a random row.
    Update,
    /// Reads a random row by its key.
    Read,
    /// One writer at full speed, the other threads (at least three) scan ranges.
    Mixed,
    /// 80 % reads, 20 % updates, keys by a Zipf distribution (0.99).
    Zipf,
}

/// What the database lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Medium {
    /// Files on tmpfs.
    Ram,
    /// Files on a disk.
    File,
}

/// How durable nvlite's commits are (`PRAGMA synchronous`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Durable when the commit returns.
    Full,
    /// Durable soon after.
    Normal,
    /// Never waits.
    Off,
}

/// What to run, on how much data: the part that the counting child needs too.
#[derive(Args, Clone, Debug)]
pub struct Job {
    /// Kind of work.
    #[arg(long, value_enum, default_value = "tpcc")]
    pub workload: Kind,
    /// Threads, each with its own connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub threads: u16,
    /// Page cache of every connection, in KiB.
    #[arg(long, value_name = "KIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(16..))]
    pub cache: u32,
    /// Where the data lies.
    #[arg(long, value_enum, default_value = "ram")]
    pub medium: Medium,
    /// TPC-C: warehouses.
    #[arg(long, value_name = "W", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub warehouses: u16,
    /// TPC-C: divides the numbers of items, customers and orders; 1 is the specification's size.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub scale: u16,
    /// Other workloads: rows in the table (insert: the table is emptied, untimed, beyond that many).
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100..))]
    pub rows: u32,
    /// nvlite's durability; the stock systems' is in their names.
    #[arg(long, value_enum, default_value = "full")]
    pub level: Level,
    /// nvlite's fast-tier budget, as its URI parameter `region` (64MiB style).
    #[arg(long, value_name = "SIZE")]
    pub region: Option<String>,
    /// PRAGMA mmap_size of every connection, in MiB; without it each system keeps its own default.
    #[arg(long, value_name = "MIB")]
    pub mmap: Option<u32>,
    /// Seed of the random choices; the same for every system.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Options of `compare`.
#[derive(Args, Clone, Debug)]
pub struct Compare {
    /// What to run.
    #[command(flatten)]
    pub job: Job,
    /// Measured seconds per system.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub seconds: f64,
    /// Length of one system's turn in milliseconds [default: 250 on ram, 500 on file].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(10..))]
    pub slice_ms: Option<u32>,
    /// Rounds (a turn of each system), instead of --seconds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,
    /// Rounds before the measured ones [default: a tenth of them, at least 2].
    #[arg(long, value_name = "N")]
    pub warmup: Option<u32>,
    /// Systems to compare with, no others [default: wal_full,memory; with several threads wal_full,wal_fair].
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',')]
    pub peers: Vec<System>,
    /// Leave nvlite out.
    #[arg(long)]
    pub peers_only: bool,
    /// Directory for the databases [default: /dev/shm for ram, the current directory for file].
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Write the figures there.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw a chart there.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Also count system calls, and those that flush, per transaction, in a separate pass under strace.
    #[arg(long)]
    pub syscalls: bool,
    /// SQL that damages every database before it is checked: to see that the check fails.
    #[arg(long, value_name = "SQL", hide = true)]
    pub tamper: Option<String>,
}

/// Options of the hidden `count`.
#[derive(Args, Clone, Debug)]
pub struct Count {
    /// What to run.
    #[command(flatten)]
    pub job: Job,
    /// On which system.
    #[arg(long, value_enum)]
    pub system: System,
    /// A loaded database to copy.
    #[arg(long)]
    pub source: PathBuf,
    /// Where to put the copy.
    #[arg(long)]
    pub dir: PathBuf,
    /// How many transactions.
    #[arg(long)]
    pub transactions: u64,
}

impl Compare {
    /// Checks what clap cannot, and fills what depends on other options.
    pub fn resolve(mut self) -> Result<Self> {
        let several = self.job.threads > 1 || self.job.workload == Kind::Mixed;
        if self.peers.is_empty() {
            self.peers = vec![System::WalFull, if several { System::WalFair } else { System::Memory }];
        }
        self.peers.retain(|&peer| peer != System::Nvlite);
        let mut seen = Vec::new();
        self.peers.retain(|peer| {
            !seen.contains(peer) && {
                seen.push(*peer);
                true
            }
        });
        if several && self.peers.contains(&System::Memory) {
            let hint = "`memory` is one connection's own; with several use the peer `memdb`";
            return Err(Error::Usage(hint.to_owned()));
        }
        if self.rounds.is_none() && !(self.seconds > 0.0 && self.seconds <= 86_400.0) {
            return Err(Error::Usage("--seconds must lie between 0 and 86400".to_owned()));
        }
        Ok(self)
    }

    /// The systems of the run, nvlite first.
    pub fn systems(&self) -> Vec<System> {
        let nvlite = (!self.peers_only).then_some(System::Nvlite);
        nvlite.into_iter().chain(self.peers.iter().copied()).collect()
    }

    /// Length of a turn in milliseconds.
    pub fn slice_ms(&self) -> u32 {
        self.slice_ms.unwrap_or(match self.job.medium {
            Medium::Ram => 250,
            Medium::File => 500,
        })
    }

    /// Measured rounds.
    pub fn rounds(&self) -> u32 {
        let by_time = (self.seconds * 1000.0 / f64::from(self.slice_ms())).round() as u32;
        self.rounds.unwrap_or(by_time.max(1))
    }

    /// Rounds before those.
    pub fn warmup(&self) -> u32 {
        self.warmup.unwrap_or((self.rounds() / 10).max(2))
    }
}

#[cfg(test)]
impl Compare {
    /// From these arguments of `compare`.
    pub fn parsed(args: &[&str]) -> Self {
        let args = ["nvlite-bench", "compare"].iter().chain(args);
        let command = Cli::try_parse_from(args).expect("valid arguments").command;
        let compare = |command| if let Command::Compare(run) = command { Some(*run) } else { None };
        command.and_then(compare).expect("compare was named")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn compare(args: &[&str]) -> Result<Compare> {
        Compare::parsed(args).resolve()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn rounds_follow_from_seconds_and_slice() {
        let run = compare(&["--seconds", "2", "--slice-ms", "100"]).expect("valid");
        assert_eq!((run.rounds(), run.warmup()), (20, 2));
        assert_eq!(run.systems(), [System::Nvlite, System::WalFull, System::Memory]);
    }

    #[test]
    fn memory_refuses_threads_and_peers_are_named_once() {
        assert!(compare(&["--threads", "2", "--peers", "memory"]).is_err());
        let run = compare(&["--peers", "wal_fair,nvlite,wal_fair,memdb", "--peers-only"]).expect("valid");
        assert_eq!(run.systems(), [System::WalFair, System::Memdb]);
    }
}
