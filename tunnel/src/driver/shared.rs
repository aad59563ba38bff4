//! What driver, handles and streams share: the session under a lock that is never held across an await, and wakers.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::error::{OpenError, Reason, SessionError, StreamError};
use crate::frame::{Frame, FrameError, Hello, Open};
use crate::id::StreamId;
use crate::session::{Event, Read, Session, SessionStats};
use crate::stream::TunnelStream;

/// What everybody sees of a session without its lock.
#[derive(Debug, Clone, Default)]
struct State {
    established: bool,
    suspect: bool,
    going_away: Option<(Reason, Duration)>,
    ended: Option<SessionError>,
}

impl State {
    /// Adds what is new and says whether anything was.
    fn note(&mut self, established: bool, going_away: Option<(Reason, Duration)>, ended: Option<SessionError>) -> bool {
        let before = (self.established, self.going_away, self.ended.is_some());
        self.established |= established;
        self.going_away = going_away.or(self.going_away);
        self.ended = self.ended.take().or(ended);
        before != (self.established, self.going_away, self.ended.is_some())
    }
}

/// The state for all to see. Who waits is woken in the order in which they came; a `watch` wakes by dice of its own.
#[derive(Default)]
struct Board {
    state: Mutex<State>,
    changed: Notify,
}

impl Board {
    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state and tells all, if `change` says that it did.
    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        if change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner)) {
            self.changed.notify_waiters();
        }
    }

    /// Resolves as soon as `look` finds something. Cancel-safe.
    async fn find<T>(&self, look: impl Fn(&State) -> Option<T>) -> T {
        loop {
            // Before the look, so that a change between the two is not missed.
            let changed = self.changed.notified();
            if let Some(found) = self.look(&look) {
                return found;
            }
            changed.await;
        }
    }
}

/// What the driver asks a session each time it wakes.
pub(super) struct Outlook {
    pub(super) ended: Option<SessionError>,
    pub(super) deadline: Instant,
    pub(super) is_established: bool,
    pub(super) is_drained: bool,
    pub(super) has_output: bool,
}

pub(crate) struct Shared {
    inner: Mutex<Inner>,
    driver: AtomicWaker,
    board: Board,
    /// Holds every stream the peer may open at once, so sending never finds it full: `streams_max` is the session's.
    opened: mpsc::Sender<(Open, StreamId)>,
}

struct Inner {
    session: Session,
    wakers: BTreeMap<StreamId, StreamWakers>,
}

#[derive(Default)]
struct StreamWakers {
    read: Option<Waker>,
    write: Option<Waker>,
    cut: Option<Waker>,
}

impl Shared {
    pub(super) fn new(session: Session) -> (Arc<Self>, Incoming) {
        let (opened, incoming) = mpsc::channel(session.streams_max().max(1));
        let established = session.is_established();
        let shared = Arc::new(Self {
            inner: Mutex::new(Inner { session, wakers: BTreeMap::new() }),
            driver: AtomicWaker::new(),
            board: Board { state: Mutex::new(State { established, ..State::default() }), changed: Notify::new() },
            opened,
        });
        (shared.clone(), Incoming { shared, incoming })
    }

