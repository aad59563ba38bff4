//! The target `codec`: any message.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tunnel_fuzz::codec::check(input));
