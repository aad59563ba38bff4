//! The wire and the session between server and agent.
//!
//! Five types to know: [`frame::Frame`] is the unit on the wire, [`Session`] the pure state machine that takes and gives
//! frames, [`Driver`] the one task that owns a session and its socket, [`SessionHandle`] opens streams on it from
//! elsewhere, and a [`TunnelStream`] is one request's two-way bytes. PROTOCOL.md describes the wire frame by frame.
//!
//! Knows nothing of Kubernetes or HTTP.

mod budget;
mod driver;
mod error;
pub mod frame;
pub mod handshake;
pub mod id;
mod session;
mod stream;
mod totals;
pub mod trial;

pub use budget::Budget;
pub use driver::{Driver, Incoming, SessionHandle, start, websocket_config};
pub use error::{OpenError, ProtocolError, Reason, SessionError, StreamError};
pub use session::{Event, Protocol, Read, Role, Session, SessionConfig, SessionStats};
pub use stream::{StreamWatch, TunnelStream};
pub use totals::{Sums, Totals};
