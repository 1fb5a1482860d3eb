//! The figures of a run: as JSON, and as a table for people.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::cli::Compare;
use crate::crew::{Latencies, new_latencies};
use crate::machine::{Machine, Versions};
use crate::stats::{Ratio, Summary};
use crate::turns::Slice;
use crate::workloads::Plan;

/// Everything that is written.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub benchmark: Benchmark,
    /// The command line.
    pub command: Vec<String>,
    /// With what.
    pub versions: Versions,
    /// Where.
    pub machine: Machine,
    /// Each system's figures.
    #[serde(serialize_with = "by_name")]
    pub systems: Vec<(&'static str, Figures)>,
    /// Each pair's ratios, as `first/second`.
    #[serde(serialize_with = "by_name")]
    pub ratios: Vec<(String, Ratio)>,
}

/// The settings of the run.
#[derive(Debug, Serialize)]
pub struct Benchmark {
    workload: String,
    medium: String,
    level: String,
    threads: usize,
    cache_kib: u32,
    page_size: u32,
    warehouses: u16,
    scale: u16,
    rows: u32,
    seed: u64,
    rounds: u32,
    warmup_rounds: u32,
    slice_ms: u32,
    /// Whether each kind of transaction has threads of its own.
    #[serde(skip)]
    pub roles: bool,
}

/// One system's figures.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Transactions per second: the median of its turns.
    pub throughput: f64,
    /// In its worst turn.
    pub throughput_min: f64,
    /// In its best.
    pub throughput_max: f64,
    /// Measured transactions.
    pub transactions: u64,
    /// CPU microseconds per transaction, background threads included.
    pub cpu_us_per_tx: f64,
    /// Those of the threads that run transactions.
    pub worker_cpu_us_per_tx: f64,
    /// Those of all other threads.
    pub background_cpu_us_per_tx: f64,
    /// Latencies.
    pub latency_us: Percentiles,
    /// Jain's fairness index, the mean of the turns.
    pub fairness: f64,
    /// How long after a turn the process or the device was still busy, the mean in milliseconds.
    pub settle_ms: f64,
    /// Counts per transaction.
    pub counts: BTreeMap<String, f64>,
    /// By kind of transaction.
    #[serde(serialize_with = "by_name")]
    pub classes: Vec<(&'static str, Class)>,
}

