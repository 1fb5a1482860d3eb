//! The whole life of a database: a stock file is adopted, worked on, and closed. What stands here is what the tests that
//! interrupt it have in common: where it begins, what is done, and what must hold whenever it was interrupted.

#![allow(clippy::panic, reason = "for tests only, which it tells what is wrong")]

pub mod calls;
pub mod power;
pub mod trace;

use crate::sim::mix;
use crate::sql::{Scratch, System, integrity};
use calls::{Change, change};
use nvlite_engine::format::mark;
use nvlite_engine::format::superblock::{self, Superblock};
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use trace::{Call, End, Verdict};

/// Where mappings are.
const SHM: &str = "/dev/shm";

/// The transaction that is too large for the log, and the one that takes its rows away again.
const LARGE: (i64, i64) = (4, 6);
/// The last transaction of a life that begins at the beginning.
const LAST: i64 = 7;

/// What transaction `n` writes.
fn body(n: i64) -> Vec<u8> {
    let len = if n == LARGE.0 { 90_000 } else { 300 };
    (0..len).map(|i| mix(n as u64, i / 8) as u8).collect()
}

/// Creates the tables.
///
/// # Errors
/// SQLite's.
pub fn found(db: &mut Connection) -> rusqlite::Result<()> {
    db.execute_batch("PRAGMA auto_vacuum=FULL")?;
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(
        "CREATE TABLE told(n INTEGER PRIMARY KEY, body BLOB); CREATE TABLE sum(n); INSERT INTO sum VALUES(0)",
    )?;
    tx.commit()
}

/// Transaction `n`; those before it have been.
///
/// # Errors
/// SQLite's.
pub fn work(db: &mut Connection, n: i64) -> rusqlite::Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute("INSERT INTO told VALUES(?1, ?2)", params![n, body(n)])?;
    if n == LARGE.1 {
        tx.execute("UPDATE told SET body = x'' WHERE n = ?1", [LARGE.0])?;
    }
    tx.execute("UPDATE sum SET n = n + ?1", [n])?;
    tx.commit()
}

/// The newest transaction, if all that is there is right; `None` if there are no tables.
///
/// # Errors
/// SQLite's, as it is, and in words what is wrong with the content.
pub fn newest(db: &Connection) -> rusqlite::Result<Result<Option<i64>, String>> {
    let said = integrity(db)?;
    if said != "ok" {
        return Ok(Err(said));
    }
    if db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(Ok(None));
    }
    let mut rows = db.prepare("SELECT n, body FROM told ORDER BY n")?;
    let told: Vec<(i64, Vec<u8>)> =
        rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let newest = told.len() as i64;
    for (i, (n, found)) in told.into_iter().enumerate() {
        let gone = n == LARGE.0 && newest >= LARGE.1;
        if n != i as i64 + 1 || found != if gone { Vec::new() } else { body(n) } {
            return Ok(Err(format!("row {n} where {} should be, or not what was written", i + 1)));
        }
    }
    let sum: i64 = db.query_row("SELECT n FROM sum", [], |row| row.get(0))?;
    Ok(if sum == newest * (newest + 1) / 2 { Ok(Some(newest)) } else { Err(format!("sum {sum} with {newest} rows")) })
}

/// One write system call for the whole line.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(3);
    }
}

/// What the child does: opens, tells what it finds, works, and closes. Each word is on its way when the call returns.
fn live(system: System, path: &Path, more: &str) -> rusqlite::Result<()> {
    say("begin");
    let mut db = system.open_with(path, 1000, more)?;
    let found_there = newest(&db)?.unwrap_or_else(|wrong| panic!("{wrong}"));
    if found_there.is_none() {
        found(&mut db)?;
    }
    let there = found_there.unwrap_or(0);
    say(&format!("ack {there}"));
    for n in there + 1..=LAST.max(there + 2) {
        work(&mut db, n)?;
        say(&format!("ack {n}"));
    }
    db.close().map_err(|(_, e)| e)?;
    say("closed");
    Ok(())
}

/// The child: `SYSTEM PATH PARAMETERS`. Ends with 1 if it tells an error.
pub fn worker() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [system, path, more] = args.as_slice() else { std::process::exit(2) };
    // whoever hangs is killed at last, and whoever waits for it says so
    // SAFETY: a plain system call.
    unsafe { libc::alarm(600) };
    let system = System::named(system).unwrap_or_else(|| panic!("no system {system}"));
    if let Err(e) = live(system, Path::new(path), more) {
        say(&format!("error {e} ({:?})", e.sqlite_error()));
        std::process::exit(1);
    }
}

