//! A forked child has the parent's connections in its memory and must not be able to harm them.
//!
//! A program of its own, one test at a time: a child inherits every lock that another thread of its parent holds at the
//! fork, that of SQLite's allocator, too, and would wait for it for ever.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::panic)]

#[path = "it/support.rs"]
mod support;

use rusqlite::Connection;
use std::sync::{Mutex, PoisonError};
use support::*;

static ALONE: Mutex<()> = Mutex::new(());

/// Runs `child` in a forked child and answers its exit status.
fn in_child(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child calls nothing that another thread of the test may hold a lock of for long, and leaves by _exit.
    unsafe {
        match libc::fork() {
            0 => {
                let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(99);
                libc::_exit(code)
            }
            pid => {
                let mut status = 0;
                assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
                if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
            }
        }
    }
}

#[test]
fn p13_a_child_can_neither_use_nor_harm_the_parents_connection() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 20, 100);
        let code = in_child(|| {
            let refused = db.execute_batch("INSERT INTO t(body) VALUES (1)").is_err();
            // Closing frees the child's memory and nothing of the parent's.
            // SAFETY: the parent's own value is another copy of the memory.
            let inherited: Connection = unsafe { std::ptr::read(&raw const db) };
            let _ = inherited.close();
            i32::from(!refused)
        });
        assert_eq!(code, 0);
        fill(&db, "t", 20, 100);
        assert_eq!(int(&db, "SELECT count(*) FROM t"), 40);
        check(&db);
        assert!(!site.side_files().is_empty(), "the region is still there");
    });
}

#[test]
fn p13_a_child_opens_its_own_connection() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 20, 100);
        let code = in_child(|| {
            let own = site.open();
            own.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
            let seen = int(&own, "SELECT count(*) FROM t") == 20;
            let wrote = own.execute_batch("INSERT INTO t(body) VALUES (1)").is_ok();
            drop(own);
            i32::from(!(seen && wrote))
        });
        assert_eq!(code, 0);
        assert_eq!(int(&db, "SELECT count(*) FROM t"), 21);
    });
}
