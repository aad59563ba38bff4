//! How bytes move: an ordered queue of events, worked off when their time has come.

use std::collections::BTreeMap;
use std::io;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::link::Link;
use super::marks::{Crossing, Crossings};
use super::pipe::{Conn, End, Fin, Parcel, Pipe, PipeId};

/// What a recording may hold: the largest body of any story, several times.
const TAP_MAX: usize = 64 * 1024 * 1024;

/// What happens at a moment.
pub(super) enum Event {
    /// The last byte of a segment left the line.
    Left { link: usize, direction: usize, n_bytes: usize },
    /// The first parcel of the pipe's flight may have come.
    Arrives(PipeId),
    /// What a cut swallowed of the pipe is repeated, unless the link is blocked.
    SentAgain(PipeId),
    /// The keepalive probes of `ends[side]` were answered by a reset, or by nobody.
    Probed { conn: u64, side: usize },
}

/// All links and connections.
pub(super) struct Traffic {
    pub(super) links: Vec<Link>,
    pub(super) conns: BTreeMap<u64, Conn>,
    events: BTreeMap<(Instant, u64), Event>,
    n_events: u64,
    n_conns: u64,
    /// Woken when the lock is released: a waker may run code that takes it.
    pub(super) wakers: Vec<Waker>,
    /// Per tapped link and direction: the bytes of each connection.
    pub(super) taps: BTreeMap<(usize, usize), BTreeMap<u64, Vec<u8>>>,
    pub(super) crossings: Crossings,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self {
            links: Vec::new(),
            conns: BTreeMap::new(),
            events: BTreeMap::new(),
            n_events: 0,
            n_conns: 0,
            wakers: Vec::new(),
            taps: BTreeMap::new(),
            crossings: Crossings::new(),
        }
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Works off what is due and tells when the next event is.
    pub(super) fn run_due(&mut self, now: Instant) -> Option<Instant> {
        while let Some(entry) = self.events.first_entry() {
            let at = entry.key().0;
            if at > now {
                return Some(at);
            }
            match entry.remove() {
                Event::Left { link, direction, n_bytes } => {
                    self.links[link].lines[direction].left(n_bytes, now);
                    self.pump(link, direction, now);
                }
                Event::Arrives(pipe) => self.arrives(pipe, now),
                Event::SentAgain(pipe) => self.send_again(pipe, now),
                Event::Probed { conn, side } => self.probed(conn, side),
            }
        }
        None
    }

    pub(super) fn at(&mut self, at: Instant, event: Event) {
        self.n_events += 1;
        self.events.insert((at, self.n_events), event);
    }

    /// A connection between two ends; the first dialled.
    pub(super) fn open(&mut self, link: usize, direction: usize, ends: [End; 2]) -> u64 {
        self.n_conns += 1;
        self.conns.insert(self.n_conns, Conn { link, direction, ends, pipes: [Pipe::new(), Pipe::new()] });
        self.n_conns
    }

    /// Has the pipe's line work on what it has to say.
    pub(super) fn enqueue(&mut self, id: PipeId, now: Instant) {
        let Some((link, direction)) = self.line_up(id) else { return };
        match self.links[link].n_cuts {
            0 => self.pump(link, direction, now),
            _ => self.cut(link, now),
        }
    }

    /// Puts the pipe in line, if it has something to say and room to say it and does not stand there yet.
    fn line_up(&mut self, id: PipeId) -> Option<(usize, usize)> {
        let conn = self.conns.get_mut(&id.conn)?;
        let (link, direction) = (conn.link, conn.line(id.side));
        let window = self.links[link].wan.window();
        let pipe = &mut conn.pipes[id.side];
        // Small openings of a full window are not worth a segment (silly windows, RFC 9293 section 3.8.6.2).
        let has_room = window.saturating_sub(pipe.n_window) >= pipe.n_unsent.min(window / 4);
        if pipe.queued || pipe.lost.is_some() || !(pipe.n_unsent > 0 && has_room || pipe.n_unsent == 0 && pipe.fin == Fin::Waits)
        {
            return None;
        }
        pipe.queued = true;
        self.links[link].lines[direction].ready.push_back(id);
        Some((link, direction))
    }

    /// Puts segments on a line as long as it takes them.
    pub(super) fn pump(&mut self, link: usize, direction: usize, now: Instant) {
        while self.links[link].has_room(direction) {
            let way = &mut self.links[link];
            let Some(id) = way.lines[direction].ready.pop_front() else { return };
            let Some(conn) = self.conns.get_mut(&id.conn) else { continue };
            let (end, pipe) = (&mut conn.ends[id.side], &mut conn.pipes[id.side]);
            pipe.queued = false;
            let parcel = if pipe.n_unsent > 0 {
                let room = way.wan.window().saturating_sub(pipe.n_window);
                if room == 0 {
                    continue;
                }
                let segment = pipe.take_segment(way.segment_max(direction).min(room));
                pipe.n_window += segment.len();
                if pipe.n_unsent <= way.wan.notsent_lowat / 2 {
                    self.wakers.extend(end.writer.take());
                }
                Parcel::Bytes(segment)
            } else if pipe.fin == Fin::Waits {
                pipe.fin = Fin::Sent;
                Parcel::Fin
            } else {
                continue;
            };
            self.send(link, direction, id, parcel, now);
        }
    }

