//! Ends: of a stream, by either side; of the session. Who may still speak.

use std::time::Duration;

use super::streams::Half;
use super::{Protocol, Session};
use crate::error::{Reason, SessionError, StreamError};
use crate::frame::Frame;
use crate::id::StreamId;

impl Session {
    /// Ends a stream at once in both directions and tells the peer why. What it had queued is forgotten.
    pub fn reset(&mut self, id: StreamId, reason: Reason, text: &str) {
        let is_agent = self.is_agent();
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.is_over() {
            return;
        }
        let error = StreamError::Closed;
        stream.cut_sending(error.clone(), &self.config.budget);
        stream.cut_receiving(error, &self.config.budget);
        let frame = match self.config.protocol {
            Protocol::Extended => Frame::Reset { stream: id, reason, text: text.to_owned() },
            Protocol::V1 if is_agent && stream.connect == super::Connect::Pending => {
                Frame::Error { stream: id, text: text.to_owned() }
            }
            Protocol::V1 => Frame::Close { stream: id },
        };
        self.push_control(frame);
        self.wake_both(id);
        self.remove_if_over(id);
    }

    /// The local handle was dropped. What it had half-closed still goes out whole; anything else is cancelled.
    pub fn detach(&mut self, id: StreamId) {
        let is_agent = self.is_agent();
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.detached = true;
        match stream.sending {
            // An agent that lets go has lost its upstream, a server its caller.
            Half::Open if is_agent => self.reset(id, Reason::Broken, ""),
            Half::Open => self.reset(id, Reason::Cancelled, ""),
            // Who was never accepted cannot be told an end by the schedule.
            Half::Finishing if is_agent && stream.connect == super::Connect::Pending => self.reset(id, Reason::Broken, ""),
            // The end leaves through the schedule, then `leave` is called.
            Half::Finishing => {
                if stream.receiving == Half::Open && self.config.protocol == Protocol::Extended {
                    // Nobody reads any more: what still comes is dropped, and no credit is granted for it.
                    stream.unread.clear();
                }
            }
            Half::Finished | Half::Cut(_) => self.leave(id),
        }
        self.remove_if_over(id);
    }

    /// A detached stream has said all it had to say: stops the peer if it still speaks.
    pub(super) fn leave(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let was_open = stream.receiving == Half::Open;
        stream.cut_receiving(StreamError::Closed, &self.config.budget);
        stream.unread.clear();
        stream.window.discard(&self.config.budget);
        // Version 1 has no half-open streams: its Close has gone or come.
        if was_open && self.config.protocol == Protocol::Extended {
            self.push_control(Frame::Reset { stream: id, reason: Reason::Done, text: String::new() });
        }
        self.remove_if_over(id);
    }

    /// The peer ended a stream in both directions. What had arrived whole stays readable.
    pub(super) fn ended_by_peer(&mut self, id: StreamId, error: StreamError) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.cut_sending(error.clone(), &self.config.budget);
        stream.cut_receiving(error, &self.config.budget);
        self.wake_both(id);
        self.remove_if_over(id);
    }

    /// Takes a stream out of the table when nobody will ask for it again.
    pub(super) fn remove_if_over(&mut self, id: StreamId) {
        if !self.streams.get(id).is_some_and(|stream| stream.detached && stream.is_over()) {
            return;
        }
        if let Some(mut stream) = self.streams.remove(id) {
            stream.unsent.clear();
            stream.shrink_queue(&self.config.budget);
            stream.window.discard(&self.config.budget);
            self.config.budget.release_fixed(self.stream_cost());
            // While the socket takes nothing the lines do not move: who leaves must leave them too, or they grow for ever.
            if stream.grant_queued {
                self.grants_due.retain(|due| *due != id);
            }
            self.schedule.remove(id, &mut stream.turn);
            // The last stream of a draining session ends it; the driver must look.
            self.output |= self.draining;
        }
    }

    /// Takes no new streams and asks the peer to dial another session first. Version 1 peers are not told.
    pub fn go_away(&mut self, reason: Reason, grace: Duration) {
        if self.draining || self.ended.is_some() {
            return;
        }
        self.draining = true;
        self.output = true;
        if self.config.protocol == Protocol::Extended {
            self.push_control(Frame::GoAway { reason, grace });
        }
    }

    /// Ends the session for `error`: every stream ends, save what had arrived whole.
    pub fn end(&mut self, error: SessionError) -> SessionError {
        if let Some(earlier) = &self.ended {
            return earlier.clone();
        }
        self.ended = Some(error.clone());
        self.output = true;
        let ids: Vec<_> = self.streams.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.ended_by_peer(id, StreamError::SessionEnded(error.clone()));
        }
        error
    }

    /// How the session ended, if it did.
    pub fn ended(&self) -> Option<&SessionError> {
        self.ended.as_ref()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let budget = &self.config.budget;
        budget.release_growth(self.growth());
        budget.release_fixed(self.streams.len() * self.stream_cost());
    }
}
