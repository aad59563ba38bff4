//! An answer that is being read: as a whole, by lines, or slowly.

use std::time::Duration;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Body, Caller, Ending, Entry, Expected, Reply};

/// How much of a body is kept to see whether it is whole JSON; of longer ones the last byte has to do.
const KEPT_MAX: usize = 1 << 20;

/// An answer whose body is still to be read. Dropping it cancels the request.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header.
    pub headers: HeaderMap,
    caller: Caller,
    asked_at: Instant,
    body: Incoming,
    /// The connection to give back when the body is read.
    sender: Option<http1::SendRequest<Body>>,
    line: BytesMut,
    trailers: HeaderMap,
    digest: Sha256,
    expected: Expected,
    entry: Entry,
}

/// A body that was read and not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Its length.
    pub n_bytes: usize,
    /// Its digest.
    pub sha256: [u8; 32],
    /// From the question to the last byte.
    pub took: Duration,
}

impl Answer {
    pub(super) fn new(
        caller: Caller,
        id: u64,
        what: String,
        asked_at: Instant,
        expected: Expected,
        answer: Response<Incoming>,
        sender: Option<http1::SendRequest<Body>>,
    ) -> Self {
        let (head, body) = answer.into_parts();
        let is_json = head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        // A watch is a row of documents without an end of its own.
        let is_document = is_json && !what.contains("watch=") && head.status.is_success();
        let has_retry_after = head.headers.contains_key(RETRY_AFTER);
        let entry = Entry { id, what, has_retry_after, is_document, ..Entry::default() };
        let (line, digest) = (BytesMut::new(), Sha256::new());
        Self {
            status: head.status,
            headers: head.headers,
            caller,
            asked_at,
            body,
            sender,
            line,
            trailers: HeaderMap::new(),
            digest,
            expected,
            entry,
        }
    }

    /// The next piece of the body, nothing at its end.
    ///
    /// # Errors
    /// The body was aborted.
    pub async fn chunk(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.count(&data);
                        return Ok(Some(data));
                    }
                    Err(frame) => self.trailers.extend(frame.into_trailers().unwrap_or_default()),
                },
                Some(Err(error)) => {
                    self.entry.ending = Ending::Aborted;
                    let what = &self.entry.what;
                    self.caller.tell(format!("aborted after {} bytes: {what}", self.entry.n_bytes));
                    return Err(error).with_context(|| format!("{what} was aborted after {} bytes", self.entry.n_bytes));
                }
                None => {
                    if self.entry.ending != Ending::Whole {
                        self.entry.ending = Ending::Whole;
                        let ended = self.expected.ends(self.entry.n_bytes, &self.entry.kept);
                        self.judge(ended);
                    }
                    if let Some(sender) = self.sender.take() {
                        self.caller.give_back(sender);
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// The next line of the body (an event of a watch) without its end, nothing at the body's end.
    ///
    /// # Errors
    /// The body was aborted.
    pub async fn line(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let line = self.line.split_to(end + 1);
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            match self.chunk().await? {
                Some(chunk) => self.line.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }

    /// The rest of the body.
    ///
    /// # Errors
    /// The body was aborted.
    pub async fn reply(mut self) -> anyhow::Result<Reply> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        Ok(Reply {
            status: self.status,
            headers: std::mem::take(&mut self.headers),
            body: body.freeze(),
            trailers: std::mem::take(&mut self.trailers),
            took: self.asked_at.elapsed(),
        })
    }

    /// Reads the rest and keeps nothing of it; with a speed, no faster than that many bytes per second.
    ///
    /// # Errors
    /// The body was aborted.
    pub async fn read_out(mut self, bytes_per_second: Option<u64>) -> anyhow::Result<Measured> {
        while let Some(chunk) = self.chunk().await? {
            if let Some(speed) = bytes_per_second {
                tokio::time::sleep(Duration::from_secs_f64(chunk.len() as f64 / speed as f64)).await;
            }
        }
        Ok(Measured {
            n_bytes: self.entry.n_bytes,
            sha256: std::mem::take(&mut self.digest).finalize().into(),
            took: self.asked_at.elapsed(),
        })
    }

    fn count(&mut self, data: &[u8]) {
        self.digest.update(data);
        let taken = self.expected.takes(self.entry.n_bytes, data);
        self.judge(taken);
        let entry = &mut self.entry;
        entry.n_bytes += data.len();
        entry.kept.extend_from_slice(&data[..data.len().min(KEPT_MAX - entry.kept.len())]);
        entry.last = data.iter().rev().copied().find(|byte| !byte.is_ascii_whitespace()).unwrap_or(entry.last);
    }
}

impl Answer {
    fn judge(&mut self, judgement: Result<(), String>) {
        if let Err(wrong) = judgement {
            self.caller.ledger.found(format!("{}: {wrong}", self.entry.what));
            // The rest would be wrong only because of the first.
            self.expected = Expected::Anything;
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.caller.ledger.add(std::mem::take(&mut self.entry));
    }
}
