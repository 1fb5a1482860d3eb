//! A process that takes a database over, works on it and closes it: `life_worker SYSTEM PATH PARAMETERS`. It says on its standard
//! output what was committed, so that whoever kills it knows.

fn main() {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    nvlite_tests::life::worker();
}
