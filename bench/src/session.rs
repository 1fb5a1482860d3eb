//! One connection's transactions: begin, commit, and the retry that a busy database asks for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Statement};

use crate::error::{Context, Error, Result, is_busy};

/// Longer than this without success, and the system has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a transaction's body wants it to end.
pub enum End<T> {
    /// Commit.
    Commit(T),
    /// Roll back on purpose.
    Rollback(T),
}

/// What an application that knows SQLite puts before its write transactions.
pub type WriteLock = Arc<Mutex<()>>;

/// Runs transactions on one connection, writers behind the queue if there is one.
pub struct Session<'c> {
    conn: &'c Connection,
    queue: Option<WriteLock>,
    begin_immediate: Statement<'c>,
    begin: Statement<'c>,
    commit: Statement<'c>,
    rollback: Statement<'c>,
}

impl<'c> Session<'c> {
    /// Prepares the four transaction statements.
    pub fn new(conn: &'c Connection, queue: Option<WriteLock>) -> Result<Self> {
        let prepare = |sql| conn.prepare(sql).during(sql);
        Ok(Self {
            conn,
            queue,
            begin_immediate: prepare("BEGIN IMMEDIATE")?,
            begin: prepare("BEGIN")?,
            commit: prepare("COMMIT")?,
            rollback: prepare("ROLLBACK")?,
        })
    }

    /// A write transaction: `BEGIN IMMEDIATE`, the body, `COMMIT`; from the start again when the database is busy.
    pub fn write<T>(&mut self, mut body: impl FnMut() -> rusqlite::Result<End<T>>) -> Result<T> {
        let queue = self.queue.clone();
        let _turn = queue.as_ref().map(|queue| queue.lock().unwrap_or_else(PoisonError::into_inner));
        persist(|| Self::attempt(self.conn, &mut self.begin_immediate, &mut self.commit, &mut self.rollback, &mut body))
    }

    /// A read transaction: `BEGIN`, the body, `COMMIT`.
    pub fn read<T>(&mut self, mut body: impl FnMut() -> rusqlite::Result<T>) -> Result<T> {
        let mut body = || body().map(End::Commit);
        persist(|| Self::attempt(self.conn, &mut self.begin, &mut self.commit, &mut self.rollback, &mut body))
    }

    /// A transaction of one writing statement.
    pub fn write_one<T>(&mut self, statement: impl FnMut() -> rusqlite::Result<T>) -> Result<T> {
        let _turn = self.queue.as_ref().map(|queue| queue.lock().unwrap_or_else(PoisonError::into_inner));
        persist(statement)
    }

    /// A transaction of one reading statement.
    pub fn read_one<T>(&mut self, statement: impl FnMut() -> rusqlite::Result<T>) -> Result<T> {
        persist(statement)
    }

    fn attempt<T>(
        conn: &Connection,
        begin: &mut Statement<'c>,
        commit: &mut Statement<'c>,
        rollback: &mut Statement<'c>,
        body: &mut impl FnMut() -> rusqlite::Result<End<T>>,
    ) -> rusqlite::Result<T> {
        begin.execute(())?;
        let result = match body() {
            Ok(End::Commit(value)) => commit.execute(()).map(|_| value),
            Ok(End::Rollback(value)) => return rollback.execute(()).map(|_| value),
            Err(error) => Err(error),
        };
        if result.is_err() && !conn.is_autocommit() {
            rollback.execute(())?;
        }
        result
    }
}

/// Tries again while the database is busy.
fn persist<T>(mut attempt: impl FnMut() -> rusqlite::Result<T>) -> Result<T> {
    let mut since = None;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if is_busy(&error) => {
                if since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    return Err(error).during("waiting for a busy database for a minute");
                }
            }
            Err(error) => return Err(Error::from(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn table() -> Connection {
        let conn = Connection::open_in_memory().expect("memory");
        conn.execute_batch("CREATE TABLE t(x)").expect("schema");
        conn
    }

    /// Each thread has a database of its own: nothing but the lock keeps them apart.
    #[test]
    fn two_threads_with_one_lock_never_write_at_the_same_time() {
        let (lock, inside, start) = (WriteLock::default(), AtomicBool::new(false), Barrier::new(2));
        let alone = |body: &mut dyn FnMut() -> rusqlite::Result<usize>| {
            assert!(!inside.swap(true, Ordering::SeqCst), "the other thread is inside, too");
            std::thread::sleep(Duration::from_millis(1));
            let result = body();
            assert!(inside.swap(false, Ordering::SeqCst), "the other thread was inside, too");
            result
        };
        let work = || {
            let conn = table();
            let mut session = Session::new(&conn, Some(lock.clone())).expect("session");
            let mut insert = conn.prepare("INSERT INTO t VALUES(1)").expect("prepare");
            start.wait();
            for round in 0..40 {
                let mut row = || alone(&mut || insert.execute(()));
                if round % 2 == 0 {
                    session.write_one(row).expect("written");
                } else {
                    session.write(|| row().map(End::Commit)).expect("written");
                }
            }
        };
        std::thread::scope(|scope| {
            let threads = [scope.spawn(work), scope.spawn(work)];
            threads.into_iter().for_each(|thread| thread.join().expect("no thread saw the other"));
        });
    }

    #[test]
    fn the_lock_is_held_until_the_commit_and_free_afterwards() {
        let (lock, mut conn) = (WriteLock::default(), table());
        let (commits, own) = (Arc::new(Mutex::new(Vec::new())), lock.clone());
        let seen = Arc::clone(&commits);
        let hook = move || {
            seen.lock().expect("list").push(own.try_lock().is_err());
            false
        };
        conn.commit_hook(Some(hook)).expect("hook");
        let mut session = Session::new(&conn, Some(lock.clone())).expect("session");
        let mut insert = conn.prepare("INSERT INTO t VALUES(1)").expect("prepare");
        session.write(|| insert.execute(()).map(End::Commit)).expect("committed");
        assert!(lock.try_lock().is_ok(), "still held");
        session.write_one(|| insert.execute(())).expect("committed");
        assert!(lock.try_lock().is_ok(), "still held");
        assert_eq!(*commits.lock().expect("list"), [true, true], "held at each commit");
    }

    #[test]
    fn a_failed_body_leaves_no_transaction_open() {
        let conn = table();
        let mut session = Session::new(&conn, None).expect("session");
        let mut insert = conn.prepare("INSERT INTO t VALUES(1)").expect("prepare");
        let failed = session.write(|| -> rusqlite::Result<End<()>> {
            insert.execute(())?;
            Err(rusqlite::Error::QueryReturnedNoRows)
        });
        assert!(failed.is_err() && conn.is_autocommit());
        session.write(|| insert.execute(()).map(End::Rollback)).expect("rolled back");
        session.write(|| insert.execute(()).map(End::Commit)).expect("committed");
        let rows: i64 = conn.query_row("SELECT count(*) FROM t", (), |row| row.get(0)).expect("count");
        assert_eq!(rows, 1);
    }
}
