//! What the network promises, without a product on it.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use host::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::{Fabric, NOTSENT_LOWAT, Socket, Wan};
use crate::seed::{Dice, Seed};

mod cuts;
mod names;
mod queues;

const HUB: &str = "hub/server";
const EDGE: &str = "edge/agent";
const PORT: u16 = 8443;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

struct Net {
    fabric: Fabric,
    tasks: Tasks,
    hub: SocketAddr,
}

impl Net {
    fn new(wan: Wan) -> Self {
        let tasks = Tasks::with_panic_hook(|name, message| panic!("{name}: {message}"));
        let fabric = Fabric::new(Seed(1));
        tasks.spawn("fabric", fabric.clone().run());
        let hub = SocketAddr::new(fabric.add_machine(HUB), PORT);
        fabric.add_machine(EDGE);
        fabric.join("hub", "edge", wan);
        fabric.listen(HUB, 0, PORT).expect("a free port");
        Self { fabric, tasks, hub }
    }

    async fn dial(&self) -> std::io::Result<Socket> {
        self.fabric.dial(EDGE, 0, self.hub).await
    }

    async fn accept(&self) -> Socket {
        let accept = poll_fn(|cx| match self.fabric.poll_accept(HUB, 0, PORT, cx.waker()) {
            Some((socket, _)) => Poll::Ready(socket),
            None => Poll::Pending,
        });
        timeout(LONG, accept).await.expect("a connection")
    }

    /// A connection: the edge's end, then the hub's.
    async fn pair(&self) -> (Socket, Socket) {
        let edge = self.dial().await.expect("a way to the hub");
        (edge, self.accept().await)
    }

    /// Writes until the kernel takes no more; tells how much it took.
    async fn fill(&self, socket: &mut Socket) -> usize {
        let mut n_taken = 0;
        while let Ok(n) = timeout(LONG, socket.write(&[0; 4096])).await {
            n_taken += n.expect("an open connection");
        }
        n_taken
    }
}

async fn take(socket: &mut Socket, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    timeout(LONG, socket.read_exact(&mut bytes)).await.expect("the bytes in time").expect("the bytes");
    bytes
}

