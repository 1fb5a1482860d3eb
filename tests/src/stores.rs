//! Every store of this process to what it shares with others, one by one: the mappings are read-only, so that a store faults;
//! the handler allows it, has the processor stop after that one instruction, and forbids it again. So a process can die after
//! the store that was chosen, and in between others see what it has done. What it has the kernel do to files is counted, too.
//!
//! For a process with one thread, and to no more than one list of files.

#![allow(clippy::panic, reason = "for tests only")]

use crate::sim::mix;
use nvlite_engine::{BaseFile, BaseOpener, Disk, Result, Site};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Most ranges of addresses that are watched.
const RANGES: usize = 8;
/// Most stores that are noted.
const MOST: usize = 1 << 18;
/// Bytes of a page of memory.
const PAGE: usize = 4096;
/// In the processor's flags: stop after one instruction.
const TRAP_FLAG: i64 = 0x100;

/// First address and length of what is watched, and zeros.
static WATCHED: [(AtomicUsize, AtomicUsize); RANGES] = [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; RANGES];
static WATCHING: AtomicBool = AtomicBool::new(false);
/// The instruction that is allowed its store.
static STORING: AtomicU64 = AtomicU64::new(0);
/// How many stores there were, and after which this process dies, from 1.
static STORES: AtomicUsize = AtomicUsize::new(0);
static LAST: AtomicUsize = AtomicUsize::new(0);
/// The instructions that made them.
static MADE_BY: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];

/// From now on this process dies after its `last`-th store to what it maps of `files`, or call that changes a file, counted from 1; of
/// none if that is 0.
///
/// # Panics
/// If the files are not mapped.
pub fn watch(files: &[&Path], last: usize) {
    let mut watched = WATCHED.iter();
    for (range, name) in maps().into_iter().filter(|(_, name)| files.iter().any(|file| file.as_os_str() == &**name)) {
        let (first, len) = watched.next().unwrap_or_else(|| panic!("too many ranges of {name}"));
        first.store(range.start as usize, Relaxed);
        len.store((range.end - range.start) as usize, Relaxed);
    }
    assert!(WATCHED[0].1.load(Relaxed) > 0, "nothing of {files:?} is mapped");
    LAST.store(last, Relaxed);
    handle(libc::SIGSEGV, on_fault as *const () as usize);
    handle(libc::SIGTRAP, on_trap as *const () as usize);
    WATCHING.store(true, Relaxed);
    allow_stores(false);
}

/// Ends what [`watch`] began. Answers what made each store: an instruction, by its place in the program, whatever the address at which
/// that lies, or a call.
///
/// # Panics
/// If there were too many.
pub fn watched() -> Vec<u64> {
    WATCHING.store(false, Relaxed);
    allow_stores(true);
    let maps = maps();
    let place = |at: &AtomicU64| {
        let at = at.load(Relaxed);
        let Some((_, name)) = maps.iter().find(|(range, _)| range.contains(&at)) else { return at };
        let first = maps.iter().find(|(_, other)| other == name).map_or(0, |(range, _)| range.start);
        name.bytes().fold(at - first, |place, byte| mix(place, u64::from(byte)))
    };
    let made_by = MADE_BY.get(..STORES.load(Relaxed));
    made_by.unwrap_or_else(|| panic!("more than {MOST} stores")).iter().map(place).collect()
}

/// Ranges of addresses, and the files that are mapped there.
fn maps() -> Vec<(std::ops::Range<u64>, String)> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("what this process maps");
    let address = |text: &str| u64::from_str_radix(text, 16).expect("an address");
    let parse = |line: &str| {
        let (first, end) = line.split(' ').next()?.split_once('-')?;
        Some((address(first)..address(end), line.find('/').map_or("", |at| &line[at..]).to_owned()))
    };
    maps.lines().filter_map(parse).collect()
}

