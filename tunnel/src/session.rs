//! Session: the pure state machine of one tunnel. Frames in, frames out, events, deadlines; no clock, no socket, no task.
//!
//! ```text
//!               handle_frame ──▶ ┌─────────┐ ──▶ poll_frame
//!                                │ Session │ ──▶ poll_event
//!   open read write finish ────▶ └─────────┘ ──▶ deadline / handle_timeout
//! ```
//!
//! Two dialects share it: version 1 (`v1.rs`) and the extended protocol (`extended.rs`). What both have in common is
//! here: streams, windows, the schedule, keepalive.

mod chunks;
mod close;
mod extended;
mod keepalive;
mod output;
mod schedule;
mod streams;
mod v1;
mod window;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::budget::Budget;
use crate::error::{OpenError, ProtocolError, Reason, SessionError, StreamError};
use crate::frame::{Frame, Hello, Open};
use crate::id::StreamId;
use keepalive::Keepalive;
use schedule::Schedule;
use streams::{Connect, Half, SEND_QUEUE_MIN, Stream, Streams};

/// Control frames that may wait for the socket: a few for each of the streams there may be. They answer the peer's own
/// frames, and a peer that causes more without reading is broken or hostile; the local side may fill half of it.
const CONTROL_MAX: usize = 4096;

/// Credit beyond this is no credit but an error: no window is that large.
const CREDIT_MAX: usize = 1 << 31;

/// After how long without a byte of its server an agent pings. From a cut on that, the time until it suspects (3 s) and
/// the time for another session must be less than the longest pause that a way may keep after healing: a kernel that
/// repeats a byte 6.2 s after the cut does so again 6.4 s later, and 5 s are promised.
const PING_INTERVAL: Duration = Duration::from_secs(8);

/// How much longer a server waits than its agent, so that one of two idle peers pings, and the same one.
const PING_LEAD: Duration = Duration::from_secs(2);

/// Which end of the tunnel this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Opens streams.
    Server,
    /// Takes streams.
    Agent,
}

/// Which protocol was negotiated in the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The wire of argocd-cluster-proxy.
    V1,
    /// The same with the extensions of PROTOCOL.md.
    Extended,
}

/// What a session needs to know.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Which end this is.
    pub role: Role,
    /// What was negotiated.
    pub protocol: Protocol,
    /// A name for the peer's logs.
    pub name: String,
    /// Bytes that the peer may send on a new stream before any Credit; reserved for every stream. 32 KiB answer most
    /// requests in one go.
    pub initial_window: u32,
    /// Streams held at once; more are refused.
    pub streams_max: usize,
    /// A stream of a version 1 peer, which knows no credit, may hold this much unread; beyond it is aborted.
    pub v1_stream_max: usize,
    /// After how long without a byte of the peer to ping; how often, to version 1.
    pub ping_interval: Duration,
    /// How long the peer may be silent.
    pub silence_max: Duration,
    /// The memory budget of this session.
    pub budget: Arc<Budget>,
}

impl SessionConfig {
    /// The defaults of `role` over `protocol`, within `budget`.
    pub fn new(role: Role, protocol: Protocol, budget: Arc<Budget>) -> Self {
        Self {
            role,
            protocol,
            name: String::new(),
            initial_window: 32 * 1024,
            streams_max: 1024,
            v1_stream_max: 4 * 1024 * 1024,
            ping_interval: match (protocol, role) {
                (Protocol::V1, Role::Server | Role::Agent) => Duration::from_secs(15),
                (Protocol::Extended, Role::Agent) => PING_INTERVAL,
                (Protocol::Extended, Role::Server) => PING_INTERVAL + PING_LEAD,
            },
            silence_max: Duration::from_secs(45),
            budget,
        }
    }
}

/// What happened that the local side should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer said hello; streams may be opened.
    Established(Hello),
    /// The peer opened a stream.
    Opened(StreamId, Open),
    /// Reading a stream will not block.
    Readable(StreamId),
    /// Writing a stream will not block.
    Writable(StreamId),
    /// A ping is without an answer, and nothing was heard since: another session might do better.
    Suspect,
    /// The answer came after all.
    Trusted,
    /// The peer asks to dial another session first and to end this one.
    GoAway {
        /// Why.
        reason: Reason,
        /// How long running streams may go on.
        grace: Duration,
    },
}

/// What reading a stream gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Some bytes.
    Bytes(Bytes),
    /// Nothing yet.
    Blocked,
    /// Everything was read.
    End,
}

