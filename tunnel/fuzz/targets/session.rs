//! The target `session`: one session and a hostile peer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tunnel_fuzz::session::check(input));
