//! Where a run took place: figures without it mean nothing.

use std::path::Path;

use serde::Serialize;

use crate::place::file_system;

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Logical processors that the process may use.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The file system that the databases lie on.
    pub file_system: String,
}

/// The software.
#[derive(Clone, Debug, Serialize)]
pub struct Versions {
    /// This crate's.
    pub nvlite: &'static str,
    /// SQLite's, linked into this program.
    pub sqlite: &'static str,
    /// Whether the compiler optimised.
    pub build: &'static str,
}

impl Machine {
    /// This machine, with databases under `dir`.
    pub fn here(dir: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let unknown = || "unknown".to_owned();
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").map_or_else(unknown, str::to_owned),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: field(&read("/proc/meminfo"), "MemTotal")
                .and_then(|kib| kib.split(' ').next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib / 1024),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(dir),
        }
    }
}

impl Versions {
    /// Of this program.
    pub fn here() -> Self {
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        Self { nvlite: env!("CARGO_PKG_VERSION"), sqlite: rusqlite::version(), build }
    }
}

/// The value of the first line `name : value`.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}
