//! Files are truncated, overwritten, mixed up by copies and restored from the wrong backup. Here a database is left behind by
//! a killed process (base and region, with transactions that are only in the region), and is then damaged in one way after the
//! other. Each must end in an error that names the file and the cause, or in rows that are right; never in a signal or in rows
//! that are wrong.

#![allow(clippy::panic)]

use nvlite_engine::Jci;
use nvlite_engine::base::Incarnation;
use nvlite_engine::base::checksum::seed;
use nvlite_engine::format::entry::{ENTRY, Entry};
use nvlite_engine::format::journal::{HEADER, Header, SLOT, groups};
use nvlite_engine::format::layout::{APPLIED_AT, Layout, RING_AT};
use nvlite_engine::format::superblock::{self, Superblock};
use nvlite_tests::sim::mix;
use nvlite_tests::sql::{Scratch, System, bank, integrity, log};
use rusqlite::ErrorCode;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Regions are copied often.
const SMALL: &str = "&region=1MiB";

/// A database whose last process was killed.
struct Left {
    system: System,
    scratch: Scratch,
    acknowledged: i64,
}

/// How the names of the mappings of this region file begin.
fn mappings_prefix(region: &Path) -> String {
    let bytes = fs::read(region).expect("a region");
    let id = Superblock::choose(&bytes[..4096], &bytes[4096..8192]).expect("a superblock").region;
    let file = fs::metadata(region).expect("just read");
    format!("nvlite-{id}-{:x}-{:x}-", file.dev(), file.ino())
}

/// No mapping of this name has been left behind.
fn assert_no_mapping(prefix: &str) {
    let there = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let names: Vec<_> =
        there.map(|entry| entry.file_name()).filter(|n| n.to_string_lossy().starts_with(prefix)).collect();
    assert!(std::thread::panicking() || names.is_empty(), "left behind: {names:?}");
}

impl Left {
    /// A bank that was founded and closed, then worked on by a process that was killed.
    fn new(system: System, seed: u64) -> Left {
        Left::on(system, seed, |_| ())
    }

    /// A bank that the killed process itself founded: the region has never been closed.
    fn never_closed(system: System, seed: u64) -> Left {
        Left::by(system, seed, "found", 20, |_| {})
    }

    /// One that was a stock file with something in it before.
    fn on(system: System, seed: u64, before: impl FnOnce(&Path)) -> Left {
        Left::by(system, seed, "write", 20, |path| {
            before(path);
            bank::found(&mut system.open_with(path, 1000, SMALL).expect("opens")).expect("founds");
        })
    }

    /// One whose log has gone round, so that of most of it the pages are the place (`ram`).
    fn retired(system: System, seed: u64) -> Left {
        Left::by(system, seed, "found", 300, |_| {})
    }

