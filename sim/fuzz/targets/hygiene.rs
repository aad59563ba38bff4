//! The target `hygiene`: a request's or answer's head under the header rules.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sim_fuzz::hygiene::check(input));
