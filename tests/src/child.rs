//! Work that a test gives to a process of its own: one that is limited stays so for the rest of its life.

#![allow(clippy::panic, reason = "for tests only, which it tells what is wrong")]

use crate::needs;
use crate::sql::System;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a child is there for.
pub struct Task {
    /// The name of what is to be done.
    pub role: String,
    /// The database.
    pub path: PathBuf,
    /// What it lies on.
    pub system: System,
    /// A number for the role.
    pub most: u64,
}

/// What a child answers, see [`run`], that may not do here what it is there for.
pub const SKIPPED: i32 = 50;

/// What this process is there for, if it is a child: asked by the test `in_a_child`, which does it and [`answer`]s.
pub fn task() -> Option<Task> {
    let role = std::env::var("NVLITE_TEST_ROLE").ok()?;
    let get = |name: &str| std::env::var(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    let system = System::named(&get("NVLITE_TEST_SYSTEM")).unwrap_or_else(|| panic!("no such system"));
    let most = get("NVLITE_TEST_MOST").parse().unwrap_or_else(|e| panic!("no number: {e}"));
    Some(Task { role, path: get("NVLITE_TEST_PATH").into(), system, most })
}

/// Ends the child with an answer from 2 on: the test harness has the others.
pub fn answer(code: i32) -> ! {
    assert!(code >= 2, "{code} is not told from what a harness says");
    std::process::exit(100 + code)
}

/// Gives a task to a child. Its answer, and what it said on standard error; `None`, and says so, if it was [`SKIPPED`].
///
/// # Panics
/// If a signal ends it.
pub fn run(role: &str, path: &Path, system: System, most: u64) -> Option<(i32, String)> {
    let this = std::env::current_exe().unwrap_or_else(|e| panic!("this test: {e}"));
    let mut child = Command::new(this);
    child.args(["--exact", "in_a_child", "--nocapture"]);
    child.env("NVLITE_TEST_ROLE", role).env("NVLITE_TEST_PATH", path);
    child.env("NVLITE_TEST_SYSTEM", system.name()).env("NVLITE_TEST_MOST", most.to_string());
    let output = child.output().unwrap_or_else(|e| panic!("a child: {e}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.signal(), None, "a signal: {role}, {system:?}, {most}: {said}");
    match output.status.code().unwrap_or(0) - 100 {
        SKIPPED => {
            needs::skipped("right to a mount namespace");
            None
        }
        code => Some((code, said)),
    }
}
