//! A program that goes to another directory while it has a database open. One test: the directory is the whole process's.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::panic)]

#[path = "it/support.rs"]
mod support;

use nvlite_vfs::{Medium, OpenOptions};
use std::path::Path;
use support::*;

#[test]
fn a_relative_region_dir_is_where_it_was_at_the_open() {
    // Failure: the close looks for the side files in the new directory, and leaves them where they are.
    let site = Site::new(Medium::File);
    for dir in ["side", "./other/../side", "."] {
        std::env::set_current_dir(site.dir.path()).unwrap();
        std::fs::create_dir_all("side").unwrap();
        std::fs::create_dir_all("other").unwrap();
        let open = || OpenOptions::new().region("16MiB").region_dir(dir).open(site.path()).unwrap();
        let db = open();
        fill(&db, "t", 10, 100);
        assert!(Path::new(dir).join("app.db-nvlite").exists(), "{dir}");
        let second = open();
        std::env::set_current_dir("/").unwrap();
        assert_eq!(int(&second, "SELECT count(*) > 0 FROM t"), 1);
        close(db);
        close(second);
        assert_eq!(site.side_files(), ["other", "side"], "{dir}");
        assert_eq!(std::fs::read_dir(site.file("side")).unwrap().count(), 0, "{dir}");
        check(&site.stock());
    }
}
