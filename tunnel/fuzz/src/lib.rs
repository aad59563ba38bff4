//! What each target claims, as ordinary functions of the input: `tests/corpus.rs` calls them too, on any compiler.

pub mod codec;
pub mod pair;
mod script;
pub mod session;
