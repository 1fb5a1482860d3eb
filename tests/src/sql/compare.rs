//! One sequence of operations on two systems: every answer must be the same.

use super::cursor::Cursor;
use super::generate::{Generator, Op};
use super::{Scratch, System, integrity, stock_integrity};
use rusqlite::types::Value;
use rusqlite::{Connection, Error};
use std::path::PathBuf;

/// What is compared, and how.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What is compared with stock SQLite.
    pub system: System,
    /// Seed of everything random.
    pub seed: u64,
    /// Connections.
    pub connections: usize,
    /// Page size.
    pub page_size: u32,
    /// As the pragma counts.
    pub auto_vacuum: u32,
    /// Pages of SQLite's cache: few, so that it spills.
    pub cache: u32,
    /// As the pragma counts, bytes.
    pub mmap: u64,
    /// More URI parameters for nvlite.
    pub more: &'static str,
    /// Operations.
    pub ops: usize,
}

/// The answer to one operation: rows as text, or the extended code of the error.
type Answer = Result<Vec<String>, i32>;

struct Side {
    system: System,
    path: PathBuf,
    case: Case,
    connections: Vec<Connection>,
    /// Rows left of the open query of each connection.
    cursors: Vec<Option<Cursor>>,
    _scratch: Scratch,
}

fn code(error: &Error) -> i32 {
    match error {
        Error::SqliteFailure(e, _) => e.extended_code,
        Error::SqlInputError { error, .. } => error.extended_code,
        other => panic!("an error that is not SQLite's: {other}"),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Integer(n) => n.to_string(),
        Value::Real(x) => format!("{x:?}"),
        Value::Text(s) if s.len() < 200 => s.clone(),
        Value::Text(s) => format!("text of {}: {:016x}", s.len(), xx(s.as_bytes())),
        Value::Blob(b) => format!("blob of {}: {:016x}", b.len(), xx(b)),
    }
}

fn xx(bytes: &[u8]) -> u64 {
    nvlite_engine::base::checksum::checksum(0, bytes)
}

/// All rows of a query, as text.
///
/// # Errors
/// SQLite's.
pub fn rows(db: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = db.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let values: rusqlite::Result<Vec<String>> = (0..columns).map(|i| row.get(i).map(|v: Value| text(&v))).collect();
        all.push(values?.join("|"));
    }
    Ok(all)
}

impl Side {
    fn new(system: System, case: Case) -> rusqlite::Result<Side> {
        let scratch = system.scratch();
        let path = scratch.path("test.db");
        let mut side = Side { system, path, case, connections: Vec::new(), cursors: Vec::new(), _scratch: scratch };
        for _ in 0..case.connections {
            let db = side.open()?;
            side.connections.push(db);
            side.cursors.push(None);
        }
        Ok(side)
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let Case { page_size, auto_vacuum, cache, mmap, .. } = self.case;
        let create = format!("PRAGMA page_size={page_size}; PRAGMA auto_vacuum={auto_vacuum}; CREATE TABLE first(x)");
        let new = !self.path.exists();
        // Before the first page is written, and so before the journal mode is set.
        if new && self.system.is_stock() {
            Connection::open(&self.path)?.execute_batch(&create)?;
        }
        let db = self.system.open_with(&self.path, 0, self.case.more)?;
        if new && !self.system.is_stock() {
            db.execute_batch(&create)?;
        }
        if self.system.is_stock() {
            // A writer that begins the log anew after a checkpoint, as it spills its cache, and then rolls back, makes the snapshots of
            // others too old to write in, though nothing was committed (SQLITE_BUSY_SNAPSHOT): there no answer is the right one.
            db.execute_batch("PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0")?;
        }
        db.execute_batch(&format!("PRAGMA cache_size={cache}"))?;
        db.query_row(&format!("PRAGMA mmap_size={mmap}"), [], |_| Ok(())).or_else(none_is_fine)?;
        Ok(db)
    }

    fn answer(&mut self, op: &Op) -> Answer {
        match op {
            Op::Sql(c, sql) => rows(&self.connections[*c], sql).map_err(|e| code(&e)),
            Op::Reopen(c) => {
                self.cursors[*c] = None;
                self.connections[*c] = Connection::open_in_memory().map_err(|e| code(&e))?;
                self.connections[*c] = self.open().map_err(|e| code(&e))?;
                Ok(Vec::new())
            }
            Op::Cursor(c, sql) => {
                self.cursors[*c] = None;
                let (cursor, first) = Cursor::open(&self.connections[*c], sql)?;
                self.cursors[*c] = cursor;
                Ok(first.into_iter().collect())
            }
            Op::Drain(c) => self.cursors[*c].take().map_or(Ok(Vec::new()), Cursor::drain),
        }
    }
}

