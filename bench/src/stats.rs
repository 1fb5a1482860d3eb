//! Medians and ratios.

use serde::Serialize;

use crate::turns::Slice;
use crate::workloads::Plan;

/// Median, smallest and largest of some figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Of `figures`; `None` if there are none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().filter(|figure| figure.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Self { median, min, max })
    }
}

/// The throughput of one system over another's, round by round.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// By wall clock.
    pub wall: Option<Summary>,
    /// By wall clock, the time included that each needed after its turn until its background work was done.
    pub wall_settled: Option<Summary>,
    /// By CPU time, background threads included.
    pub cpu: Option<Summary>,
    /// By wall clock, of each label that has threads of its own.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "crate::report::by_name")]
    pub roles: Vec<(&'static str, Option<Summary>)>,
    /// The wall clock's ratio in every round.
    pub rounds: Vec<f64>,
}

impl Ratio {
    /// Of `first` over `second`; both have a slice per round.
    pub fn new(first: &[Slice], second: &[Slice], plan: &Plan) -> Self {
        let pairs = || first.iter().zip(second);
        let rounds: Vec<f64> = pairs().filter_map(|(a, b)| quotient(a.rate(plan), b.rate(plan))).collect();
        let settled = pairs().filter_map(|(a, b)| quotient(a.rate_settled(plan), b.rate_settled(plan)));
        let cpu = pairs().filter_map(|(a, b)| quotient(b.cpu_us(plan)?, a.cpu_us(plan)?));
        let labels = if plan.has_roles() { plan.labels() } else { &[] };
        let role = |(label, &name)| {
            let ratios = pairs().filter_map(move |(a, b): (&Slice, &Slice)| quotient(a.rates[label], b.rates[label]));
            (name, Summary::of(ratios))
        };
        Self {
            wall: Summary::of(rounds.iter().copied()),
            wall_settled: Summary::of(settled),
            cpu: Summary::of(cpu),
            roles: labels.iter().enumerate().map(role).collect(),
            rounds,
        }
    }
}

fn quotient(above: f64, below: f64) -> Option<f64> {
    (below > 0.0).then(|| above / below)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::Compare;

    #[test]
    fn medians_of_odd_and_even_numbers_of_figures() {
        let summary = |figures: &[f64]| Summary::of(figures.iter().copied());
        assert_eq!(summary(&[3.0, 1.0, 2.0]), Some(Summary { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(summary(&[4.0, 1.0, 2.0, 3.0]), Some(Summary { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(summary(&[7.0]), Some(Summary { median: 7.0, min: 7.0, max: 7.0 }));
        assert_eq!(summary(&[]), None);
    }

    /// The median of the ratios is not the ratio of the medians: a machine that becomes slow for two rounds must not
    /// move it.
    #[test]
    fn ratios_are_taken_round_by_round_and_cpu_time_counts_inversely() {
        let plan = Plan::new(&Compare::parsed(&["--workload", "read"]).job);
        let slice = |rate: f64, cpu: u64| Slice {
            rates: vec![rate],
            done: vec![10],
            worker_cpu: cpu,
            background_cpu: cpu,
            ..Slice::default()
        };
        let fast = [slice(200.0, 5000), slice(20.0, 5000), slice(25.0, 5000)];
        let slow = [slice(100.0, 10_000), slice(10.0, 20_000), slice(10.0, 15_000)];
        let ratio = Ratio::new(&fast, &slow, &plan);
        assert_eq!(ratio.rounds, [2.0, 2.0, 2.5]);
        assert_eq!(ratio.wall, Some(Summary { median: 2.0, min: 2.0, max: 2.5 }));
        assert_eq!(ratio.cpu, Some(Summary { median: 3.0, min: 2.0, max: 4.0 }));
        // Ten transactions at 25 a second, and after them as long again.
        let lazy = [Slice { settle: Duration::from_millis(400), ..slice(25.0, 5000) }];
        let settled = Ratio::new(&lazy, &slow[2..], &plan);
        assert_eq!(settled.wall_settled, Some(Summary { median: 1.25, min: 1.25, max: 1.25 }));
        assert_eq!(settled.rounds, [2.5]);
        let idle = Slice { rates: vec![0.0], done: vec![0], ..Slice::default() };
        assert_eq!(Ratio::new(&fast[..1], &[idle], &plan).wall, None);
    }
}
