//! The example that the README names does what it shows.

use crate::needs;
use std::process::Command;
use tempfile::TempDir;

#[test]
fn hello_counts_what_it_has_said() {
    // `cargo test` builds it beside this test; one that is asked for a single test program alone does not
    let test = std::env::current_exe().unwrap();
    let hello = test.ancestors().nth(2).unwrap().join("examples/hello").display().to_string();
    if !needs::program(&hello) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let db = dir.path().join("hello.db");
    for times in 1..=2 {
        let output = Command::new(&hello).arg(&db).output().unwrap();
        let said = format!("{} has said hello {times} times\nnvlite {}\n", db.display(), env!("CARGO_PKG_VERSION"));
        assert_eq!((String::from_utf8(output.stdout).unwrap(), output.status.code()), (said, Some(0)));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "closed, it is a stock file");
    }
}
