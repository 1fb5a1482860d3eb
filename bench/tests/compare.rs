//! The program from outside: what it writes, and what its exit status says.

use std::path::Path;
use std::process::{Command, Output};

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

#[test]
fn four_threads_share_wal_and_memdb() {
    let dir = tempfile::tempdir().expect("dir");
    let json = figures(dir.path(), &["--threads", "4", "--peers", "wal_full,wal_fair,memdb", "--peers-only"]);
    assert_eq!(json["benchmark"]["threads"], 4);
    assert!(json["systems"]["wal_fair"]["fairness"].as_f64().expect("fairness") > 0.5);
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
    let cases: [(&[&str], &str); 4] = [
        (&["compare", "--threads", "2", "--peers", "memory"], "memdb"),
        (&["compare", "--peers", "mysql"], "possible values"),
        (&["compare", "--peers", "wal_full", "--peers-only", "--medium", "ram", "--dir", "/proc"], "tmpfs"),
        (&["compare", "--seconds", "0"], "--seconds"),
    ];
    for (args, reason) in cases {
        let output = bench(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(reason), "{args:?}: {}", text(&output.stderr));
    }
    assert!(text(&bench(&["compare", "--help"]).stdout).contains("Examples:"));
}
