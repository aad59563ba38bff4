//! The golden frames of `testdata/frames.txt`, and what must hold for every frame and every input.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::frame::{Class, Hello, MESSAGE_MAX, Open, PAYLOAD_MAX};

const GOLDEN: &str = include_str!("../../../testdata/frames.txt");

#[test]
fn every_golden_frame_means_what_it_says() {
    let mut kinds = BTreeSet::new();
    let mut errors = BTreeSet::new();
    for (number, line) in GOLDEN.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let at = number + 1;
        let sign = ["==", "=>", "!!"].into_iter().find(|sign| line.contains(&format!(" {sign} "))).expect(line);
        let (hex, meaning) = line.split_once(&format!(" {sign} ")).expect(line);
        let bytes = bytes_of(hex);
        match Frame::decode(bytes.clone()) {
            Ok(frame) => {
                assert_ne!(sign, "!!", "line {at} is a frame: {frame:?}");
                assert_eq!(format!("{frame:?}"), meaning, "line {at}");
                assert_eq!(frame.encode() == bytes, sign == "==", "line {at} encodes to {:02x?}", frame.encode());
                kinds.insert(frame.kind());
            }
            Err(error) => {
                assert_eq!((sign, format!("{error:?}").as_str()), ("!!", meaning), "line {at}");
                errors.insert(meaning.split(' ').next().map(str::to_owned));
            }
        }
    }
    assert_eq!(kinds.len(), (0..=u8::MAX).filter(|kind| kind::is_known(*kind)).count(), "every type is there");
    assert_eq!(errors.len(), 7, "every error is there");
}

#[test]
fn texts_are_cut_where_a_character_ends() {
    let text = "ä".repeat(TEXT_MAX);
    let frame = Frame::Reset { stream: StreamId(1), reason: Reason::Broken, text };
    let Ok(Frame::Reset { text, .. }) = Frame::decode(frame.encode()) else { panic!("a reset was expected") };
    assert_eq!(text, "ä".repeat(TEXT_MAX / 2));
}

#[test]
fn no_frame_is_longer_than_a_message_may_be() {
    let text = "x".repeat(2 * TEXT_MAX);
    let open = Open { request_id: text.clone(), trace: text.clone(), caller: text.clone(), ..Open::default() };
    let data = Frame::Data { stream: StreamId(1), payload: Bytes::from(vec![0; PAYLOAD_MAX]) };
    for frame in [Frame::Open { stream: StreamId(1), open }, Frame::Error { stream: StreamId(1), text }, data] {
        assert!(frame.encode().len() <= MESSAGE_MAX, "{}", frame.kind());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn every_frame_survives_the_trip(frame in any_frame()) {
        prop_assert_eq!(Frame::decode(frame.encode()), Ok(frame));
    }

    #[test]
    fn every_input_is_a_frame_or_an_error(input in any_input()) {
        if let Ok(frame) = Frame::decode(Bytes::from(input)) {
            // What was understood can be said again, and then means the same.
            let said = frame.encode();
            prop_assert!(said.len() <= MESSAGE_MAX.max(HEADER_LEN + 600));
            let again = Frame::decode(said);
            if !matches!(&frame, Frame::Open { open, .. } if open.not_understood) {
                prop_assert_eq!(again, Ok(frame));
            }
        }
    }
}

fn bytes_of(hex: &str) -> Bytes {
    let digits: Vec<u32> = hex.chars().filter(|c| *c != ' ').map(|c| c.to_digit(16).expect(hex)).collect();
    assert_eq!(digits.len() % 2, 0, "{hex}");
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// Bytes that are often nearly a frame: arbitrary ones stop at the type byte.
fn any_input() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..600);
    let headed = (0u8..0x18, 0u32..3, prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(kind, stream, payload)| [&[kind][..], &stream.to_be_bytes(), &payload].concat());
    let damaged = (any_frame(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(|(frame, at, byte, cut)| {
        let mut bytes = frame.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if cut {
            bytes.truncate(at);
        }
        bytes
    });
    prop_oneof![noise, headed, damaged]
}

pub(crate) fn any_frame() -> impl Strategy<Value = Frame> {
    let id = || prop_oneof![1u32..6, Just(u32::MAX), 1u32..].prop_map(StreamId);
    let reason = || any::<u16>().prop_map(Reason::from_code);
    let payload = prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    prop_oneof![
        (id(), text()).prop_map(|(stream, target)| Frame::Connect { stream, target }),
        id().prop_map(|stream| Frame::Connected { stream }),
        (id(), payload).prop_map(|(stream, payload)| Frame::Data { stream, payload }),
        (id(), text()).prop_map(|(stream, text)| Frame::Error { stream, text }),
        id().prop_map(|stream| Frame::Close { stream }),
        any::<Option<u64>>().prop_map(|token| Frame::Ping { token }),
        any::<Option<u64>>().prop_map(|token| Frame::Pong { token }),
        any_hello().prop_map(Frame::Hello),
        (id(), any_open()).prop_map(|(stream, open)| Frame::Open { stream, open }),
        (id(), any::<u32>()).prop_map(|(stream, bytes)| Frame::Credit { stream, bytes }),
        (id(), any::<u32>()).prop_map(|(stream, bytes)| Frame::Return { stream, bytes }),
        id().prop_map(|stream| Frame::HalfClose { stream }),
        (id(), reason(), text()).prop_map(|(stream, reason, text)| Frame::Reset { stream, reason, text }),
        (reason(), any::<u32>()).prop_map(|(reason, ms)| Frame::GoAway { reason, grace: Duration::from_millis(ms.into()) }),
    ]
}

fn any_hello() -> impl Strategy<Value = Hello> {
    (any::<[u8; 2]>(), any::<[u32; 3]>(), [text(), text()]).prop_map(
        |([version_min, version_max], [window, max, streams], [name, note])| Hello {
            version_min,
            version_max,
            initial_window: window,
            streams_max: max,
            streams,
            name,
            note,
        },
    )
}

fn any_open() -> impl Strategy<Value = Open> {
    (prop::sample::select(&Class::ALL[..]), [text(), text(), text()], any::<Option<u32>>(), any::<bool>()).prop_map(
        |(class, [request_id, trace, caller], deadline, is_probe)| Open {
            class,
            request_id,
            trace,
            caller,
            deadline: deadline.map(|ms| Duration::from_millis(ms.into())),
            is_probe,
            ..Open::default()
        },
    )
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        prop::collection::vec(any::<char>(), 0..100).prop_map(String::from_iter),
        Just("x".repeat(TEXT_MAX))
    ]
}
