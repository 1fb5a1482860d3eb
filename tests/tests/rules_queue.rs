//! The writer queue as SQL meets it (P11): who waits in its busy handler is served in the order of coming.
//!
//! The handler sleeps through the VFS until the lock is granted, so that nothing but the grant ends a wait, and each waiter is
//! in the queue before the next one comes. What time may decide is one thing only: a grant that is not taken within
//! [`GRANT_EXPIRES`] lapses. So an order is judged only where less time than that has passed.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use nvlite_engine::shm::GRANT_EXPIRES;
use nvlite_tests::needs;
use nvlite_tests::sql::System;
use rusqlite::{Connection, ffi};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Far beyond anything that a healthy machine needs.
const SOON: Duration = Duration::from_secs(60);
/// What a busy handler asks for at once.
const SLEEP: Duration = Duration::from_secs(10);
const WRITERS: usize = 4;

/// A busy handler that sleeps once through the VFS, until the grant; more often only if that was lost.
fn sleeps_through_the_vfs(_calls: i32) -> bool {
    // SAFETY: the VFS is registered and stays; the call takes it and a number.
    unsafe {
        let vfs = ffi::sqlite3_vfs_find(c"nvlite".as_ptr());
        (*vfs).xSleep.unwrap()(vfs, SLEEP.as_micros() as i32);
    }
    true
}

fn open(system: System, path: &Path) -> Connection {
    let mut db = system.open_with(path, 0, "&region=1MiB").unwrap();
    db.busy_handler(Some(sleeps_through_the_vfs)).unwrap();
    db
}

fn queue(db: &Connection) -> i64 {
    db.query_row("SELECT value FROM nvlite_stat WHERE name='queue'", [], |row| row.get(0)).unwrap()
}

/// Who has written, and when the lock was given back before and taken then.
struct Turn {
    writer: usize,
    released: Instant,
    taken: Instant,
}

/// Writers come in the order of `order` while `holder` writes, and then each has one turn.
fn round(holder: &Connection, writers: &mut [Connection], order: &[usize]) -> Vec<Turn> {
    let turns = Mutex::new(Vec::new());
    let released = Mutex::new(Instant::now());
    holder.execute_batch("BEGIN IMMEDIATE; UPDATE n SET v=v+1").unwrap();
    std::thread::scope(|scope| {
        let mut rest: Vec<_> = writers.iter_mut().enumerate().collect();
        for (came, &writer) in order.iter().enumerate() {
            let at = rest.iter().position(|(no, _)| *no == writer).unwrap();
            let (_, db) = rest.swap_remove(at);
            let (turns, released) = (&turns, &released);
            scope.spawn(move || {
                db.execute_batch("BEGIN IMMEDIATE").unwrap();
                let taken = Instant::now();
                turns.lock().unwrap().push(Turn { writer, released: *released.lock().unwrap(), taken });
                db.execute_batch("UPDATE n SET v=v+1").unwrap();
                *released.lock().unwrap() = Instant::now();
                db.execute_batch("COMMIT").unwrap();
            });
            let begin = Instant::now();
            while queue(holder) != came as i64 + 1 {
                if begin.elapsed() > SOON {
                    holder.execute_batch("ROLLBACK").unwrap(); // else they would wait for ever
                    panic!("writer {came} of {order:?} is not in the queue");
                }
                std::thread::yield_now();
            }
        }
        *released.lock().unwrap() = Instant::now();
        holder.execute_batch("COMMIT").unwrap();
    });
    turns.into_inner().unwrap()
}

#[test]
fn p11_writers_are_served_in_the_order_of_their_refusals() {
    // Failure: a writer that was just served, or whose slot comes first, or that is fastest, is served before one that has
    // waited for longer; under load, some wait for ever.
    for system in System::NVLITE {
        let scratch = system.scratch();
        let path = scratch.path("app.db");
        let holder = open(system, &path);
        holder.execute_batch("CREATE TABLE n(v); INSERT INTO n VALUES(0)").unwrap();
        let mut writers: Vec<Connection> = (0..WRITERS).map(|_| open(system, &path)).collect();
        let (mut judged, mut rounds) = (0, 0);
        let begin = Instant::now();
        // every order in which neither age nor number of a slot could stand for that of coming
        let orders = [[2, 0, 3, 1], [3, 2, 1, 0], [1, 3, 0, 2], [0, 1, 2, 3]];
        while judged < 12 && begin.elapsed() < SOON {
            let order = orders[rounds % orders.len()];
            let turns = round(&holder, &mut writers, &order);
            rounds += 1;
            assert_eq!(turns.len(), WRITERS);
            for (want, turn) in order.iter().zip(&turns) {
                // a grant that lapsed makes who comes for it the next; from there on the round shows nothing
                if turn.taken - turn.released >= GRANT_EXPIRES {
                    break;
                }
                let got: Vec<_> = turns.iter().map(|turn| turn.writer).collect();
                assert_eq!(turn.writer, *want, "{system:?}: came {order:?}, served {got:?}");
                judged += 1;
            }
        }
        if judged < 12 {
            needs::skipped(&format!("machine idle enough to tell in which order it serves ({system:?})"));
        }
        let total: i64 = holder.query_row("SELECT v FROM n", [], |row| row.get(0)).unwrap();
        assert_eq!(total as usize, rounds * (WRITERS + 1), "{system:?}: no turn is lost");
    }
}