/// Notes a store that `by` has made, and dies if it is the last.
fn passed(by: u64) {
    let n = STORES.fetch_add(1, Relaxed);
    if let Some(made_by) = MADE_BY.get(n) {
        made_by.store(by, Relaxed);
    }
    if n + 1 == LAST.load(Relaxed) {
        // SAFETY: plain system calls.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

/// Whether stores to all that is watched are allowed.
fn allow_stores(allow: bool) {
    let access = libc::PROT_READ | if allow { libc::PROT_WRITE } else { 0 };
    WATCHED.iter().for_each(|(first, len)| protect(first.load(Relaxed), len.load(Relaxed), access));
}

fn protect(first: usize, len: usize, access: i32) {
    let first = std::ptr::with_exposed_provenance_mut(first);
    // SAFETY: mappings of this process's, of which only the permission changes, and that to what the handlers expect.
    let failed = len > 0 && unsafe { libc::mprotect(first, len, access) } == -1;
    if failed {
        std::process::abort();
    }
}

fn handle(signal: i32, handler: usize) {
    // SAFETY: all zeros are no flags and no signals; the handlers have the signature of one with information, and keep to
    // atomic words and system calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
    }
}

extern "C" fn on_fault(_: i32, info: &libc::siginfo_t, context: &mut libc::ucontext_t) {
    // SAFETY: the signal is of a kind that has an address.
    let at = unsafe { info.si_addr() }.addr();
    let is_here = |(first, len): &&(AtomicUsize, AtomicUsize)| at.wrapping_sub(first.load(Relaxed)) < len.load(Relaxed);
    let Some((first, len)) = WATCHED.iter().find(is_here).filter(|_| WATCHING.load(Relaxed)) else {
        return handle(libc::SIGSEGV, libc::SIG_DFL); // a defect, which is made again
    };
    // the page, and the next one, into which it may reach; all would take much longer
    let page = at & !(PAGE - 1);
    protect(page, (2 * PAGE).min(first.load(Relaxed) + len.load(Relaxed) - page), libc::PROT_READ | libc::PROT_WRITE);
    let registers = &mut context.uc_mcontext.gregs;
    STORING.store(registers[libc::REG_RIP as usize] as u64, Relaxed);
    registers[libc::REG_EFL as usize] |= TRAP_FLAG;
}

extern "C" fn on_trap(_: i32, _: &libc::siginfo_t, context: &mut libc::ucontext_t) {
    let registers = &mut context.uc_mcontext.gregs;
    let (at, by) = (registers[libc::REG_RIP as usize] as u64, STORING.load(Relaxed));
    if at == by {
        // one that repeats itself, as in a copy: of its thousands of stores the first counts, one in the middle, and the last
        passed(by);
        allow_stores(true);
        let rounds = registers[libc::REG_RCX as usize];
        repeat(registers, rounds / 2);
        passed(by);
        repeat(registers, rounds - rounds / 2);
        return;
    }
    registers[libc::REG_EFL as usize] &= !TRAP_FLAG;
    allow_stores(false);
    passed(by);
}

/// Does so many rounds of the copy or fill that the registers stand at. One that it does not know goes on, round by round.
fn repeat(registers: &mut [i64], rounds: i64) {
    let get = |register: i32| registers[register as usize];
    // SAFETY: an instruction that has just been executed.
    let code = unsafe { std::ptr::with_exposed_provenance::<[u8; 3]>(get(libc::REG_RIP) as usize).read_unaligned() };
    let (width, copies) = match code {
        [0xF3, 0xA4, _] => (1, true),
        [0xF3, 0x48, 0xA5] => (8, true),
        [0xF3, 0xAA, _] => (1, false),
        [0xF3, 0x48, 0xAB] => (8, false),
        _ => return,
    };
    let (len, fill) = (rounds * width, get(libc::REG_RAX).to_le_bytes());
    let (from, to) = (get(libc::REG_RSI) as usize, get(libc::REG_RDI) as usize);
    for i in 0..len as usize {
        // SAFETY: what the instruction would do next, in its order; stores are allowed.
        unsafe {
            let byte = if copies {
                std::ptr::with_exposed_provenance::<u8>(from + i).read()
            } else {
                fill[i % width as usize]
            };
            std::ptr::with_exposed_provenance_mut::<u8>(to + i).write_volatile(byte);
        }
    }
    registers[libc::REG_RCX as usize] -= rounds;
    registers[libc::REG_RDI as usize] += len;
    registers[libc::REG_RSI as usize] += if copies { len } else { 0 };
}

/// A file whose changes count as stores. Reads go through memory that may be written.
struct Watched<D>(D);

/// What changes a file, beside the addresses of instructions.
#[derive(Clone, Copy)]
enum Call {
    Write = 1,
    Sync,
    Allocate,
    SetLen,
}

/// Counts a call, if it is one between [`watch`] and [`watched`].
fn called(call: Call) {
    if WATCHING.load(Relaxed) {
        passed(call as u64);
    }
}

/// `disk`, whose changes count as stores.
pub fn disk(disk: Arc<dyn Disk>) -> Arc<dyn Disk> {
    Arc::new(Watched(disk))
}

/// `base`, whose changes count as stores.
pub fn base(base: Arc<dyn BaseOpener>) -> Arc<dyn BaseOpener> {
    Arc::new(Watched(base))
}

impl<D: std::ops::Deref<Target: Disk> + Send + Sync> Disk for Watched<D> {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn len(&self) -> Result<u64> {
        self.0.len()
    }
    fn read_at(&self, off: u64, into: &mut [u8]) -> Result<usize> {
        let mut content = vec![0; into.len()];
        let n = self.0.read_at(off, &mut content)?;
        into.copy_from_slice(&content);
        Ok(n)
    }
    fn write_at(&self, off: u64, bytes: &[u8]) -> Result<()> {
        self.0.write_at(off, bytes).inspect(|()| called(Call::Write))
    }
    fn sync(&self, site: Site) -> Result<()> {
        self.0.sync(site).inspect(|()| called(Call::Sync))
    }
    fn allocate(&self, off: u64, len: u64) -> Result<()> {
        self.0.allocate(off, len).inspect(|()| called(Call::Allocate))
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(len).inspect(|()| called(Call::SetLen))
    }
}

impl BaseFile for Watched<Box<dyn BaseFile>> {
    fn lock_exclusive(&self) -> Result<()> {
        self.0.lock_exclusive()
    }
    fn unlock(&self) -> Result<()> {
        self.0.unlock()
    }
}

impl BaseOpener for Watched<Arc<dyn BaseOpener>> {
    fn path(&self) -> &Path {
        BaseOpener::path(&*self.0)
    }
    fn open(&self) -> Result<Box<dyn BaseFile>> {
        Ok(Box::new(Watched(self.0.open()?)))
    }
    fn recover_stock(&self) -> Result<()> {
        self.0.recover_stock()
    }
    fn identity(&self) -> Result<Option<(u64, u64)>> {
        self.0.identity()
    }
}
