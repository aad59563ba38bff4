//! What leaves: control first, then credit, then data by the schedule.

use std::time::Duration;

use tokio::time::Instant;

use super::schedule::Schedule;
use super::streams::{Half, Stream};
use super::{Event, Protocol, Session};
use crate::error::StreamError;
use crate::frame::{Frame, PAYLOAD_MAX};
use crate::id::StreamId;

/// An idle sender keeps grown credit this long before it gives it back: longer than the pause between two pages of a
/// list, much shorter than a watch.
const CREDIT_IDLE_MAX: Duration = Duration::from_secs(2);

impl Session {
    /// The next frame for the socket. Ask only when it can leave at once: what waits here can still be overtaken.
    pub fn poll_frame(&mut self, now: Instant) -> Option<Frame> {
        self.poll_frame_within(PAYLOAD_MAX, now)
    }

    /// The same, with no more than `payload_max` bytes of data in it.
    pub(crate) fn poll_frame_within(&mut self, payload_max: usize, now: Instant) -> Option<Frame> {
        let frame = self.next_frame(payload_max, now);
        if frame.as_ref().is_some_and(|frame| !matches!(frame, Frame::Pong { .. })) {
            self.keepalive.spoke(now);
        }
        frame
    }

    fn next_frame(&mut self, payload_max: usize, now: Instant) -> Option<Frame> {
        if let Some(frame) = self.control.pop_front() {
            if let Frame::Ping { token } = frame {
                self.keepalive.ping_left(token, now);
            }
            return Some(frame);
        }
        if let Some(token) = self.pong_due.take() {
            return Some(Frame::Pong { token });
        }
        self.poll_credit().or_else(|| self.poll_data(payload_max, now))
    }

    fn poll_credit(&mut self) -> Option<Frame> {
        while let Some(id) = self.grants_due.pop_front() {
            let Some(stream) = self.streams.get_mut(id) else { continue };
            stream.grant_queued = false;
            // Nobody reads a detached stream: the peer needs no credit to be told so.
            if stream.receiving != Half::Open || stream.detached {
                continue;
            }
            let credit = stream.window.grant(&self.config.budget);
            if let Some(bytes) = u32::try_from(credit).ok().filter(|bytes| *bytes > 0) {
                return Some(Frame::Credit { stream: id, bytes });
            }
        }
        None
    }

    fn poll_data(&mut self, payload_max: usize, now: Instant) -> Option<Frame> {
        while let Some(id) = self.schedule.pop() {
            let Some(stream) = self.streams.get_mut(id) else { continue };
            Schedule::popped(&mut stream.turn);
            if !stream.has_output() {
                continue;
            }
            if stream.unsent.is_empty() {
                match self.finish_sent(id) {
                    Some(frame) => return Some(frame),
                    None => continue,
                }
            }
            let was_full = stream.unsent.len() >= super::SEND_QUEUE_MIN;
            let payload = stream.unsent.pop(payload_max.min(PAYLOAD_MAX));
            stream.shrink_queue(&self.config.budget);
            stream.turn.sent(payload.len(), now);
            if was_full && stream.sending == Half::Open {
                self.events.push_back(Event::Writable(id));
            }
            if stream.has_output() {
                self.schedule.push(id, &mut stream.turn, now);
            }
            self.stats.bytes_sent += payload.len() as u64;
            self.watch_idle_credit(id, now);
            return Some(Frame::Data { stream: id, payload });
        }
        None
    }

    /// All of the stream's bytes are out: tells the peer that no more follow.
    fn finish_sent(&mut self, id: StreamId) -> Option<Frame> {
        let stream = self.streams.get_mut(id)?;
        match self.config.protocol {
            Protocol::Extended => {
                stream.sending = Half::Finished;
                if stream.detached {
                    self.leave(id);
                }
                Some(Frame::HalfClose { stream: id })
            }
            // Version 1 can only close both directions. A Go agent would never say that its own has ended, and whoever waits
            // for it would hold the stream for nobody. What has arrived stays readable, as after the peer's Close.
            Protocol::V1 => {
                stream.cut_sending(StreamError::Closed, &self.config.budget);
                if stream.receiving == Half::Open {
                    stream.receiving = Half::Finished;
                }
                self.wake_both(id);
                self.remove_if_over(id);
                Some(Frame::Close { stream: id })
            }
        }
    }

    /// Notes that the stream may come to hold credit that it does not use.
    pub(super) fn watch_idle_credit(&mut self, id: StreamId, now: Instant) {
        let initial = self.peer.as_ref().map_or(usize::MAX, |peer| peer.initial_window as usize);
        if let Some(stream) = self.streams.get_mut(id) {
            stream.active_at = now;
            if stream.credit > initial && self.return_at.is_none() {
                self.return_at = Some(now + CREDIT_IDLE_MAX);
            }
        }
    }

    /// Gives back what idle streams hold beyond the initial window, so that a peer's budget serves who is busy.
    pub(super) fn return_idle_credit(&mut self, now: Instant) {
        if self.return_at.is_none_or(|at| now < at) || self.config.protocol == Protocol::V1 {
            return;
        }
        self.return_at = None;
        let Some(initial) = self.peer.as_ref().map(|peer| peer.initial_window as usize) else { return };
        let mut returned = Vec::new();
        for (id, stream) in self.streams.iter_mut().filter(|(_, stream)| stream.credit > initial) {
            let due = stream.active_at + CREDIT_IDLE_MAX;
            if due > now || !stream.unsent.is_empty() {
                let again = due.max(now + CREDIT_IDLE_MAX / 4);
                self.return_at = Some(self.return_at.map_or(again, |at| at.min(again)));
            } else if let Ok(bytes) = u32::try_from(stream.credit - initial)
                && stream.sending == Half::Open
            {
                stream.credit = initial;
                returned.push(Frame::Return { stream: id, bytes });
            }
        }
        for frame in returned {
            self.push_control(frame);
        }
    }

    pub(super) fn ping_if_due(&mut self, now: Instant) {
        if !self.is_established() {
            return;
        }
        if let Some(token) = self.keepalive.ping(now) {
            let token = (self.config.protocol == Protocol::Extended).then_some(token);
            // One ping waits at most: a socket that takes nothing needs no second one.
            self.control.retain(|frame| !matches!(frame, Frame::Ping { .. }));
            self.push_control(Frame::Ping { token });
        }
    }

    /// What the budget's growth part holds for this session's streams.
    pub(super) fn growth(&self) -> usize {
        self.streams.iter().map(|(_, stream): (StreamId, &Stream)| stream.growth()).sum()
    }
}
