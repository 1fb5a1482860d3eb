//! What a program pays that opens its database, writes one row and closes it again, once per request, and what one pays that
//! only reads: `cargo run --release --example open_close [DIRECTORY]`.

use rusqlite::Connection;
use std::path::Path;
use std::time::{Duration, Instant};

/// Cycles of each kind.
const CYCLES: usize = 200;
const INSERT: &str = "INSERT INTO t(b) VALUES(randomblob(100))";
const READ: &str = "SELECT count(*) FROM t WHERE a = 1";

type Opens = fn(&Path) -> rusqlite::Result<Connection>;
const SYSTEMS: [(&str, Opens); 4] = [
    ("stock WAL FULL", |path| Connection::open(path)),
    ("nvlite", |path| nvlite_vfs::open(path)),
    ("nvlite, keep_region=1", |path| nvlite_vfs::OpenOptions::new().keep_region(true).open(path)),
    ("nvlite, region=1MiB", |path| nvlite_vfs::OpenOptions::new().region("1MiB").open(path)),
];

fn cycle(open: Opens, path: &Path, sql: &str) -> rusqlite::Result<Duration> {
    let began = Instant::now();
    let db = open(path)?;
    db.execute_batch(sql)?;
    db.close().map_err(|(_, error)| error)?;
    Ok(began.elapsed())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::TempDir::new_in(std::env::args().nth(1).unwrap_or_else(|| ".".into()))?;
    println!("{CYCLES} cycles of open, one statement, close: median in milliseconds (least .. 9 of 10)");
    for (n, (name, open)) in SYSTEMS.iter().enumerate() {
        let path = dir.path().join(format!("{n}.db"));
        let stock = Connection::open(&path)?;
        stock.execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")?;
        if n == 0 {
            stock.query_row("PRAGMA journal_mode=WAL", (), |_| Ok(()))?;
        }
        stock.close().map_err(|(_, error)| error)?;
        for (what, sql) in [("writes", INSERT), ("reads", READ)] {
            let mut times = (0..CYCLES).map(|_| cycle(*open, &path, sql)).collect::<Result<Vec<_>, _>>()?;
            times.sort_unstable();
            let ms = |share: usize| times[CYCLES * share / 100].as_secs_f64() * 1e3;
            println!("{name:22} {what:6} {:6.2} ({:.2} .. {:.2})", ms(50), ms(0), ms(90));
        }
    }
    Ok(())
}