    fn by(system: System, seed: u64, role: &str, commits: i64, prepare: impl FnOnce(&Path)) -> Left {
        log::listen();
        let scratch = system.scratch();
        let path = scratch.path("bank.db");
        prepare(&path);
        let mut child = Command::new(env!("CARGO_BIN_EXE_kill_worker"))
            .env("NVLITE_REGION", "1MiB")
            .args([system.name(), path.to_str().expect("a plain path"), "1", role, &seed.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a worker");
        let mut acknowledged = 0;
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        while acknowledged < commits {
            let line = lines.next().expect("it works").expect("text");
            assert!(!line.starts_with("BAD"), "{line}");
            acknowledged += i64::from(line.starts_with("ack"));
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("dead");
        // Told before it died, read after.
        acknowledged += lines.map_while(Result::ok).filter(|line| line.starts_with("ack")).count() as i64;
        let left = Left { system, scratch, acknowledged };
        assert!(left.scratch.path("bank.db-nvlite").exists(), "{:?}", left.scratch.names());
        left
    }

    fn copy(&self) -> Case {
        Case::copy(self.system, &self.scratch)
    }
}

impl Drop for Left {
    /// The killed process left its mapping behind, which the next to open the database removes.
    fn drop(&mut self) {
        let mappings = mappings_prefix(&self.scratch.path("bank.db-nvlite"));
        let closed = self.system.open_with(&self.scratch.path("bank.db"), 1000, SMALL).and_then(|db| integrity(&db));
        assert!(std::thread::panicking() || closed.is_ok(), "{closed:?}");
        assert_no_mapping(&mappings);
    }
}

struct Case {
    system: System,
    base: PathBuf,
    region: PathBuf,
    scratch: Scratch,
    /// How the names of its mappings begin.
    mappings: String,
}

impl Drop for Case {
    fn drop(&mut self) {
        assert_no_mapping(&self.mappings);
    }
}

/// What came of it.
#[derive(Debug)]
enum Outcome {
    /// An error, with SQLite's code.
    Refused(ErrorCode, String),
    /// Right rows, up to this transaction.
    Right(i64),
}

impl Case {
    /// A copy of everything, in a directory of its own.
    fn copy(system: System, of: &Scratch) -> Case {
        let scratch = system.scratch();
        for name in of.names() {
            fs::copy(of.path(&name), scratch.path(&name)).expect("copies");
        }
        let (base, region) = (scratch.path("bank.db"), scratch.path("bank.db-nvlite"));
        Case { system, base, mappings: mappings_prefix(&region), region, scratch }
    }

    /// Rows that are wrong are no outcome.
    fn outcome(&self, what: &str) -> Outcome {
        self.look(what).unwrap_or_else(|wrong| panic!("{:?}, {what}: wrong rows: {wrong}", self.system))
    }

    /// Opens, reads everything, and holds it against the bank's own journal; what is wrong with the rows as an error.
    fn look(&self, what: &str) -> Result<Outcome, String> {
        let all = || -> rusqlite::Result<Result<i64, String>> {
            let mut db = self.system.open_with(&self.base, 1000, SMALL)?;
            let said = integrity(&db)?;
            bank::view(&mut db)?;
            Ok(if said == "ok" { bank::audit(&mut db, &[]) } else { Err(said) })
        };
        match all() {
            Ok(Ok(newest)) => Ok(Outcome::Right(newest)),
            Ok(Err(wrong)) => Err(wrong),
            Err(e) => {
                let code = e.sqlite_error_code().unwrap_or_else(|| panic!("{what}: {e}"));
                Ok(Outcome::Refused(code, e.to_string()))
            }
        }
    }

    /// It must be refused, and the log must name `file` and each of `causes`.
    fn refused(&self, what: &str, codes: &[ErrorCode], file: &Path, causes: &[&str]) {
        match self.outcome(what) {
            Outcome::Right(n) => panic!("{:?}, {what}: was taken, with {n} transactions", self.system),
            Outcome::Refused(code, text) => self.told(what, (code, &text), codes, file, causes),
        }
    }

    /// The code is one of `codes`, SQLite's text is that of the code, and the log names `file` and one of `causes`.
    fn told(&self, what: &str, (code, text): (ErrorCode, &str), codes: &[ErrorCode], file: &Path, causes: &[&str]) {
        assert!(codes.contains(&code), "{:?}, {what}: {code:?} {text}", self.system);
        let expected = match code {
            ErrorCode::CannotOpen => "unable to open",
            ErrorCode::DatabaseCorrupt => "malformed",
            ErrorCode::NotADatabase => "not a database",
            _ => "full",
        };
        assert!(text.contains(expected), "{:?}, {what}: {code:?} is told as \"{text}\"", self.system);
        let nearby = log::lines(&self.base.display().to_string());
        log::told(file, causes).unwrap_or_else(|e| panic!("{:?}, {what}: {e}, but {nearby:?}", self.system));
    }

    fn change(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).expect("reads");
        change(&mut bytes);
        fs::write(path, bytes).expect("writes");
    }

    /// Changes both copies of the superblock and gives them right checksums again.
    fn superblock(&self, change: impl Fn(&mut Superblock)) {
        self.change(&self.region, |bytes| {
            for at in [0, superblock::SIZE] {
                if let Ok(mut copy) = Superblock::decode(&bytes[at..]) {
                    change(&mut copy);
                    bytes[at..at + superblock::SIZE].copy_from_slice(&copy.encode());
                }
            }
        });
    }
}

const UNUSABLE: &[ErrorCode] = &[ErrorCode::CannotOpen, ErrorCode::DatabaseCorrupt, ErrorCode::NotADatabase];

#[test]
fn what_is_undamaged_is_whole() {
    for system in System::NVLITE {
        let left = Left::new(system, 1);
        match left.copy().outcome("undamaged") {
            Outcome::Right(newest) => assert!(newest >= left.acknowledged, "{newest} of {}", left.acknowledged),
            Outcome::Refused(code, text) => panic!("{system:?}: {code:?} {text}"),
        }
    }
}

#[test]
fn a_region_that_is_not_one_is_named() {
    for system in System::NVLITE {
        let left = Left::new(system, 2);
        let case = left.copy();
        case.change(&case.region, |bytes| bytes[..16].copy_from_slice(b"not a region...."));
        case.change(&case.region, |bytes| bytes[4096..4112].copy_from_slice(b"not a region...."));
        case.refused("foreign region", UNUSABLE, &case.region, &["foreign", "not a", "magic", "superblock"]);
        let case = left.copy();
        fs::write(&case.region, b"").expect("writes");
        case.refused(
            "empty region",
            UNUSABLE,
            &case.region,
            &["empty", "truncated", "short", "superblock", "put the region back"],
        );
    }
}

#[test]
fn a_region_of_a_newer_version_is_named() {
    for system in System::NVLITE {
        let case = Left::new(system, 3).copy();
        case.change(&case.region, |bytes| [8, 4104].iter().for_each(|at| bytes[*at] = 99));
        case.refused("newer version", UNUSABLE, &case.region, &["version"]);
    }
}

#[test]
fn a_superblock_that_contradicts_the_base_is_refused() {
    for system in System::NVLITE {
        let left = Left::new(system, 4);
        let case = left.copy();
        case.superblock(|copy| copy.page_size = if copy.page_size == 512 { 1024 } else { 512 });
        case.refused("wrong page size", UNUSABLE, &case.region, &["page size", "corrupt", "journal", "entry"]);
        let case = left.copy();
        case.superblock(|copy| copy.page_size = 0);
        case.refused("no page size", UNUSABLE, &case.region, &["page size"]);
        let case = left.copy();
        case.superblock(|copy| copy.budget = 1 << 60);
        case.refused(
            "absurd budget",
            &[UNUSABLE, &[ErrorCode::DiskFull]].concat(),
            &case.base,
            &["budget", "size", "room", "length", "corrupt"],
        );
    }
}

#[test]
fn the_region_of_another_database_is_refused() {
    for system in System::NVLITE {
        let (one, other) = (Left::new(system, 5), Left::new(system, 6));
        let case = one.copy();
        fs::copy(other.scratch.path("bank.db-nvlite"), &case.region).expect("copies");
        case.refused("region of another", UNUSABLE, &case.base, &["identity", "another", "belongs", "region"]);
    }
}

#[test]
fn a_marked_base_without_its_region_is_refused() {
    for system in System::NVLITE {
        let case = Left::new(system, 7).copy();
        fs::remove_file(&case.region).expect("removes");
        case.refused("missing region", UNUSABLE, &case.base, &["missing", "without", "region"]);
        let again = format!("{:?}", rusqlite::Connection::open(&case.base).and_then(|db| integrity(&db)));
        assert!(again.contains("NotADatabase"), "stock SQLite must refuse it too: {again}");
    }
}

#[test]
fn an_unmarked_base_never_meets_an_old_region() {
    for system in System::NVLITE {
        let left = Left::new(system, 8);
        let case = left.copy();
        // A restore from a stock backup, with the region of before still beside it.
        fs::remove_file(&case.base).expect("removes");
        let mut stock = rusqlite::Connection::open(&case.base).expect("creates");
        bank::found(&mut stock).expect("founds");
        drop(stock);
        match case.outcome("stale region") {
            Outcome::Right(newest) => assert_eq!(newest, 0, "nothing of the old region was applied"),
            Outcome::Refused(code, text) => panic!("{system:?}: {code:?} {text}"),
        }
        let names = case.scratch.names();
        assert!(names.iter().any(|name| name.contains("stale")), "the old region is kept aside: {names:?}");
    }
}

#[test]
fn a_base_that_is_no_database_is_refused_and_left_alone() {
    log::listen();
    for system in System::NVLITE {
        let scratch = system.scratch();
        let path = scratch.path("letter.txt");
        let text = "Dear reader, this is not a database. ".repeat(200);
        fs::write(&path, &text).expect("writes");
        let said = system.open(&path, 100).and_then(|db| db.execute_batch("CREATE TABLE t(x)"));
        let code = said.expect_err("a letter is no database").sqlite_error_code();
        assert_eq!(code, Some(ErrorCode::NotADatabase), "{system:?}");
        log::told(&path, &["not a database"]).expect("in the log");
        assert_eq!(fs::read_to_string(&path).expect("reads"), text);
        assert_eq!(scratch.names(), ["letter.txt"]);
    }
}

#[test]
fn truncated_regions_give_no_wrong_rows() {
    for system in System::NVLITE {
        let left = Left::new(system, 9);
        let len = fs::metadata(left.scratch.path("bank.db-nvlite")).expect("there").len();
        for n in 0..24 {
            let cut = if n < 8 { n * 1024 } else { mix(9, n) % len };
            let case = left.copy();
            case.change(&case.region, |bytes| bytes.truncate(cut as usize));
            let what = format!("cut at {cut} of {len}");
            match case.outcome(&what) {
                Outcome::Right(newest) => {
                    assert!(newest >= left.acknowledged, "{system:?}, {what}: {newest} transactions");
                }
                Outcome::Refused(code, text) => {
                    let causes = ["it was cut", "corrupt superblock", "not a whole number", "put the region back"];
                    case.told(&what, (code, &text), UNUSABLE, &case.region, &causes);
                }
            }
        }
    }
}

#[test]
fn truncated_bases_give_no_wrong_rows() {
    for system in System::NVLITE {
        // what nobody writes to lies at home only
        let left = Left::on(system, 12, |path| {
            let stock = rusqlite::Connection::open(path).expect("creates");
            let ballast =
                "CREATE TABLE ballast(b); INSERT INTO ballast SELECT randomblob(40000) FROM (VALUES (1),(2),(3))";
            stock.execute_batch(ballast).expect("fills");
        });
        let len = fs::metadata(left.scratch.path("bank.db")).expect("there").len();
        let mut refused = 0;
        for n in 0..16 {
            // shorter than its header it bears no mark, and the region is not applied to it
            let cut = if n < 4 { 4096 + n * 512 } else { 4096 + mix(12, n) % (len - 4096) };
            let case = left.copy();
            case.change(&case.base, |bytes| bytes.truncate(cut as usize));
            let what = format!("base cut at {cut} of {len}");
            match case.outcome(&what) {
                Outcome::Right(newest) => assert!(newest >= left.acknowledged, "{system:?}, {what}: {newest}"),
                Outcome::Refused(code, text) => {
                    refused += 1;
                    assert_eq!(code, ErrorCode::DatabaseCorrupt, "{system:?}, {what}: {text}");
                    let lines = log::lines(&case.base.display().to_string());
                    assert!(lines.iter().any(|line| line.contains("was cut")), "{system:?}, {what}: {lines:?}");
                }
            }
        }
        assert!(refused > 8, "{system:?}: {refused} of 16 cuts were met");
    }
}

/// What it is, the cause that is told, and what is done.
type Damage<'a> = (&'a str, &'a str, &'a dyn Fn(&Case));

#[test]
fn a_cold_file_that_the_log_needs_is_named_and_put_back() {
    log::listen();
    for system in System::NVLITE {
        let scratch = system.scratch();
        let kept = "&region=1MiB&keep_region=1";
        let db = system.open_with(&scratch.path("bank.db"), 1000, kept).expect("opens");
        // too large for the log and for the fast tier
        let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<1000) SELECT i,randomblob(3000) FROM n";
        db.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, body); CREATE TABLE u(x)").expect("creates");
        db.execute_batch(&format!("INSERT INTO t {rows}; INSERT INTO u VALUES(1)")).expect("fills");
        db.close().expect("closes");
        let read = |case: &Case| -> rusqlite::Result<(i64, String)> {
            let db = system.open_with(&case.base, 1000, kept)?;
            let said = integrity(&db)?;
            Ok((db.query_row("SELECT count(*) + (SELECT sum(x) FROM u) FROM t", [], |row| row.get(0))?, said))
        };
        let cut = |case: &Case, of: fn(u64) -> u64| {
            case.change(&case.scratch.path("bank.db-cold"), |bytes| bytes.truncate(of(bytes.len() as u64) as usize));
        };
        let remove = |case: &Case| fs::remove_file(case.scratch.path("bank.db-cold")).expect("removes");
        let flip = |case: &Case, of: fn(usize) -> usize| {
            case.change(&case.scratch.path("bank.db-cold"), |bytes| {
                let at = of(bytes.len());
                bytes[at] ^= 1;
            });
        };
        let damages: [Damage<'_>; 7] = [
            ("gone", "it is missing", &remove),
            ("empty", "it was cut", &|case| cut(case, |_| 0)),
            ("half", "it was cut", &|case| cut(case, |len| len / 2)),
            ("all but a page", "it was cut", &|case| cut(case, |len| len - 4096)),
            ("a bit of the first page", "checksum", &|case| flip(case, |_| 77)),
            ("a bit in the middle", "checksum", &|case| flip(case, |len| len / 2)),
            ("a bit at the end", "checksum", &|case| flip(case, |len| len - 1)),
        ];
        for (what, cause, damage) in damages {
            let case = Case::copy(system, &scratch);
            let cold = case.scratch.path("bank.db-cold");
            damage(&case);
            for attempt in 1..=2 {
                let error = read(&case).expect_err(what);
                let code = error.sqlite_error_code().expect("a code");
                case.told(&format!("{what}, {attempt}"), (code, &error.to_string()), UNUSABLE, &cold, &[cause]);
            }
            assert_eq!(fs::read(&case.base).expect("reads")[18], 3, "{system:?}, {what}: the base is marked still");
            fs::copy(scratch.path("bank.db-cold"), &cold).expect("copies");
            assert_eq!(read(&case), Ok((1001, "ok".into())), "{system:?}, {what}: put back");
            // what is home needs it no more
            drop(system.open_with(&case.base, 1000, SMALL).expect("opens"));
        }
    }
}

