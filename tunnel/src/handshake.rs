//! The upgrade: which protocol two ends speak, told by a header of our own and never by a WebSocket subprotocol, because
//! common client libraries fail when a server does not select one.

use crate::session::Protocol;

/// The header in which the agent offers versions and the server names the one it took.
pub const HEADER: &str = "postern-tunnel";

/// The version of the extended protocol.
pub const VERSION: u8 = 2;

/// The value with which both sides name [`VERSION`].
pub const OFFER: &str = "2";

/// What a peer's header value means: a comma-separated list of versions.
///
/// Absent, empty or without a common version is version 1, which every peer speaks.
pub fn negotiate(value: Option<&[u8]>) -> Protocol {
    let offers = value.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
    if offers.split(',').any(|offer| offer.trim() == OFFER) { Protocol::Extended } else { Protocol::V1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_common_version_leaves_version_1() {
        assert_eq!(negotiate(Some(b"2")), Protocol::Extended);
        assert_eq!(negotiate(Some(b"3, 2")), Protocol::Extended);
        for v1 in [None, Some(&b""[..]), Some(b"1"), Some(b"22"), Some(b"\xff")] {
            assert_eq!(negotiate(v1), Protocol::V1, "{v1:?}");
        }
    }
}
