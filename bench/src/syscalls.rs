//! System calls per transaction, exactly: the same work twice in a child under strace, once with twice as many
//! transactions; the difference of the two counts belongs to the additional transactions alone.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::ValueEnum;

use crate::cli::{Count, Job};
use crate::crew::Crew;
use crate::error::{Error, Result};
use crate::systems::{Instance, System};
use crate::workloads::Plan;

/// Transactions per thread of the shorter child.
const TRANSACTIONS: u64 = 400;
const FLUSHES: [&str; 4] = ["fsync", "fdatasync", "msync", "sync_file_range"];

/// System calls per transaction of `system`, those of them that flush a device, and each kind of these, on copies of
/// `source` under `dir`.
pub fn count(system: System, job: &Job, source: &Path, dir: &Path) -> Result<BTreeMap<String, f64>> {
    let once = traced(system, job, source, dir, TRANSACTIONS)?;
    let twice = traced(system, job, source, dir, 2 * TRANSACTIONS)?;
    let transactions = TRANSACTIONS * Plan::new(job).workers() as u64;
    Ok(per_transaction(&once, &twice, transactions as f64))
}

/// The child's part.
pub fn run(count: &Count) -> Result<()> {
    let instance = Instance::create(count.system, &count.source, &count.dir, &count.job)?;
    let crew = Crew::hire(&instance, &Plan::new(&count.job))?;
    crew.count(count.transactions)?;
    drop(crew.dismiss()?);
    Ok(())
}

fn traced(system: System, job: &Job, source: &Path, dir: &Path, transactions: u64) -> Result<BTreeMap<String, u64>> {
    let own = std::env::current_exe().map_err(|error| Error::Strace(error.to_string()))?;
    let private = tempfile::tempdir_in(dir).map_err(|error| Error::io(dir, error))?;
    let summary = private.path().join("strace");
    let child = Command::new("strace")
        .args(["-f", "-q", "-c", "-o"])
        .arg(&summary)
        .arg("--")
        .arg(own)
        .args(arguments(system, job, source, private.path(), transactions))
        .stdout(Stdio::null())
        .output()
        .map_err(|error| Error::Strace(format!("{error}; --syscalls needs the program strace")))?;
    if !child.status.success() {
        return Err(Error::Strace(String::from_utf8_lossy(&child.stderr).trim().to_owned()));
    }
    let text = std::fs::read_to_string(&summary).map_err(|error| Error::io(&summary, error))?;
    Ok(parse(&text))
}

fn arguments(system: System, job: &Job, source: &Path, dir: &Path, transactions: u64) -> Vec<OsString> {
    let value = |value: &dyn ToString| OsString::from(value.to_string());
    let mut arguments = vec![OsString::from("count")];
    let mut option = |name: &str, text: OsString| arguments.extend([OsString::from(format!("--{name}")), text]);
    option("system", value(&system.name()));
    option("source", source.into());
    option("dir", dir.into());
    option("transactions", value(&transactions));
    option("workload", value(&name(job.workload)));
    option("medium", value(&name(job.medium)));
    option("level", value(&name(job.level)));
    option("threads", value(&job.threads));
    option("cache", value(&job.cache));
    option("warehouses", value(&job.warehouses));
    option("scale", value(&job.scale));
    option("rows", value(&job.rows));
    option("seed", value(&job.seed));
    if let Some(region) = &job.region {
        option("region", value(region));
    }
    if let Some(mmap) = job.mmap {
        option("mmap", value(&mmap));
    }
    arguments
}

fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Calls by name from strace's summary; a row has the share, seconds, microseconds per call, calls, errors or nothing,
/// and the name.
fn parse(summary: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (share, calls, name) = (fields.first()?, fields.get(3)?, fields.last()?);
        share.parse::<f64>().ok()?;
        (*name != "total").then(|| Some(((*name).to_owned(), calls.parse().ok()?)))?
    };
    summary.lines().filter_map(row).collect()
}

fn per_transaction(
    once: &BTreeMap<String, u64>,
    twice: &BTreeMap<String, u64>,
    transactions: f64,
) -> BTreeMap<String, f64> {
    let more = |name: &str| {
        let calls = |counts: &BTreeMap<String, u64>| counts.get(name).copied().unwrap_or(0);
        calls(twice).saturating_sub(calls(once)) as f64 / transactions
    };
    let all: f64 = twice.keys().map(|name| more(name)).sum();
    let flushes: f64 = FLUSHES.iter().map(|name| more(name)).sum();
    let sums = [("system_calls".to_owned(), all), ("flush_calls".to_owned(), flushes)];
    FLUSHES.iter().map(|name| (format!("{name}_calls"), more(name))).chain(sums).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, Kind, Level, Medium};

    const SUMMARY: &str = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 61.20    0.001000          10       100         3 fcntl
 38.80    0.000500          50        10           fdatasync
------ ----------- ----------- --------- --------- ----------------
100.00    0.001500          13       110         3 total
";

    #[test]
    fn straces_summary_is_read_by_columns() {
        let counts = parse(SUMMARY);
        assert_eq!(counts, BTreeMap::from([("fcntl".to_owned(), 100), ("fdatasync".to_owned(), 10)]));
        let fewer = BTreeMap::from([("fcntl".to_owned(), 60), ("mmap".to_owned(), 5)]);
        let per = per_transaction(&fewer, &counts, 10.0);
        assert_eq!((per["system_calls"], per["flush_calls"]), (5.0, 1.0));
        assert_eq!((per["fdatasync_calls"], per["fsync_calls"]), (1.0, 0.0));
    }

    /// All options have another value than their default: one that the child is not given shows.
    #[test]
    fn the_child_is_given_every_option_of_the_job() {
        let job = Job {
            workload: Kind::Mixed,
            threads: 3,
            cache: 777,
            medium: Medium::File,
            warehouses: 2,
            scale: 7,
            rows: 1234,
            level: Level::Normal,
            region: Some("64MiB".to_owned()),
            mmap: Some(5),
            seed: 9,
        };
        let arguments = arguments(System::WalFair, &job, Path::new("a"), Path::new("b"), 11);
        let child = Cli::try_parse_from([OsString::from("nvlite-bench")].into_iter().chain(arguments)).expect("valid");
        let Some(Command::Count(count)) = child.command else { panic!("not count") };
        assert_eq!(format!("{:?}", count.job), format!("{job:?}"));
        assert_eq!((count.system, count.transactions), (System::WalFair, 11));
        assert_eq!((count.source.as_path(), count.dir.as_path()), (Path::new("a"), Path::new("b")));
    }
}