#[test]
fn a_cold_file_that_nobody_needs_may_go() {
    for system in System::NVLITE {
        let left = Left::new(system, 13);
        let case = left.copy();
        fs::remove_file(case.scratch.path("bank.db-cold")).expect("removes");
        match case.outcome("cold file gone") {
            Outcome::Right(newest) => assert!(newest >= left.acknowledged, "{newest} of {}", left.acknowledged),
            Outcome::Refused(code, text) => panic!("{system:?}: {code:?} {text}"),
        }
    }
}

/// What the ring of an undamaged region holds.
struct Ring {
    low_water: Jci,
    /// The newest commit whose record is whole: the kill may have fallen between the parts of the next one.
    end: Jci,
    slots: Vec<Option<Header>>,
}

impl Ring {
    fn of(region: &[u8], system: System) -> Ring {
        let superblock = Superblock::choose(&region[..4096], &region[4096..8192]).expect("a superblock");
        let seed = seed(superblock.region, superblock.incarnation);
        let layout = Layout::new(superblock.budget, 4096, system == System::Ram);
        let slot = |n: u64| &region[layout.slot_at(n) as usize..][..SLOT];
        let slots: Vec<_> = (0..layout.ring_slots).map(|n| Header::decode(seed, n, slot(n))).collect();
        let headers = || slots.iter().flatten();
        let parts = |jci| headers().filter(|header| header.jci == jci).count();
        let whole = headers().filter(|header| parts(header.jci) == usize::from(header.parts));
        Ring {
            low_water: headers().map(|header| header.low_water).fold(superblock.low_water, Jci::max),
            end: whole.map(|header| header.jci).fold(superblock.low_water, Jci::max),
            slots,
        }
    }

