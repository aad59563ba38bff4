//! What each target claims, as ordinary functions of the input: `sim/tests/corpus.rs` calls them too, on any compiler.

pub mod config;
pub mod exchange;
pub mod hygiene;
mod wires;
