//! What the end of a thread may do.

use crate::support::*;
use rusqlite::{Connection, Result};
use std::cell::RefCell;
use std::sync::{Arc, Mutex};

type Answers = Arc<Mutex<Vec<Result<i64>>>>;

/// A connection that runs a statement when it goes, as a pool's does.
struct Last(Connection, Answers);

impl Drop for Last {
    fn drop(&mut self) {
        let answer = self.0.query_row("SELECT sum(x) FROM t", (), |row| row.get(0));
        self.1.lock().unwrap().push(answer);
    }
}

thread_local! {
    static EARLY: RefCell<Option<Last>> = const { RefCell::new(None) };
    static LATE: RefCell<Option<Last>> = const { RefCell::new(None) };
}

#[test]
fn a_statement_that_a_destructor_of_the_thread_runs_is_served() {
    on_both(|site| {
        let db = site.open();
        db.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1),(2)").unwrap();
        let answers = Answers::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // one is destroyed before nvlite's own, one after them, in whichever order this machine goes
                let last = || Some(Last(site.open(), Arc::clone(&answers)));
                EARLY.with(|held| assert!(held.borrow().is_none()));
                let (early, late) = (last(), last());
                EARLY.set(early);
                LATE.set(late);
            });
        });
        // a scope waits for the closure, not for the destructors behind it
        let started = std::time::Instant::now();
        while answers.lock().unwrap().len() < 2 && started.elapsed().as_secs() < 60 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let answers = answers.lock().unwrap();
        assert_eq!(answers.len(), 2);
        assert!(answers.iter().all(|answer| matches!(answer, Ok(3))), "{answers:?}");
    });
}