/// Counts for metrics and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionStats {
    /// Frames for streams that had ended before; normal at ends, many from a version 1 peer.
    pub frames_late: u64,
    /// Data bytes received.
    pub bytes_received: u64,
    /// Data bytes sent.
    pub bytes_sent: u64,
    /// How often a stream that had more to send ran out of credit.
    pub credit_stalls: u64,
    /// Streams by class, in the order of [`Class::ALL`](crate::frame::Class::ALL).
    pub streams: [usize; 4],
    /// Bytes that came and were not read, or were written and have not left.
    pub buffered: usize,
}

/// One live connection between server and agent, as a pure state machine.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    streams: Streams,
    schedule: Schedule,
    keepalive: Keepalive,
    control: VecDeque<Frame>,
    /// The latest ping that waits for its pong; earlier ones need no answer any more.
    pong_due: Option<Option<u64>>,
    grants_due: VecDeque<StreamId>,
    events: VecDeque<Event>,
    peer: Option<Hello>,
    /// What the peer was told last.
    note: String,
    /// Either side said go-away.
    draining: bool,
    ended: Option<SessionError>,
    /// There is something new for the socket.
    output: bool,
    /// When idle credit is looked at next.
    return_at: Option<Instant>,
    stats: SessionStats,
}

impl Session {
    /// A session that begins now.
    pub fn new(config: SessionConfig, now: Instant) -> Self {
        let by_the_clock = config.protocol == Protocol::V1;
        let keepalive = Keepalive::new(config.ping_interval, config.silence_max, by_the_clock, now);
        let mut session = Self {
            streams: Streams::default(),
            schedule: Schedule::default(),
            keepalive,
            control: VecDeque::new(),
            pong_due: None,
            grants_due: VecDeque::new(),
            events: VecDeque::new(),
            peer: None,
            note: String::new(),
            draining: false,
            ended: None,
            output: false,
            return_at: None,
            stats: SessionStats::default(),
            config,
        };
        session.begin();
        session
    }