    /// Does something with the session, then passes on what came of it.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Session, Instant) -> T) -> T {
        let mut inner = self.lock();
        let result = act(&mut inner.session, Instant::now());
        self.settle(inner);
        result
    }

    pub(crate) fn poll_read(&self, id: StreamId, max: usize, cx: &Context<'_>) -> Result<Read, StreamError> {
        let mut inner = self.lock();
        let read = inner.session.read(id, max, Instant::now());
        if matches!(read, Ok(Read::Blocked)) {
            inner.wakers.entry(id).or_default().read = Some(cx.waker().clone());
        }
        self.settle(inner);
        read
    }

    /// Writes the pieces one behind the other, as far as there is room.
    pub(crate) fn poll_write(&self, id: StreamId, pieces: &[IoSlice<'_>], cx: &Context<'_>) -> Result<usize, StreamError> {
        let mut inner = self.lock();
        let written = inner.session.write_pieces(id, pieces, Instant::now());
        if matches!(written, Ok(0)) {
            inner.wakers.entry(id).or_default().write = Some(cx.waker().clone());
        }
        self.settle(inner);
        written
    }

    pub(crate) fn poll_cut(&self, id: StreamId, cx: &Context<'_>) -> Poll<StreamError> {
        let mut inner = self.lock();
        if let Some(error) = inner.session.cut(id) {
            return Poll::Ready(error.clone());
        }
        if inner.session.is_held(id) {
            inner.wakers.entry(id).or_default().cut = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(crate) fn detach(&self, id: StreamId) {
        let mut inner = self.lock();
        // Dropped behind the lock, since a waker's drop is foreign code.
        let _wakers = inner.wakers.remove(&id);
        inner.session.detach(id);
        self.settle(inner);
    }

    pub(super) fn register_driver(&self, waker: &Waker) {
        self.driver.register(waker);
    }

    pub(super) fn handle(&self, frame: Result<Frame, FrameError>) -> Result<(), SessionError> {
        let frame = frame?;
        self.with(|session, now| session.handle_frame(frame, now))
    }

    pub(super) fn handle_timeout(&self) -> Result<(), SessionError> {
        self.with(|session, now| session.handle_timeout(now))
    }

    pub(super) fn poll_frame(&self, payload_max: usize) -> Option<Frame> {
        self.with(|session, now| session.poll_frame_within(payload_max, now))
    }

    /// Fills `batch` with messages of up to `bytes_max` in all; it ends early when less than `filler_min` is left.
    pub(super) fn poll_batch(&self, batch: &mut Vec<Bytes>, bytes_max: usize, filler_min: usize) -> usize {
        self.with(|session, now| {
            let mut bytes = 0;
            while bytes + filler_min <= bytes_max
                && let Some(frame) = session.poll_frame_within(bytes_max - bytes, now)
            {
                let message = frame.encode();
                bytes += message.len();
                batch.push(message);
            }
            bytes
        })
    }

    pub(super) fn is_established(&self) -> bool {
        self.board.look(|state| state.established)
    }

    pub(super) fn outlook(&self) -> Outlook {
        let inner = self.lock();
        let session = &inner.session;
        Outlook {
            ended: session.ended().cloned(),
            deadline: session.deadline(),
            is_established: session.is_established(),
            is_drained: session.is_drained(),
            has_output: session.has_output(),
        }
    }

    pub(super) fn end(&self, error: SessionError) {
        self.with(|session, _| session.end(error));
    }

    /// Tells wakers and watchers what happened, outside of the lock.
    fn settle(&self, mut inner: MutexGuard<'_, Inner>) {
        let mut wakers = Vec::new();
        let mut opened = Vec::new();
        let mut established = false;
        let mut going_away = None;
        let mut suspect = None;
        while let Some(event) = inner.session.poll_event() {
            match event {
                Event::Readable(id) => wakers.extend(inner.wakers.get_mut(&id).and_then(|wakers| wakers.read.take())),
                // An end wakes writers too, so whoever watches for one looks then.
                Event::Writable(id) => {
                    let of_stream = inner.wakers.get_mut(&id);
                    wakers.extend(of_stream.into_iter().flat_map(|wakers| [wakers.write.take(), wakers.cut.take()]).flatten());
                }
                Event::Opened(id, open) => opened.push((open, id)),
                Event::Established(_) => established = true,
                Event::Suspect => suspect = Some(true),
                Event::Trusted => suspect = Some(false),
                Event::GoAway { reason, grace } => going_away = Some((reason, grace)),
            }
        }
        let ended = inner.session.ended().cloned();
        let output = inner.session.take_output();
        drop(inner);
        if established || going_away.is_some() || ended.is_some() {
            self.board.change(|state| state.note(established, going_away, ended));
        }
        if let Some(suspect) = suspect {
            self.board.change(|state| std::mem::replace(&mut state.suspect, suspect) != suspect);
        }
        for (open, id) in opened {
            // Full or gone: nobody takes streams any more.
            if let Err(error) = self.opened.try_send((open, id)) {
                let (_, id) = error.into_inner();
                self.refuse(id);
            }
        }
        wakers.into_iter().for_each(Waker::wake);
        if output {
            self.driver.wake();
        }
    }

    /// Turns away a stream that nobody took.
    fn refuse(&self, id: StreamId) {
        self.with(|session, _| {
            session.reset(id, Reason::Limit, "nobody takes streams");
            session.detach(id);
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens streams on a session and watches over it. Cheap to clone.
#[derive(Clone)]
pub struct SessionHandle {
    shared: Arc<Shared>,
}

impl SessionHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Opens a stream; bytes may be written to it at once.
    pub fn open(&self, open: Open) -> Result<TunnelStream, OpenError> {
        let id = self.shared.with(|session, now| session.open(open, now))?;
        Ok(TunnelStream::new(self.shared.clone(), id))
    }

    /// Whether a ping is without an answer for so long that another session might do better. Its streams go on waiting.
    pub fn is_suspect(&self) -> bool {
        self.shared.board.look(|state| state.suspect)
    }

    /// Whether streams can be opened: the peer said hello, nobody said go-away, nothing ended.
    pub fn is_open(&self) -> bool {
        self.shared.is_established() && self.shared.lock().session.is_open()
    }

    /// Streams that run now.
    pub fn n_streams(&self) -> usize {
        self.shared.lock().session.n_streams()
    }

    /// Counts for metrics.
    pub fn stats(&self) -> SessionStats {
        self.shared.lock().session.stats()
    }

    /// Tells the peer a word that it may want to keep; it is in its [`SessionHandle::peer`].
    pub fn tell(&self, note: String) {
        self.shared.with(|session, _| session.tell(note));
    }

    /// How far the peer is, once measured.
    pub fn rtt(&self) -> Option<Duration> {
        self.shared.lock().session.rtt()
    }

    /// The peer's hello, once it came; never for version 1.
    pub fn peer(&self) -> Option<Hello> {
        self.shared.lock().session.peer().cloned()
    }

    /// Takes no new streams and asks the peer to dial another session first; the session ends when its streams have.
    pub fn go_away(&self, reason: Reason, grace: Duration) {
        self.shared.with(|session, _| session.go_away(reason, grace));
    }

    /// Ends the session at once.
    pub fn close(&self, reason: Reason) {
        self.shared.with(|session, _| {
            session.go_away(reason, Duration::ZERO);
            session.end(SessionError::Closed(reason));
        });
    }

    /// Resolves when the peer has said hello, or with how the session ended before. Cancel-safe.
    pub async fn established(&self) -> Result<(), SessionError> {
        let outcome = |state: &State| match &state.ended {
            Some(error) => Some(Err(error.clone())),
            None => state.established.then_some(Ok(())),
        };
        self.shared.board.find(outcome).await
    }

    /// Resolves when the peer asks to dial another session first. Cancel-safe; never resolves when it just ends.
    pub async fn going_away(&self) -> (Reason, Duration) {
        self.shared.board.find(|state| state.going_away).await
    }

    /// Resolves when the session is suspect, or not suspect any more. Cancel-safe; never resolves when it just ends.
    pub async fn suspicion(&self, suspect: bool) {
        self.shared.board.find(|state| (state.suspect == suspect && state.ended.is_none()).then_some(())).await;
    }

    /// Resolves with how the session ended. Cancel-safe.
    pub async fn ended(&self) -> SessionError {
        self.shared.board.find(|state| state.ended.clone()).await
    }
}

/// The streams that the peer opens.
pub struct Incoming {
    shared: Arc<Shared>,
    incoming: mpsc::Receiver<(Open, StreamId)>,
}

impl Incoming {
    /// The next stream, or none when the session has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<(Open, TunnelStream)> {
        let next = tokio::select! {
            biased;
            next = self.incoming.recv() => next,
            () = self.shared.board.find(|state| state.ended.is_some().then_some(())) => None,
        };
        next.map(|(open, id)| (open, TunnelStream::new(self.shared.clone(), id)))
    }
}

impl Drop for Incoming {
    /// Streams that were opened and never taken hold memory of both ends.
    fn drop(&mut self) {
        self.incoming.close();
        while let Ok((_, id)) = self.incoming.try_recv() {
            self.shared.refuse(id);
        }
    }
}