    /// The commit whose record refers to byte `at` of the region and is still needed.
    fn needs(&self, at: usize) -> Option<Jci> {
        let at = at.checked_sub(RING_AT as usize)?;
        let header = self.slots.get(at / SLOT)?.as_ref()?;
        let used = at % SLOT < HEADER + usize::from(header.len);
        (used && header.jci > self.low_water && header.jci <= self.end).then_some(header.jci)
    }
}

/// The superblocks, the applied word and the ring.
///
/// A flip that changes nothing that counts must leave every commit; one in a commit that a later record attests, or (`ram`)
/// the applied word, must be told, and so must one in that word. Else one in the newest commit alone looks like a commit
/// that the crash tore: that commit is gone, and no other. On `ram` the kill has to fall between its record and the word for
/// that, and then nobody was told of it.
fn flip(left: &Left) {
    let system = left.system;
    let region = fs::read(left.scratch.path("bank.db-nvlite")).expect("reads");
    let ring = Ring::of(&region, system);
    let Outcome::Right(whole) = left.copy().outcome("undamaged") else {
        panic!("{system:?}: the undamaged is refused")
    };
    assert!(whole >= left.acknowledged, "{system:?}: {whole} of {}", left.acknowledged);
    let applied = APPLIED_AT as usize..APPLIED_AT as usize + 8;
    let word = u64::from_le_bytes(region[applied.clone()].try_into().expect("8 bytes"));
    // in the word's 48 bits
    let attested = system == System::Ram && word << 16 >> 16 == ring.end.0;
    assert!(system == System::File || attested || whole > left.acknowledged, "{system:?}: {word:#x} of {}", ring.end);
    let end_of_ring = RING_AT as usize + ring.slots.len() * SLOT;
    let bytes = |wanted: &dyn Fn(usize) -> bool| (0..end_of_ring).filter(|at| wanted(*at)).collect::<Vec<usize>>();
    let kinds = [
        ("superblock", 60, bytes(&|at| at < APPLIED_AT as usize && region[at] != 0)),
        ("applied", 16, bytes(&|at| system == System::Ram && applied.contains(&at))),
        ("needed", 60, bytes(&|at| ring.needs(at).is_some_and(|jci| jci < ring.end))),
        ("newest", 40, bytes(&|at| ring.needs(at) == Some(ring.end))),
        ("unneeded", 30, bytes(&|at| at >= applied.end && ring.needs(at).is_none())),
    ];
    for (kind, cases, places) in kinds {
        let (mut refused, mut right, mut newest_lost) = (0, 0, 0);
        for n in 0..cases {
            let Some(&at) = places.get(mix(10, n) as usize % places.len().max(1)) else { continue };
            let bit = mix(11, n) % 8;
            let case = left.copy();
            case.change(&case.region, |bytes| bytes[at] ^= 1 << bit);
            let what = format!("bit {bit} of byte {at} ({kind}, up to commit {}, applied {word:#x})", ring.end);
            match case.outcome(&what) {
                Outcome::Refused(code, text) => {
                    assert_ne!(kind, "unneeded", "{system:?}, {what}: {text}");
                    case.told(&what, (code, &text), UNUSABLE, &case.region, &["corrupt", "version"]);
                    refused += 1;
                }
                Outcome::Right(newest) if newest == whole => {
                    assert!(!["applied", "needed", "newest"].contains(&kind), "{system:?}, {what}: nobody noticed");
                    right += 1;
                }
                Outcome::Right(newest) => {
                    let torn = ("newest", false, whole - 1);
                    assert_eq!((kind, attested, newest), torn, "{system:?}, {what}: of {whole} transactions");
                    newest_lost += 1;
                }
            }
        }
        println!(
            "{system:?} up to {}, {kind}: {refused} refused, {right} whole, {newest_lost} without the newest commit",
            ring.end
        );
    }
}

