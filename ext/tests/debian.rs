//! What asks most of a VFS, on the SQLite that Debian ships, through its own Python: the other tests have the newest one.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use rusqlite::Connection;
use std::process::Command;
use support::{PYTHON, library, needs};
use tempfile::TempDir;

/// `uri(name)`, `path(name)`, `ours(name)` and `stock(name)` of this directory, and small words for the scripts below.
const PRELUDE: &str = r"
import sqlite3, os
l = sqlite3.connect(':memory:'); l.enable_load_extension(True); l.load_extension(LIBRARY)
def path(name): return os.path.join(DIR, name)
def uri(name): return 'file:' + path(name) + '?vfs=nvlite&region=16MiB' + PARAMETERS
def ours(name): return sqlite3.connect(uri(name), uri=True, timeout=10, isolation_level=None)
def stock(name): return sqlite3.connect('file:' + path(name) + '?vfs=unix', uri=True, timeout=10, isolation_level=None)
def one(d, sql): return d.execute(sql).fetchone()[0]
def ok(d): assert one(d, 'PRAGMA integrity_check') == 'ok'
def fill(d, table, rows, size):
  d.execute('CREATE TABLE IF NOT EXISTS %s(id INTEGER PRIMARY KEY, body BLOB)' % table)
  d.execute('WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) '
            'INSERT INTO %s(body) SELECT randomblob(%d) FROM n' % (rows, table, size))
def digest(d): return one(d, 'SELECT group_concat(hex(substr(body,1,4))) FROM t')
";

/// Runs a script on both media that every machine has; afterwards `app.db` is a stock file and nothing stands beside it.
fn on_both(script: &str) {
    if !needs::program(PYTHON) {
        return;
    }
    for medium in ["file", "ram"] {
        let (dir, shm) = (TempDir::new().unwrap(), TempDir::new_in("/dev/shm").unwrap());
        let place = if medium == "ram" { format!("&region_dir={}", shm.path().display()) } else { String::new() };
        let head = format!(
            "LIBRARY={:?}\nDIR={:?}\nPARAMETERS='&medium={medium}{place}'\n",
            library().with_extension(""),
            dir.path()
        );
        let output = Command::new(PYTHON).arg("-c").arg(head + PRELUDE + script).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{medium}: {}\n{text}", output.status);
        let left = |dir: &TempDir| {
            let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
            names.map(|name| name.into_string().unwrap()).filter(|name| !name.ends_with(".db")).collect::<Vec<_>>()
        };
        assert_eq!((left(&dir), left(&shm)), (Vec::new(), Vec::new()), "{medium}");
        let view = Connection::open(dir.path().join("app.db")).unwrap();
        assert_eq!(view.query_row("PRAGMA integrity_check", (), |row| row.get::<_, String>(0)).unwrap(), "ok");
    }
}

#[test]
fn spills_and_their_rollback() {
    on_both(
        r"
d = ours('app.db'); other = ours('app.db')
fill(d, 't', 200, 1000)
before = digest(d)
d.execute('PRAGMA cache_size=5')
d.execute('BEGIN'); d.execute('UPDATE t SET body=randomblob(1000)'); d.execute('INSERT INTO t(body) SELECT body FROM t')
assert digest(other) == before
d.execute('ROLLBACK')
assert digest(d) == before and digest(other) == before
ok(d); ok(other)
d.execute('BEGIN'); d.execute('UPDATE t SET body=randomblob(1500)'); d.execute('COMMIT')
assert digest(d) == digest(other) != before
# a close inside a spilled transaction
after = digest(other)
d.execute('BEGIN'); d.execute('UPDATE t SET body=randomblob(900)'); d.close()
assert digest(other) == after
ok(other); other.execute('DELETE FROM t WHERE id>50'); other.close()
",
    );
}

