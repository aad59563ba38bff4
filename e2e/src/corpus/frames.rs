//! HTTP/2 as bytes: just enough to say what no library would, and to read the ends of streams (RFC 9113, RFC 7541).

/// What a client begins with: the preface and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const FRAME_HEAD: usize = 9;

/// A request's parts: fields, and data and trailers where they are not none.
pub(super) struct Parts {
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) data: Option<Vec<u8>>,
    pub(super) trailers: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

/// The beginning of a connection.
pub(super) fn preface() -> Vec<u8> {
    PREFACE.to_vec()
}

/// A request on `stream`, each field literal and never indexed.
pub(super) fn request(stream: u32, parts: &Parts) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ends = |here: bool| if here { END_STREAM } else { 0 };
    frame(
        &mut bytes,
        HEADERS,
        END_HEADERS | ends(parts.data.is_none() && parts.trailers.is_none()),
        stream,
        &block(&parts.fields),
    );
    if let Some(data) = &parts.data {
        frame(&mut bytes, DATA, ends(parts.trailers.is_none()), stream, data);
    }
    if let Some(trailers) = &parts.trailers {
        frame(&mut bytes, HEADERS, END_HEADERS | END_STREAM, stream, &block(trailers));
    }
    bytes
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

fn block(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0x10);
        for text in [name, value] {
            integer(&mut bytes, text.len());
            bytes.extend_from_slice(text);
        }
    }
    bytes
}

/// RFC 7541 section 5.1, with a prefix of seven bits that are all ours.
fn integer(bytes: &mut Vec<u8>, n: usize) {
    if n < 0x7f {
        bytes.push(n as u8);
        return;
    }
    bytes.push(0x7f);
    let mut rest = n - 0x7f;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// What became of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet.
    Waits,
    /// It was answered, and the answer has ended.
    Answered(u16),
    /// It was answered, and the answer broke off or goes on.
    Cut(u16),
    /// The stream was reset before an answer.
    Reset,
    /// The connection was ended by its own word, before an answer.
    GoneAway,
}

/// What became of `stream` by the bytes that came.
pub fn outcome(bytes: &[u8], stream: u32) -> Outcome {
    let (mut rest, mut status, mut outcome) = (bytes, None, Outcome::Waits);
    while let Some(head) = rest.get(..FRAME_HEAD) {
        let number = |bytes: &[u8]| bytes.iter().fold(0u32, |n, byte| n << 8 | u32::from(*byte));
        let (len, kind, flags, of) = (number(&head[..3]) as usize, head[3], head[4], number(&head[5..9]) & 0x7fff_ffff);
        let Some(payload) = rest.get(FRAME_HEAD..FRAME_HEAD + len) else { break };
        rest = &rest[FRAME_HEAD + len..];
        match kind {
            GOAWAY if status.is_none() => outcome = Outcome::GoneAway,
            HEADERS if of == stream && status.is_none() => status = Some(status_of(payload)),
            RST_STREAM if of == stream && !matches!(outcome, Outcome::Answered(_)) => {
                return status.map_or(Outcome::Reset, Outcome::Cut);
            }
            _ => {}
        }
        if let Some(status) = status.filter(|_| of == stream && matches!(kind, HEADERS | DATA)) {
            outcome = if flags & END_STREAM == 0 { Outcome::Cut(status) } else { Outcome::Answered(status) };
        }
    }
    outcome
}

/// The first field of the first block of a connection; 0 is one that it did not say in so many words.
fn status_of(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [first @ 0x88..=0x8e, ..] => INDEXED[usize::from(first - 0x88)],
        [0x48 | 0x08 | 0x18, 0x03, digits @ ..] if digits.len() >= 3 => {
            digits[..3].iter().fold(0, |n, digit| n * 10 + u16::from(digit.wrapping_sub(b'0')))
        }
        [0x48 | 0x08 | 0x18, len @ (0x82 | 0x83), coded @ ..] => huffman(&coded[..usize::from(len & 0x7f).min(coded.len())]),
        _ => 0,
    }
}

/// Three digits in the code of RFC 7541 appendix B: 0 to 2 have five bits, the others six.
fn huffman(coded: &[u8]) -> u16 {
    let bits = coded.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (32 - 8 * coded.len());
    let (mut rest, mut number) = (bits, 0);
    for _ in 0..3 {
        let (digit, n_bits) = match rest >> 27 {
            short @ 0..=2 => (short, 5),
            _ => ((rest >> 26).wrapping_sub(0b01_1001) + 3, 6),
        };
        number = number * 10 + digit as u16;
        rest <<= n_bits;
    }
    number
}
