//! Entries, the applied word, a base file's header: see [`nvlite_fuzz::entry_mark`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = nvlite_fuzz::entry_mark(data);
});
