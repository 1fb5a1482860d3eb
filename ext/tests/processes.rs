//! Several processes on one database: Python programs that load the extension.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use rusqlite::Connection;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::{PYTHON, library, needs};
use tempfile::TempDir;

struct Site {
    dir: TempDir,
    shm: TempDir,
    medium: &'static str,
}

impl Site {
    fn new(medium: &'static str) -> Site {
        Site { dir: TempDir::new().unwrap(), shm: TempDir::new_in("/dev/shm").unwrap(), medium }
    }

    fn db(&self) -> PathBuf {
        self.dir.path().join("app.db")
    }

    fn uri(&self) -> String {
        let place =
            if self.medium == "ram" { format!("&region_dir={}", self.shm.path().display()) } else { String::new() };
        format!("file:{}?vfs=nvlite&medium={}{place}", self.db().display(), self.medium)
    }

    /// A program with a connection `d` in autocommit mode.
    fn python(&self, script: &str) -> Command {
        python(&library(), &self.uri(), script)
    }

    fn leftovers(&self) -> usize {
        let count = |dir: &TempDir| std::fs::read_dir(dir.path()).unwrap().count();
        count(&self.dir) + count(&self.shm) - 1
    }
}

fn python(library: &Path, uri: &str, script: &str) -> Command {
    let prelude = format!(
        "import select,sqlite3,sys\nl=sqlite3.connect(':memory:'); l.enable_load_extension(True); l.load_extension({library:?})\n\
         d=sqlite3.connect({uri:?},uri=True,timeout=60,isolation_level=None)\n"
    );
    let mut command = Command::new(PYTHON);
    command.arg("-c").arg(prelude + script).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some(), "killed: {}\n{text}", output.status);
    text
}

fn done(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}

const WRITER: &str = "
d.execute('CREATE TABLE IF NOT EXISTS t(p INT, i INT)')
d.execute('CREATE TABLE IF NOT EXISTS n(v INT)')
for i in range(150):
  d.execute('INSERT INTO t VALUES (?,?)',(int(ME),i))
  d.execute('BEGIN IMMEDIATE')
  v=d.execute('SELECT count(*) FROM t').fetchone()[0]
  d.execute('DELETE FROM n'); d.execute('INSERT INTO n VALUES (?)',(v,))
  d.execute('COMMIT')
d.close()
";