#[tokio::test(start_paused = true)]
async fn a_dial_takes_one_round_trip_and_so_does_a_question_with_its_answer() {
    let net = Net::new(Wan::LAN.with_round_trip(Duration::from_millis(100)));
    let began = Instant::now();
    let (mut edge, mut hub) = net.pair().await;
    assert_eq!(began.elapsed().as_millis(), 100);
    edge.write_all(b"ping").await.unwrap();
    take(&mut hub, 4).await;
    hub.write_all(b"pong").await.unwrap();
    take(&mut edge, 4).await;
    assert!((200..=204).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn bandwidth_is_honoured_on_slow_and_on_fast_lines() {
    for bytes_per_second in [100_000, 1_000_000, 125_000_000] {
        let net = Net::new(Wan::LAN.with_bytes_per_second(bytes_per_second));
        let (mut edge, mut hub) = net.pair().await;
        let n_bytes = bytes_per_second as usize * 5;
        net.tasks.spawn("sender", async move { edge.write_all(&vec![1; n_bytes]).await.unwrap() });
        let began = Instant::now();
        take(&mut hub, n_bytes).await;
        let took = began.elapsed().as_secs_f64();
        assert!((4.99..5.05).contains(&took), "{bytes_per_second} B/s: {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn connections_share_a_line_evenly() {
    let net = Net::new(Wan::LAN.with_bytes_per_second(1_000_000));
    let until = Instant::now() + Duration::from_secs(4);
    let (tell, mut told) = tokio::sync::mpsc::channel(4);
    for _ in 0..4 {
        let (mut edge, mut hub) = net.pair().await;
        net.tasks.spawn("sender", async move {
            let _ = edge.write_all(&vec![1; 10_000_000]).await;
        });
        let tell = tell.clone();
        net.tasks.spawn("reader", async move {
            let mut n_read = 0;
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(n) = tokio::time::timeout_at(until, hub.read(&mut bytes)).await {
                n_read += n.unwrap();
            }
            tell.send(n_read).await.unwrap();
        });
    }
    for _ in 0..4 {
        let n_read = timeout(LONG, told.recv()).await.unwrap().unwrap();
        assert!((980_000..1_020_000).contains(&n_read), "{n_read}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stall_keeps_bytes_and_a_release_brings_them_at_once() {
    let net = Net::new(Wan::LAN);
    let (mut edge, mut hub) = net.pair().await;
    net.fabric.stall("hub", "edge");
    edge.write_all(b"held").await.unwrap();
    assert!(timeout(LONG, hub.read_u8()).await.is_err(), "a byte came through a stalled link");
    let began = Instant::now();
    net.fabric.release("hub", "edge");
    assert_eq!(take(&mut hub, 4).await, b"held");
    assert!(began.elapsed() <= Duration::from_millis(2));
}

#[tokio::test(start_paused = true)]
async fn a_cut_tells_nobody_and_loses_nothing_when_it_heals() {
    let net = Net::new(Wan::OCEAN);
    let (mut edge, mut hub) = net.pair().await;
    edge.write_all(b"under way, ").await.unwrap();
    tokio::time::advance(Duration::from_millis(10)).await;
    net.fabric.cut("hub", "edge");
    edge.write_all(b"behind").await.unwrap();
    assert!(timeout(LONG, hub.read_u8()).await.is_err(), "a byte came through a cut link");
    assert!(timeout(LONG, net.dial()).await.is_err(), "a dial came through a cut link");
    net.fabric.heal("hub", "edge");
    assert_eq!(take(&mut hub, 17).await, b"under way, behind");
    net.dial().await.expect("a way to the hub");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_cut_and_stalled_needs_both_cures() {
    let net = Net::new(Wan::LAN);
    let (mut edge, mut hub) = net.pair().await;
    net.fabric.cut("hub", "edge");
    net.fabric.stall("hub", "edge");
    edge.write_all(b"x").await.unwrap();
    net.fabric.heal("hub", "edge");
    assert!(timeout(LONG, hub.read_u8()).await.is_err());
    net.fabric.release("hub", "edge");
    assert_eq!(take(&mut hub, 1).await, b"x");
}

#[tokio::test(start_paused = true)]
async fn a_kernel_takes_no_more_than_its_low_water_mark_before_a_dead_line() {
    for lowat in [NOTSENT_LOWAT, 1024 * 1024] {
        let net = Net::new(Wan::OCEAN.with_notsent_lowat(lowat));
        let (mut edge, _hub) = net.pair().await;
        net.fabric.cut("hub", "edge");
        assert_eq!(net.fill(&mut edge).await, lowat);
        let unsent: Vec<_> = net.fabric.sockets().iter().map(|socket| socket.n_unsent).collect();
        assert_eq!(unsent, [lowat, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_stops_its_sender_at_the_window() {
    let net = Net::new(Wan::LAN);
    let (mut edge, mut hub) = net.pair().await;
    let n_taken = net.fill(&mut edge).await;
    assert_eq!(n_taken, Wan::LAN.window() + NOTSENT_LOWAT);
    net.tasks.spawn("sender", async move { edge.write_all(b"the end").await.unwrap() });
    let all = take(&mut hub, n_taken + 7).await;
    assert!(all.ends_with(b"the end"));
}

#[tokio::test(start_paused = true)]
async fn a_crash_resets_the_peers_and_a_new_program_takes_the_port() {
    let net = Net::new(Wan::LAN);
    let (mut edge, mut hub) = net.pair().await;
    hub.write_all(b"last words").await.unwrap();
    tokio::time::advance(Duration::from_millis(5)).await;
    net.fabric.crash(HUB);
    assert_eq!(take(&mut edge, 10).await, b"last words");
    let error = timeout(LONG, edge.read_u8()).await.expect("news in time").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(net.dial().await.err().expect("nobody listens").kind(), ErrorKind::ConnectionRefused);

    let incarnation = net.fabric.power_on(HUB);
    net.fabric.listen(HUB, incarnation, PORT).expect("the port of the one before");
    drop(net.dial().await.expect("a way to the hub"));
    drop((edge, hub));
    net.fabric.close_listener(HUB, incarnation, PORT);
    tokio::time::advance(Duration::from_millis(5)).await;
    assert_eq!(net.fabric.sockets(), []);
}

#[tokio::test(start_paused = true)]
async fn who_vanishes_tells_nobody_until_its_kernel_is_back() {
    let net = Net::new(Wan::LAN);
    let (mut edge, hub) = net.pair().await;
    net.fabric.vanish(HUB);
    drop(hub);
    edge.write_all(b"anybody there?").await.unwrap();
    assert!(timeout(LONG, edge.read_u8()).await.is_err(), "a dead machine answered");
    assert!(timeout(LONG, net.dial()).await.is_err(), "a dead machine took a dial");
    net.fabric.power_on(HUB);
    let error = timeout(LONG, edge.read_u8()).await.expect("news in time").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_to_who_vanished_ends_by_its_kernels_probes() {
    for is_back in [false, true] {
        let net = Net::new(Wan::LAN);
        let (mut edge, hub) = net.pair().await;
        net.fabric.vanish(HUB);
        drop(hub);
        if is_back {
            net.fabric.power_on(HUB);
        }
        assert!(timeout(Duration::from_secs(29), edge.read_u8()).await.is_err(), "news before any probe");
        let error = timeout(Duration::from_secs(92), edge.read_u8()).await.expect("news in time").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_felt_at_both_ends() {
    let net = Net::new(Wan::LAN);
    let (mut edge, mut hub) = net.pair().await;
    net.fabric.reset("edge", "hub");
    for end in [&mut edge, &mut hub] {
        assert_eq!(end.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(end.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_connection_closes_and_the_other_half_goes_on() {
    let net = Net::new(Wan::LAN);
    let (mut edge, mut hub) = net.pair().await;
    edge.write_all(b"question").await.unwrap();
    edge.shutdown().await.unwrap();
    let mut question = String::new();
    timeout(LONG, hub.read_to_string(&mut question)).await.unwrap().unwrap();
    assert_eq!(question, "question");
    hub.write_all(b"answer").await.unwrap();
    drop(hub);
    let mut answer = String::new();
    timeout(LONG, edge.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, "answer");
    drop(edge);
    tokio::time::advance(Duration::from_millis(5)).await;
    assert_eq!(net.fabric.sockets(), []);
    assert_eq!(net.fabric.with(|state| state.traffic.conns.len()), 0, "a closed connection is remembered");
}

#[tokio::test(start_paused = true)]
async fn a_socket_closed_with_unread_bytes_resets_its_peer() {
    let net = Net::new(Wan::LAN);
    let (mut edge, hub) = net.pair().await;
    edge.write_all(b"unread").await.unwrap();
    tokio::time::advance(Duration::from_millis(5)).await;
    drop(hub);
    let error = timeout(LONG, edge.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_refuses_keeps_the_connections_it_has() {
    let net = Net::new(Wan::LAN);
    let (mut edge, mut hub) = net.pair().await;
    net.fabric.refuse(HUB);
    assert_eq!(net.dial().await.err().expect("no entry").kind(), ErrorKind::ConnectionRefused);
    edge.write_all(b"x").await.unwrap();
    take(&mut hub, 1).await;
    net.fabric.accept(HUB);
    net.dial().await.expect("a way to the hub");
}

#[tokio::test(start_paused = true)]
async fn a_tap_hears_each_connection_of_one_direction() {
    let net = Net::new(Wan::LAN);
    net.fabric.tap("edge", "hub");
    let (mut edge, mut hub) = net.pair().await;
    edge.write_all(b"secret").await.unwrap();
    hub.write_all(b"other way").await.unwrap();
    take(&mut hub, 6).await;
    assert_eq!(net.fabric.tapped("edge", "hub"), [b"secret"]);
    assert_eq!(net.fabric.n_bytes("edge", "hub"), 6);
}

/// Ten clients on a bad link talk to the hub; what they see and when.
async fn babble(seed: u64) -> Vec<String> {
    let net = Net::new(Wan::COFFEE_SHOP);
    let (tell, mut told) = tokio::sync::mpsc::channel(1000);
    let began = Instant::now();
    let mut dice: Dice = Seed(seed).dice();
    for client in 0..10 {
        let (mut edge, mut hub) = net.pair().await;
        net.tasks.spawn("echo", async move {
            let mut bytes = [0; 500];
            while let Ok(n @ 1..) = hub.read(&mut bytes).await {
                if hub.write_all(&bytes[..n]).await.is_err() {
                    return;
                }
            }
        });
        let (tell, n_bytes) = (tell.clone(), (dice.roll() % 5000) as usize + 1);
        net.tasks.spawn("client", async move {
            for turn in 0..20 {
                edge.write_all(&vec![7; n_bytes]).await.unwrap();
                take(&mut edge, n_bytes).await;
                tell.send(format!("{:?} {client} {turn}", began.elapsed())).await.unwrap();
            }
        });
    }
    drop(tell);
    let mut seen = Vec::new();
    while let Some(line) = told.recv().await {
        seen.push(line);
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_makes_the_same_world_thirty_times() {
    let first = babble(1).await;
    assert_eq!(first.len(), 200);
    // The clock goes on between the runs, so that only what is told relative to their beginnings may agree.
    for _ in 0..29 {
        assert_eq!(babble(1).await, first);
    }
    assert_ne!(babble(2).await, first);
}

#[tokio::test(start_paused = true)]
async fn an_idle_year_is_free() {
    let net = Net::new(Wan::LAN);
    let (mut edge, mut hub) = net.pair().await;
    assert!(timeout(Duration::from_secs(365 * 86_400), hub.read_u8()).await.is_err());
    edge.write_all(b"x").await.unwrap();
    take(&mut hub, 1).await;
}
