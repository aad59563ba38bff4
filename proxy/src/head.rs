//! Limits of request and answer heads, the same on every leg: what one end takes, the other can pass on.

/// The longest head. Kubernetes' own servers stop at 1 MiB, but nothing that client-go sends comes near 64 KiB.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The most fields of a head.
pub const HEAD_FIELDS_MAX: usize = 256;

/// Fields that we add between the outer legs (Host, Connection, Audit-ID and their like).
const OWN_FIELDS: usize = 16;

/// What those may take.
const OWN_BYTES: usize = 8 * 1024;

/// Fields that the leg between server and agent takes: what came in, and what we added.
pub const INNER_FIELDS_MAX: usize = HEAD_FIELDS_MAX + OWN_FIELDS;

/// A buffer that holds the longest head and the bytes that came with it.
pub const HEAD_BUFFER: usize = HEAD_BYTES_MAX + OWN_BYTES;

/// The same between server and agent.
pub const INNER_HEAD_BUFFER: usize = HEAD_BUFFER + OWN_BYTES;

/// HTTP/2 counts each field with 32 bytes more than it has (RFC 9113 section 6.5.2).
pub const HEAD_LIST_MAX: u32 = (HEAD_BYTES_MAX + 32 * INNER_FIELDS_MAX) as u32;

/// The longest path and query together; beyond it is 414. Long label selectors stay under 8 KiB.
pub const TARGET_BYTES_MAX: usize = 32 * 1024;