    /// Puts one parcel on a line: when it leaves and arrives is known from then on.
    fn send(&mut self, link: usize, direction: usize, id: PipeId, parcel: Parcel, now: Instant) {
        let Some(conn) = self.conns.get_mut(&id.conn) else { return };
        let (way, pipe) = (&mut self.links[link], &mut conn.pipes[id.side]);
        let n_bytes = if let Parcel::Bytes(bytes) = &parcel { bytes.len() } else { 0 };
        let takes = Duration::from_secs_f64(n_bytes as f64 / way.bytes_per_second(direction) as f64);
        let left_at = way.lines[direction].push(n_bytes, takes, now);
        let earliest = left_at + way.travel(direction, pipe.n_unsent >= 3 * super::link::MSS);
        let arrival = pipe.flight.back().map_or(earliest, |(before, _)| earliest.max(*before));
        if let Parcel::Bytes(bytes) = &parcel {
            let [from, to] = [id.side, 1 - id.side].map(|side| &conn.ends[side].machine);
            pipe.tail.scan(bytes, |kind, owner| {
                self.crossings.insert(Crossing { from: from.clone(), to: to.clone(), kind, owner });
            });
        }
        if let (Parcel::Bytes(bytes), Some(tap)) = (&parcel, self.taps.get_mut(&(link, direction))) {
            let recorded = tap.entry(id.conn).or_default();
            recorded.extend_from_slice(&bytes[..bytes.len().min(TAP_MAX - recorded.len())]);
        }
        pipe.flight.push_back((arrival, parcel));
        self.at(left_at, Event::Left { link, direction, n_bytes });
        self.at(arrival, Event::Arrives(id));
        // Who has more to say stands behind those that wait already.
        self.line_up(id);
    }

    /// Delivers what has come, unless the link is blocked: then it comes later.
    fn arrives(&mut self, id: PipeId, now: Instant) {
        let Some(conn) = self.conns.get_mut(&id.conn) else { return };
        let way = &mut self.links[conn.link];
        if conn.pipes[id.side].waits_for_repetition() {
            return;
        }
        while let Some((_, parcel)) = conn.pipes[id.side].flight.pop_front_if(|(at, _)| *at <= now) {
            if way.blocked() {
                let pipe = &mut conn.pipes[id.side];
                match parcel {
                    Parcel::Bytes(_) | Parcel::Fin if way.n_cuts > 0 => pipe.lose(now - way.wan.latency),
                    Parcel::Bytes(_) | Parcel::Fin | Parcel::Reset => _ = way.late.insert(id),
                }
                pipe.flight.push_front((now, parcel));
                return;
            }
            let receiver = &mut conn.ends[1 - id.side];
            let pipe = &mut conn.pipes[id.side];
            match parcel {
                // Nobody is there to acknowledge: the window stays full.
                _ if receiver.gone => {}
                Parcel::Bytes(bytes) if receiver.held && receiver.error.is_none() => {
                    pipe.inbox.push_back(bytes);
                    self.wakers.extend(receiver.reader.take());
                }
                Parcel::Bytes(bytes) => {
                    pipe.n_window -= bytes.len();
                    let latency = way.wan.latency;
                    send_reset(&mut conn.pipes[1 - id.side], now + latency);
                    self.at(now + latency, Event::Arrives(PipeId { conn: id.conn, side: 1 - id.side }));
                    return self.forget_if_over(id.conn);
                }
                Parcel::Fin => {
                    pipe.eof = true;
                    self.wakers.extend(receiver.reader.take());
                }
                Parcel::Reset => {
                    receiver.fail(io::ErrorKind::ConnectionReset, &mut self.wakers);
                    conn.pipes[1 - id.side].forget_unsent();
                }
            }
        }
        self.forget_if_over(id.conn);
    }

    fn forget_if_over(&mut self, conn: u64) {
        if self.conns.get(&conn).is_some_and(Conn::is_over) {
            self.conns.remove(&conn);
        }
    }

