//! Files are truncated, overwritten, mixed up by copies and restored from the wrong backup. Here a database is left behind by
//! a killed process (base and region, with transactions that are only in the region), and is then damaged in one way after the
//! other. Each must end in an error that names the file and the cause, or in rows that are right; never in a signal or in rows
//! that are wrong.

#![allow(clippy::panic)]

use nvlite_engine::format::superblock::{self, Superblock};
use nvlite_tests::sim::mix;
use nvlite_tests::sql::{Scratch, System, bank, integrity, log};
use rusqlite::ErrorCode;
use std::fs;
use std::io::{BufRead as _, BufReader};
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

impl Left {
    fn new(system: System, seed: u64) -> Left {
        Left::on(system, seed, |_| ())
    }

    /// One that was a stock file with something in it before.
    fn on(system: System, seed: u64, before: impl FnOnce(&Path)) -> Left {
        log::listen();
        let scratch = system.scratch();
        let path = scratch.path("bank.db");
        before(&path);
        bank::found(&mut system.open_with(&path, 1000, SMALL).expect("opens")).expect("founds");
        let mut child = Command::new(env!("CARGO_BIN_EXE_kill_worker"))
            .env("NVLITE_REGION", "1MiB")
            .args([system.name(), path.to_str().expect("a plain path"), "1", "write", &seed.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a worker");
        let mut acknowledged = 0;
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        while acknowledged < 20 {
            let line = lines.next().expect("it works").expect("text");
            assert!(!line.starts_with("BAD"), "{line}");
            acknowledged += i64::from(line.starts_with("ack"));
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("dead");
        let left = Left { system, scratch, acknowledged };
        assert!(left.scratch.path("bank.db-nvlite").exists(), "{:?}", left.scratch.names());
        left
    }

    /// A copy of everything, in a directory of its own.
    fn copy(&self) -> Case {
        let scratch = self.system.scratch();
        for name in self.scratch.names() {
            fs::copy(self.scratch.path(&name), scratch.path(&name)).expect("copies");
        }
        Case { system: self.system, base: scratch.path("bank.db"), region: scratch.path("bank.db-nvlite"), scratch }
    }
}

struct Case {
    system: System,
    base: PathBuf,
    region: PathBuf,
    scratch: Scratch,
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
    /// Opens, reads everything, and holds it against the bank's own journal.
    fn outcome(&self, what: &str) -> Outcome {
        let all = || -> rusqlite::Result<Result<i64, String>> {
            let mut db = self.system.open_with(&self.base, 1000, SMALL)?;
            let said = integrity(&db)?;
            bank::view(&mut db)?;
            Ok(if said == "ok" { bank::audit(&mut db, &[]) } else { Err(said) })
        };
        match all() {
            Ok(Ok(newest)) => Outcome::Right(newest),
            Ok(Err(wrong)) => panic!("{:?}, {what}: wrong rows: {wrong}", self.system),
            Err(e) => {
                let code = e.sqlite_error_code().unwrap_or_else(|| panic!("{what}: {e}"));
                Outcome::Refused(code, e.to_string())
            }
        }
    }

    /// It must be refused, and the log must name `file` and each of `causes`.
    fn refused(&self, what: &str, codes: &[ErrorCode], file: &Path, causes: &[&str]) {
        match self.outcome(what) {
            Outcome::Right(n) => panic!("{:?}, {what}: was taken, with {n} transactions", self.system),
            Outcome::Refused(code, text) => {
                assert!(codes.contains(&code), "{:?}, {what}: {code:?} {text}", self.system);
                let lines = log::lines(&file.display().to_string());
                let nearby = log::lines(&self.base.display().to_string());
                let told = lines.iter().any(|line| causes.iter().any(|cause| line.to_lowercase().contains(cause)));
                assert!(
                    told,
                    "{:?}, {what}: the log does not name the cause in {}: {nearby:?}",
                    self.system,
                    file.display()
                );
            }
        }
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
            let outcome = case.outcome(&format!("cut at {cut} of {len}"));
            if let Outcome::Right(newest) = outcome {
                assert!(newest >= left.acknowledged, "{system:?}, cut at {cut} of {len}: {newest} transactions");
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

/// Bits of the superblocks, the ring and (`ram`) the entries: all that has a checksum. Data blocks have none while they are hot.
#[test]
fn flipped_bits_give_no_wrong_rows() {
    for system in System::NVLITE {
        let left = Left::new(system, 10);
        let region = fs::read(left.scratch.path("bank.db-nvlite")).expect("reads");
        let budget = Superblock::choose(&region[..4096], &region[4096..8192]).expect("a superblock").budget;
        let layout = nvlite_engine::format::layout::Layout::new(budget, 4096, system == System::Ram);
        let interesting: Vec<usize> =
            (0..(layout.entries_at() as usize).min(region.len())).filter(|at| region[*at] != 0).collect();
        let (mut refused, mut right) = (0, 0);
        for n in 0..60 {
            let at = interesting[(mix(10, n) % interesting.len() as u64) as usize];
            let bit = mix(11, n) % 8;
            let case = left.copy();
            case.change(&case.region, |bytes| bytes[at] ^= 1 << bit);
            match case.outcome(&format!("bit {bit} of byte {at}")) {
                Outcome::Refused(..) => refused += 1,
                Outcome::Right(_) => right += 1,
            }
        }
        println!("{system:?}: {refused} refused, {right} with right rows");
    }
}
