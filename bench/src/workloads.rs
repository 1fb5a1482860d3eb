//! What is run: the work of one thread, how its database is loaded, and how it is checked afterwards.

use std::sync::Arc;

use rusqlite::Connection;

use crate::cli::{Job, Kind};
use crate::error::Result;
use crate::session::WriteLock;
use crate::tpcc;
use crate::zipf::Zipf;

mod mixed;
pub mod rows;
mod single;

/// One thread's work on one connection.
pub trait Worker {
    /// Runs one transaction to its end; tells its index in [`Plan::labels`].
    fn run_one(&mut self) -> Result<usize>;

    /// What its committed transactions moved: for each row, what was added to it times the row's [weight](rows::weight).
    /// Tells which transactions are there where sums cannot.
    fn moved(&self) -> u64 {
        0
    }

    /// Between turns, untimed: brings the database back to size if it has grown. Tells whether it did.
    fn tidy(&mut self) -> Result<bool> {
        Ok(false)
    }
}

/// The work of a run.
#[derive(Clone)]
pub struct Plan {
    kind: Kind,
    threads: usize,
    rows: u32,
    seed: u64,
    scale: tpcc::Scale,
    zipf: Option<Arc<Zipf>>,
}

impl Plan {
    /// The work that the command line asks for.
    pub fn new(job: &Job) -> Self {
        Self {
            kind: job.workload,
            threads: usize::from(job.threads),
            rows: job.rows,
            seed: job.seed,
            scale: tpcc::Scale::new(job.warehouses, job.scale),
            zipf: (job.workload == Kind::Zipf).then(|| Arc::new(Zipf::new(job.rows, 0.99))),
        }
    }

    /// The kinds of transactions, in the order of their indices.
    pub fn labels(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Tpcc => tpcc::LABELS,
            Kind::Insert => &["insert"],
            Kind::Update => &["update"],
            Kind::Read => &["read"],
            Kind::Mixed => &["writer", "reader"],
            Kind::Zipf => &["read", "update"],
        }
    }

    /// Whether transactions of this label count for the throughput. In `mixed` it is the writer's; the readers' stands
    /// beside it.
    pub fn is_scored(&self, label: usize) -> bool {
        self.kind != Kind::Mixed || label == 0
    }

    /// Whether each label has threads of its own, so that rates by label are worth comparing.
    pub fn has_roles(&self) -> bool {
        self.kind == Kind::Mixed
    }

    /// How many threads take part.
    pub fn workers(&self) -> usize {
        if self.kind == Kind::Mixed { self.threads.max(4) } else { self.threads }
    }

    /// About how large the loaded database is.
    pub fn bytes(&self) -> u64 {
        match self.kind {
            Kind::Tpcc => self.scale.bytes(),
            _ => u64::from(self.rows) * rows::BYTES,
        }
    }

    /// Fills an empty database.
    pub fn load(&self, conn: &Connection) -> Result<()> {
        match self.kind {
            Kind::Tpcc => tpcc::load(conn, self.scale, self.seed),
            Kind::Insert => rows::load(conn, 0),
            _ => rows::load(conn, self.rows),
        }
    }

    /// The work of thread number `id`.
    pub fn worker<'c>(
        &self,
        conn: &'c Connection,
        queue: Option<WriteLock>,
        id: usize,
    ) -> Result<Box<dyn Worker + 'c>> {
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(id as u64);
        Ok(match self.kind {
            Kind::Tpcc => Box::new(tpcc::Terminal::new(conn, queue, self.scale, id, seed)?),
            Kind::Insert => Box::new(single::Insert::new(conn, queue, self.rows, seed)?),
            Kind::Update => Box::new(single::Update::new(conn, queue, self.rows, seed)?),
            Kind::Read => Box::new(single::Read::new(conn, queue, self.rows, seed)?),
            Kind::Mixed if id == 0 => Box::new(mixed::Writer::new(conn, queue, self.rows, seed)?),
            Kind::Mixed => Box::new(mixed::Reader::new(conn, self.rows, seed)?),
            Kind::Zipf => {
                let zipf = self.zipf.clone().unwrap_or_else(|| Arc::new(Zipf::new(self.rows, 0.99)));
                Box::new(single::Skewed::new(conn, queue, zipf, seed)?)
            }
        })
    }

    /// Checks the database against the transactions (by label) that were committed since it was loaded or tidied, and
    /// against what they [moved](Worker::moved).
    pub fn check(&self, conn: &Connection, committed: &[u64], moved: u64) -> Result<()> {
        match self.kind {
            Kind::Tpcc => tpcc::check(conn, self.scale, Some(committed))?,
            Kind::Insert => rows::check_count(conn, committed[0])?,
            Kind::Update => rows::check_sum(conn, self.rows, committed[0])?,
            Kind::Zipf => rows::check_sum(conn, self.rows, committed[1])?,
            Kind::Read => rows::check_sum(conn, self.rows, 0)?,
            Kind::Mixed => {
                rows::check_sum(conn, self.rows, 0)?;
                rows::check_moved(conn, self.rows, moved)?;
            }
        }
        rows::check_structure(conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Compare;

    /// Every small workload runs in memory, and its check notices one row changed behind its back.
    #[test]
    fn checks_accept_the_run_and_refuse_a_tampered_table() {
        for kind in ["insert", "update", "read", "zipf", "mixed"] {
            let plan = Plan::new(&Compare::parsed(&["--rows", "500", "--workload", kind]).job);
            let conn = Connection::open_in_memory().expect("memory");
            plan.load(&conn).expect("load");
            let mut committed = vec![0; plan.labels().len()];
            let mut worker = plan.worker(&conn, None, 0).expect("worker");
            for _ in 0..300 {
                committed[worker.run_one().expect("transaction")] += 1;
            }
            let moved = worker.moved();
            drop(worker);
            plan.check(&conn, &committed, moved).expect(kind);
            let tamper = match kind {
                "insert" => "DELETE FROM t WHERE id=1",
                // One transfer is lost: no sum tells.
                "mixed" => "UPDATE t SET v = v + iif(id = 1, 1, -1) WHERE id IN (1, 2)",
                _ => "UPDATE t SET v=v+1 WHERE id=1",
            };
            conn.execute(tamper, ()).expect("tamper");
            assert!(plan.check(&conn, &committed, moved).is_err(), "{kind}");
        }
    }

    #[test]
    fn the_size_is_known_before_the_load() {
        for args in [["--workload", "update", "--rows", "20000"], ["--workload", "tpcc", "--scale", "10"]] {
            let plan = Plan::new(&Compare::parsed(&args).job);
            let conn = Connection::open_in_memory().expect("memory");
            plan.load(&conn).expect("load");
            let size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
            let size: i64 = conn.query_row(size, (), |row| row.get(0)).expect("size");
            let ratio = plan.bytes() as f64 / size as f64;
            assert!((0.9..1.2).contains(&ratio), "{args:?}: {} for {size}", plan.bytes());
        }
    }

    #[test]
    fn the_inserted_table_is_emptied_when_large() {
        let plan = Plan::new(&Compare::parsed(&["--rows", "100", "--workload", "insert"]).job);
        let conn = Connection::open_in_memory().expect("memory");
        plan.load(&conn).expect("load");
        let mut worker = plan.worker(&conn, None, 0).expect("worker");
        assert!(!worker.tidy().expect("tidy"));
        for _ in 0..101 {
            worker.run_one().expect("insert");
        }
        assert!(worker.tidy().expect("tidy"));
        drop(worker);
        plan.check(&conn, &[0], 0).expect("empty");
    }
}
