//! A child process, stopped before and after each of its system calls (`ptrace`). Whoever watches may let it go on, kill it
//! there, or have the call fail.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Between fork and exec a child has this process's open files, and with them the locks by which attachments know who lives.
static FORKS: RwLock<()> = RwLock::new(());

/// No child is being started while this lives: for whoever opens databases beside children that are.
pub fn no_forks() -> RwLockReadGuard<'static, ()> {
    FORKS.read().unwrap_or_else(PoisonError::into_inner)
}

/// What happens next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It goes on.
    Go,
    /// It is killed: before a call, the call is not made.
    Kill,
    /// Before a call: it is not made, and answers this error.
    Fail(i32),
}

/// One system call of a stopped thread.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The process.
    pub pid: i32,
    /// The thread.
    pub tid: i32,
    /// Its number.
    pub number: i64,
    /// What it was given.
    pub args: [u64; 6],
    /// What it answered, after it.
    pub result: Option<i64>,
}

impl Call {
    /// A path among its arguments.
    ///
    /// # Errors
    /// The memory of the child cannot be read.
    pub fn path(&self, arg: usize) -> io::Result<PathBuf> {
        let mut bytes = vec![0; 4096];
        let memory = fs::File::open(format!("/proc/{}/mem", self.pid))?;
        let n = memory.read_at(&mut bytes, self.args[arg])?;
        let end = bytes[..n].iter().position(|b| *b == 0).unwrap_or(n);
        Ok(PathBuf::from(OsStr::from_bytes(&bytes[..end])))
    }

    /// What a buffer among its arguments holds.
    ///
    /// # Errors
    /// The memory of the child cannot be read.
    pub fn bytes(&self, arg: usize, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        fs::File::open(format!("/proc/{}/mem", self.pid))?.read_exact_at(&mut bytes, self.args[arg])?;
        Ok(bytes)
    }

    /// What a descriptor of the child is open on: the path it was opened by, and the inode.
    pub fn file(&self, fd: u64) -> Option<(PathBuf, u64)> {
        let link = PathBuf::from(format!("/proc/{}/fd/{fd}", self.pid));
        Some((fs::read_link(&link).ok()?, fs::metadata(&link).ok()?.ino()))
    }

    /// Where the next `write` to a descriptor goes.
    pub fn position(&self, fd: u64) -> Option<u64> {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", self.pid)).ok()?;
        info.lines().find_map(|line| line.strip_prefix("pos:")).and_then(|n| n.trim().parse().ok())
    }
}

/// How a child ended.
#[derive(Debug)]
pub struct End {
    /// Its exit status; `None` if it was killed.
    pub status: Option<i32>,
    /// What it wrote to its standard output.
    pub said: String,
}

struct Thread {
    tid: i32,
    call: Option<Call>,
    fails: Option<i32>,
}

/// Runs `command` to its end, and asks `visit` at each stop.
///
/// # Errors
/// It cannot be started or traced.
pub fn run(mut command: Command, mut visit: impl FnMut(&Call) -> Verdict) -> io::Result<End> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    // SAFETY: a plain system call, which is all that may be done between fork and exec.
    unsafe { command.pre_exec(|| trace(libc::PTRACE_TRACEME, 0, 0, 0).map(|_| ())) };
    let mut child = {
        let _alone = FORKS.write().unwrap_or_else(PoisonError::into_inner);
        command.spawn()?
    };
    let pid = child.id() as i32;
    let status = follow(pid, &mut visit);
    if status.is_err() {
        kill(pid);
    }
    let status = status?;
    let mut said = String::new();
    child.stdout.take().map_or(Ok(0), |mut out| out.read_to_string(&mut said))?;
    Ok(End { status: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)), said })
}

/// Lets the child's threads run from stop to stop, until the process ends. Answers how it ended.
fn follow(pid: i32, visit: &mut impl FnMut(&Call) -> Verdict) -> io::Result<i32> {
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
    let mut threads: Vec<Thread> = Vec::new();
    loop {
        let mut status = 0;
        // SAFETY: waits for the children that this very thread traces; `status` outlives the call.
        let tid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        if tid < 0 {
            return Err(io::Error::last_os_error());
        }
        if !libc::WIFSTOPPED(status) {
            if tid == pid {
                return Ok(status);
            }
            continue;
        }
        let known = threads.iter().position(|t| t.tid == tid);
        let at = known.unwrap_or_else(|| {
            threads.push(Thread { tid, call: None, fails: None });
            threads.len() - 1
        });
        if known.is_none() && tid == pid {
            trace(libc::PTRACE_SETOPTIONS, tid, 0, options as usize)?;
        }
        let signal = match libc::WSTOPSIG(status) {
            s if s == libc::SIGTRAP | 0x80 => {
                if step(pid, &mut threads[at], visit)? {
                    kill(pid);
                }
                0
            }
            libc::SIGTRAP | libc::SIGSTOP => 0,
            other => other as usize,
        };
        match trace(libc::PTRACE_SYSCALL, tid, 0, signal) {
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => return Err(e),
            _ => {} // or killed meanwhile
        }
    }
}

/// A stop at a system call. True if it is the last.
fn step(pid: i32, thread: &mut Thread, visit: &mut impl FnMut(&Call) -> Verdict) -> io::Result<bool> {
    let tid = thread.tid;
    let mut info = [0u64; 11];
    match trace(libc::PTRACE_GET_SYSCALL_INFO, tid, size_of_val(&info), info.as_mut_ptr() as usize) {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(false), // killed meanwhile
        other => other?,
    };
    match info[0] & 0xFF {
        1 => {
            let args = [info[4], info[5], info[6], info[7], info[8], info[9]];
            let call = Call { pid, tid, number: info[3] as i64, args, result: None };
            thread.call = Some(call);
            match visit(&call) {
                Verdict::Go => {}
                Verdict::Kill => return Ok(true),
                Verdict::Fail(errno) => {
                    trace(libc::PTRACE_POKEUSER, tid, 8 * libc::ORIG_RAX as usize, usize::MAX)?;
                    thread.fails = Some(errno);
                }
            }
        }
        2 => {
            let Some(call) = thread.call.take() else { return Ok(false) };
            let mut result = info[3] as i64;
            if let Some(errno) = thread.fails.take() {
                result = -i64::from(errno);
                trace(libc::PTRACE_POKEUSER, tid, 8 * libc::RAX as usize, result as usize)?;
            }
            return Ok(visit(&Call { result: Some(result), ..call }) == Verdict::Kill);
        }
        _ => {}
    }
    Ok(false)
}

fn trace(request: libc::c_uint, tid: i32, address: usize, data: usize) -> io::Result<i64> {
    // SAFETY: requests to a stopped thread that this one traces; the only one that writes here is given a buffer and its length.
    match unsafe { libc::ptrace(request, tid, address, data) } {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

fn kill(pid: i32) {
    // SAFETY: a signal to the child, which has not been waited for yet.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}
