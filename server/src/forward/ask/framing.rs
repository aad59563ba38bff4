//! Where the body of an answer ends (RFC 9112 sections 6 and 7), fed with bytes in any pieces.

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Version};
use http_body::SizeHint;
use proxy::head::INNER_FIELDS_MAX;

use super::AskError;
use super::head::{content_length, fields_of};

/// A chunk's size, and extensions that nobody uses, on one line: what comes with a chunk stays small beside it.
const CHUNK_LINE_MAX: usize = 256;

/// All trailers: a digest and a status, in life.
const TRAILERS_MAX: usize = 8 * 1024;

/// What is still to come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// All until the stream's end.
    UntilEnd,
    /// A chunk's size.
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line's end behind a chunk.
    ChunkEnd,
    /// Trailers, behind the last chunk.
    Trailers,
    /// Nothing.
    Over,
}

/// What came of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    /// More bytes are needed.
    More,
    Over,
}

impl Framing {
    /// Of an answer to `method` (RFC 9112 section 6.3). A length beside a transfer coding is removed, as it says to.
    pub(super) fn of(method: &Method, status: StatusCode, version: Version, headers: &mut HeaderMap) -> Result<Self, AskError> {
        let is_bodiless = status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if is_bodiless || *method == Method::HEAD {
            return Ok(Self::Over);
        }
        if let Some(codings) = headers.get_all(TRANSFER_ENCODING).iter().next_back() {
            if version == Version::HTTP_10 {
                return Err(AskError::Malformed("a transfer coding in HTTP/1.0"));
            }
            let last = codings.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
            let is_chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
            headers.remove(CONTENT_LENGTH);
            return Ok(if is_chunked { Self::ChunkSize } else { Self::UntilEnd });
        }
        Ok(match content_length(headers)? {
            Some(0) => Self::Over,
            Some(length) => Self::Length(length),
            None => Self::UntilEnd,
        })
    }

    /// Takes from the front of `bytes` what can be passed on.
    pub(super) fn step(&mut self, bytes: &mut Bytes) -> Result<Step, AskError> {
        loop {
            let next = match self {
                Self::Over => return Ok(Step::Over),
                Self::Trailers => return self.trailers(bytes),
                // The parser takes a line without a digit for a size of 0, which would end the body.
                Self::ChunkSize if bytes.first().is_some_and(|first| !first.is_ascii_hexdigit()) => {
                    return Err(AskError::Malformed("a broken chunk size"));
                }
                Self::ChunkSize => match httparse::parse_chunk_size(bytes) {
                    Ok(httparse::Status::Complete((len, size))) if len <= CHUNK_LINE_MAX => {
                        bytes.advance(len);
                        if size == 0 { Self::Trailers } else { Self::Chunk(size) }
                    }
                    Ok(httparse::Status::Partial) if bytes.len() <= CHUNK_LINE_MAX => return Ok(Step::More),
                    Ok(_) | Err(_) => return Err(AskError::Malformed("a broken chunk size")),
                },
                Self::ChunkEnd => match bytes.get(..2) {
                    Some(b"\r\n") => {
                        bytes.advance(2);
                        Self::ChunkSize
                    }
                    Some(_) => return Err(AskError::Malformed("a chunk that is longer than it says")),
                    None => return Ok(Step::More),
                },
                Self::Length(_) | Self::Chunk(_) | Self::UntilEnd if bytes.is_empty() => return Ok(Step::More),
                Self::UntilEnd => return Ok(Step::Data(std::mem::take(bytes))),
                Self::Length(left) => {
                    let data = take(bytes, left);
                    if *left == 0 {
                        *self = Self::Over;
                    }
                    return Ok(Step::Data(data));
                }
                Self::Chunk(left) => {
                    let data = take(bytes, left);
                    if *left == 0 {
                        *self = Self::ChunkEnd;
                    }
                    return Ok(Step::Data(data));
                }
            };
            *self = next;
        }
    }

    fn trailers(&mut self, bytes: &mut Bytes) -> Result<Step, AskError> {
        let mut fields = [httparse::EMPTY_HEADER; INNER_FIELDS_MAX];
        match httparse::parse_headers(bytes, &mut fields) {
            Ok(httparse::Status::Complete((len, fields))) => {
                let trailers = fields_of(bytes, fields)?;
                bytes.advance(len);
                *self = Self::Over;
                Ok(if trailers.is_empty() { Step::Over } else { Step::Trailers(trailers) })
            }
            Ok(httparse::Status::Partial) if bytes.len() <= TRAILERS_MAX => Ok(Step::More),
            Ok(httparse::Status::Partial) | Err(_) => Err(AskError::Malformed("broken trailers")),
        }
    }

    /// The stream has ended: so has the body, or it is broken.
    pub(super) fn end(&mut self) -> Result<(), AskError> {
        match self {
            Self::UntilEnd | Self::Over => {
                *self = Self::Over;
                Ok(())
            }
            Self::Length(_) | Self::ChunkSize | Self::Chunk(_) | Self::ChunkEnd | Self::Trailers => Err(AskError::Incomplete),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        *self == Self::Over
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Over => SizeHint::with_exact(0),
            Self::UntilEnd | Self::ChunkSize | Self::Chunk(_) | Self::ChunkEnd | Self::Trailers => SizeHint::default(),
        }
    }
}

/// Up to `left` bytes from the front.
fn take(bytes: &mut Bytes, left: &mut u64) -> Bytes {
    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= n as u64;
    bytes.split_to(n)
}

#[cfg(test)]
mod tests;
