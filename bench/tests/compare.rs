//! The program from outside: what it writes, and what its exit status says.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nvlite-bench")).args(args).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs small and returns the JSON.
fn figures(dir: &Path, args: &[&str]) -> Value {
    let json = dir.join("out.json");
    let (place, file) = (dir.to_string_lossy(), json.to_string_lossy());
    let small = ["compare", "--medium", "file", "--dir", &place, "--rounds", "2", "--warmup", "1", "--slice-ms", "30"];
    let output = bench(&[&small[..], &["--scale", "100", "--rows", "1000", "--json", &file], args].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_str(&std::fs::read_to_string(&json).expect("written")).expect("valid JSON")
}

#[test]
fn tpcc_gives_figures_ratios_and_a_chart_and_leaves_no_file_behind() {
    let dir = tempfile::tempdir().expect("dir");
    let svg = dir.path().join("out.svg");
    let chart = svg.to_string_lossy();
    let peers = ["--peers", "wal_full,wal_fair,wal_normal,memory,memdb", "--peers-only", "--svg", &chart];
    let json = figures(dir.path(), &peers);
    let names = ["wal_full", "wal_fair", "wal_normal", "memory", "memdb"];
    for name in names {
        let system = &json["systems"][name];
        for figure in ["throughput", "cpu_us_per_tx", "transactions"] {
            assert!(system[figure].as_f64().expect(figure) > 0.0, "{name} {figure}");
        }
        for percentile in ["p50", "p99", "p999"] {
            assert!(system["latency_us"][percentile].as_f64().expect(percentile) > 0.0, "{name} {percentile}");
        }
        assert!(system["counts"].is_object() && system["classes"]["new_order"].is_object());
    }
    for first in names {
        for second in names.iter().filter(|&&second| second != first) {
            let ratio = &json["ratios"][format!("{first}/{second}")];
            for clock in ["wall", "cpu"] {
                let [min, median, max] = ["min", "median", "max"].map(|key| ratio[clock][key].as_f64().expect(key));
                assert!(0.0 < min && min <= median && median <= max, "{first}/{second} {clock}");
            }
        }
    }
    assert_eq!(json["benchmark"]["workload"], "tpcc");
    assert!(json["command"].is_array() && json["versions"]["sqlite"].is_string() && json["machine"]["cpu"].is_string());
    assert!(std::fs::read_to_string(&svg).expect("chart").contains("wal_fair"));
    let mut left: Vec<String> =
        dir.path().read_dir().expect("dir").flatten().map(|entry| text(entry.file_name().as_encoded_bytes())).collect();
    left.sort();
    assert_eq!(left, ["out.json", "out.svg"]);
}

#[test]
fn nvlite_has_figures_counts_and_ratios_on_both_media() {
    let dir = tempfile::tempdir().expect("dir");
    for medium in ["file", "ram"] {
        let json = dir.path().join("nvlite.json");
        let file = json.to_string_lossy();
        let small = ["compare", "--scale", "100", "--rounds", "2", "--slice-ms", "30", "--medium", medium];
        let output = bench(&[&small[..], &["--peers", "wal_full", "--json", &file]].concat());
        assert!(output.status.success(), "{medium}: {}", text(&output.stderr));
        let json: Value = serde_json::from_str(&std::fs::read_to_string(&json).expect("written")).expect("valid JSON");
        assert!(json["ratios"]["nvlite/wal_full"]["cpu"]["median"].as_f64().expect(medium) > 0.0);
        assert!(json["systems"]["nvlite"]["counts"]["bytes_logged"].as_f64().expect(medium) > 0.0);
    }
}

/// Like `figures`, with nvlite and on either medium.
fn with_nvlite(medium: &str, args: &[&str]) -> Value {
    let dir = tempfile::tempdir().expect("dir");
    let json = dir.path().join("out.json");
    let (place, file) = (dir.path().to_string_lossy(), json.to_string_lossy());
    let place: &[&str] = if medium == "file" { &["--dir", &place] } else { &[] };
    let small = ["compare", "--medium", medium, "--rounds", "2", "--warmup", "1", "--scale", "100", "--json", &file];
    let output = bench(&[&small[..], place, args].concat());
    assert!(output.status.success(), "{medium} {args:?}: {}", text(&output.stderr));
    let json: Value = serde_json::from_str(&std::fs::read_to_string(&json).expect("written")).expect("valid JSON");
    for system in ["nvlite", "wal_full"] {
        let rate = json["systems"][system]["throughput"].as_f64();
        assert!(rate.expect("a rate") > 0.0, "{medium} {args:?}: {system}");
    }
    json
}

#[test]
fn nvlite_runs_every_workload_with_several_threads() {
    for medium in ["file", "ram"] {
        for (workload, threads) in [("update", "3"), ("zipf", "2"), ("read", "2"), ("tpcc", "2")] {
            let args = ["--slice-ms", "30", "--rows", "1000", "--workload", workload, "--threads", threads];
            let json = with_nvlite(medium, &[&args[..], &["--peers", "wal_full"]].concat());
            assert_eq!(json["benchmark"]["threads"].to_string(), threads);
        }
        let mixed = ["--slice-ms", "30", "--rows", "1000", "--workload", "mixed", "--peers", "wal_full"];
        let json = with_nvlite(medium, &mixed);
        for role in ["writer", "reader"] {
            let rate = json["systems"]["nvlite"]["classes"][role]["throughput"].as_f64();
            assert!(rate.expect("rate") > 0.0, "{medium} {role}");
        }
    }
}

/// So many rows that the table is emptied between the turns, and what is there at the end is what came after that.
#[test]
fn nvlite_inserts_into_a_table_that_is_emptied() {
    for medium in ["file", "ram"] {
        let emptied = ["30", "300", "3000", "30000"].iter().any(|length| {
            let args = ["--slice-ms", length, "--rows", "100", "--workload", "insert", "--threads", "2"];
            let json = with_nvlite(medium, &[&args[..], &["--peers", "wal_full"]].concat());
            // More than twice the limit in two turns: more than the limit in one.
            ["nvlite", "wal_full"].iter().all(|name| json["systems"][name]["transactions"].as_u64() > Some(200))
        });
        assert!(emptied, "{medium}: too few rows in a minute");
    }
}

#[test]
fn flushes_fences_and_logged_bytes_are_counted_for_all_that_have_them() {
    let args = ["--slice-ms", "30", "--rows", "1000", "--workload", "update"];
    let peers = ["--peers", "wal_full,wal_fair,wal_normal,memory"];
    let json = with_nvlite("file", &[&args[..], &peers].concat());
    let count = |system: &str, name: &str| json["systems"][system]["counts"][name].as_f64();
    for system in ["nvlite", "wal_full", "wal_fair"] {
        // One connection: no commit shares its flush.
        assert!(count(system, "device_flushes") >= Some(1.0), "{system}: {:?}", count(system, "device_flushes"));
    }
    assert!(count("wal_normal", "device_flushes") < Some(1.0));
    for system in ["wal_full", "wal_fair", "wal_normal"] {
        // A frame is a page and its header.
        assert!(count(system, "log_bytes_written") >= Some(4120.0), "{system}");
    }
    assert!(count("nvlite", "log_bytes_written") >= count("nvlite", "bytes_logged"), "with what fills up its blocks");
    assert!(count("nvlite", "bytes_logged") > Some(0.0));
    assert_eq!((count("memory", "device_flushes"), count("memory", "log_bytes_written")), (None, None));
    let json = with_nvlite("ram", &[&args[..], &["--peers", "wal_full"]].concat());
    let counts = &json["systems"]["nvlite"]["counts"];
    assert!(counts["fences"].as_f64() >= Some(1.0) && counts["log_bytes_written"].as_f64() >= Some(64.0), "{counts}");
    assert!(json["ratios"]["nvlite/wal_full"]["wall_settled"]["median"].as_f64() > Some(0.0));
}

#[test]
fn the_table_has_a_column_for_each_of_these_counts_and_the_ratio_of_every_round() {
    let dir = tempfile::tempdir().expect("dir");
    let place = dir.path().to_string_lossy();
    let small = ["compare", "--medium", "file", "--dir", &place, "--rounds", "2", "--slice-ms", "30", "--scale", "100"];
    let json = dir.path().join("out.json");
    let file = json.to_string_lossy();
    let output = bench(&[&small[..], &["--peers", "wal_full,memory", "--json", &file]].concat());
    let table = text(&output.stdout);
    let json: Value = serde_json::from_str(&std::fs::read_to_string(&json).expect("written")).expect("valid JSON");
    for pair in ["nvlite/wal_full", "nvlite/memory"] {
        let rounds = json["ratios"][pair]["rounds"].as_array().expect("ratios");
        assert_eq!(rounds.len(), 2);
        let rounds: String = rounds.iter().map(|ratio| format!(" {:>5.2}", ratio.as_f64().expect("ratio"))).collect();
        let line = format!("\n{pair:<24}{rounds}\n");
        assert!(table.contains(&line), "no{line}in\n{table}");
    }
    let after = table.split_once("wall, round by round\n").expect("a title").1;
    assert!(!after.contains("wal_full/memory"), "only the ratios of nvlite:\n{table}");
    for title in ["new orders/s", "flushes/tx", "fences/tx", "log B/tx", "Busy after a turn", "Wall clock with it"] {
        assert!(table.contains(title), "no {title} in\n{table}");
    }
    assert!(!table.contains("per transaction: device_flushes"), "twice in\n{table}");
}

/// A system that lost something has no score, whoever it is and however fast.
#[test]
fn an_inconsistent_database_gives_status_one_and_no_score() {
    let dir = tempfile::tempdir().expect("dir");
    let (place, json) = (dir.path().to_string_lossy(), dir.path().join("out.json"));
    let file = json.to_string_lossy();
    let small = ["compare", "--medium", "file", "--dir", &place, "--rounds", "2", "--warmup", "1", "--slice-ms", "30"];
    let more = "UPDATE t SET v = v + 1 WHERE id = 7";
    let transfer = "UPDATE t SET v = v + iif(id = 7, 1, -1) WHERE id IN (7, 8)";
    let cases: [(&str, &str, &[&str]); 6] = [
        ("update", more, &[]),
        ("zipf", more, &["--peers-only"]),
        ("read", more, &[]),
        ("mixed", transfer, &[]),
        ("insert", "DELETE FROM t WHERE id = 1", &["--peers-only"]),
        ("tpcc", "DELETE FROM order_line WHERE ol_number = 1 AND ol_o_id = 3", &[]),
    ];
    for (workload, sql, more) in cases {
        let args = ["--scale", "100", "--rows", "1000", "--peers", "wal_full", "--json", &file, "--tamper", sql];
        let output = bench(&[&small[..], &args, &["--workload", workload], more].concat());
        let (said, system) = (text(&output.stderr), if more.is_empty() { "nvlite" } else { "wal_full" });
        assert_eq!(output.status.code(), Some(1), "{workload}: {said}");
        assert!(said.contains(system) && said.contains("inconsistent database"), "{workload}: {said}");
        assert_eq!(text(&output.stdout), "", "{workload}: a score");
        assert!(!json.exists(), "{workload}: figures");
    }
}

#[test]
fn four_threads_share_wal_and_memdb() {
    let dir = tempfile::tempdir().expect("dir");
    let json = figures(dir.path(), &["--threads", "4", "--peers", "wal_full,wal_fair,memdb", "--peers-only"]);
    assert_eq!(json["benchmark"]["threads"], 4);
    // how fair a mutex is in so short a time is not ours to say
    let fairness = json["systems"]["wal_fair"]["fairness"].as_f64().expect("fairness");
    assert!((0.24..=1.0).contains(&fairness), "{fairness} of four threads");
}

#[test]
fn mixed_reports_the_writer_and_the_readers() {
    let dir = tempfile::tempdir().expect("dir");
    let json = figures(dir.path(), &["--workload", "mixed", "--peers", "wal_full,wal_fair", "--peers-only"]);
    for role in ["writer", "reader"] {
        let rate = json["systems"]["wal_full"]["classes"][role]["throughput"].as_f64();
        assert!(rate.expect("rate") > 0.0, "{role}");
        assert!(json["ratios"]["wal_full/wal_fair"]["roles"][role]["median"].is_number(), "{role}");
    }
}

#[test]
fn every_other_workload_runs() {
    let dir = tempfile::tempdir().expect("dir");
    for workload in ["insert", "update", "read", "zipf"] {
        let json = figures(dir.path(), &["--workload", workload, "--peers", "wal_full,memory", "--peers-only"]);
        assert!(json["ratios"]["memory/wal_full"]["cpu"]["median"].as_f64().expect(workload) > 0.0);
    }
}

#[test]
fn wrong_requests_are_refused_with_status_two_and_a_reason() {
    let small = ["compare", "--peers", "wal_full", "--scale", "100", "--rounds", "1", "--slice-ms", "30"];
    let with = |more: &[&'static str]| [&small[..], more].concat();
    let requests = [
        // Of two faults, the one that is noticed first.
        (with(&["--dir", "/no-dir", "--json", "/nowhere/out.json"]), "/nowhere/out.json"),
        (with(&["--dir", "/no-dir", "--svg", "/nowhere/out.svg"]), "/nowhere/out.svg"),
        (with(&["--dir", "/no-dir", "--json", "/"]), "/: "),
        (with(&["--dir", "/no-dir"]), "/no-dir"),
        (with(&["--region", "much"]), "region"),
    ];
    let cases: [(&[&str], &str); 5] = [
        (&["compare", "--threads", "2", "--peers", "memory"], "memdb"),
        (&["compare", "--peers", "mysql"], "possible values"),
        (&["compare", "--peers", "wal_full", "--peers-only", "--medium", "ram", "--dir", "/proc"], "tmpfs"),
        (&["compare", "--seconds", "0"], "--seconds"),
        (&["compare", "--workload", "update", "--rows", "4000000000"], "--dir"),
    ];
    for (args, reason) in cases.into_iter().chain(requests.iter().map(|(args, reason)| (&args[..], *reason))) {
        let output = bench(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(reason), "{args:?}: {}", text(&output.stderr));
    }
    assert!(text(&bench(&["compare", "--help"]).stdout).contains("Examples:"));
}

#[test]
fn files_are_written_although_nobody_reads_the_table() {
    let dir = tempfile::tempdir().expect("dir");
    let (json, svg) = (dir.path().join("out.json"), dir.path().join("out.svg"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvlite-bench"));
    command.args(["compare", "--scale", "100", "--rounds", "1", "--slice-ms", "30", "--peers", "wal_full", "--json"]);
    command.arg(&json).arg("--svg").arg(&svg).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ended");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    assert!(std::fs::read_to_string(&json).expect("written").contains("nvlite/wal_full"));
    assert!(std::fs::read_to_string(&svg).expect("written").contains("wal_full"));
}
