//! A process that is stopped, not dead, in the middle of a retirement: it keeps the lock on it for as long as it is stopped.
#![allow(missing_docs, clippy::unwrap_used, unsafe_code)]

use nvlite_engine::{Durability::Full, Error, MediumKind, Options, Site, Store};
use nvlite_tests::hooked::{self, Op};
use nvlite_tests::plain_base::PlainBase;
use nvlite_tests::rules::{all_are, commit, stat};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const DIRECTORY: &str = "NVLITE_TEST_STOPS_IN";

fn attach(dir: &Path, hook: impl Fn(Op) + Send + Sync + 'static) -> Arc<Store> {
    let options = Options { medium: Some(MediumKind::File), region: 1 << 20, ..Options::default() };
    let base = Arc::new(PlainBase::new(&dir.join("a.db")));
    let hook = move |op| {
        hook(op);
        Ok(())
    };
    Store::attach(hooked::base(base, hook), &options).unwrap()
}

/// Not a test by itself: the process that commits until its keeper writes homes, and stops before it syncs them.
#[test]
fn stops_in_a_retirement() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let (due, idle) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (its, main_is) = (due.clone(), idle.clone());
    let store = attach(Path::new(&dir), move |op| {
        let keeper = std::thread::current().name() == Some("nvlite-keeper");
        if keeper && op == Op::Sync(Site::Homes) && !its.swap(true, Ordering::SeqCst) {
            while !main_is.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            println!("@");
            // SAFETY: plain system calls.
            unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
        }
    });
    let mut s = store.session().unwrap();
    while !due.load(Ordering::SeqCst) {
        commit(&mut s, 8, 2..=8, 1, Full).unwrap();
    }
    idle.store(true, Ordering::SeqCst);
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap(); // until it is told to end
    assert!(all_are(&mut s, 2..=8, 200).unwrap(), "what was committed meanwhile");
    drop(s);
    store.close().unwrap();
}

/// Not left behind, stopped as it may be.
struct Other(Child);

impl Other {
    fn goes_on(&self) {
        // SAFETY: a plain system call; the child is ours and was not waited for.
        assert_eq!(unsafe { libc::kill(self.0.id() as i32, libc::SIGCONT) }, 0);
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `work` answers, and how long it took; not for ever.
fn timed<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (T, Duration) {
    let (began, (tell, told)) = (Instant::now(), mpsc::channel());
    std::thread::spawn(move || tell.send(work()));
    let done = told.recv_timeout(Duration::from_secs(90)).expect("it waits for ever");
    (done, began.elapsed())
}

#[test]
fn p16_a_process_stopped_in_a_retirement_stops_writers_only_when_the_log_is_full() {
    // Failure: it has the retirement lock, lives, and does nothing; a writer of another process, whose commit needs room in
    // the log, waits for it with the writer lock in its hand, for as long as it is stopped.
    let dir = tempfile::tempdir().unwrap();
    let store = attach(dir.path(), |_| ());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stops_in_a_retirement", "--nocapture"])
        .env(DIRECTORY, dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines(); // it may write to them to the end
    let mut other = Other(child);
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains('@')), "it is about to stop");

    let mut s = store.session().unwrap();
    let until_full = move || {
        let mut n = 1;
        loop {
            match commit(&mut s, 8, 2..=8, n + 1, Full) {
                Ok(()) => n += 1,
                Err(error) => return (n, error, s),
            }
        }
    };
    let ((n, full, mut s), _) = timed(until_full);
    assert!(n > 3, "{n} commits while the log had room");
    let named = |error: &Error| match error {
        Error::Full { what: "the log", cause, .. } => cause.contains(&format!("process {} ", other.0.id())),
        _ => false,
    };
    assert!(named(&full), "{full}");
    let ((again, large, mut s), took) = timed(move || {
        let again = commit(&mut s, 8, 2..=8, 99, Full).unwrap_err();
        (again, commit(&mut s, 600, 2..=600, 99, Full).unwrap_err(), s)
    });
    assert!(named(&again) && named(&large), "{again}; {large}");
    assert!(took < Duration::from_secs(8), "it is waited for again, {took:?}");

    let its = store.clone();
    let (checkpoint, took) = timed(move || its.checkpoint());
    let (durable, home) = checkpoint.unwrap();
    assert!(home < durable && took < Duration::from_secs(8), "as far as can be: {home} of {durable} in {took:?}");
    let at = dir.path().to_owned();
    let (read, took) = timed(move || {
        let another = attach(&at, |_| ());
        let read = all_are(&mut another.session().unwrap(), 2..=8, n);
        another.close().unwrap();
        read.unwrap()
    });
    assert!(read && took < Duration::from_secs(8), "who opens, reads and closes: {took:?}");
    assert!(all_are(&mut s, 2..=8, n).unwrap(), "what was committed stays");

    other.goes_on();
    let began = Instant::now();
    while let Err(error) = commit(&mut s, 8, 2..=8, 200, Full) {
        assert!(named(&error) && began.elapsed() < Duration::from_secs(30), "nobody is in the way: {error}");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(other.0.stdin.take());
    assert!(other.0.wait().unwrap().success());
    assert!(stat(&store, "jci_low_water") > home.0, "retirement goes on");
    drop(s);
    store.close().unwrap();
    let base = std::fs::read(dir.path().join("a.db")).unwrap();
    assert_eq!((base[18], base[1024]), (1, 200), "a complete stock file");
}