#[test]
fn writers_of_four_processes() {
    if !needs::program(PYTHON) {
        return;
    }
    for medium in ["file", "ram"] {
        let site = Site::new(medium);
        let spawn = |me: i32| site.python(&format!("ME={me}\n{WRITER}")).spawn().unwrap();
        let children: Vec<Child> = (0..4).map(spawn).collect();
        children.into_iter().for_each(done);
        let view = Connection::open(site.db()).unwrap();
        let row = view.query_row("SELECT count(*), count(DISTINCT p*1000+i), (SELECT v FROM n) FROM t", (), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        assert_eq!(row.unwrap(), (600, 600, 600), "{medium}");
        assert_eq!(site.leftovers(), 0);
        assert_eq!(view.query_row("PRAGMA integrity_check", (), |row| row.get::<_, String>(0)).unwrap(), "ok");
    }
}

#[test]
fn processes_that_open_and_close_at_once() {
    if !needs::program(PYTHON) {
        return;
    }
    for medium in ["file", "ram"] {
        let site = Site::new(medium);
        let made = output(&mut site.python("d.execute('CREATE TABLE t(p INT, i INT)'); d.close()"));
        assert_eq!(made, "");
        let script = |me: i32| {
            format!(
                "d.close()\nfor i in range(15):\n  d=sqlite3.connect({:?},uri=True,timeout=60,isolation_level=None)\n  \
                 d.execute('INSERT INTO t VALUES ({me},?)',(i,))\n  d.close()\n",
                site.uri()
            )
        };
        let children: Vec<Child> = (0..4).map(|me| site.python(&script(me)).spawn().unwrap()).collect();
        children.into_iter().for_each(done);
        assert_eq!(site.leftovers(), 0, "{medium}");
        let view = Connection::open(site.db()).unwrap();
        assert_eq!(
            view.query_row("SELECT count(DISTINCT p*100+i) FROM t", (), |row| row.get::<_, i64>(0)).unwrap(),
            60
        );
        assert_eq!(view.query_row("PRAGMA integrity_check", (), |row| row.get::<_, String>(0)).unwrap(), "ok");
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_it_was_told_is_committed() {
    if !needs::program(PYTHON) {
        return;
    }
    for (medium, level) in [("file", "FULL"), ("file", "OFF"), ("ram", "FULL")] {
        let site = Site::new(medium);
        let script = format!(
            "d.execute('CREATE TABLE IF NOT EXISTS t(i INTEGER PRIMARY KEY, b)'); d.execute('PRAGMA synchronous={level}')\n\
             i=d.execute('SELECT coalesce(max(i),0) FROM t').fetchone()[0]\n\
             while True:\n  i+=1; d.execute('INSERT INTO t VALUES (?,?)',(i,'x'*(i%900))); print(i,flush=True)"
        );
        let mut acknowledged = 0;
        for round in 0..4 {
            let mut child = site.python(&script).spawn().unwrap();
            for line in BufReader::new(child.stdout.take().unwrap()).lines().take(40 + round * 17) {
                acknowledged = line.unwrap().parse::<i64>().unwrap();
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let check = "print(d.execute('SELECT count(*),max(i) FROM t').fetchone(), d.execute('PRAGMA integrity_check').fetchone()[0])\nd.close()";
        let text = output(&mut site.python(check));
        let numbers: Vec<i64> = text
            .split(|c: char| !c.is_ascii_digit())
            .filter(|part| !part.is_empty())
            .map(|part| part.parse().unwrap())
            .collect();
        assert!(
            numbers[0] == numbers[1] && numbers[0] >= acknowledged,
            "{medium} {level}: {acknowledged} were told; {text}"
        );
        assert!(text.trim_end().ends_with("ok"), "{text}");
        assert_eq!(site.leftovers(), 0, "{medium}: the last close is a clean one");
    }
}

#[test]
fn a_writer_killed_beside_a_living_reader() {
    if !needs::program(PYTHON) {
        return;
    }
    for medium in ["file", "ram"] {
        let site = Site::new(medium);
        let reader = site.python(
            "d.execute('CREATE TABLE IF NOT EXISTS t(i INTEGER PRIMARY KEY, b)')\nprint('ready',flush=True)\nn=0\n\
             while sys.stdin not in select.select([sys.stdin],[],[],0)[0]:\n  c,m=d.execute('SELECT count(*),coalesce(max(i),0) FROM t').fetchone()\n  assert c==m,(c,m)\n  n+=1\n\
             d.execute('INSERT INTO t SELECT max(i)+1,0 FROM t')\nd.close()\n",
        )
        .stdin(Stdio::piped())
        .spawn();
        let mut reader = reader.unwrap();
        let mut line = String::new();
        BufReader::new(reader.stdout.take().unwrap()).read_line(&mut line).unwrap();
        // What the killed one had published but nobody was told yet is seen by the next writer, by readers a little later.
        let script = "d.execute('PRAGMA cache_size=5')\nwhile True:\n  d.execute('BEGIN IMMEDIATE')\n  \
             i=d.execute('SELECT coalesce(max(i),0) FROM t').fetchone()[0]\n  \
             for k in range(20):\n    i+=1; d.execute('INSERT INTO t VALUES (?,?)',(i,'x'*900))\n  d.execute('COMMIT'); print(i,flush=True)";
        for _ in 0..3 {
            let mut child = site.python(script).spawn().unwrap();
            let told = BufReader::new(child.stdout.take().unwrap()).lines().take(15).count();
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            assert_eq!(told, 15, "{medium}: {}", String::from_utf8_lossy(&output.stderr));
        }
        drop(reader.stdin.take());
        done(reader);
        let view = Connection::open(site.db()).unwrap();
        assert_eq!(
            view.query_row("PRAGMA integrity_check", (), |row| row.get::<_, String>(0)).unwrap(),
            "ok",
            "{medium}"
        );
        assert_eq!(site.leftovers(), 0);
    }
}

#[test]
fn the_newest_sqlite_loads_it_too() {
    // The SQLite of this program, in which nobody has registered a linked copy.
    let site = Site::new("ram");
    let loader = Connection::open_in_memory().unwrap();
    // SAFETY: the library of this build.
    unsafe {
        loader.load_extension_enable().unwrap();
        loader.load_extension(library(), None::<&str>).unwrap();
        loader.load_extension(library(), None::<&str>).unwrap();
    }
    let db = Connection::open(site.uri()).unwrap();
    db.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(
        db.query_row("SELECT nvlite_version()", (), |row| row.get::<_, String>(0)).unwrap(),
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(
        loader.query_row("SELECT nvlite_version()", (), |row| row.get::<_, String>(0)).unwrap(),
        env!("CARGO_PKG_VERSION")
    );
    drop(db);
    assert_eq!(site.leftovers(), 0);
}

/// Runs as an ordinary user: root may do everything. `None` if we are not root ourselves.
fn as_nobody(site: &Site, uri: &str, script: &str) -> Option<String> {
    if !needs::root() {
        return None;
    }
    let copy = site.shm.path().join("libnvlite.so");
    std::fs::copy(library(), &copy).unwrap();
    for path in [site.shm.path(), &copy] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    Some(output(python(&copy, uri, script).uid(65534).gid(65534)))
}

#[test]
fn a_file_and_a_directory_that_may_only_be_read() {
    if !needs::program(PYTHON) {
        return;
    }
    let site = Site::new("file");
    let plain = Connection::open(site.db()).unwrap();
    plain.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (7)").unwrap();
    drop(plain);
    std::fs::set_permissions(site.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(site.db(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let script = "print(d.execute('SELECT x FROM t').fetchone()[0])\n\
                  try: d.execute('INSERT INTO t VALUES (8)')\nexcept sqlite3.OperationalError as e: print(e)\n";
    let Some(text) = as_nobody(&site, &site.uri(), script) else { return };
    assert_eq!(
        text, "7\nattempt to write a readonly database\n",
        "a stock file that may only be read is the default VFS's"
    );
    assert_eq!(std::fs::read_dir(site.dir.path()).unwrap().count(), 1);
}

#[test]
fn a_marked_file_that_may_only_be_read_is_an_error_with_a_reason() {
    if !needs::program(PYTHON) {
        return;
    }
    let site = Site::new("file");
    let uri = site.uri() + "&keep_region=1";
    let made = output(&mut python(&library(), &uri, "d.execute('CREATE TABLE t(x)'); d.close()"));
    assert_eq!(made, "");
    std::fs::set_permissions(site.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for entry in std::fs::read_dir(site.dir.path()).unwrap() {
        std::fs::set_permissions(entry.unwrap().path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    // SQLite's error log, which wants to be set before SQLite is initialised.
    let script = format!(
        "d.close(); l.close()\nimport ctypes\nlib=ctypes.CDLL('libsqlite3.so.0'); lib.sqlite3_shutdown()\nlog=[]\n\
         C=ctypes.CFUNCTYPE(None,ctypes.c_void_p,ctypes.c_int,ctypes.c_char_p)\n\
         tell=C(lambda p,code,text: log.append((code,text.decode())))\n\
         assert lib.sqlite3_config(16,tell,None)==0; lib.sqlite3_initialize()\n\
         l=sqlite3.connect(':memory:'); l.enable_load_extension(True); l.load_extension('LIBRARY')\n\
         d=sqlite3.connect({uri:?},uri=True,isolation_level=None)\n\
         try: print(d.execute('SELECT count(*) FROM t').fetchone())\n\
         except sqlite3.OperationalError as e: print(e.sqlite_errorcode)\n\
         ours=[line for line in log if line[1].startswith('nvlite: ')]\n\
         for code,text in sorted(set(ours)): print(code,text)\n",
    );
    let copied = script.replace("LIBRARY", &site.shm.path().join("libnvlite.so").display().to_string());
    let Some(text) = as_nobody(&site, "file::memory:", &copied) else { return };
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines[0] == "14", "SQLITE_CANTOPEN, and one reason for it: {text}");
    let region = site.dir.path().join("app.db-nvlite");
    assert!(lines[1].starts_with("14 nvlite: ") && lines[1].contains(&region.display().to_string()), "{text}");
    assert!(lines[1].contains("Permission denied"), "{text}");
}
