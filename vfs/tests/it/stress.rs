//! Threads that do everything at once: money that moves between accounts, in transactions that spill, roll back, fail in
//! their middle and are read by others. At every moment the sum is the same.

use crate::support::*;
use rusqlite::{Connection, ffi};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

const ACCOUNTS: u64 = 400;
const TOTAL: i64 = 400 * 100;

/// A small generator: the tests must not depend on luck that cannot be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn setup(db: &Connection) {
    db.execute_batch(
        "CREATE TABLE account(id INTEGER PRIMARY KEY, money INT CHECK(money >= -100000), pad BLOB);
         CREATE INDEX rich ON account(money);
         CREATE TABLE history(n INTEGER PRIMARY KEY, thread INT, pad BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<400)
         INSERT INTO account SELECT i, 100, randomblob(i % 300) FROM n;",
    )
    .unwrap();
}

fn open(site: &Site, thread: u64) -> Connection {
    let db = site.open();
    db.busy_timeout(Duration::from_secs(30)).unwrap();
    let level = ["FULL", "NORMAL", "FULL", "OFF"][thread as usize % 4];
    let mapped = (thread % 2) * (64 << 20);
    let pages = if thread.is_multiple_of(3) { 8 } else { 500 };
    db.execute_batch(&format!("PRAGMA synchronous={level}; PRAGMA mmap_size={mapped}; PRAGMA cache_size={pages}"))
        .unwrap();
    db
}

/// One transaction; true if it committed.
fn transact(db: &Connection, thread: u64, random: &mut Random) -> bool {
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    let most = if random.below(20) == 0 { 300 } else { 6 };
    let moves = 1 + random.below(most);
    for _ in 0..moves {
        let (from, to, amount) = (1 + random.below(ACCOUNTS), 1 + random.below(ACCOUNTS), random.below(50));
        let pad = random.below(400);
        if random.below(10) == 0 {
            db.execute_batch("SAVEPOINT s").unwrap();
            db.execute("UPDATE account SET money=money+1000, pad=zeroblob(?1) WHERE id<?2", (pad as i64, to as i64))
                .unwrap();
            db.execute_batch("ROLLBACK TO s; RELEASE s").unwrap();
        }
        db.execute("UPDATE account SET money=money-?1 WHERE id=?2", (amount as i64, from as i64)).unwrap();
        db.execute(
            "UPDATE account SET money=money+?1, pad=randomblob(?3) WHERE id=?2",
            (amount as i64, to as i64, pad as i64),
        )
        .unwrap();
    }
    if random.below(12) == 0 {
        // A statement that fails in its middle.
        assert!(db.execute("UPDATE account SET money = CASE id WHEN 300 THEN -999999 ELSE money+1 END", ()).is_err());
    }
    db.execute(
        "INSERT INTO history(thread, pad) VALUES (?1, randomblob(?2))",
        (thread as i64, random.below(200) as i64),
    )
    .unwrap();
    if random.below(8) == 0 {
        db.execute_batch("ROLLBACK").unwrap();
        return false;
    }
    db.execute_batch("COMMIT").unwrap();
    true
}

fn look(db: &Connection, random: &mut Random) {
    db.execute_batch("BEGIN").unwrap();
    let commits = int(db, "SELECT count(*) FROM history");
    assert_eq!(int(db, "SELECT sum(money) FROM account"), TOTAL);
    assert_eq!(int(db, "SELECT sum(money) FROM account INDEXED BY rich WHERE money > -1000000"), TOTAL);
    if random.below(10) == 0 {
        std::thread::sleep(Duration::from_millis(random.below(30)));
        check(db);
    }
    assert_eq!(int(db, "SELECT count(*) FROM history"), commits, "a snapshot does not move");
    if random.below(4) == 0 {
        // Upgrade: allowed if nobody has committed since, else refused without harm.
        match db.execute("UPDATE account SET pad=randomblob(20) WHERE id=7", ()) {
            Ok(_) => {}
            Err(error) => assert!([ffi::SQLITE_BUSY, ffi::SQLITE_BUSY_SNAPSHOT].contains(&code(&error)), "{error}"),
        }
    }
    match db.execute_batch("COMMIT") {
        Ok(()) => {}
        Err(_) => db.execute_batch("ROLLBACK").unwrap(),
    }
}

fn run(site: &Site, seed: u64, time: Duration) {
    setup(&site.open());
    let (committed, stop) = (AtomicI64::new(0), AtomicBool::new(false));
    let end = Instant::now() + time;
    std::thread::scope(|scope| {
        for thread in 0..5 {
            let (committed, stop) = (&committed, &stop);
            scope.spawn(move || {
                let mut random = Random(seed * 1000 + thread + 1);
                let mut db = open(site, thread);
                while Instant::now() < end && !stop.load(Ordering::Relaxed) {
                    // Should this thread panic, the others need not go on.
                    let guard = StopOnPanic(stop);
                    match random.below(40) {
                        0 => db = open(site, thread + random.below(4)),
                        1..20 if transact(&db, thread, &mut random) => _ = committed.fetch_add(1, Ordering::Relaxed),
                        1..20 => {}
                        _ => look(&db, &mut random),
                    }
                    drop(guard);
                }
            });
        }
    });
    let db = site.open();
    check(&db);
    assert_eq!(int(&db, "SELECT count(*) FROM history"), committed.into_inner());
    assert_eq!(int(&db, "SELECT sum(money) FROM account"), TOTAL);
    close(db);
    assert_eq!(site.side_files(), Vec::<String>::new());
    let stock_view = site.stock();
    check(&stock_view);
    assert_eq!(int(&stock_view, "SELECT sum(money) FROM account"), TOTAL);
}

struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn money_is_neither_made_nor_lost() {
    // NVLITE_STRESS_SECONDS and NVLITE_STRESS_SEED make it longer and other.
    let number =
        |name: &str, otherwise: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise);
    let (seconds, seed) = (number("NVLITE_STRESS_SECONDS", 3), number("NVLITE_STRESS_SEED", 1));
    on_both(|site| run(site, seed, Duration::from_secs(seconds)));
}
