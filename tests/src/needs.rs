//! What some tests need of the machine beyond a Rust toolchain and a C compiler. Where it is missing they say so and pass, that
//! `cargo test` may hold everywhere. `.ci/run` installs every program, and so a missing one is a failure there; what a
//! user may do is not for it to give, and it repeats at its end what was not tested.

use std::io::Write as _;
use std::path::Path;

/// Whether a program is there, by its path or to be found in `PATH`. Says what is skipped if not.
///
/// # Panics
/// If it is missing in CI.
#[must_use]
pub fn program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // joined to a directory, an absolute path stays what it is
    let found = std::env::split_paths(&path).chain([".".into()]).any(|dir| dir.join(name).is_file());
    if !found {
        skipped(name);
        assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "CI installs {name}");
    }
    found
}

/// Whether this process is root, which may become somebody else. Says what is skipped if not.
#[must_use]
pub fn root() -> bool {
    // the owner of one's own entry in /proc is the effective user
    let uid = std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own));
    let root = uid.is_ok_and(|uid| uid == 0);
    if !root {
        skipped("root, to become somebody else");
    }
    root
}

/// Mounts a tmpfs of so many KiB at `dir`; the caller unmounts it. Says what is skipped if that may not be done here.
#[must_use]
pub fn tmpfs(dir: &Path, kib: u64) -> bool {
    let mut mount = std::process::Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"]).arg(dir);
    let mounted = mount.output().is_ok_and(|out| out.status.success());
    if !mounted {
        skipped("right to mount a tmpfs");
    }
    mounted
}

/// A shell with a `/dev/shm` of its own, as in another container, in which `script` runs; the caller adds `$0` and further
/// arguments. Says what is skipped if that may not be done here.
#[must_use]
pub fn other_shm(script: &str) -> Option<std::process::Command> {
    let script = format!("mount -t tmpfs tmpfs /dev/shm || exit 1; {script}");
    // root's own right, or that of root in a user namespace
    for how in ["-m", "-rm"] {
        let shell = |script: &str| {
            let mut command = std::process::Command::new("unshare");
            command.args([how, "sh", "-c", script]);
            command
        };
        if shell("mount -t tmpfs tmpfs /dev/shm").output().is_ok_and(|out| out.status.success()) {
            return Some(shell(&script));
        }
    }
    skipped("right to mount another /dev/shm");
    None
}

/// Says aloud what is missing: past the test harness, which shows what a test prints only if it fails.
pub fn skipped(what: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("skipped: {test}: no {what}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(list) = std::env::var_os("NVLITE_SKIPPED") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(list);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}