/// A database and its side files, which lie in a directory of their own: who loses the entries of one keeps those of the other.
pub struct Place {
    /// The medium.
    pub system: System,
    scratch: Scratch,
    /// Side files of another database in the place of its own: kept, whatever happens.
    foreign: Vec<Vec<u8>>,
    /// The mappings that its children made. Who dies in the middle of a close leaves one that nothing else here names.
    made: Mutex<Vec<PathBuf>>,
}

impl Place {
    /// With nothing in it.
    pub fn new(system: System) -> Place {
        // in memory for both media: syncs are many, and here is nobody to lose what they keep
        let place = Place { system, scratch: System::Ram.scratch(), foreign: Vec::new(), made: Mutex::default() };
        [place.home(), place.side()].iter().for_each(|dir| fs::create_dir(dir).expect("a directory"));
        place
    }

    /// A copy.
    pub fn copy(&self) -> Place {
        let mut copy = Place::new(self.system);
        copy.foreign.clone_from(&self.foreign);
        copy_dir(&self.home(), &copy.home()).expect("copies");
        copy_dir(&self.side(), &copy.side()).expect("copies");
        copy
    }

    /// Where the base file is.
    pub fn home(&self) -> PathBuf {
        self.scratch.path("home")
    }

    /// Where the side files are.
    pub fn side(&self) -> PathBuf {
        self.scratch.path("side")
    }

    /// The base file.
    pub fn base(&self) -> PathBuf {
        self.home().join("life.db")
    }

    /// The region.
    pub fn region(&self) -> PathBuf {
        self.side().join("life.db-nvlite")
    }

    /// The cold file.
    pub fn cold(&self) -> PathBuf {
        self.side().join("life.db-cold")
    }

    fn more(&self) -> String {
        format!("&region=1MiB&region_dir={}", self.side().display())
    }

    /// Has a child live here, and asks `visit` at each of its stops.
    pub fn live(&self, worker: &str, mut visit: impl FnMut(&Call) -> Verdict) -> End {
        let mut command = Command::new(worker);
        command.args([self.system.name(), &self.base().display().to_string(), &self.more()]);
        let end = trace::run(command, |call| {
            if let Some(Change::Create(path)) = change(call)
                && path.parent() == Some(Path::new(SHM))
            {
                self.made.lock().expect("not poisoned").push(path);
            }
            visit(call)
        });
        end.expect("a traced child")
    }

    /// Names of all files.
    pub fn names(&self) -> Vec<String> {
        let of = |dir: PathBuf| fs::read_dir(dir).expect("a directory").flatten();
        let mut names: Vec<String> = [self.home(), self.side()]
            .into_iter()
            .flat_map(of)
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// The superblock of the region.
    pub fn superblock(&self) -> Option<Superblock> {
        let bytes = fs::read(self.region()).ok()?;
        Superblock::choose(bytes.get(..superblock::SIZE)?, bytes.get(superblock::SIZE..2 * superblock::SIZE)?).ok()
    }

    fn header(&self) -> [u8; mark::HEADER] {
        let mut header = [0; mark::HEADER];
        let bytes = fs::read(self.base()).unwrap_or_default();
        let n = bytes.len().min(header.len());
        header[..n].copy_from_slice(&bytes[..n]);
        header
    }

    /// Whether the log holds anything.
    fn logged(&self) -> bool {
        fs::read(self.region()).is_ok_and(|bytes| bytes.iter().skip(2 * superblock::SIZE).any(|byte| *byte != 0))
    }

    /// What the table of `attach` distinguishes, and a little more.
    pub fn state(&self) -> String {
        let header = self.header();
        let marked = mark::identity(&header);
        let base = match marked {
            Some(_) => "marked",
            None if header == [0; mark::HEADER] => "blank",
            None => "stock",
        };
        let region = match (self.superblock(), fs::metadata(self.region()).map(|data| data.len())) {
            (_, Err(_)) => "none",
            (_, Ok(0)) => "empty",
            (None, _) => "unreadable",
            (Some(s), _) if marked.is_some_and(|id| id != s.region) => "another's",
            (Some(s), _) if s.complete => "complete",
            (Some(s), _) if s.low_water.0 == 0 && !self.logged() => "new",
            _ => "used",
        };
        let there = |what: &str, path: PathBuf| if path.exists() { format!(", {what}") } else { String::new() };
        let hot = ["-journal", "-wal"].map(|end| there(end, self.home().join(format!("life.db{end}")))).concat();
        format!("{base}, region {region}{}{hot}", there("cold", self.cold()))
    }

    /// What stock SQLite says of the base file as it is, which is left so.
    fn stock(&self) -> rusqlite::Result<Result<Option<i64>, String>> {
        let copy = System::Ram.scratch();
        for end in ["", "-journal", "-wal"] {
            let name = format!("life.db{end}");
            let from = self.home().join(&name);
            if from.exists() {
                fs::copy(from, copy.path(&name)).expect("copies");
            }
        }
        newest(&Connection::open(copy.path("life.db"))?)
    }

    /// What must hold of an interrupted life, of which `known` was acknowledged (`None`: not even the tables).
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self, known: Option<i64>) -> Result<(), String> {
        let _alone = trace::no_forks();
        let state = self.state();
        self.check_there(known).map_err(|e| format!("{state}: known {known:?}: {e}: {:?}", self.names()))
    }

