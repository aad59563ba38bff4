//! Ops listener: live, ready, metrics.
