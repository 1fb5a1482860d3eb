//! Turns: in every round each system works for one slice, in an order that rotates from round to round, so that
//! whatever changes on the machine meets all of them alike.

use std::time::Duration;

use indicatif::ProgressBar;

use crate::clock::{IoCounts, process_cpu, thread_cpu};
use crate::crew::{Crew, Shift};
use crate::error::Result;
use crate::quiet::{PROBE, Quiet};
use crate::workloads::Plan;

/// One turn of one system.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// Transactions per second by label: the sum of the threads' own rates, so that a thread that sleeps beyond the
    /// end of the turn does not lower the others'.
    pub rates: Vec<f64>,
    /// Transactions by label.
    pub done: Vec<u64>,
    /// CPU time of the scored threads, in nanoseconds.
    pub worker_cpu: u64,
    /// CPU time of every other thread of the process but the controlling one, until it was quiet again.
    pub background_cpu: u64,
    /// CPU time by label, where labels have threads of their own.
    pub role_cpu: Vec<u64>,
    /// How long the process or the device went on after the turn.
    pub settle: Duration,
    /// Reads and writes of the process, until it was quiet again.
    pub io: Option<IoCounts>,
    /// Jain's index of the threads' transaction counts: 1 is even, 1/threads is one for all.
    pub fairness: f64,
}

impl Slice {
    /// Transactions that count for the score.
    pub fn scored(&self, plan: &Plan) -> u64 {
        (0..self.done.len()).filter(|&label| plan.is_scored(label)).map(|label| self.done[label]).sum()
    }

    /// Their rate.
    pub fn rate(&self, plan: &Plan) -> f64 {
        (0..self.rates.len()).filter(|&label| plan.is_scored(label)).map(|label| self.rates[label]).sum()
    }

    /// Their rate if what the turn left to be done in the background is part of it.
    pub fn rate_settled(&self, plan: &Plan) -> f64 {
        let (scored, rate) = (self.scored(plan) as f64, self.rate(plan));
        if rate > 0.0 { scored / (scored / rate + self.settle.as_secs_f64()) } else { 0.0 }
    }

    /// CPU microseconds of one of them, background threads included; `None` if there was none.
    pub fn cpu_us(&self, plan: &Plan) -> Option<f64> {
        let scored = self.scored(plan);
        (scored > 0).then(|| (self.worker_cpu + self.background_cpu) as f64 / 1000.0 / scored as f64)
    }
}

/// One system in the run.
pub struct Contestant {
    /// Its threads.
    pub crew: Crew,
    /// Transactions by label since its database was loaded or tidied.
    pub committed: Vec<u64>,
    /// The measured turns, one per round.
    pub slices: Vec<Slice>,
}

impl Contestant {
    /// A system that has not worked yet.
    pub fn new(crew: Crew, plan: &Plan) -> Self {
        Self { crew, committed: vec![0; plan.labels().len()], slices: Vec::new() }
    }

    /// One turn.
    fn turn(&mut self, plan: &Plan, length: Duration, quiet: &mut Quiet) -> Result<Slice> {
        let io = IoCounts::now();
        let (process, own) = (process_cpu(), thread_cpu());
        let shifts = self.crew.work(length)?;
        let settled = quiet.wait();
        let since = |(before, after): (IoCounts, IoCounts)| after.since(before).without_writes(settled.probes, PROBE);
        let io = io.zip(IoCounts::now()).map(since);
        let others = (process_cpu() - process).saturating_sub(thread_cpu() - own);
        let mut slice = summarize(&shifts, plan);
        slice.background_cpu = others.saturating_sub(shifts.iter().map(|shift| shift.cpu).sum());
        (slice.io, slice.settle) = (io, settled.after);
        for (sum, done) in self.committed.iter_mut().zip(&slice.done) {
            *sum += done;
        }
        if self.crew.tidy()? {
            self.committed.fill(0);
            quiet.wait();
        }
        Ok(slice)
    }
}

/// Runs so many rounds; the slices of earlier ones are forgotten, and their latencies.
pub fn run(
    contestants: &mut [Contestant],
    plan: &Plan,
    rounds: u32,
    length: Duration,
    quiet: &mut Quiet,
    bar: &ProgressBar,
) -> Result<()> {
    for contestant in &mut *contestants {
        contestant.slices.clear();
        contestant.crew.forget_latencies();
    }
    for round in 0..rounds {
        for index in order(round, contestants.len()) {
            let slice = contestants[index].turn(plan, length, quiet)?;
            contestants[index].slices.push(slice);
            bar.inc(1);
        }
    }
    Ok(())
}

/// Who goes first moves on by one each round.
fn order(round: u32, systems: usize) -> impl Iterator<Item = usize> {
    (0..systems).map(move |place| (place + round as usize) % systems)
}

fn summarize(shifts: &[Shift], plan: &Plan) -> Slice {
    let labels = plan.labels().len();
    let mut slice = Slice { rates: vec![0.0; labels], done: vec![0; labels], ..Slice::default() };
    slice.role_cpu = vec![0; labels];
    let mut scores = Vec::new();
    for shift in shifts {
        let mut score = 0;
        for label in 0..labels {
            slice.done[label] += shift.done[label];
            slice.rates[label] += shift.done[label] as f64 / shift.elapsed.as_secs_f64().max(1e-9);
            if shift.done[label] > 0 && plan.has_roles() {
                slice.role_cpu[label] += shift.cpu;
            }
            if plan.is_scored(label) {
                score += shift.done[label];
            }
        }
        if score > 0 || !plan.has_roles() {
            slice.worker_cpu += shift.cpu;
            scores.push(score as f64);
        }
    }
    slice.fairness = jain(&scores);
    slice
}

/// Jain's fairness index.
fn jain(counts: &[f64]) -> f64 {
    let (sum, squares) = counts.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    if squares == 0.0 { 1.0 } else { sum * sum / (counts.len() as f64 * squares) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_goes_first_equally_often() {
        let firsts: Vec<usize> = (0..6).filter_map(|round| order(round, 3).next()).collect();
        assert_eq!(firsts, [0, 1, 2, 0, 1, 2]);
        assert_eq!(order(2, 3).collect::<Vec<_>>(), [2, 0, 1]);
    }

    #[test]
    fn jains_index_is_one_when_even() {
        assert_eq!(jain(&[5.0, 5.0, 5.0]), 1.0);
        assert!((jain(&[9.0, 0.0, 0.0]) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(jain(&[]), 1.0);
    }
}
