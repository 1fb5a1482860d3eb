//! Random SQL, reproducible from a seed. It knows nothing of the database: a statement may well fail, but then it must fail
//! everywhere in the same way.

use crate::sim::mix;

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Op {
    /// A statement on a connection.
    Sql(usize, String),
    /// A connection is closed and opened again.
    Reopen(usize),
    /// A connection starts a query and steps it once, so that it stays open.
    Cursor(usize, String),
    /// The connection's open query is read to its end.
    Drain(usize),
}

/// Draws statements.
pub struct Generator {
    seed: u64,
    drawn: u64,
    connections: u64,
    page_size: u64,
}

const TABLES: [&str; 5] = ["t0", "t1", "t2", "w0", "w1"];

impl Generator {
    /// For so many connections on a database with this page size.
    pub fn new(seed: u64, connections: usize, page_size: u32) -> Self {
        Generator { seed, drawn: 0, connections: connections as u64, page_size: u64::from(page_size) }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.drawn += 1;
        mix(self.seed, self.drawn) % n
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }

    /// What comes next.
    pub fn op(&mut self) -> Op {
        let connection = self.below(self.connections) as usize;
        match self.below(100) {
            0 => Op::Reopen(connection),
            1..=3 => {
                let table = self.pick(&TABLES);
                Op::Cursor(connection, format!("SELECT * FROM {table}"))
            }
            4..=7 => Op::Drain(connection),
            8..=33 => Op::Sql(connection, self.transaction()),
            34..=40 => Op::Sql(connection, self.schema()),
            41..=44 => Op::Sql(connection, self.upkeep()),
            45..=64 => Op::Sql(connection, self.query()),
            _ => Op::Sql(connection, self.change()),
        }
    }

    fn transaction(&mut self) -> String {
        let savepoint = self.pick(&["s0", "s1"]);
        match self.below(16) {
            0..=2 => "BEGIN".to_owned(),
            3 | 4 => "BEGIN IMMEDIATE".to_owned(),
            5 => "BEGIN EXCLUSIVE".to_owned(),
            6..=9 => "COMMIT".to_owned(),
            10 | 11 => "ROLLBACK".to_owned(),
            12 => format!("ROLLBACK TO {savepoint}"),
            13 => format!("RELEASE {savepoint}"),
            _ => format!("SAVEPOINT {savepoint}"),
        }
    }

    fn schema(&mut self) -> String {
        let table = self.pick(&TABLES);
        let column = self.pick(&["a", "b", "c"]);
        match self.below(14) {
            0..=6 if table.starts_with('w') => {
                format!("CREATE TABLE {table}(a INTEGER, b TEXT, c, PRIMARY KEY(b, a)) WITHOUT ROWID")
            }
            0..=6 => format!("CREATE TABLE {table}(a INTEGER PRIMARY KEY, b TEXT, c)"),
            7 | 8 => format!("CREATE INDEX i_{table}_{column} ON {table}({column})"),
            9 => format!("DROP INDEX i_{table}_{column}"),
            10 => format!("DROP TABLE {table}"),
            11 => format!("ALTER TABLE {table} ADD COLUMN d{} DEFAULT 7", self.below(3)),
            12 => "CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(body)".to_owned(),
            _ => "CREATE VIRTUAL TABLE IF NOT EXISTS boxes USING rtree(id, x0, x1)".to_owned(),
        }
    }

    fn upkeep(&mut self) -> String {
        match self.below(9) {
            0 => "VACUUM".to_owned(),
            1 | 2 => format!("PRAGMA incremental_vacuum({})", 1 + self.below(20)),
            3 => "ANALYZE".to_owned(),
            4 => "REINDEX".to_owned(),
            5 => format!("PRAGMA user_version={}", self.below(1000)),
            6 => format!("PRAGMA cache_size={}", 2 + self.below(30)),
            7 => format!("PRAGMA auto_vacuum={}", self.below(3)),
            _ => "PRAGMA shrink_memory".to_owned(),
        }
    }

    fn query(&mut self) -> String {
        let table = self.pick(&TABLES);
        let column = self.pick(&["a", "b", "c"]);
        let n = self.below(400);
        match self.below(10) {
            0 => format!("SELECT count(*), sum(a), sum(length(c)) FROM {table}"),
            1 => format!("SELECT a, b, length(c), substr(c, -9) FROM {table} ORDER BY {column}, a LIMIT 20 OFFSET {n}"),
            2 => format!("SELECT x.a, y.b FROM {table} x JOIN t0 y ON x.{column} = y.{column} ORDER BY 1, 2 LIMIT 50"),
            3 => format!("SELECT * FROM {table} WHERE a = {n}"),
            4 => format!("SELECT b, count(*), max(a) FROM {table} GROUP BY b ORDER BY b LIMIT 30"),
            5 => "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2".to_owned(),
            6 => "PRAGMA user_version".to_owned(),
            7 => "PRAGMA page_count".to_owned(),
            8 => format!("SELECT rowid, body FROM words WHERE words MATCH 'w{}'", n % 30),
            _ => format!("SELECT id, x0 FROM boxes WHERE x0 < {n} ORDER BY id"),
        }
    }

    fn change(&mut self) -> String {
        let table = self.pick(&TABLES);
        let column = self.pick(&["b", "c"]);
        let (n, m) = (self.below(400), self.below(40));
        match self.below(16) {
            0..=3 => format!("INSERT OR REPLACE INTO {table}(a, b, c) VALUES({n}, 'b{m}', {})", self.value()),
            4 => format!("INSERT INTO {table}(a, b, c) VALUES({n}, 'b{m}', {})", self.value()),
            5 | 6 => {
                let (count, value) = (1 + self.below(120), self.value());
                format!(
                    "INSERT OR IGNORE INTO {table}(a, b, c) WITH RECURSIVE k(i) AS (VALUES({n}) UNION ALL \
                     SELECT i + 1 FROM k LIMIT {count}) SELECT i, 'b' || (i % 37), {value} FROM k"
                )
            }
            7 | 8 => format!("UPDATE {table} SET {column} = {} WHERE a BETWEEN {n} AND {n} + {m}", self.value()),
            9 => format!("UPDATE {table} SET a = a + 1000 WHERE a = {n}"),
            10 => format!("DELETE FROM {table} WHERE a BETWEEN {n} AND {n} + {m}"),
            11 => format!("DELETE FROM {table} WHERE b = 'b{m}'"),
            12 if m == 0 => format!("DELETE FROM {table}"),
            12 => format!("INSERT OR IGNORE INTO {table} SELECT * FROM t1"),
            13 => format!("INSERT INTO words VALUES('w{m} w{} w{n}')", n % 30),
            14 => format!("INSERT OR REPLACE INTO boxes VALUES({m}, {n}, {n} + 1)"),
            _ => format!("DELETE FROM words WHERE rowid = {m}"),
        }
    }

    /// An expression: small mostly, sometimes larger than some pages.
    fn value(&mut self) -> String {
        let n = self.below(1_000_000);
        match self.below(12) {
            0 => "NULL".to_owned(),
            1..=4 => n.to_string(),
            5..=8 => format!("'text {n} {}'", "x".repeat(self.below(60) as usize)),
            9 | 10 => {
                let half = self.below(self.page_size / 8) + 1;
                format!("printf('%.{half}c%d', 'y', {n})")
            }
            _ => {
                let long = self.below((self.page_size * 3).min(20_000)) + 1;
                format!("zeroblob({long}) || {n}")
            }
        }
    }
}