/// The figures of one kind of transaction.
#[derive(Clone, Debug, Serialize)]
pub struct Class {
    /// Per second, the median of the turns.
    pub throughput: f64,
    /// CPU microseconds, where the kind has threads of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_tx: Option<f64>,
    /// Latencies.
    pub latency_us: Percentiles,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    /// Half are faster.
    pub p50: f64,
    /// 99 of 100 are.
    pub p99: f64,
    /// 999 of 1000 are.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

impl Percentiles {
    fn of(latencies: &Latencies) -> Self {
        let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

impl Benchmark {
    /// From the command line.
    pub fn new(run: &Compare, plan: &Plan) -> Self {
        let job = &run.job;
        let name = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
        Self {
            workload: name(&job.workload),
            medium: name(&job.medium),
            level: name(&job.level),
            threads: plan.workers(),
            cache_kib: job.cache,
            page_size: crate::systems::PAGE_SIZE,
            warehouses: job.warehouses,
            scale: job.scale,
            rows: job.rows,
            seed: job.seed,
            rounds: run.rounds(),
            warmup_rounds: run.warmup(),
            slice_ms: run.slice_ms(),
            roles: plan.has_roles(),
        }
    }

    /// In words.
    pub fn title(&self) -> String {
        let data = match self.workload.as_str() {
            "tpcc" => format!("{} warehouse(s){}", self.warehouses, scaled(self.scale)),
            _ => format!("{} rows", self.rows),
        };
        let Self { workload, threads, medium, cache_kib, rounds, slice_ms, .. } = self;
        format!(
            "{workload}, {data}, {threads} thread(s), medium {medium}, cache {cache_kib} KiB, \
             {rounds} rounds of {slice_ms} ms"
        )
    }
}

fn scaled(divisor: u16) -> String {
    if divisor == 1 { String::new() } else { format!(" at 1/{divisor} of the specified size") }
}

impl Figures {
    /// From the measured turns and all latencies by label; `counts` are differences over the whole measured time.
    pub fn new(slices: &[Slice], latencies: &[Latencies], counts: BTreeMap<String, f64>, plan: &Plan) -> Self {
        let transactions: u64 = slices.iter().map(|slice| slice.scored(plan)).sum();
        let per_tx = |total: u64| total as f64 / transactions.max(1) as f64;
        let worker = per_tx(slices.iter().map(|slice| slice.worker_cpu).sum()) / 1000.0;
        let background = per_tx(slices.iter().map(|slice| slice.background_cpu).sum()) / 1000.0;
        let rate = Summary::of(slices.iter().map(|slice| slice.rate(plan)));
        let mean = |figure: &dyn Fn(&Slice) -> f64| slices.iter().map(figure).sum::<f64>() / slices.len().max(1) as f64;
        let mut scored = new_latencies();
        for (label, part) in latencies.iter().enumerate() {
            if plan.is_scored(label) {
                scored.add(part).expect("all histograms have the same bounds");
            }
        }
        let mut counts: BTreeMap<String, f64> =
            counts.into_iter().map(|(name, total)| (name, total / transactions.max(1) as f64)).collect();
        let io = |count: fn(&crate::clock::IoCounts) -> u64| {
            let counted: Option<u64> = slices.iter().map(|slice| slice.io.as_ref().map(count)).sum();
            counted.map(per_tx)
        };
        let of_process = [
            ("read_calls", io(|io| io.read_calls)),
            ("write_calls", io(|io| io.write_calls)),
            ("bytes_written", io(|io| io.bytes_written)),
        ];
        counts.extend(of_process.into_iter().filter_map(|(name, count)| Some((name.to_owned(), count?))));
        Self {
            throughput: rate.map_or(0.0, |rate| rate.median),
            throughput_min: rate.map_or(0.0, |rate| rate.min),
            throughput_max: rate.map_or(0.0, |rate| rate.max),
            transactions,
            cpu_us_per_tx: worker + background,
            worker_cpu_us_per_tx: worker,
            background_cpu_us_per_tx: background,
            latency_us: Percentiles::of(&scored),
            fairness: mean(&|slice| slice.fairness),
            settle_ms: mean(&|slice| slice.settle.as_secs_f64() * 1000.0),
            counts,
            classes: classes(slices, latencies, plan),
        }
    }
}

fn classes(slices: &[Slice], latencies: &[Latencies], plan: &Plan) -> Vec<(&'static str, Class)> {
    let class = |(label, &name): (usize, &&'static str)| {
        let done: u64 = slices.iter().map(|slice| slice.done[label]).sum();
        let cpu: u64 = slices.iter().map(|slice| slice.role_cpu[label]).sum();
        let class = Class {
            throughput: Summary::of(slices.iter().map(|slice| slice.rates[label])).map_or(0.0, |rate| rate.median),
            cpu_us_per_tx: (plan.has_roles() && done > 0).then(|| cpu as f64 / 1000.0 / done as f64),
            latency_us: Percentiles::of(&latencies[label]),
        };
        (name, class)
    };
    plan.labels().iter().enumerate().map(class).collect()
}

impl Report {
    /// Every ordered pair of systems.
    pub fn ratios(slices: &[(&'static str, &[Slice])], plan: &Plan) -> Vec<(String, Ratio)> {
        let mut ratios = Vec::new();
        for (first, numerator) in slices {
            for (second, denominator) in slices.iter().filter(|(second, _)| second != first) {
                ratios.push((format!("{first}/{second}"), Ratio::new(numerator, denominator, plan)));
            }
        }
        ratios
    }

    /// As JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("maps have names as keys, nothing else is refused") + "\n"
    }
}

/// Serializes named things as a map.
pub fn by_name<S: Serializer, K: Serialize, V: Serialize>(
    named: &[(K, V)],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_map(named.iter().map(|(name, value)| (name, value)))
}