    fn check_there(&self, known: Option<i64>) -> Result<(), String> {
        let most = Some(known.map_or(0, |n| n + 1));
        let fits = |who: &str, found: Option<i64>| match found >= known && found <= most {
            true => Ok(()),
            false => Err(format!("{who} finds {found:?}")),
        };
        let text = |who: &'static str| move |e: rusqlite::Error| format!("{who}: {e}");
        let header = self.header();
        if mark::identity(&header).is_some() || (header == [0; mark::HEADER] && known.is_some()) {
            match self.stock() {
                Err(e) if e.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {}
                other => return Err(format!("stock SQLite must refuse a marked file: {other:?}")),
            }
        } else if header != [0; mark::HEADER] {
            fits("stock SQLite", self.stock().map_err(text("stock SQLite"))??)?;
        }
        let mapping = self.mapping();
        let mut db = self.system.open_with(&self.base(), 1000, &self.more()).map_err(text("opening"))?;
        let found_there = newest(&db).map_err(text("the first read"))??;
        fits("nvlite", found_there)?;
        if found_there.is_none() {
            found(&mut db).map_err(text("founding"))?;
        }
        let next = found_there.unwrap_or(0) + 1;
        work(&mut db, next).map_err(text("one more transaction"))?;
        db.close().map_err(|(_, e)| text("closing")(e))?;
        self.check_closed(Some(next))?;
        if mappings(mapping.as_deref()).is_empty() { Ok(()) } else { Err("a mapping is left behind".to_owned()) }
    }

    /// How the names of its mappings begin.
    fn mapping(&self) -> Option<String> {
        let (superblock, file) = (self.superblock()?, fs::metadata(self.region()).ok()?);
        Some(format!("nvlite-{}-{:x}-{:x}-", superblock.region, file.dev(), file.ino()))
    }

