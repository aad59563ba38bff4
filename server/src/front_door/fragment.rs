//! Request targets with a `#`, which are refused and never cut.
//!
//! A target has no fragment (RFC 9112 section 3.2), but the HTTP library drops one in silence, and `DELETE /a#/b` would
//! then delete `/a`. It does not tell, so the request lines are looked at on their way in. On HTTP/2 nothing can be seen.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use host::Connection;
use http::{Method, Uri};
use proxy::head::TARGET_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Lines that are remembered: a few requests may be on their way at once, and a body may hold lines that look alike.
const REMEMBERED_MAX: usize = 16;

/// The longest method and version around the longest target; what is longer is refused for its length.
const LINE_MAX: usize = TARGET_BYTES_MAX + 64;

/// What was seen of one connection.
#[derive(Clone, Default)]
pub(super) struct Fragments(Arc<Mutex<VecDeque<(String, String)>>>);

impl Fragments {
    /// Whether this request had a fragment that is now missing. A body's line counts only if it names the same method
    /// and target.
    pub(super) fn was_cut(&self, method: &Method, uri: &Uri) -> bool {
        let target = uri.path_and_query().map(|target| target.as_str()).unwrap_or_default();
        let mut seen = self.seen();
        let found = seen.iter().position(|(of, cut)| of == method.as_str() && cut == target);
        found.is_some_and(|index| seen.remove(index).is_some())
    }

    fn note(&self, line: &[u8]) {
        let Some((method, target)) = cut_target(line) else { return };
        let mut seen = self.seen();
        if seen.len() == REMEMBERED_MAX {
            seen.pop_front();
        }
        seen.push_back((method, target));
    }

    fn seen(&self) -> MutexGuard<'_, VecDeque<(String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Method and cut target of a request line that has a fragment.
fn cut_target(line: &[u8]) -> Option<(String, String)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.trim_end().split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let (before, _) = target.split_once('#')?;
    let uri: Uri = before.parse().ok()?;
    let target = uri.path_and_query()?.as_str().to_owned();
    version.starts_with("HTTP/1.").then(|| (method.to_owned(), target))
}

/// A connection whose request lines are looked at.
pub(super) struct Watched {
    connection: Connection,
    fragments: Fragments,
    /// The line that is being read; none behind its first bytes when it is no request line.
    line: Option<Vec<u8>>,
}

impl Watched {
    pub(super) fn new(connection: Connection) -> (Self, Fragments) {
        let fragments = Fragments::default();
        (Self { connection, fragments: fragments.clone(), line: Some(Vec::new()) }, fragments)
    }

    fn look(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            let (piece, rest) = bytes.split_at(end);
            if let Some(line) = &mut self.line {
                line.extend_from_slice(piece);
                if line.ends_with(b"\n") && line.contains(&b'#') {
                    self.fragments.note(line);
                }
                if line.len() > LINE_MAX || !may_be_request(line) {
                    self.line = None;
                }
            }
            if piece.ends_with(b"\n") {
                self.line = Some(Vec::new());
            }
            bytes = rest;
        }
    }
}

/// A method's letters, then a blank and a target.
fn may_be_request(line: &[u8]) -> bool {
    const METHOD_MAX: usize = 32;
    let method = line.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    method <= METHOD_MAX && line.get(method).is_none_or(|byte| *byte == b' ')
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.connection).poll_read(cx, buf);
        if let Some(bytes) = buf.filled().get(before..) {
            self.look(bytes);
        }
        poll
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn watched() -> (Watched, Fragments) {
        Watched::new(Connection::new(tokio::io::empty(), SocketAddr::from(([127, 0, 0, 1], 1))))
    }

    fn was_cut(fragments: &Fragments, method: &str, target: &str) -> bool {
        fragments.was_cut(&Method::from_bytes(method.as_bytes()).expect("a method"), &target.parse().expect("a target"))
    }

    #[test]
    fn a_fragment_is_seen_however_the_bytes_come() {
        let request = b"DELETE /tunnel/a/api/v1/namespaces/foo#/pods/x HTTP/1.1\r\nhost: h\r\n\r\n";
        for size in 1..request.len() {
            let (mut watched, fragments) = watched();
            request.chunks(size).for_each(|piece| watched.look(piece));
            assert!(was_cut(&fragments, "DELETE", "/tunnel/a/api/v1/namespaces/foo"), "in pieces of {size}");
            assert!(!was_cut(&fragments, "DELETE", "/tunnel/a/api/v1/namespaces/foo"), "counts once");
        }
    }

    #[test]
    fn a_body_with_a_hash_harms_no_other_request() {
        let (mut watched, fragments) = watched();
        watched
            .look(b"POST /a HTTP/1.1\r\ncontent-length: 99\r\n\r\n# comment\nGET /b#c HTTP/1.1\n#!/bin/sh\nGET /d HTTP/1.1\r\n");
        assert!(!was_cut(&fragments, "POST", "/a"));
        assert!(!was_cut(&fragments, "GET", "/d"));
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let (mut watched, fragments) = watched();
        for n in 0..1000 {
            watched.look(format!("GET /{n}#x HTTP/1.1\r\n").as_bytes());
        }
        assert_eq!(fragments.seen().len(), REMEMBERED_MAX);
        watched.look(&[b'A'; 10 * LINE_MAX]);
        assert!(watched.line.as_ref().is_none_or(|line| line.len() <= LINE_MAX));
    }
}