fn none_is_fine(e: Error) -> rusqlite::Result<()> {
    if e == Error::QueryReturnedNoRows { Ok(()) } else { Err(e) }
}

/// Plays `case` on its system and on stock SQLite.
///
/// # Errors
/// The first answer that differs, or a database that is not whole, with what is needed to see it again.
pub fn compare(case: Case) -> Result<(), String> {
    let open = |system| Side::new(system, case).map_err(|e| format!("{case:?}: cannot open {system:?}: {e}"));
    let mut sides = [open(System::Stock)?, open(case.system)?];
    let mut generator = Generator::new(case.seed, case.connections, case.page_size);
    let mut played: Vec<String> = Vec::new();
    for n in 0..case.ops {
        let op = generator.op();
        let [stock, other] = [sides[0].answer(&op), sides[1].answer(&op)];
        played.push(format!("{n} {op:?}: {}", short(&stock)));
        if stock != other {
            let tail = played[played.len().saturating_sub(25)..].join("\n");
            return Err(format!("{case:?}:\n{tail}\nstock: {}\nnvlite: {}", short(&stock), short(&other)));
        }
        if n % 100 == 99 {
            whole(&sides).map_err(|e| format!("{case:?}: after operation {n}: {e}"))?;
        }
    }
    for side in &mut sides {
        side.cursors.iter_mut().for_each(|cursor| *cursor = None);
        side.connections.iter().for_each(|db| _ = db.execute_batch("ROLLBACK"));
    }
    whole(&sides).map_err(|e| format!("{case:?}: at the end: {e}"))?;
    let contents = sides.each_ref().map(|side| content(&side.connections[0]));
    if contents[0] != contents[1] {
        return Err(format!("{case:?}: the content differs at the end"));
    }
    afterwards(sides, &contents[0]).map_err(|e| format!("{case:?}: after the close: {e}"))
}

/// The last close leaves a file that stock SQLite finds whole, and nothing else; nvlite finds the same rows in it.
fn afterwards(sides: [Side; 2], expected: &Result<Vec<String>, i32>) -> Result<(), String> {
    let [_, mut side] = sides;
    side.connections.clear();
    if !side.system.is_stock() {
        let left = side._scratch.names();
        if left != ["test.db"] {
            return Err(format!("files that are left: {left:?}"));
        }
        let said = stock_integrity(&side.path).map_err(|e| e.to_string())?;
        if !fine(&said) {
            return Err(format!("stock SQLite finds {said}"));
        }
        let stock = Connection::open(&side.path).map_err(|e| e.to_string())?;
        if content(&stock) != *expected {
            return Err("stock SQLite finds another content".to_owned());
        }
    }
    let again = side.open().map_err(|e| e.to_string())?;
    let found = content(&again);
    if found == *expected { Ok(()) } else { Err(format!("{} instead of {}", short(&found), short(expected))) }
}

fn short(answer: &Answer) -> String {
    let text = format!("{answer:?}");
    if text.len() < 300 {
        text
    } else {
        format!("{}... {} bytes, {:016x}", &text[..280], text.len(), xx(text.as_bytes()))
    }
}

/// What the integrity check says on each connection that has no transaction open: the same on both sides, and
/// nothing but complaints of FTS5, whose own bookkeeping stock SQLite too may get wrong over savepoints.
fn whole(sides: &[Side; 2]) -> Result<(), String> {
    let said = sides.each_ref().map(|side| {
        let idle = side.connections.iter().filter(|db| db.is_autocommit());
        idle.map(|db| integrity(db).unwrap_or_else(|e| e.to_string())).collect::<Vec<_>>()
    });
    if said[0] == said[1] && said[0].iter().all(|said| fine(said)) { Ok(()) } else { Err(format!("{said:?}")) }
}

fn fine(said: &str) -> bool {
    said.split("; ").all(|part| part == "ok" || part.starts_with("fts5:"))
}

fn content(db: &Connection) -> Answer {
    let all = || {
        let mut content =
            rows(db, "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%' ORDER BY 1, 2")?;
        let tables = rows(db, "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql IS NOT NULL ORDER BY 1")?;
        for table in tables {
            content.push(format!("table {table}"));
            content.extend(
                rows(db, &format!("SELECT * FROM \"{table}\" ORDER BY 1, 2"))
                    .or_else(|_| rows(db, &format!("SELECT * FROM \"{table}\" ORDER BY 1")))?,
            );
        }
        Ok(content)
    };
    all().map_err(|e| code(&e))
}
