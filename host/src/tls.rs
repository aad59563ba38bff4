//! TLS material from files.
