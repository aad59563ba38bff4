//! The frames of a peer with extensions.

use tokio::time::Instant;

use super::streams::{Connect, Half, Stream};
use super::{CREDIT_MAX, Event, Session};
use crate::error::{ProtocolError, Reason, StreamError};
use crate::frame::{Frame, Hello, Open};
use crate::handshake;
use crate::id::StreamId;

impl Session {
    pub(super) fn handle_extended(&mut self, frame: Frame, now: Instant) -> Result<(), ProtocolError> {
        if self.peer.is_none() && !matches!(frame, Frame::Hello(_)) {
            return Err(ProtocolError::NoHello);
        }
        let kind = frame.kind();
        match frame {
            Frame::Hello(hello) => self.take_hello(hello, now),
            Frame::Ping { token } => {
                self.pong_due = Some(token);
                self.output = true;
                Ok(())
            }
            Frame::Pong { token } => {
                self.take_pong(token, now);
                Ok(())
            }
            Frame::GoAway { reason, grace } => {
                self.draining = true;
                self.output = true;
                self.events.push_back(Event::GoAway { reason, grace });
                Ok(())
            }
            Frame::Open { stream, open } if self.is_agent() => self.take_open(stream, open, now),
            Frame::Data { stream, payload } => self.take_data(stream, &payload),
            Frame::Credit { stream, bytes } => self.take_credit(stream, bytes as usize, now),
            Frame::Return { stream, bytes } => self.take_return(stream, bytes as usize),
            Frame::HalfClose { stream } => self.take_half_close(stream),
            Frame::Reset { stream, reason, text } => self.take_reset(stream, reason, text),
            Frame::Open { .. } | Frame::Connect { .. } | Frame::Connected { .. } | Frame::Error { .. } | Frame::Close { .. } => {
                Err(ProtocolError::NotAllowed { kind })
            }
        }
    }

    fn take_hello(&mut self, hello: Hello, now: Instant) -> Result<(), ProtocolError> {
        let versions = hello.version_min..=hello.version_max;
        if !versions.contains(&handshake::VERSION) || hello.initial_window as usize > CREDIT_MAX {
            return Err(ProtocolError::NoHello);
        }
        match &mut self.peer {
            // A later hello tells a new load and a new note; the initial window is fixed for the session's life.
            Some(peer) => {
                peer.streams_max = hello.streams_max;
                peer.streams = hello.streams;
                peer.note = hello.note;
            }
            None => {
                // Streams opened before it may now send.
                let ids: Vec<_> = self.streams.iter().map(|(id, _)| id).collect();
                for id in ids {
                    self.take_credit(id, hello.initial_window as usize, now)?;
                }
                self.peer = Some(hello.clone());
                self.events.push_back(Event::Established(hello));
                self.ping_if_due(now);
            }
        }
        Ok(())
    }

    fn take_open(&mut self, id: StreamId, open: Open, now: Instant) -> Result<(), ProtocolError> {
        if self.streams.was_opened(id) {
            return Err(ProtocolError::OutOfOrder(id));
        }
        self.streams.last = id.0;
        // An open that crossed our go-away is served: a refusal would only make its caller ask again.
        let refused = if open.not_understood {
            Some((Reason::NotUnderstood, "a field that must be understood is unknown"))
        } else if self.streams.len() >= self.config.streams_max {
            Some((Reason::Limit, "too many streams"))
        } else if !self.config.budget.reserve_fixed(self.stream_cost()) {
            Some((Reason::Limit, "no memory for another stream"))
        } else {
            None
        };
        if let Some((reason, text)) = refused {
            self.push_control(Frame::Reset { stream: id, reason, text: text.to_owned() });
            return Ok(());
        }
        let credit = self.peer.as_ref().map_or(0, |peer| peer.initial_window as usize);
        self.streams.insert(id, Stream::new(open.class, self.config.initial_window as usize, credit, Connect::Done, now));
        self.events.push_back(Event::Opened(id, open));
        Ok(())
    }

    fn take_data(&mut self, id: StreamId, payload: &[u8]) -> Result<(), ProtocolError> {
        let Some(stream) = self.known(id)? else { return Ok(()) };
        match stream.receiving {
            Half::Open => {}
            Half::Finishing | Half::Finished => return Err(ProtocolError::NotAllowed { kind: 0x03 }),
            Half::Cut(_) => {
                self.stats.frames_late += 1;
                return Ok(());
            }
        }
        if !stream.window.receive(payload.len()) {
            return Err(ProtocolError::Overspent(id));
        }
        if stream.detached {
            return Ok(());
        }
        self.deliver(id, payload);
        Ok(())
    }

    fn take_credit(&mut self, id: StreamId, bytes: usize, now: Instant) -> Result<(), ProtocolError> {
        let Some(stream) = self.known(id)? else { return Ok(()) };
        if bytes > CREDIT_MAX - stream.credit {
            return Err(ProtocolError::Credit(id));
        }
        let was_blocked = stream.credit == 0;
        stream.credit += bytes;
        stream.is_stalled = false;
        if was_blocked {
            self.events.push_back(Event::Writable(id));
        }
        self.watch_idle_credit(id, now);
        Ok(())
    }

    fn take_return(&mut self, id: StreamId, bytes: usize) -> Result<(), ProtocolError> {
        let budget = self.config.budget.clone();
        let Some(stream) = self.known(id)? else { return Ok(()) };
        if stream.receiving == Half::Open && !stream.window.give_back(bytes, &budget) {
            return Err(ProtocolError::Credit(id));
        }
        Ok(())
    }

    fn take_half_close(&mut self, id: StreamId) -> Result<(), ProtocolError> {
        let budget = self.config.budget.clone();
        let Some(stream) = self.known(id)? else { return Ok(()) };
        if stream.receiving == Half::Open {
            stream.receiving = Half::Finished;
            stream.window.finish(&budget);
            self.events.push_back(Event::Readable(id));
            self.remove_if_over(id);
        }
        Ok(())
    }

    /// What had arrived whole stays readable, so a reset by a peer that has half-closed only ends our sending.
    fn take_reset(&mut self, id: StreamId, reason: Reason, text: String) -> Result<(), ProtocolError> {
        if self.known(id)?.is_some() {
            self.ended_by_peer(id, StreamError::Reset { reason, text });
        }
        Ok(())
    }

    /// The stream, or none when it has ended: frames that crossed its end on the way are dropped and counted.
    fn known(&mut self, id: StreamId) -> Result<Option<&mut Stream>, ProtocolError> {
        if !self.streams.was_opened(id) {
            return Err(ProtocolError::NeverOpened(id));
        }
        let stream = self.streams.get_mut(id);
        if stream.is_none() {
            self.stats.frames_late += 1;
        }
        Ok(stream)
    }
}
