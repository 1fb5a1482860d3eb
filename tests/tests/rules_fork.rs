//! After a fork the child has the parent's connections in its memory, and their mapping. A program of its own with one test:
//! a child inherits every lock that another thread holds at the fork.
#![allow(missing_docs, clippy::unwrap_used, unsafe_code)]

use nvlite_engine::{Durability::Full, Error, MediumKind, Result};
use nvlite_tests::rules::{Rig, all_are, commit, prepare, stat};

fn forked<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Forked))
}

#[test]
fn p13_a_child_changes_nothing_in_the_parents_mapping() {
    // Failure: a child between the parent's FCNTL_SYNC and COMMIT_PHASETWO goes on with either, or cuts, and publishes in the
    // mapping or gives blocks back that both have.
    for (kind, large) in [(MediumKind::Dax, false), (MediumKind::File, false), (MediumKind::Dax, true)] {
        let store = Rig::with_budget(kind, 1 << 20).open().unwrap();
        let mut s = store.session().unwrap();
        let pages = if large { 600 } else { 4 };
        commit(&mut s, pages, 2..=pages, 1, Full).unwrap();
        prepare(&mut s, pages, 2..=pages, 2).unwrap();
        let figures = || ["jci_published", "commits", "blocks_free", "cold_blocks"].map(|name| stat(&store, name));
        let before = figures();
        // SAFETY: the child calls nothing that another thread of the test holds a lock of, and leaves by _exit.
        unsafe {
            match libc::fork() {
                0 => {
                    let refused = [forked(&s.truncate(0)), forked(&s.commit(Full)), forked(&s.checkpoint())];
                    libc::_exit(refused.iter().map(|&refused| i32::from(!refused)).sum());
                }
                pid => {
                    let mut status = 0;
                    assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
                    assert_eq!(status, 0, "{kind:?}: the child was served");
                }
            }
        }
        assert_eq!(figures(), before, "{kind:?}, {pages} pages: it changed what is shared");
        s.commit(Full).unwrap();
        s.end_write();
        assert!(all_are(&mut s, 2..=pages, 2).unwrap(), "{kind:?}, {pages} pages");
    }
}