    /// The program of `ends[side]` is dead: its kernel tells the other end.
    pub(super) fn abandon(&mut self, conn: u64, side: usize, now: Instant) {
        let Some(found) = self.conns.get_mut(&conn) else { return };
        if found.ends[side].error.is_none() {
            found.ends[side].fail(io::ErrorKind::ConnectionReset, &mut self.wakers);
            let arrival = now + self.links[found.link].wan.latency;
            send_reset(&mut found.pipes[side], arrival);
            self.at(arrival, Event::Arrives(PipeId { conn, side }));
        }
    }

    /// Lets the kernel of `ends[side]` look after `time` whether the other end is still there.
    pub(super) fn probe(&mut self, conn: u64, side: usize, time: Duration) {
        self.at(Instant::now() + time, Event::Probed { conn, side });
    }

    fn probed(&mut self, conn: u64, side: usize) {
        let Some(found) = self.conns.get_mut(&conn) else { return };
        let other = &found.ends[1 - side];
        // While bytes wait for their acknowledgement they are sent again, for a quarter of an hour, and nothing else is.
        if found.pipes[side].n_window == 0 && (other.gone || other.error.is_some()) {
            found.ends[side].fail(io::ErrorKind::TimedOut, &mut self.wakers);
            found.pipes[side].forget_unsent();
        }
        self.forget_if_over(conn);
    }

    pub(super) fn poll_read(&mut self, conn: u64, side: usize, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(found) = self.conns.get_mut(&conn) else { return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())) };
        let (end, pipe) = (&mut found.ends[side], &mut found.pipes[1 - side]);
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut n_read = 0;
        while let Some(front) = pipe.inbox.front_mut()
            && buf.remaining() > 0
        {
            let n = front.len().min(buf.remaining());
            buf.put_slice(&front[..n]);
            front.advance(n);
            n_read += n;
            if front.is_empty() {
                pipe.inbox.pop_front();
            }
        }
        if n_read > 0 {
            pipe.n_window -= n_read;
            self.enqueue(PipeId { conn, side: 1 - side }, Instant::now());
            return Poll::Ready(Ok(()));
        }
        match end.error {
            Some(error) => Poll::Ready(Err(error.into())),
            None if pipe.eof => Poll::Ready(Ok(())),
            None => {
                self.wakers.extend(replace(&mut end.reader, cx.waker()));
                Poll::Pending
            }
        }
    }

    pub(super) fn poll_write(&mut self, conn: u64, side: usize, cx: &Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Some(found) = self.conns.get_mut(&conn) else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let (end, pipe) = (&mut found.ends[side], &mut found.pipes[side]);
        if let Some(error) = end.error {
            return Poll::Ready(Err(error.into()));
        }
        if pipe.fin != Fin::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = self.links[found.link].wan.notsent_lowat.saturating_sub(pipe.n_unsent);
        if room == 0 && !data.is_empty() {
            self.wakers.extend(replace(&mut end.writer, cx.waker()));
            return Poll::Pending;
        }
        let n = data.len().min(room);
        if n > 0 {
            pipe.unsent.push_back(Bytes::copy_from_slice(&data[..n]));
            pipe.n_unsent += n;
            self.enqueue(PipeId { conn, side }, Instant::now());
        }
        Poll::Ready(Ok(n))
    }

    /// Half-closes: the end of bytes follows the last of them.
    pub(super) fn finish(&mut self, conn: u64, side: usize) {
        if let Some(found) = self.conns.get_mut(&conn)
            && found.ends[side].error.is_none()
            && found.pipes[side].fin == Fin::Open
        {
            found.pipes[side].fin = Fin::Waits;
            self.enqueue(PipeId { conn, side }, Instant::now());
        }
    }

    /// The program lets go of its socket. Bytes that it never read make this a reset (RFC 2525 section 2.17).
    pub(super) fn close(&mut self, conn: u64, side: usize) {
        let Some(found) = self.conns.get_mut(&conn) else { return };
        let end = &mut found.ends[side];
        end.held = false;
        (end.reader, end.writer) = (None, None);
        let unread = std::mem::take(&mut found.pipes[1 - side].inbox);
        if unread.is_empty() {
            self.finish(conn, side);
        } else {
            self.abandon(conn, side, Instant::now());
        }
        self.forget_if_over(conn);
    }
}

/// A reset overtakes what waits, but nothing that travels.
fn send_reset(pipe: &mut Pipe, arrival: Instant) {
    pipe.forget_unsent();
    pipe.fin = Fin::Sent;
    let arrival = pipe.flight.back().map_or(arrival, |(before, _)| arrival.max(*before));
    pipe.flight.push_back((arrival, Parcel::Reset));
}

fn replace(slot: &mut Option<Waker>, waker: &Waker) -> Option<Waker> {
    match slot {
        Some(held) if held.will_wake(waker) => None,
        // The one that waited before learns that it waits no longer.
        Some(held) => Some(std::mem::replace(held, waker.clone())),
        None => slot.replace(waker.clone()),
    }
}
