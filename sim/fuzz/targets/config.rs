//! The target `config`: the command lines and files of both programs.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sim_fuzz::config::check(input));
