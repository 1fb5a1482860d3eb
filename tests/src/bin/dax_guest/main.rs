//! The program that `tests/dax/run.sh` runs on persistent memory inside its virtual machine.
//!
//! `dax_guest DIR facts DOMAIN` checks what the medium makes of a platform whose persistence domain is DOMAIN.
//! `dax_guest DIR WORKLOAD run` writes and prints `ACK WORKLOAD n` after each acknowledged step, until it is killed.
//! `dax_guest DIR WORKLOAD verify N` checks after the reboot that all of 1..=N is there.
//! Workloads: `medium` (records in a mapping), `control` (the same without `MAP_SYNC`: must lose), `store` (transactions),
//! `sql` (transactions of SQLite), and `store-ram` and `store-file`, which `tests/beyond_fast_tier.rs` runs on the host.
//!
//! Findings are lines on standard output: `OK name` or `FAIL name: why`.

mod facts;
mod log;
mod sql;
mod store;

use nvlite_engine::MediumKind;
use std::path::Path;
use std::process::ExitCode;

/// A finding, or what was found instead.
type Finding<T = ()> = std::result::Result<T, String>;

/// Says what was found, in the form that `run.sh` counts.
fn report(name: &str, finding: Finding<String>) -> ExitCode {
    match finding {
        Ok(detail) => {
            println!("OK {name} {detail}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("FAIL {name}: {why}");
            ExitCode::FAILURE
        }
    }
}

fn number(word: &str) -> Finding<u64> {
    word.parse().map_err(|e| format!("{word}: {e}"))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let [_, dir, step @ ..] = words.as_slice() else { return report("usage", Err("no directory".into())) };
    let dir = Path::new(dir);
    match step {
        ["facts", domain] => facts::check(dir, domain),
        ["medium", "run"] => report("medium", log::run(dir, "medium", MediumKind::Dax)),
        ["control", "run"] => report("control", log::run(dir, "control", MediumKind::Ram)),
        ["store", "run"] => report("store", store::run(dir, None)),
        ["sql", "run"] => report("sql", sql::run(dir)),
        ["store-ram", "run"] => report("store", store::run(dir, Some(MediumKind::Ram))),
        ["store-file", "run"] => report("store", store::run(dir, Some(MediumKind::File))),
        ["medium", "verify", acked] => report("medium", number(acked).and_then(|n| log::verify(dir, n))),
        ["control", "verify", acked] => report("control", number(acked).and_then(|n| log::verify_loss(dir, n))),
        ["store", "verify", acked] => report("store", number(acked).and_then(|n| store::verify(dir, None, n))),
        ["sql", "verify", acked] => report("sql", number(acked).and_then(|n| sql::verify(dir, n))),
        ["store-ram", "verify", acked] => {
            report("store", number(acked).and_then(|n| store::verify(dir, Some(MediumKind::Ram), n)))
        }
        ["store-file", "verify", acked] => {
            report("store", number(acked).and_then(|n| store::verify(dir, Some(MediumKind::File), n)))
        }
        _ => report("usage", Err(format!("unknown step {step:?}"))),
    }
}
