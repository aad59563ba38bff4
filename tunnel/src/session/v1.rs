//! The frames of a version 1 peer: no hello, no credit, no half-close; one bad stream must not end the others.

use tokio::time::Instant;

use super::streams::{Connect, Half, Stream};
use super::{CREDIT_MAX, Event, Session};
use crate::error::{ProtocolError, Reason, StreamError};
use crate::frame::{Frame, Open};
use crate::id::StreamId;

impl Session {
    pub(super) fn handle_v1(&mut self, frame: Frame, now: Instant) -> Result<(), ProtocolError> {
        let kind = frame.kind();
        match frame {
            Frame::Ping { token } => {
                self.pong_due = Some(token);
                self.output = true;
            }
            Frame::Pong { token } => self.take_pong(token, now),
            Frame::Connect { stream, target } if self.is_agent() => self.take_connect(stream, target, now)?,
            Frame::Connected { stream } if !self.is_agent() => self.take_connected(stream, now),
            Frame::Data { stream, payload } => self.take_v1_data(stream, &payload),
            Frame::Error { stream, text } => self.take_error(stream, text),
            Frame::Close { stream } => self.take_close(stream),
            Frame::Connect { .. }
            | Frame::Connected { .. }
            | Frame::Hello(_)
            | Frame::Open { .. }
            | Frame::Credit { .. }
            | Frame::Return { .. }
            | Frame::HalfClose { .. }
            | Frame::Reset { .. }
            | Frame::GoAway { .. } => return Err(ProtocolError::NotAllowed { kind }),
        }
        Ok(())
    }

    fn take_connect(&mut self, id: StreamId, target: String, now: Instant) -> Result<(), ProtocolError> {
        if self.streams.was_opened(id) {
            return Err(ProtocolError::OutOfOrder(id));
        }
        self.streams.last = id.0;
        if self.draining || self.streams.len() >= self.config.streams_max || !self.config.budget.reserve_fixed(self.stream_cost())
        {
            self.push_control(Frame::Error { stream: id, text: "no room for another stream".to_owned() });
            return Ok(());
        }
        let open = Open { target, ..Open::default() };
        self.streams.insert(id, Stream::new(open.class, self.config.initial_window as usize, CREDIT_MAX, Connect::Pending, now));
        self.events.push_back(Event::Opened(id, open));
        Ok(())
    }

    fn take_connected(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.known_v1(id) else { return };
        match stream.connect {
            Connect::Pending => {
                stream.connect = Connect::Done;
                self.schedule_if_ready(id, now);
            }
            // The Go server panics here; a second answer makes the stream's state unknowable.
            Connect::Done if !stream.is_over() => self.break_stream(id, Reason::Protocol, "connected twice"),
            Connect::Done => self.stats.frames_late += 1,
        }
    }

    fn take_v1_data(&mut self, id: StreamId, payload: &[u8]) {
        let (max, budget) = (self.config.v1_stream_max, self.config.budget.clone());
        let Some(stream) = self.known_v1(id) else { return };
        if stream.receiving != Half::Open || stream.detached || stream.connect == Connect::Pending {
            // A Go agent goes on sending into a closed stream for as long as the API server speaks.
            self.stats.frames_late += 1;
            return;
        }
        if !stream.window.receive_without_credit(payload.len(), max, &budget) {
            tracing::warn!(
                stream = id.0,
                unread = stream.unread.len(),
                max,
                "a slow reader: the stream is aborted, since the peer speaks version 1 and cannot be slowed down; upgrading the peer cures this"
            );
            self.break_stream(id, Reason::Overrun, "the reader is too slow for a version 1 peer");
            return;
        }
        self.deliver(id, payload);
    }

    fn take_error(&mut self, id: StreamId, text: String) {
        let Some(stream) = self.known_v1(id) else { return };
        // Before Connected the peer has not even dialled.
        let reason = if stream.connect == Connect::Pending { Reason::Refused } else { Reason::Broken };
        self.ended_by_peer(id, StreamError::Reset { reason, text });
    }

    /// Close ends both sides, but what came before it is whole as far as the wire can tell: it reads as the end.
    fn take_close(&mut self, id: StreamId) {
        let budget = self.config.budget.clone();
        let Some(stream) = self.known_v1(id) else { return };
        let error = StreamError::Reset { reason: Reason::Done, text: String::new() };
        stream.cut_sending(error, &budget);
        if stream.receiving == Half::Open {
            stream.receiving = Half::Finished;
        }
        self.wake_both(id);
        self.remove_if_over(id);
    }

    /// Ends one stream for the peer's fault, visibly for the local side.
    fn break_stream(&mut self, id: StreamId, reason: Reason, text: &str) {
        self.push_control(Frame::Close { stream: id });
        self.ended_by_peer(id, StreamError::Reset { reason, text: text.to_owned() });
    }

    fn known_v1(&mut self, id: StreamId) -> Option<&mut Stream> {
        let stream = self.streams.get_mut(id);
        if stream.is_none() {
            self.stats.frames_late += 1;
        }
        stream
    }
}