    /// Takes one frame of the peer. An error has ended the session.
    pub fn handle_frame(&mut self, frame: Frame, now: Instant) -> Result<(), SessionError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        self.keepalive.heard(now);
        let result = match self.config.protocol {
            Protocol::V1 => self.handle_v1(frame, now),
            Protocol::Extended => self.handle_extended(frame, now),
        };
        match result {
            Ok(()) if self.control.len() <= CONTROL_MAX => Ok(()),
            Ok(()) => Err(self.end(SessionError::Protocol(ProtocolError::Flood))),
            Err(error) => Err(self.end(SessionError::Protocol(error))),
        }
    }

    /// A byte came from the peer, frame or part of one.
    pub fn heard(&mut self, now: Instant) {
        self.keepalive.heard(now);
    }

    /// What the local side should know next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Session::handle_timeout`] wants to be called.
    pub fn deadline(&self) -> Instant {
        // Nobody is pinged before the hello, so no ping is due before it either.
        let ping_at = self.keepalive.ping_at().filter(|_| self.is_established());
        let silent_at = self.keepalive.silent_at();
        [ping_at, self.keepalive.suspect_at(), self.return_at].into_iter().flatten().fold(silent_at, Instant::min)
    }

    /// Does what is due. An error has ended the session.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), SessionError> {
        if let Some(silence) = self.keepalive.silent(now) {
            return Err(self.end(SessionError::PeerSilent { silence }));
        }
        self.ping_if_due(now);
        if self.keepalive.suspect_if_due(now) {
            self.events.push_back(Event::Suspect);
        }
        self.return_idle_credit(now);
        Ok(())
    }

    /// Opens a stream; its bytes may follow at once.
    pub fn open(&mut self, open: Open, now: Instant) -> Result<StreamId, OpenError> {
        if self.ended.is_some() {
            return Err(OpenError::Ended);
        }
        if self.draining {
            return Err(OpenError::Draining);
        }
        let peer_max = self.peer.as_ref().map_or(usize::MAX, |peer| peer.streams_max as usize);
        let max = self.config.streams_max.min(peer_max);
        // Streams that came and went while the socket took nothing are gone, but their frames are not.
        if self.streams.len() >= max || self.control.len() >= CONTROL_MAX / 2 {
            return Err(OpenError::Streams { max });
        }
        let id = StreamId(self.streams.last.checked_add(1).ok_or(OpenError::Ids)?);
        if !self.config.budget.reserve_fixed(self.stream_cost()) {
            return Err(OpenError::Budget);
        }
        let (credit, connect, frame) = match self.config.protocol {
            Protocol::V1 => (CREDIT_MAX, Connect::Pending, Frame::Connect { stream: id, target: open.target.clone() }),
            Protocol::Extended => {
                let credit = self.peer.as_ref().map_or(0, |peer| peer.initial_window as usize);
                (credit, Connect::Done, Frame::Open { stream: id, open: open.clone() })
            }
        };
        self.streams.insert(id, Stream::new(open.class, self.config.initial_window as usize, credit, connect, now));
        self.push_control(frame);
        if id.0 == u32::MAX {
            // A session without ids serves nobody; the streams that run may take all the time they need.
            self.go_away(Reason::Limit, Duration::from_millis(u32::MAX.into()));
        }
        Ok(id)
    }

    /// Accepts a stream that the peer opened. Only version 1 tells the peer; until then its data does not flow.
    pub fn accept(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.connect == Connect::Pending {
            stream.connect = Connect::Done;
            self.push_control(Frame::Connected { stream: id });
            self.schedule_if_ready(id, now);
        }
    }

    /// Reads up to `max` bytes.
    pub fn read(&mut self, id: StreamId, max: usize, now: Instant) -> Result<Read, StreamError> {
        let stream = self.streams.get_mut(id).ok_or(StreamError::Closed)?;
        if let Half::Cut(error) = &stream.receiving {
            return Err(error.clone());
        }
        let bytes = stream.unread.pop(max);
        if bytes.is_empty() && max > 0 {
            return Ok(if stream.receiving == Half::Finished { Read::End } else { Read::Blocked });
        }
        stream.window.read(bytes.len(), now, self.keepalive.rtt_or_assumed(), &self.config.budget);
        if stream.window.wants_grant() && !stream.grant_queued {
            stream.grant_queued = true;
            self.grants_due.push_back(id);
            self.output = true;
        }
        Ok(Read::Bytes(bytes))
    }

    /// Queues as much of `data` as credit and budget allow and says how much; zero means blocked.
    pub fn write(&mut self, id: StreamId, data: &[u8], now: Instant) -> Result<usize, StreamError> {
        self.write_pieces(id, &[IoSlice::new(data)], now)
    }

    /// The same for pieces that follow each other; they leave in the same frames as one piece would.
    pub(crate) fn write_pieces(&mut self, id: StreamId, pieces: &[IoSlice<'_>], now: Instant) -> Result<usize, StreamError> {
        let len = pieces.iter().map(|piece| piece.len()).sum();
        let stream = self.streams.get_mut(id).ok_or(StreamError::Closed)?;
        match &stream.sending {
            Half::Open => {}
            Half::Finishing | Half::Finished => return Err(StreamError::Closed),
            // The peer reads no more and has said all: what is written goes nowhere, which must not keep its last words
            // from being read.
            Half::Cut(StreamError::Reset { reason: Reason::Done, .. }) if self.config.protocol == Protocol::Extended => {
                return Ok(len);
            }
            Half::Cut(error) => return Err(error.clone()),
        }
        let n = stream.queue_room(len, &self.config.budget);
        if n < len && stream.credit == n && !std::mem::replace(&mut stream.is_stalled, true) {
            self.stats.credit_stalls += 1;
        }
        if n > 0 {
            stream.unsent.push_pieces(pieces, n);
            if self.config.protocol == Protocol::Extended {
                stream.credit -= n;
            }
            stream.active_at = now;
            self.schedule_if_ready(id, now);
        }
        Ok(n)
    }

    /// How the peer, or the session, ended a stream before its time; none while it runs or when it ends well.
    pub fn cut(&self, id: StreamId) -> Option<&StreamError> {
        let stream = self.streams.get(id)?;
        [&stream.sending, &stream.receiving].into_iter().find_map(|half| match half {
            Half::Cut(StreamError::Closed) | Half::Open | Half::Finishing | Half::Finished => None,
            Half::Cut(error) => Some(error),
        })
    }

    /// Half-closes: what is queued still goes out, then the peer reads the end.
    pub fn finish(&mut self, id: StreamId, now: Instant) {
        if let Some(stream) = self.streams.get_mut(id)
            && stream.sending == Half::Open
        {
            stream.sending = Half::Finishing;
            self.schedule_if_ready(id, now);
        }
    }

    /// The peer's hello, once it came.
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// Whether somebody holds the stream.
    pub(crate) fn is_held(&self, id: StreamId) -> bool {
        self.streams.get(id).is_some_and(|stream| !stream.detached)
    }

    /// Whether a ping is without an answer for so long that another session might do better.
    pub fn is_suspect(&self) -> bool {
        self.keepalive.is_suspect()
    }

    /// How far the peer is, once measured.
    pub fn rtt(&self) -> Option<Duration> {
        self.keepalive.rtt()
    }

    /// Streams in the table, those on their way out included.
    pub fn n_streams(&self) -> usize {
        self.streams.len()
    }

    /// Counts for metrics and tests. Looks at every stream.
    pub fn stats(&self) -> SessionStats {
        let mut stats = self.stats;
        for (_, stream) in self.streams.iter() {
            stats.streams[stream.turn.opened_as() as usize] += 1;
            stats.buffered += stream.unread.len() + stream.unsent.len();
        }
        stats
    }

    /// Tells the peer a word that it may want to keep, in place of the one before. Version 1 peers are told nothing.
    pub fn tell(&mut self, note: String) {
        if self.config.protocol == Protocol::Extended && self.ended.is_none() && self.note != note {
            self.note = note;
            self.push_control(Frame::Hello(self.hello()));
        }
    }

    /// Whether new streams can be opened, as far as the session's own state goes.
    pub fn is_open(&self) -> bool {
        self.ended.is_none() && !self.draining
    }

    /// Whether the peer is known to be there: its hello came, or it speaks version 1, which has none.
    pub fn is_established(&self) -> bool {
        self.peer.is_some() || self.config.protocol == Protocol::V1
    }

    /// How many streams this side holds at most.
    pub fn streams_max(&self) -> usize {
        self.config.streams_max
    }

    /// Whether one side said go-away, nothing runs any more and it is for this side to end the session.
    ///
    /// An agent leaves that to its server, who alone knows that no open is on its way. A version 1 server is never told,
    /// so there the agent does it.
    pub fn is_drained(&self) -> bool {
        self.draining && self.streams.len() == 0 && (!self.is_agent() || self.config.protocol == Protocol::V1)
    }

    /// Which protocol is spoken.
    pub fn protocol(&self) -> Protocol {
        self.config.protocol
    }

    /// Whether [`Session::poll_frame`] may have something to give.
    pub(crate) fn has_output(&self) -> bool {
        let waits = !self.control.is_empty() || self.pong_due.is_some() || !self.grants_due.is_empty();
        waits || !self.schedule.is_empty()
    }

    /// Whether there was new output since the last call; the driver is to be woken then.
    pub(crate) fn take_output(&mut self) -> bool {
        std::mem::take(&mut self.output)
    }

    /// What every stream reserves: its initial window and its least queue.
    fn stream_cost(&self) -> usize {
        self.config.initial_window as usize + SEND_QUEUE_MIN
    }

    fn hello(&self) -> Hello {
        Hello {
            version_min: crate::handshake::VERSION,
            version_max: crate::handshake::VERSION,
            initial_window: self.config.initial_window,
            streams_max: u32::try_from(self.config.streams_max).unwrap_or(u32::MAX),
            streams: u32::try_from(self.streams.len()).unwrap_or(u32::MAX),
            name: self.config.name.clone(),
            note: self.note.clone(),
        }
    }

    /// The answer to a ping came.
    fn take_pong(&mut self, token: Option<u64>, now: Instant) {
        let was_suspect = self.keepalive.is_suspect();
        self.keepalive.pong(token, now);
        if was_suspect && !self.keepalive.is_suspect() {
            self.events.push_back(Event::Trusted);
        }
    }

    fn begin(&mut self) {
        match self.config.protocol {
            // Version 1 has no hello; whoever upgraded is there.
            Protocol::V1 => {}
            Protocol::Extended => self.push_control(Frame::Hello(self.hello())),
        }
    }

    fn push_control(&mut self, frame: Frame) {
        self.control.push_back(frame);
        self.output = true;
    }

    fn schedule_if_ready(&mut self, id: StreamId, now: Instant) {
        if let Some(stream) = self.streams.get_mut(id)
            && stream.has_output()
        {
            self.schedule.push(id, &mut stream.turn, now);
            self.output = true;
        }
    }

    /// Delivers data to the reader.
    fn deliver(&mut self, id: StreamId, payload: &[u8]) {
        self.stats.bytes_received += payload.len() as u64;
        if let Some(stream) = self.streams.get_mut(id) {
            let was_empty = stream.unread.is_empty();
            stream.unread.push(payload);
            if was_empty {
                self.events.push_back(Event::Readable(id));
            }
        }
    }

    fn wake_both(&mut self, id: StreamId) {
        self.events.push_back(Event::Readable(id));
        self.events.push_back(Event::Writable(id));
    }

    fn is_agent(&self) -> bool {
        self.config.role == Role::Agent
    }
}