/// Bytes of the file that have content of pages: of `ram`, data blocks whose entries hold; of `file`, what is at home of the
/// pages that the log changes.
fn content(left: &Left, region: &[u8], ring: &Ring) -> Vec<usize> {
    let superblock = Superblock::choose(&region[..4096], &region[4096..8192]).expect("a superblock");
    let layout = Layout::new(superblock.budget, 4096, left.system == System::Ram);
    let pages: Vec<usize> = if left.system == System::Ram {
        let entry_seed = seed(superblock.region, Incarnation(0));
        let words = |b: u64| {
            let at = (layout.entries_at() + b * ENTRY) as usize;
            [0, 8, 16].map(|word| u64::from_le_bytes(region[at + word..][..8].try_into().expect("8 bytes")))
        };
        let held = |b: &u64| Entry::decode(entry_seed, words(*b)).is_some_and(|entry| entry.birth <= ring.low_water);
        (0..layout.max_blocks.into()).filter(held).map(|b| (layout.blocks_at() + b * 4096) as usize).collect()
    } else {
        let needed = ring.slots.iter().enumerate().filter_map(|(n, header)| Some((n, (*header)?)));
        let needed = needed.filter(|(_, header)| header.jci > ring.low_water && header.jci <= ring.end);
        let bodies = needed.map(|(n, header)| &region[RING_AT as usize + n * SLOT + HEADER..][..header.len.into()]);
        let pages: BTreeSet<u32> =
            bodies.flat_map(|body| groups(body, 4096).flatten()).map(|group| group.0.0).collect();
        let len = fs::metadata(left.scratch.path("bank.db")).expect("a base").len() as usize;
        pages.into_iter().map(|page| (page as usize - 1) * 4096).filter(|at| at + 4096 <= len).collect()
    };
    pages.into_iter().flat_map(|at| at + 100..at + 4096).collect() // without the header, which has the mark
}

