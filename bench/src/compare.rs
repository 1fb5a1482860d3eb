//! `nvlite-bench compare`: load once, give every system a copy, run by turns, check every system, report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use rusqlite::{Connection, OpenFlags};

use crate::cli::{Compare, Medium};
use crate::crew::Crew;
use crate::error::{Context, Error, Result};
use crate::machine::{Machine, Versions};
use crate::output::{self, Output};
use crate::place::Place;
use crate::quiet::Quiet;
use crate::report::{Benchmark, Figures, Report};
use crate::systems::{Counts, Instance, PAGE_SIZE, System};
use crate::turns::{self, Contestant};
use crate::workloads::Plan;
use crate::{chart, syscalls, table};

/// Runs the comparison and prints the table; files are written if asked for.
pub fn run(run: &Compare) -> Result<()> {
    let open = |path: &Option<PathBuf>| path.as_deref().map(Output::open).transpose();
    let (json, svg) = (open(&run.json)?, open(&run.svg)?);
    let report = measure(run)?;
    // Whichever of the two fails, the run has not been in vain.
    let written = write(&report, json, svg);
    written.and(output::print(&table::render(&report)))
}

fn write(report: &Report, json: Option<Output>, svg: Option<Output>) -> Result<()> {
    if let Some(file) = json {
        file.fill(&report.json())?;
    }
    if let Some(file) = svg {
        file.fill(&chart::draw(report)?)?;
    }
    Ok(())
}

fn measure(run: &Compare) -> Result<Report> {
    let (plan, systems) = (Plan::new(&run.job), run.systems());
    if systems.is_empty() {
        return Err(Error::Usage("no system to run".to_owned()));
    }
    let place = Place::create(run.dir.as_deref(), run.job.medium, needed(run, &plan, &systems))?;
    let bar = progress(u64::from(run.warmup() + run.rounds()) * systems.len() as u64);
    bar.set_message("loading");
    let source = load(&plan, place.path())?;
    let mut traced = BTreeMap::new();
    if run.syscalls {
        for system in &systems {
            bar.set_message(format!("counting system calls of {}", system.name()));
            traced.insert(system.name(), named(*system, syscalls::count(*system, &run.job, &source, place.path()))?);
        }
    }
    let mut instances = Vec::new();
    let mut contestants = Vec::new();
    for system in &systems {
        bar.set_message(format!("setting up {}", system.name()));
        let instance = named(*system, Instance::create(*system, &source, place.path(), &run.job))?;
        contestants.push(Contestant::new(named(*system, Crew::hire(&instance, &plan))?, &plan));
        instances.push(instance);
    }
    std::fs::remove_file(&source).map_err(|error| Error::io(&source, error))?;

    let mut quiet = Quiet::new(place.path(), run.job.medium)?;
    bar.set_message("running by turns");
    let length = Duration::from_millis(u64::from(run.slice_ms()));
    turns::run(&mut contestants, &plan, run.warmup(), length, &mut quiet, &bar)?;
    let before = counters(&contestants, &instances)?;
    turns::run(&mut contestants, &plan, run.rounds(), length, &mut quiet, &bar)?;
    let after = counters(&contestants, &instances)?;

    let mut figures = Vec::new();
    let mut slices = Vec::new();
    for (((contestant, instance), before), after) in contestants.into_iter().zip(&instances).zip(before).zip(after) {
        let system = instance.system;
        bar.set_message(format!("checking {}", system.name()));
        let left = contestant.crew.dismiss()?;
        if let (Some(sql), Some(conn)) = (&run.tamper, left.connections.first()) {
            conn.execute_batch(sql).during("tampering")?;
        }
        named(system, check(instance, left.connections, &plan, &contestant.committed, left.moved))?;
        let mut counts = Figures::new(&contestant.slices, &left.latencies, difference(&before, after), &plan);
        counts.counts.extend(traced.remove(system.name()).unwrap_or_default());
        figures.push((system.name(), counts));
        slices.push((system.name(), contestant.slices));
    }
    bar.finish_and_clear();
    let slices: Vec<_> = slices.iter().map(|(name, slices)| (*name, &slices[..])).collect();
    Ok(Report {
        benchmark: Benchmark::new(run, &plan),
        command: std::env::args().collect(),
        versions: Versions::here(),
        machine: Machine::here(place.path()),
        systems: figures,
        ratios: Report::ratios(&slices, &plan),
    })
}

/// About how many bytes the run takes on its medium: the load and each system's copy, what these grow by, and logs.
fn needed(run: &Compare, plan: &Plan, systems: &[System]) -> u64 {
    let (size, slack) = (plan.bytes(), 32 << 20);
    let files = systems.iter().filter(|system| system.has_files()).count() as u64;
    // nvlite's blocks lie in its region on ram, in the shared mapping on file.
    let blocks = if systems.contains(&System::Nvlite) && run.job.medium == Medium::Ram { size } else { 0 };
    size + files * (size + slack) + blocks
}

/// Makes the one file that all systems start from.
fn load(plan: &Plan, dir: &Path) -> Result<PathBuf> {
    let path = dir.join("load.db");
    let conn = Connection::open(&path).during("creating the load")?;
    let settings = format!(
        "PRAGMA page_size={PAGE_SIZE}; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-262144"
    );
    conn.execute_batch(&settings).during("creating the load")?;
    plan.load(&conn)?;
    Ok(path)
}

/// Checks a system's database through its own connections, and again as a stock file if it promises to leave one.
fn check(instance: &Instance, connections: Vec<Connection>, plan: &Plan, committed: &[u64], moved: u64) -> Result<()> {
    if let Some(conn) = connections.first() {
        plan.check(conn, committed, moved)?;
    }
    for conn in connections {
        conn.close().map_err(|(_, error)| error).during("closing")?;
    }
    let Some(path) = instance.stock_file() else { return Ok(()) };
    let stock =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).during("opening the closed file")?;
    let refused = |error| Error::Inconsistent(format!("after the last close, read by stock SQLite: {error}"));
    plan.check(&stock, committed, moved).map_err(refused)
}

/// Every system's own counters, up to now.
fn counters(contestants: &[Contestant], instances: &[Instance]) -> Result<Vec<Counts>> {
    let of_one = |(contestant, instance): (&Contestant, &Instance)| {
        let mut counts = contestant.crew.counters()?;
        counts.extend(instance.counters());
        Ok(counts)
    };
    contestants.iter().zip(instances).map(of_one).collect()
}

fn difference(before: &Counts, mut after: Counts) -> Counts {
    after.iter_mut().for_each(|(name, value)| *value -= before.get(name).copied().unwrap_or(0.0));
    after
}

fn named<T>(system: System, result: Result<T>) -> Result<T> {
    result.map_err(|error| match error {
        Error::System { .. } => error,
        error => Error::System { system: system.name(), source: Box::new(error) },
    })
}

fn progress(turns: u64) -> ProgressBar {
    let bar = ProgressBar::new(turns);
    let style = ProgressStyle::with_template("[{elapsed_precise}] {bar:40} {pos}/{len} turns, {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
