//! Any message is a frame or an error, and what was understood can be said again.

use bytes::Bytes;
use tunnel::frame::{Frame, HEADER_LEN, MESSAGE_MAX};

/// Decodes `input`; a frame keeps its meaning over any number of trips, and is said in no more than a message.
pub fn check(input: &[u8]) {
    let Ok(frame) = Frame::decode(Bytes::copy_from_slice(input)) else { return };
    let said = frame.encode();
    assert_eq!(said.first(), Some(&frame.kind()));
    let mut expected = frame;
    match &mut expected {
        // Only ever read: a peer's wish that this version does not know.
        Frame::Open { open, .. } => open.not_understood = false,
        // Data may be as long as the carrier allowed; all else is cut to fit.
        Frame::Data { payload, .. } => assert_eq!(said.len(), HEADER_LEN + payload.len()),
        Frame::Connect { .. }
        | Frame::Connected { .. }
        | Frame::Error { .. }
        | Frame::Close { .. }
        | Frame::Ping { .. }
        | Frame::Pong { .. }
        | Frame::Hello(_)
        | Frame::Credit { .. }
        | Frame::Return { .. }
        | Frame::HalfClose { .. }
        | Frame::Reset { .. }
        | Frame::GoAway { .. } => {}
    }
    assert!(said.len() <= MESSAGE_MAX.max(input.len()), "{} bytes", said.len());
    assert_eq!(Frame::decode(said.clone()), Ok(expected.clone()));
    assert_eq!(expected.encode(), said, "one frame, one spelling");
}
