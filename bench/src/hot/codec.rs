//! Frames to bytes and back: what every byte of every tunnel goes through.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use tunnel::frame::{Class, Frame, Open, PAYLOAD_MAX};
use tunnel::id::StreamId;

/// An event of a watch that says little.
const SMALL_BYTES: usize = 100;

pub(super) fn run(count: u64) -> Result<()> {
    let frames = frames();
    for _ in 0..count {
        for frame in &frames {
            let message = black_box(frame).encode();
            let read = Frame::decode(black_box(message))?;
            ensure!(read.kind() == frame.kind(), "a frame of kind {} came back as {}", frame.kind(), read.kind());
            black_box(read);
        }
    }
    Ok(())
}

fn frames() -> [Frame; 4] {
    let stream = StreamId(4711);
    let data = |n| Frame::Data { stream, payload: Bytes::from(vec![b'x'; n]) };
    let open = Open {
        class: Class::Small,
        request_id: "6f1c3f0a-9d0e-4c52-8f2b-7c1f5a2e9b11".to_owned(),
        trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
        caller: "argocd-application-controller".to_owned(),
        deadline: Some(Duration::from_secs(60)),
        ..Open::default()
    };
    [data(PAYLOAD_MAX), data(SMALL_BYTES), Frame::Open { stream, open }, Frame::Credit { stream, bytes: 65_536 }]
}
