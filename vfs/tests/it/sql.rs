//! SQL functions and table-valued functions.

use crate::support::*;
use nvlite_vfs::Medium;
use rusqlite::Connection;

#[test]
fn version_on_every_connection() {
    nvlite_vfs::register().unwrap();
    let db = Connection::open_in_memory().unwrap();
    assert_eq!(text(&db, "SELECT nvlite_version()"), env!("CARGO_PKG_VERSION"));
    let message = db.query_row("SELECT nvlite_checkpoint()", (), |_| Ok(())).unwrap_err().to_string();
    assert!(message.contains("not open through nvlite"), "{message}");
    assert!(db.prepare("SELECT * FROM nvlite_stat").unwrap().query(()).unwrap().next().is_err());
}

/// Every row of `nvlite_stat`, in order: programs ask for them by name.
const STATS: &str = "\
    medium survives region_id region oldest_reader attachment page_size incarnation jci_published jci_durable \
    jci_visible jci_low_water jci_oldest_reader readers connections slots queue commits batches fences syncs flushes \
    lines_flushed bytes_logged log_bytes_written pages_in_place pages_copied shadow_blocks retirements homes_written \
    homes_saved faults evictions repairs refusals blocks_max blocks_present blocks_free pages_hot_clean \
    pages_hot_dirty pages_cold cold_blocks cold_blocks_unused virtblocks_present virtblocks_free ring_slots ring_used heads";

#[test]
fn stat_has_names_and_values() {
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 10, 100);
        let mut names = db.prepare("SELECT name FROM nvlite_stat").unwrap();
        let names: Vec<String> = names.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(names.join(" "), STATS);
        assert_eq!(int(&db, "SELECT count(*) FROM nvlite_stat WHERE value IS NULL"), 0);
        let same = "SELECT count(*) FROM nvlite_stat('main') JOIN nvlite_stat USING (name)";
        assert_eq!(int(&db, same), int(&db, "SELECT count(*) FROM nvlite_stat"));
        assert!(db.prepare("SELECT * FROM nvlite_stat('nowhere')").unwrap().query(()).unwrap().next().is_err());
    });
}

fn stat(name: &str) -> String {
    format!("SELECT value FROM nvlite_stat WHERE name='{name}'")
}

#[test]
fn p16_stat_names_the_oldest_reader() {
    on_both(|site| {
        let (one, two, three) = (site.open(), site.open(), site.open());
        fill(&one, "t", 10, 100);
        let (jci, own) = (int(&one, &stat("jci_published")), int(&one, &stat("attachment")));
        two.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        fill(&one, "t", 10, 100);
        three.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        let named = text(&one, &stat("oldest_reader"));
        assert!(named.starts_with(&format!("attachment {own}, slot ")) && own > 0, "{named}");
        assert!(named.ends_with(&format!(", at commit {jci}")) && jci > 0, "{named}, not {jci}");
        assert_eq!(int(&one, &stat("jci_oldest_reader")), jci);
        assert_eq!(text(&two, &stat("oldest_reader")), named, "who asks is another one");
    });
}

#[test]
fn stat_counts_connections_only() {
    on_both(|site| {
        let (one, two) = (site.open(), site.open());
        fill(&one, "t", 10, 100);
        // the slots of the engine's own maintenance: on `file` its thread takes one by and by
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert_eq!(int(&one, &stat("connections")), 2);
        close(two);
        assert_eq!(int(&one, &stat("connections")), 1);
    });
}

#[test]
fn stat_counts_the_lines_that_are_flushed() {
    on_both(|site| {
        let db = site.open();
        let lines = || int(&db, &stat("lines_flushed"));
        let mut before = lines();
        for _ in 0..2 {
            fill(&db, "t", 100, 1000);
            db.query_row("SELECT nvlite_checkpoint()", (), |_| Ok(())).unwrap();
            let after = lines();
            // `ram` executes what `dax` does; where nvlite knows no flush instruction there is none to count
            if site.medium == Medium::Ram && cfg!(target_arch = "x86_64") {
                assert!(after >= before + 100_000 / 64, "{before}, then {after}");
            } else {
                assert_eq!(after, 0);
            }
            before = after;
        }
    });
}

#[test]
fn checkpoint_writes_home() {
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 100, 1000);
        let answer = text(&db, "SELECT nvlite_checkpoint()");
        assert!(answer.starts_with(r#"{"durable":"#), "{answer}");
        let base = std::fs::metadata(site.path()).unwrap().len();
        assert!(base > 50_000, "the base has {base} bytes");
        assert_eq!(text(&db, "SELECT nvlite_checkpoint('main')"), text(&db, "SELECT nvlite_checkpoint()"));
        db.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(db.query_row("SELECT nvlite_checkpoint()", (), |_| Ok(())).is_err());
        db.execute_batch("COMMIT").unwrap();
        check(&db);
    });
}

#[test]
fn of_several_attached_databases_the_one_that_is_named() {
    on_both(|site| {
        let db = site.open();
        for (name, size) in [("two", 8192), ("three", 1024)] {
            let uri = site.uri(&format!("{name}.db"));
            db.execute_batch(&format!("ATTACH '{uri}' AS {name}; PRAGMA {name}.page_size={size}")).unwrap();
            db.execute_batch(&format!("CREATE TABLE {name}.t(x)")).unwrap();
        }
        db.execute_batch("CREATE TABLE t(x)").unwrap();
        let stat = |schema: &str, name: &str| {
            int(&db, &format!("SELECT value FROM nvlite_stat('{schema}') WHERE name='{name}'"))
        };
        let sizes = ["main", "two", "three"].map(|schema| stat(schema, "page_size"));
        assert_eq!(sizes, [4096, 8192, 1024]);
        let commits = || ["main", "two", "three"].map(|schema| stat(schema, "commits"));
        let before = commits();
        db.execute_batch("INSERT INTO two.t VALUES (1); INSERT INTO two.t SELECT randomblob(40000)").unwrap();
        assert_eq!(commits(), [before[0], before[1] + 2, before[2]]);
        let length = |name: &str| std::fs::metadata(site.file(name)).unwrap().len();
        let lengths = || ["app.db", "two.db", "three.db"].map(length);
        let before = lengths();
        let answer = text(&db, "SELECT nvlite_checkpoint('two')");
        let jci = stat("two", "jci_published");
        assert_eq!(answer, format!(r#"{{"durable":{jci},"low_water":{jci}}}"#));
        let after = lengths();
        assert!((after[0], after[2]) == (before[0], before[2]) && after[1] > 40_000, "{before:?} {after:?}");
        let message = db.query_row("SELECT nvlite_checkpoint('four')", (), |_| Ok(())).unwrap_err().to_string();
        assert!(message.contains("no database 'four'"), "{message}");
    });
}

#[test]
fn functions_that_act_are_not_for_triggers_and_views() {
    let site = Site::new(Medium::File);
    let db = site.open();
    let made = db.execute_batch("CREATE VIEW v AS SELECT nvlite_checkpoint()");
    assert!(made.is_err() || db.query_row("SELECT * FROM v", (), |_| Ok(())).is_err());
}

#[test]
fn snapshots_are_honest_about_being_missing() {
    let site = Site::new(Medium::File);
    let db = site.open();
    assert_eq!(int(&db, "SELECT count(*) FROM nvlite_snapshots"), 0);
    for sql in ["SELECT nvlite_snapshot('a')", "SELECT nvlite_snapshot_drop('a')"] {
        let message = db.query_row(sql, (), |_| Ok(())).unwrap_err().to_string();
        assert!(message.contains("not supported by this version"), "{message}");
    }
}
