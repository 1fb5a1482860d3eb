//! What the tests of the extension share.
#![allow(dead_code, reason = "not every test needs all of it")]

#[path = "../../../tests/src/needs.rs"]
pub mod needs;

use std::path::PathBuf;

/// Debian's own, which can load extensions.
pub const PYTHON: &str = "/usr/bin/python3";

/// The library that cargo built beside this test.
pub fn library() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let dir = exe.parent().unwrap();
    let found =
        [dir.join("libnvlite.so"), dir.parent().unwrap().join("libnvlite.so")].into_iter().find(|path| path.exists());
    found.expect("cargo builds the library before it runs the tests")
}
