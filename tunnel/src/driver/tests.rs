//! Two drivers over a pipe in memory, or one against a peer that the test plays byte by byte; time is turned by hand.

use std::collections::VecDeque;
use std::io;

use futures_util::{SinkExt, StreamExt};
use host::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::time::timeout;

use super::*;
use crate::budget::Budget;
use crate::error::StreamError;
use crate::frame::{FrameError, Hello, Open};
use crate::id::StreamId;
use crate::stream::TunnelStream;

const MIB: usize = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);

/// One end whose driver runs.
struct End {
    handle: SessionHandle,
    incoming: Incoming,
    tasks: Tasks,
}

async fn end<S>(role: Role, protocol: Protocol, io: S, early: Bytes) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = SessionConfig::new(role, protocol, Arc::new(Budget::new(64 * MIB)));
    let (handle, incoming, driver) = start(config, io, early).await;
    let tasks = Tasks::new();
    tasks.spawn("driver", async move {
        driver.run().await;
    });
    End { handle, incoming, tasks }
}

/// Both ends over a pipe that holds so many bytes each way.
async fn pair(pipe: usize) -> (End, End) {
    let (left, right) = duplex(pipe);
    let server = end(Role::Server, Protocol::Extended, left, Bytes::new()).await;
    let agent = end(Role::Agent, Protocol::Extended, right, Bytes::new()).await;
    server.handle.established().await.unwrap();
    (server, agent)
}

/// A stream as both ends have it.
async fn stream(server: &End, agent: &mut End) -> (TunnelStream, TunnelStream) {
    let here = server.handle.open(Open::default()).unwrap();
    let (_, there) = agent.incoming.next().await.unwrap();
    (here, there)
}

/// An agent and its server, which the test plays.
async fn agent_and_peer(pipe: usize) -> (End, WebSocketStream<DuplexStream>) {
    let (left, right) = duplex(pipe);
    let agent = end(Role::Agent, Protocol::Extended, left, Bytes::new()).await;
    let peer = WebSocketStream::from_raw_socket(right, WebSocketRole::Server, None).await;
    (agent, peer)
}

async fn say(peer: &mut WebSocketStream<DuplexStream>, frame: Frame) {
    peer.send(Message::Binary(frame.encode())).await.unwrap();
}

fn hello() -> Frame {
    let (version_min, version_max, name) = (2, 2, String::new());
    Frame::Hello(Hello {
        version_min,
        version_max,
        initial_window: 1 << 24,
        streams_max: 1024,
        streams: 0,
        name,
        ..Hello::default()
    })
}