    /// What must hold after a clean close: the base file and nothing else, and it is a stock file.
    ///
    /// # Errors
    /// What does not.
    pub fn check_closed(&self, known: Option<i64>) -> Result<(), String> {
        let (aside, names): (Vec<String>, Vec<String>) =
            self.names().into_iter().partition(|name| name.contains(".stale-"));
        let kept: Vec<Vec<u8>> = aside.iter().filter_map(|name| fs::read(self.side().join(name)).ok()).collect();
        if names != ["life.db"] || kept.len() != self.foreign.len() || !self.foreign.iter().all(|f| kept.contains(f)) {
            return Err(format!("a clean close leaves {names:?} and {aside:?}"));
        }
        match newest(&Connection::open(self.base()).map_err(|e| e.to_string())?) {
            Ok(Ok(found)) if found == known => Ok(()),
            other => Err(format!("after a clean close stock SQLite finds {other:?} instead of {known:?}")),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let made = self.made.get_mut().map(std::mem::take).unwrap_or_default();
        made.into_iter().chain(mappings(self.mapping().as_deref())).for_each(|path| _ = fs::remove_file(path));
    }
}

fn mappings(prefix: Option<&str>) -> Vec<PathBuf> {
    let of =
        |entry: &fs::DirEntry| prefix.is_some_and(|prefix| entry.file_name().to_string_lossy().starts_with(prefix));
    fs::read_dir(SHM).into_iter().flatten().flatten().filter(of).map(|entry| entry.path()).collect()
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Where a life begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scene {
    /// There is no file.
    New,
    /// A stock file with rows.
    Stock,
    /// One whose newest rows are in a left-over `-wal`.
    Wal,
    /// One with a hot `-journal`, of a transaction that was in the middle of writing.
    Journal,
    /// A process was killed before it marked the base.
    Unmarked,
    /// A process was killed at work.
    Used,
    /// A process was killed at work, and the cold file, of which the log names nothing, was removed.
    Coldless,
    /// A process was killed in its clean close, before it took the mark off.
    Complete,
    /// A process was killed in its clean close, before it removed the region.
    Finished,
    /// A stock file was put in the place of one that was in use.
    Foreign,
}

impl Scene {
    /// Those that no process of ours has touched.
    pub const STOCK: [Scene; 4] = [Scene::New, Scene::Stock, Scene::Wal, Scene::Journal];
    /// Those that a process of ours has left.
    pub const LEFT: [Scene; 6] =
        [Scene::Unmarked, Scene::Used, Scene::Coldless, Scene::Complete, Scene::Finished, Scene::Foreign];

    /// Its files, and the newest transaction in them. `worker` is the program that lives.
    pub fn set(self, system: System, worker: &str) -> (Place, Option<i64>) {
        let ends = match self {
            Scene::Unmarked => "stock, region new, cold",
            Scene::Used | Scene::Coldless | Scene::Foreign => "marked, region used, cold",
            Scene::Complete => "marked, region complete, cold",
            Scene::Finished => "stock, region complete, cold",
            stock => {
                let place = Place::new(system);
                let known = stock.write(&place).unwrap_or_else(|e| panic!("{self:?}: {e}"));
                return (place, known);
            }
        };
        let (mut place, before) = Scene::Stock.set(system, worker);
        let end = place.live(worker, |call| {
            // with the large transaction in the log, or before it, or as soon as it is so
            let said = |word: &[u8]| call.number == libc::SYS_write && call.bytes(1, 6).is_ok_and(|said| said == word);
            let worked = match self {
                Scene::Used | Scene::Foreign => said(b"ack 5\n"),
                Scene::Coldless => said(b"ack 3\n"),
                _ => true,
            };
            let there = call.result.is_some() && worked;
            if there && place.state() == ends { Verdict::Kill } else { Verdict::Go }
        });
        assert_eq!((place.state().as_str(), end.status), (ends, None), "{self:?}: {}", end.said);
        if self == Scene::Coldless {
            fs::remove_file(place.cold()).expect("removes");
        }
        if self != Scene::Foreign {
            return (place, told(&end.said, before).0);
        }
        place.foreign = [place.region(), place.cold()].map(|path| fs::read(path).expect("reads")).into();
        let (stock, known) = Scene::Stock.set(system, worker);
        fs::copy(stock.base(), place.base()).expect("copies");
        (place, known)
    }

    fn write(self, place: &Place) -> rusqlite::Result<Option<i64>> {
        if self == Scene::New {
            return Ok(None);
        }
        // written elsewhere, and copied while the connection is open: its close would tidy up
        let from = System::Ram.scratch();
        let mut db = Connection::open(from.path("life.db"))?;
        found(&mut db)?;
        work(&mut db, 1)?;
        if self == Scene::Wal {
            db.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
        }
        work(&mut db, 2)?;
        if self == Scene::Journal {
            db.execute_batch(
                "PRAGMA cache_size=4; BEGIN; UPDATE told SET body = randomblob(40000); UPDATE sum SET n = 0",
            )?;
        }
        for end in ["", "-journal", "-wal"] {
            let path = from.path(&format!("life.db{end}"));
            if path.exists() {
                fs::copy(&path, place.home().join(format!("life.db{end}"))).expect("copies");
            }
        }
        let has = |end| place.home().join(format!("life.db{end}")).metadata().is_ok_and(|data| data.len() > 0);
        assert_eq!((has("-wal"), has("-journal")), (self == Scene::Wal, self == Scene::Journal));
        Ok(Some(2))
    }
}

/// The newest transaction that a child told of, `known` before it; and whether it closed.
pub fn told(said: &str, known: Option<i64>) -> (Option<i64>, bool) {
    let newest = said.lines().filter_map(|line| line.strip_prefix("ack ")?.parse().ok()).next_back();
    (newest.or(known), said.lines().any(|line| line == "closed"))
}
