//! A slot of the ring, and the body of one: see [`nvlite_fuzz::journal`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = (nvlite_fuzz::journal(data), nvlite_fuzz::body(data));
});