fn stream_error(error: &io::Error) -> &StreamError {
    error.get_ref().and_then(|inner| inner.downcast_ref()).expect("a stream error")
}

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_echoed_and_ends_with_its_writer() {
    let (server, mut agent) = pair(64 * 1024).await;
    let (mut here, there) = stream(&server, &mut agent).await;
    agent.tasks.spawn("echo", async move {
        let (mut read, mut write) = tokio::io::split(there);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    here.write_all(b"over there").await.unwrap();
    here.shutdown().await.unwrap();
    let mut echo = Vec::new();
    here.read_to_end(&mut echo).await.unwrap();
    assert_eq!(echo, b"over there");
    drop(here);
    while server.handle.n_streams() + agent.handle.n_streams() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn sixteen_mebibytes_go_both_ways_at_once_and_arrive_whole() {
    let (server, mut agent) = pair(32 * 1024).await;
    let (here, there) = stream(&server, &mut agent).await;
    let data = pattern(16 * MIB);
    let carry = async |stream: TunnelStream| {
        let (mut read, mut write) = tokio::io::split(stream);
        let (mut came, mut buffer) = (0, vec![0; 64 * 1024]);
        let send = async {
            write.write_all(&data).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let receive = async {
            loop {
                let n = read.read(&mut buffer).await.unwrap();
                if n == 0 {
                    break;
                }
                assert!(buffer[..n] == data[came..came + n], "other bytes at {came}");
                came += n;
            }
        };
        tokio::join!(send, receive);
        came
    };
    assert_eq!(tokio::join!(carry(here), carry(there)), (16 * MIB, 16 * MIB));
}

#[tokio::test(start_paused = true)]
async fn reading_does_not_wait_for_a_peer_that_never_reads_and_silence_is_still_noticed() {
    let (mut agent, mut peer) = agent_and_peer(4096).await;
    say(&mut peer, hello()).await;
    say(&mut peer, Frame::Open { stream: StreamId(1), open: Open::default() }).await;
    let (_, mut stream) = agent.incoming.next().await.unwrap();
    // The socket is full from here on: the peer takes nothing.
    stream.write_all(&pattern(100 * 1024)).await.unwrap();
    let began = Instant::now();
    for n in 0..10u8 {
        say(&mut peer, Frame::Data { stream: StreamId(1), payload: vec![n; 1000].into() }).await;
        let mut read = [0; 1000];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(read, [n; 1000]);
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(matches!(agent.handle.ended().await, SessionError::PeerSilent { .. }));
    assert_eq!(began.elapsed().as_secs(), 45);
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_says_hello_is_left_after_ten_seconds() {
    let (agent, _peer) = agent_and_peer(4096).await;
    let began = Instant::now();
    assert_eq!(agent.handle.established().await, Err(SessionError::Protocol(ProtocolError::NoHello)));
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_binary_frame_ends_the_session() {
    let text = SessionError::Protocol(ProtocolError::Text);
    let malformed = SessionError::Frame(FrameError::Short { len: 2 });
    let closed = SessionError::PeerClosed;
    let cases = [(Message::text("hello"), text), (Message::binary(vec![1, 2]), malformed), (Message::Close(None), closed)];
    for (message, error) in cases {
        let (agent, mut peer) = agent_and_peer(4096).await;
        say(&mut peer, hello()).await;
        peer.send(message).await.unwrap();
        assert_eq!(agent.handle.ended().await, error);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_longer_than_any_frame_ends_the_session() {
    let (agent, mut peer) = agent_and_peer(4096).await;
    say(&mut peer, hello()).await;
    let _ = peer.send(Message::binary(vec![0; MESSAGE_MAX + 1])).await;
    assert!(matches!(agent.handle.ended().await, SessionError::Io(_)));
}

#[tokio::test(start_paused = true)]
async fn a_session_drains_when_its_last_stream_ends_whoever_asked() {
    for by_agent in [false, true] {
        let (server, mut agent) = pair(4096).await;
        let (mut here, mut there) = stream(&server, &mut agent).await;
        let (asks, asked) = if by_agent { (&agent, &server) } else { (&server, &agent) };
        asks.handle.go_away(Reason::Draining, 30 * SECOND);
        assert_eq!(asked.handle.going_away().await, (Reason::Draining, 30 * SECOND));
        assert!(!server.handle.is_open() && !agent.handle.is_open());
        there.write_all(b"what runs is finished").await.unwrap();
        there.shutdown().await.unwrap();
        drop(there);
        let mut read = Vec::new();
        here.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"what runs is finished");
        drop(here);
        assert_eq!(server.handle.ended().await, SessionError::Closed(Reason::Draining));
        assert_eq!(agent.handle.ended().await, SessionError::PeerClosed);
        assert!(agent.incoming.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_dropped_in_the_middle_is_an_error_at_the_peer() {
    let (server, mut agent) = pair(4096).await;
    let (mut here, mut there) = stream(&server, &mut agent).await;
    here.write_all(b"half").await.unwrap();
    drop(here);
    let error = there.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let cancelled = StreamError::Reset { reason: Reason::Cancelled, text: String::new() };
    assert_eq!(stream_error(&error), &cancelled);
    assert_eq!(stream_error(&there.write_all(b"x").await.unwrap_err()), &cancelled);
}

#[tokio::test(start_paused = true)]
async fn who_watches_a_stream_learns_of_its_end_without_reading_or_writing() {
    let (server, mut agent) = pair(4096).await;
    let (mut here, there) = stream(&server, &mut agent).await;
    let watch = there.watch();
    assert!(timeout(SECOND, watch.cut()).await.is_err(), "it runs");
    here.shutdown().await.unwrap();
    assert!(timeout(SECOND, watch.cut()).await.is_err(), "a half-close is no untimely end");
    drop(here);
    assert_eq!(watch.cut().await, StreamError::Reset { reason: Reason::Done, text: String::new() });
    drop(there);
    assert!(timeout(SECOND, watch.cut()).await.is_err(), "nobody has it any more");
}

#[tokio::test(start_paused = true)]
async fn who_waits_on_a_stream_learns_that_it_was_refused() {
    let (server, agent) = pair(4096).await;
    let mut taken = server.handle.open(Open::default()).unwrap();
    while agent.handle.n_streams() == 0 {
        tokio::task::yield_now().await;
    }
    // One stream waits to be taken, and one comes when nobody takes streams any more.
    drop(agent.incoming);
    let mut late = server.handle.open(Open::default()).unwrap();
    for stream in [&mut taken, &mut late] {
        let error = stream.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(matches!(stream_error(&error), StreamError::Reset { reason: Reason::Limit, .. }));
    }
    assert_eq!(agent.handle.n_streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_driver_is_dropped_ends_for_all_who_wait() {
    let (left, _right) = duplex(4096);
    let config = SessionConfig::new(Role::Server, Protocol::V1, Arc::new(Budget::new(MIB)));
    let (handle, mut incoming, driver) = start(config, left, Bytes::new()).await;
    let mut stream = handle.open(Open::default()).unwrap();
    let mut buffer = [0];
    let (read, next, ()) = tokio::join!(biased; stream.read(&mut buffer), incoming.next(), async { drop(driver) });
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    assert!(next.is_none());
    assert_eq!(handle.ended().await, SessionError::Closed(Reason::Cancelled));
}

#[tokio::test(start_paused = true)]
async fn close_tells_the_peer_why_and_ends_both() {
    let (server, agent) = pair(4096).await;
    server.handle.close(Reason::Revoked);
    assert_eq!(agent.handle.going_away().await.0, Reason::Revoked);
    assert_eq!(agent.handle.ended().await, SessionError::PeerClosed);
    assert_eq!(server.handle.ended().await, SessionError::Closed(Reason::Revoked));
}

#[tokio::test(start_paused = true)]
async fn an_idle_pair_lives_on_pings_and_does_nothing_else() {
    let (server, agent) = pair(4096).await;
    let ended = async {
        tokio::select! { biased; e = server.handle.ended() => e, e = agent.handle.ended() => e }
    };
    assert!(timeout(3600 * SECOND, ended).await.is_err());
    assert!(server.handle.rtt().is_some() && agent.handle.rtt().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_trickles_one_long_message_is_alive() {
    let (left, mut peer) = duplex(4096);
    let agent = end(Role::Agent, Protocol::V1, left, Bytes::new()).await;
    // FIN and binary, a length of 200 in 16 bits (RFC 6455 section 5.2).
    peer.write_all(&[0x82, 126, 0, 200]).await.unwrap();
    for _ in 0..5 {
        assert!(timeout(40 * SECOND, agent.handle.ended()).await.is_err(), "it was heard");
        peer.write_all(&[3]).await.unwrap();
    }
    let began = Instant::now();
    assert!(matches!(agent.handle.ended().await, SessionError::PeerSilent { .. }));
    assert_eq!(began.elapsed().as_secs(), 45);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_came_with_the_upgrade_and_messages_in_fragments_are_read() {
    // As a Go server sends it, in two fragments (RFC 6455 section 5.4): Connect of stream 1 to "h:1".
    let early = Bytes::from_static(&[0x02, 4, 1, 0, 0, 0, 0x80, 4, 1, b'h', b':', b'1']);
    let (left, _peer) = duplex(4096);
    let mut agent = end(Role::Agent, Protocol::V1, left, early).await;
    let (open, stream) = agent.incoming.next().await.unwrap();
    assert_eq!((open.target.as_str(), stream.id()), ("h:1", StreamId(1)));
}

/// A socket that gives what it holds, then repeats its last message as long as asked, and takes what `room` allows.
struct Odd {
    input: VecDeque<u8>,
    again: Vec<u8>,
    room: usize,
}

impl AsyncRead for Odd {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let again = self.again.clone();
        self.input.extend(again);
        let n = self.input.len().min(buf.remaining());
        buf.put_slice(&self.input.drain(..n).collect::<Vec<_>>());
        if n == 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl AsyncWrite for Odd {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let n = data.len().min(self.room);
        self.room -= n;
        if n == 0 { Poll::Pending } else { Poll::Ready(Ok(n)) }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A frame as a WebSocket server sends it.
fn message(frame: Frame) -> Vec<u8> {
    let payload = frame.encode();
    [&[0x82, payload.len() as u8], &payload[..]].concat()
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_takes_nothing_gets_one_batch_and_the_rest_can_be_overtaken() {
    let opens = (1..=8).map(|id| message(Frame::Open { stream: StreamId(id), open: Open::default() }));
    let input = [message(hello())].into_iter().chain(opens).flatten().collect();
    // Room for the hello and no more.
    let mut agent = end(Role::Agent, Protocol::Extended, Odd { input, again: vec![], room: 1000 }, Bytes::new()).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        let (_, mut stream) = agent.incoming.next().await.unwrap();
        // In pieces that fill no frame.
        for piece in pattern(200 * 1024).chunks(20 * 1024) {
            stream.write_all(piece).await.unwrap();
        }
        streams.push(stream);
    }
    assert!(timeout(40 * SECOND, agent.handle.ended()).await.is_err());
    let sent = agent.handle.stats().bytes_sent as usize;
    assert!(sent > 0 && sent <= BATCH_BYTES, "{sent} bytes left the schedule");
    assert_eq!(2 * BATCH_BYTES, 64 * 1024, "unsent_max: a batch, and as much in the kernel");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_pauses_does_not_keep_us_from_sending() {
    let input = [hello(), Frame::Open { stream: StreamId(1), open: Open::default() }].map(message).concat().into();
    let odd = Odd { input, again: message(Frame::Pong { token: None }), room: usize::MAX };
    let mut agent = end(Role::Agent, Protocol::Extended, odd, Bytes::new()).await;
    let (_, mut stream) = agent.incoming.next().await.unwrap();
    stream.write_all(&pattern(200 * 1024)).await.unwrap();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(agent.handle.stats().bytes_sent, 200 * 1024);
    agent.tasks.abort_all();
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_waits_for_the_peers_but_not_for_ever() {
    for mute in [false, true] {
        let (left, right) = duplex(4096);
        let config = SessionConfig::new(Role::Agent, Protocol::V1, Arc::new(Budget::new(MIB)));
        let (handle, _incoming, driver) = start(config, left, Bytes::new()).await;
        let mut peer = WebSocketStream::from_raw_socket(right, WebSocketRole::Server, None).await;
        handle.close(Reason::Done);
        let began = Instant::now();
        let answer = async {
            while !mute && peer.next().await.is_some() {}
            mute.then_some(peer)
        };
        let (error, _peer) = tokio::join!(driver.run(), answer);
        assert_eq!(error, SessionError::Closed(Reason::Done));
        assert_eq!(began.elapsed().as_secs(), if mute { CLOSE_MAX.as_secs() } else { 0 });
    }
}