#[test]
fn savepoints_and_failed_statements() {
    on_both(
        r"
d = ours('app.db')
fill(d, 't', 100, 800)
d.execute('CREATE UNIQUE INDEX u ON t(body)')
d.execute('PRAGMA cache_size=5')
d.execute('BEGIN'); d.execute('UPDATE t SET body=randomblob(900) WHERE id<50')
d.execute('SAVEPOINT a'); d.execute('DELETE FROM t WHERE id>20')
assert one(d, 'SELECT count(*) FROM t') == 20
d.execute('ROLLBACK TO a')
assert one(d, 'SELECT count(*) FROM t') == 100
try:
  d.execute('''UPDATE t SET body = CASE WHEN id<90 THEN randomblob(700) ELSE x'11' END'''); assert False
except sqlite3.IntegrityError: pass
assert one(d, 'SELECT count(*) FROM t WHERE length(body)=900') == 49
d.execute('RELEASE a'); d.execute('COMMIT')
ok(d)
other = ours('app.db')
assert one(other, 'SELECT count(*) FROM t WHERE length(body)=900') == 49
ok(other)
",
    );
}

#[test]
fn backups_and_attached_files() {
    on_both(
        r"
plain = stock('stock.db'); fill(plain, 't', 300, 700)
d = ours('app.db'); plain.backup(d, pages=7)
assert digest(d) == digest(plain)
ok(d)
d.execute('DELETE FROM t WHERE id>100')
d.backup(plain)
assert one(plain, 'SELECT count(*) FROM t') == 100
ok(plain)
memory = sqlite3.connect(':memory:'); d.backup(memory, pages=5); ok(memory)
d.execute('ATTACH ? AS two', (uri('two.db'),))
d.execute('ATTACH ? AS three', ('file:' + path('three.db') + '?vfs=unix',))
for name in ('two', 'three'): d.execute('CREATE TABLE %s.t(x)' % name)
d.execute('BEGIN')
for name in ('two', 'three'): d.execute('INSERT INTO %s.t VALUES (5)' % name)
d.execute('DELETE FROM main.t WHERE id>50'); d.execute('COMMIT')
d.execute('BEGIN')
for name in ('two', 'three'): d.execute('INSERT INTO %s.t VALUES (7)' % name)
d.execute('DELETE FROM main.t'); d.execute('ROLLBACK')
assert one(d, 'SELECT (SELECT count(*) FROM main.t)*100 + (SELECT sum(x) FROM two.t)*10 + (SELECT sum(x) FROM three.t)') == 5055
other = ours('two.db')
assert one(other, 'SELECT sum(x) FROM t') == 5
other.close(); d.close()
for name in ('two.db', 'three.db'): ok(stock(name))
",
    );
}

#[test]
fn every_page_size_and_auto_vacuum() {
    on_both(
        r"
for size in (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536):
  for mode in (0, 1, 2):
    name = 'app.db' if (size, mode) == (4096, 1) else 'p%d-%d.db' % (size, mode)
    d = ours(name)
    d.execute('PRAGMA page_size=%d' % size); d.execute('PRAGMA auto_vacuum=%d' % mode)
    fill(d, 't', 200, 700)
    pages = one(d, 'PRAGMA page_count')
    d.execute('UPDATE t SET body=randomblob(1200) WHERE id%5=0'); d.execute('DELETE FROM t WHERE id>20')
    if mode == 2: d.executescript('PRAGMA incremental_vacuum')
    assert (one(d, 'PRAGMA page_count') < pages / 2) == (mode > 0) or size == 65536, (size, mode)
    assert (one(d, 'PRAGMA page_size'), one(d, 'PRAGMA auto_vacuum')) == (size, mode)
    ok(d)
    d.execute('PRAGMA auto_vacuum=%d' % ((mode + 1) % 3)); d.execute('VACUUM')
    assert (one(d, 'PRAGMA page_size'), one(d, 'PRAGMA auto_vacuum')) == (size, (mode + 1) % 3)
    other = ours(name); assert one(other, 'SELECT count(*) FROM t') == 20; ok(other); other.close()
    d.close()
    s = stock(name); assert one(s, 'PRAGMA page_size') == size; ok(s); s.close()
    assert os.path.getsize(path(name)) % size == 0
",
    );
}
