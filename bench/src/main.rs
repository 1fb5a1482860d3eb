//! Compares nvlite with stock SQLite, by turns in one run.
//!
//! A run loads one stock file and gives every system a copy of it ([`systems`]). Then the systems work by turns of a
//! fraction of a second ([`turns`]), each with its own threads and connections ([`crew`]), on one of the [`workloads`]
//! ([`tpcc`] the largest of them). After the last turn every database is checked; one that is not consistent fails the
//! run. The [`stats`] are ratios within a round, of which the median counts; [`report`], [`table`] and [`chart`] show
//! them.

#![deny(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

mod chart;
mod cli;
mod clock;
mod compare;
mod crew;
mod error;
mod machine;
mod output;
mod place;
mod quiet;
mod report;
mod session;
mod stats;
#[allow(unsafe_code)]
mod stock_vfs;
mod syscalls;
mod systems;
mod table;
mod tpcc;
mod turns;
mod workloads;
mod zipf;

fn main() -> ExitCode {
    let result = match Cli::parse().command.unwrap_or_else(default_command) {
        Command::Compare(run) => run.resolve().and_then(|run| compare::run(&run)),
        Command::Count(count) => syscalls::run(&count),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let hint = if error.is_full() { "; --dir names another directory" } else { "" };
            // Where nobody hears it, the status says it.
            let _ = writeln!(std::io::stderr(), "nvlite-bench: {error}{hint}");
            ExitCode::from(error.exit_status())
        }
    }
}

/// `compare` as if it had been named without options.
fn default_command() -> Command {
    Cli::parse_from(["nvlite-bench", "compare"]).command.expect("a command was given")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Kind, Level, Medium};
    use crate::systems::System;

    #[test]
    fn without_arguments_it_is_tpcc_at_full_size_beside_wal_and_memory() {
        let Command::Compare(run) = default_command() else { panic!("not compare") };
        let run = run.resolve().expect("valid");
        assert_eq!(run.systems(), [System::Nvlite, System::WalFull, System::Memory]);
        let job = &run.job;
        assert_eq!((job.workload, job.medium, job.level), (Kind::Tpcc, Medium::Ram, Level::Full));
        assert_eq!((job.warehouses, job.scale, job.threads, job.cache), (1, 1, 1, 2048));
    }
}