/// Entries, and the content that recovery starts from.
///
/// Of a damaged entry nothing is lost. A page that does not come out as it was committed is told; it may come out right all the
/// same, where a commit that is redone stores over the damage.
fn flip_pages(left: &Left) {
    let system = left.system;
    let region = fs::read(left.scratch.path("bank.db-nvlite")).expect("reads");
    let ring = Ring::of(&region, system);
    let Outcome::Right(whole) = left.copy().outcome("undamaged") else {
        panic!("{system:?}: the undamaged is refused")
    };
    let (entries, places) = (RING_AT as usize + ring.slots.len() * SLOT, content(left, &region, &ring));
    let used = |at: usize| region[at / 32 * 32..][..24] != [0; 24];
    let words: Vec<usize> = match system {
        System::Ram => (entries..places[0] / 4096 * 4096).filter(|at| at % 32 < 24 && used(*at)).collect(),
        _ => Vec::new(),
    };
    let (mut refused, mut right) = (0, 0);
    for (kind, cases, places) in [("entry", 60, &words), ("content", 100, &places)] {
        for n in (0..cases).filter(|_| !places.is_empty()) {
            let (at, bit) = (places[mix(12, n) as usize % places.len()], mix(13, n) % 8);
            let case = left.copy();
            let file = if system == System::Ram { &case.region } else { &case.base };
            case.change(file, |bytes| bytes[at] ^= 1 << bit);
            let what = format!("bit {bit} of byte {at} ({kind}, up to commit {})", ring.end);
            match case.outcome(&what) {
                Outcome::Refused(code, text) => {
                    assert_eq!(kind, "content", "{system:?}, {what}: {text}");
                    case.told(&what, (code, &text), UNUSABLE, file, &["checksum"]);
                    refused += 1;
                }
                Outcome::Right(newest) => {
                    assert_eq!(newest, whole, "{system:?}, {what}");
                    right += usize::from(kind == "content");
                }
            }
        }
    }
    println!(
        "{system:?}, {} bytes of entries, {} of content: {refused} refused, {right} whole",
        words.len(),
        places.len()
    );
    assert!(refused > 40, "{system:?}: {refused} refused, {right} right");
}

#[test]
fn flipped_bits_of_entries_and_pages_give_no_wrong_rows() {
    for system in System::NVLITE {
        flip_pages(&Left::retired(system, 12));
    }
}

#[test]
fn flipped_bits_lose_no_commit_in_silence_but_the_newest() {
    for system in System::NVLITE {
        flip(&Left::new(system, 10));
    }
}

#[test]
fn flipped_bits_of_a_region_that_was_never_closed_lose_no_commit_in_silence_but_the_newest() {
    for system in System::NVLITE {
        flip(&Left::never_closed(system, 11));
    }
}
