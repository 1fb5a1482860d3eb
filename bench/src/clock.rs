//! CPU time and I/O counts of this process and of its threads.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// CPU time of the calling thread, in nanoseconds.
pub fn thread_cpu() -> u64 {
    nanoseconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// CPU time of all threads of this process, in nanoseconds.
pub fn process_cpu() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

fn nanoseconds(time: Timespec) -> u64 {
    let (seconds, rest) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000_000 + rest.unwrap_or(0)
}

/// The process's counts of `read`- and `write`-like system calls and the bytes given to the latter (`/proc/self/io`).
/// Locks, syncs and mapped memory are not in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoCounts {
    /// `read`-like calls.
    pub read_calls: u64,
    /// `write`-like calls.
    pub write_calls: u64,
    /// Bytes that they wrote.
    pub bytes_written: u64,
}

impl IoCounts {
    /// The counts up to now; `None` where the kernel keeps none.
    pub fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/io").ok()?)
    }

    /// What happened since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            read_calls: self.read_calls.saturating_sub(earlier.read_calls),
            write_calls: self.write_calls.saturating_sub(earlier.write_calls),
            bytes_written: self.bytes_written.saturating_sub(earlier.bytes_written),
        }
    }

    /// Without so many `write`-like calls of so many bytes each.
    pub fn without_writes(self, calls: u64, bytes: u64) -> Self {
        Self {
            write_calls: self.write_calls.saturating_sub(calls),
            bytes_written: self.bytes_written.saturating_sub(calls * bytes),
            ..self
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<u64>().ok())
        };
        Some(Self { read_calls: field("syscr")?, write_calls: field("syscw")?, bytes_written: field("wchar")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_counts_are_parsed_by_name() {
        let text = "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\n";
        assert_eq!(IoCounts::parse(text), Some(IoCounts { read_calls: 3, write_calls: 4, bytes_written: 2 }));
        assert_eq!(IoCounts::parse("rchar: 1\n"), None);
    }

    #[test]
    fn a_busy_thread_uses_cpu_time() {
        let (thread, process) = (thread_cpu(), process_cpu());
        let sum = (0..1_000_000u64).fold(0u64, |a, b| std::hint::black_box(a ^ b.wrapping_mul(31)));
        std::hint::black_box(sum);
        assert!(thread_cpu() > thread && process_cpu() > process);
    }
}
