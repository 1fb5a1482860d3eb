//! A mapping that faults: a store to a hole of a full disk is SIGBUS, a file above the limit is SIGXFSZ, an offset read from a
//! damaged mapping leads outside. Each must be an error with its reason instead.
#![cfg(not(loom))]

mod shm_common;

use nvlite_engine::base::Error;
use nvlite_engine::shm::Segment;
use shm_common::{Actor, World, role as my_role, say};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes a mapping above the file-size limit, or one that is far larger than the memory that it may have to itself.
#[test]
fn role() {
    let Some((name, dir)) = my_role() else { return };
    let (what, most, len) = match name.as_str() {
        "limited" => (libc::RLIMIT_FSIZE, 1 << 20, 2 << 20),
        _ => (libc::RLIMIT_DATA, 1 << 30, 12 << 30),
    };
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: a limit for this process, which does nothing else.
    assert_eq!(unsafe { libc::setrlimit(what, &raw const limit) }, 0);
    match Segment::create(&dir.join("map"), len) {
        Err(Error::Full { cause, .. }) => say(cause),
        Err(other) => say(format!("another error: {other}")),
        Ok(_) => say("no error"),
    }
}

#[test]
fn a_file_size_limit_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let cause = Actor::play("limited", dir.path()).hear();
    assert!(cause.contains("RLIMIT_FSIZE") && cause.contains("1048576"), "{cause}");
    assert!(!dir.path().join("map").exists(), "nothing is left behind");
}

#[test]
fn a_mapping_takes_no_memory_before_it_is_used() {
    // Failure: its addresses are reserved as memory of the process's own that may be written. The kernel counts all of it, and
    // refuses where a process may have no more than there is (vm.overcommit_memory=2) or than a limit says.
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(Actor::play("reserving", dir.path()).hear(), "no error");
}

#[test]
fn an_offset_that_leads_nowhere_is_a_panic() {
    let w = World::solo();
    let len = w.segment.len();
    for off in [1, len, len - 4, u64::MAX - 7] {
        assert!(std::panic::catch_unwind(|| w.segment.at::<AtomicU64>(off).load(Ordering::Relaxed)).is_err());
    }
    assert!(std::panic::catch_unwind(|| w.segment.slice::<AtomicU64>(8, usize::MAX).len()).is_err());
    assert!(std::panic::catch_unwind(|| w.segment.ptr(len, 1)).is_err());
    assert!(std::panic::catch_unwind(|| w.segment.copy_within(0, 8, 9)).is_err());
    assert_eq!(w.segment.slice::<AtomicU64>(0, len as usize / 8).len(), len as usize / 8);
}

#[test]
fn bytes_go_in_and_come_out_wherever_they_lie() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("map");
    let ours = Segment::create(&path, 3 * 4096 + 1).expect("a mapping");
    let theirs = Segment::open(&path, 3 * 4096 + 1).expect("the same mapping");
    assert_eq!(ours.len(), 4 * 4096);
    ours.commit(0, ours.len()).expect("memory");
    let bytes: Vec<u8> = (1..=255).cycle().take(5000).collect();
    let mut back = vec![0; 5000];
    for off in [0, 1, 7, 4095, ours.len() - 5000] {
        for len in [0, 1, 7, 8, 63, 4096, 5000] {
            ours.zero(0, ours.len());
            ours.copy_in(off, &bytes[..len]);
            theirs.copy_out(off, &mut back[..len]);
            assert_eq!(back[..len], bytes[..len]);
            let sum: u64 =
                ours.slice::<AtomicU64>(0, 2048).iter().map(|w| u64::from(w.load(Ordering::Relaxed) != 0)).sum();
            assert!(sum <= len as u64 / 8 + 2, "stored outside");
        }
    }
    theirs.copy_in(0, &bytes);
    ours.copy_within(0, 8001, 5000);
    theirs.copy_out(8001, &mut back);
    assert_eq!(back, bytes);
    // SAFETY: the spare bytes behind the end may be read.
    assert_eq!(unsafe { ours.ptr(ours.len(), 0).cast::<u64>().read_unaligned() }, 0);
}

#[test]
fn a_wrong_file_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("map");
    let _first = Segment::create(&path, 8192).expect("a mapping");
    assert!(matches!(Segment::create(&path, 8192), Err(Error::Io { .. })), "never over another");
    assert!(matches!(Segment::open(&path, 4096), Err(Error::CantOpen { .. })));
    assert!(matches!(Segment::open(dir.path(), 4096), Err(Error::Io { .. } | Error::CantOpen { .. })));
}
