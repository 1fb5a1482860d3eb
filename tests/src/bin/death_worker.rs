//! A process that joins a live database, does one thing, and dies in the middle of it, or at its end:
//! `death_worker DEED MEDIUM DIR STORE`.

fn main() {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    nvlite_tests::deaths::worker();
}
