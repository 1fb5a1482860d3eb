//! The threads of one system: each owns a connection, sleeps until its system's turn, and works until the turn ends.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rusqlite::Connection;

use crate::clock::thread_cpu;
use crate::error::{Error, Result};
use crate::systems::{Counts, DEVICE_FLUSHES, Instance};
use crate::workloads::{Plan, Worker, rows};

/// Latencies in nanoseconds, to three digits.
pub type Latencies = Histogram<u64>;

/// What one thread did in a turn.
#[derive(Clone, Debug)]
pub struct Shift {
    /// Transactions by label.
    pub done: Vec<u64>,
    /// From its start to the end of its last transaction.
    pub elapsed: Duration,
    /// CPU time of the thread, in nanoseconds.
    pub cpu: u64,
}

/// What a thread leaves at its end; nothing if it failed.
type Leaving = Option<(Connection, Vec<Latencies>, u64)>;

/// What a crew leaves at its end.
#[derive(Default)]
pub struct Left {
    /// Its connections.
    pub connections: Vec<Connection>,
    /// The latencies by label.
    pub latencies: Vec<Latencies>,
    /// The sum of what the workers [moved](Worker::moved).
    pub moved: u64,
}

enum Order {
    Work { until: Instant },
    Count { transactions: u64 },
    ForgetLatencies,
    Tidy,
    ReadCounters,
}

enum Answer {
    Ready,
    Worked(Shift),
    Tidied(bool),
    Counters(Counts),
}

/// The threads.
pub struct Crew {
    system: &'static str,
    orders: Vec<Sender<Order>>,
    answers: Receiver<Result<Answer>>,
    threads: Vec<JoinHandle<Leaving>>,
}

impl Crew {
    /// Connects as many threads as the plan wants, and waits until all are ready.
    pub fn hire(instance: &Instance, plan: &Plan) -> Result<Self> {
        let (answer, answers) = channel();
        let system = instance.system.name();
        let mut crew = Self { system, orders: Vec::new(), answers, threads: Vec::new() };
        for id in 0..plan.workers() {
            let (conn, queue) = (instance.connect()?, instance.queue.clone());
            if id == 0 {
                // Reads every page once, so that no system meets its database cold: the stock ones find the copy that
                // was just made in the kernel's page cache anyway.
                rows::check_structure(&conn)?;
            }
            let (order, orders) = channel();
            let (plan, answer) = (plan.clone(), answer.clone());
            crew.orders.push(order);
            crew.threads.push(std::thread::spawn(move || {
                let left = match plan.worker(&conn, queue, id) {
                    Ok(mut worker) => serve(&conn, &mut *worker, plan.labels().len(), &orders, &answer)
                        .map(|latencies| (latencies, worker.moved())),
                    Err(error) => Err(error),
                };
                match left {
                    Ok((latencies, moved)) => Some((conn, latencies, moved)),
                    Err(error) => {
                        // The other end is gone only when the run is being given up.
                        let _ = answer.send(Err(error));
                        None
                    }
                }
            }));
        }
        for _ in 0..crew.threads.len() {
            crew.answer()?;
        }
        Ok(crew)
    }

    /// A turn of this length; every thread's shift.
    pub fn work(&self, length: Duration) -> Result<Vec<Shift>> {
        let until = Instant::now() + length;
        self.shifts(|| Order::Work { until })
    }

    /// A turn of so many transactions per thread.
    pub fn count(&self, transactions: u64) -> Result<Vec<Shift>> {
        self.shifts(|| Order::Count { transactions })
    }

    /// Forgets the latencies of the warm-up.
    pub fn forget_latencies(&self) {
        self.orders.iter().for_each(|order| self.send(order, Order::ForgetLatencies));
    }

    /// Brings the database back to size if it has grown; tells whether it did.
    pub fn tidy(&self) -> Result<bool> {
        self.send(&self.orders[0], Order::Tidy);
        Ok(matches!(self.answer()?, Answer::Tidied(true)))
    }

    /// What the system counts by itself, read on a working connection: one more might change what is measured.
    pub fn counters(&self) -> Result<Counts> {
        self.send(&self.orders[0], Order::ReadCounters);
        if let Answer::Counters(counts) = self.answer()? { Ok(counts) } else { Ok(Counts::new()) }
    }

    /// Ends the threads.
    pub fn dismiss(self) -> Result<Left> {
        drop(self.orders);
        let mut left = Left::default();
        for thread in self.threads {
            let Ok(Some((connection, latencies, moved))) = thread.join() else {
                return Err(Error::Inconsistent(format!("a thread of {} died", self.system)));
            };
            left.connections.push(connection);
            left.moved = left.moved.wrapping_add(moved);
            if left.latencies.is_empty() {
                left.latencies = latencies;
            } else {
                for (sum, part) in left.latencies.iter_mut().zip(&latencies) {
                    sum.add(part).map_err(|error| Error::Inconsistent(error.to_string()))?;
                }
            }
        }
        Ok(left)
    }

    fn shifts(&self, order: impl Fn() -> Order) -> Result<Vec<Shift>> {
        self.orders.iter().for_each(|worker| self.send(worker, order()));
        let mut shifts = Vec::with_capacity(self.orders.len());
        while shifts.len() < self.orders.len() {
            if let Answer::Worked(shift) = self.answer()? {
                shifts.push(shift);
            }
        }
        Ok(shifts)
    }

    fn send(&self, worker: &Sender<Order>, order: Order) {
        // A thread that is gone has left its error among the answers, or none and `answer` says so.
        let _ = worker.send(order);
    }

