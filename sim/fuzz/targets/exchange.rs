//! The target `exchange`: a caller's bytes and an API server's bytes, with server and agent between them.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sim_fuzz::exchange::check(input));
