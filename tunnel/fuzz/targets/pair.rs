//! The target `pair`: two honest sessions.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tunnel_fuzz::pair::check(input));