    fn answer(&self) -> Result<Answer> {
        let died = |_| Error::Inconsistent(format!("the threads of {} died", self.system));
        let answer = self.answers.recv().map_err(died)?;
        answer.map_err(|source| Error::System { system: self.system, source: Box::new(source) })
    }
}

/// A thread's life between its first and its last order.
fn serve(
    conn: &Connection,
    worker: &mut dyn Worker,
    labels: usize,
    orders: &Receiver<Order>,
    answer: &Sender<Result<Answer>>,
) -> Result<Vec<Latencies>> {
    let mut latencies: Vec<Latencies> = (0..labels).map(|_| new_latencies()).collect();
    // Nobody listens any more when the run is being given up: the next order will not come either.
    let tell = |news| drop(answer.send(Ok(news)));
    tell(Answer::Ready);
    while let Ok(order) = orders.recv() {
        match order {
            Order::Work { until } => {
                // At least one: a thread that a busy machine starts after the end has a rate all the same.
                tell(Answer::Worked(shift(worker, &mut latencies, |now, done| done == 0 || now < until)?));
            }
            Order::Count { transactions } => {
                tell(Answer::Worked(shift(worker, &mut latencies, |_, done| done < transactions)?));
            }
            Order::ForgetLatencies => latencies.iter_mut().for_each(Latencies::reset),
            Order::Tidy => tell(Answer::Tidied(worker.tidy()?)),
            Order::ReadCounters => tell(Answer::Counters(counters(conn))),
        }
    }
    Ok(latencies)
}

/// The numbers in `nvlite_stat`; none where there is no such table.
fn counters(conn: &Connection) -> Counts {
    let read = || -> rusqlite::Result<Counts> {
        let mut statement = conn.prepare("SELECT name, value FROM nvlite_stat WHERE typeof(value) <> 'text'")?;
        let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    };
    let mut counts = read().unwrap_or_default();
    if let Some(syncs) = counts.remove("syncs") {
        counts.insert(DEVICE_FLUSHES.to_owned(), syncs);
        counts.remove("flushes"); // the sum of syncs and fences
    }
    counts
}

fn shift(
    worker: &mut dyn Worker,
    latencies: &mut [Latencies],
    goes_on: impl Fn(Instant, u64) -> bool,
) -> Result<Shift> {
    let mut done = vec![0; latencies.len()];
    let mut count = 0;
    let (start, cpu) = (Instant::now(), thread_cpu());
    let mut last = start;
    while goes_on(last, count) {
        let label = worker.run_one()?;
        let now = Instant::now();
        let nanoseconds = u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX);
        latencies[label].saturating_record(nanoseconds.max(1));
        done[label] += 1;
        count += 1;
        last = now;
    }
    Ok(Shift { done, elapsed: last - start, cpu: thread_cpu() - cpu })
}

/// An empty histogram up to ten minutes.
pub fn new_latencies() -> Latencies {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("these bounds are valid")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::RecvTimeoutError;

    use super::*;
    use crate::cli::Compare;
    use crate::systems::System;

    /// A crew on `system`, with the work of `args` loaded under `dir`.
    fn crew(system: System, dir: &Path, args: &[&str]) -> (Instance, Crew) {
        let job = Compare::parsed(&[&["--rows", "1000", "--scale", "100"], args].concat()).job;
        let (plan, source) = (Plan::new(&job), dir.join("load.db"));
        plan.load(&Connection::open(&source).expect("open")).expect("load");
        let instance = Instance::create(system, &source, dir, &job).expect("instance");
        let crew = Crew::hire(&instance, &plan).expect("crew");
        (instance, crew)
    }

    /// The way of the lock from the system to its workers' transactions.
    #[test]
    fn every_writer_of_the_fair_wal_waits_for_its_lock() {
        for workload in ["tpcc", "insert", "update", "mixed", "zipf"] {
            // In memory, so that the work is done at once where nothing holds it up.
            let dir = tempfile::tempdir_in("/dev/shm").expect("dir");
            let (instance, crew) = crew(System::WalFair, dir.path(), &["--workload", workload]);
            let queue = instance.queue.clone().expect("the fair WAL has a queue");
            let held = queue.lock().expect("lock");
            let (done, ended) = channel();
            std::thread::scope(|scope| {
                // Among so many transactions some write.
                scope.spawn(move || {
                    done.send(crew.count(40).expect("counted").len()).expect("told");
                    drop(crew.dismiss().expect("dismissed"));
                });
                let early = ended.recv_timeout(Duration::from_millis(400));
                assert_eq!(early, Err(RecvTimeoutError::Timeout), "{workload}: written past the lock");
                drop(held);
                assert!(ended.recv().expect("told") > 0, "{workload}");
            });
        }
    }

    /// With one connection and a log that does not fill up, nothing else has to be fenced either.
    #[test]
    fn a_commit_on_ram_is_one_fence() {
        let dir = tempfile::tempdir_in("/dev/shm").expect("dir");
        let (_instance, crew) = crew(System::Nvlite, dir.path(), &["--workload", "update"]);
        let before = crew.counters().expect("counters");
        crew.count(1000).expect("counted");
        let after = crew.counters().expect("counters");
        drop(crew.dismiss().expect("dismissed"));
        let [commits, fences] = ["commits", "fences"].map(|name| after[name] - before[name]);
        assert_eq!(commits, 1000.0);
        assert!((0.0..=4.0).contains(&(fences - commits)), "{fences} fences for {commits} commits");
    }
}
