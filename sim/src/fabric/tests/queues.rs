//! The queue before the bottleneck: one for all connections, first come, first gone.

use super::*;

/// Slow enough that a kibibyte takes a millisecond.
const SLOW: Wan = Wan::LAN.with_bytes_per_second(1024 * 1000).with_round_trip(Duration::from_millis(20));

/// Fills the line with one connection's bytes, then sends one byte on another: how long that takes.
async fn wait_behind_bulk(wan: Wan) -> Duration {
    let net = Net::new(wan);
    let (mut bulk, mut bulk_at_hub) = net.pair().await;
    let (mut small, mut small_at_hub) = net.pair().await;
    net.tasks.spawn("bulk", async move { while bulk.write(&[0; 4096]).await.is_ok() {} });
    net.tasks.spawn("reader", async move { while bulk_at_hub.read(&mut [0; 64 * 1024]).await.is_ok_and(|n| n > 0) {} });
    tokio::time::sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    small.write_all(b"x").await.unwrap();
    take(&mut small_at_hub, 1).await;
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn who_speaks_next_waits_behind_what_the_queue_holds_and_not_behind_a_neighbours_kernel() {
    for queue_bytes in [0, 16 * 1024, 128 * 1024] {
        let took = wait_behind_bulk(SLOW.with_queue(queue_bytes)).await;
        let full = Duration::from_millis(10 + queue_bytes as u64 / 1024);
        // The queue takes whole segments only, one may be leaving, and one of the neighbour's may stand before ours.
        let (least, most) = (full.saturating_sub(Duration::from_millis(3)), full + Duration::from_millis(5));
        assert!((least..=most).contains(&took), "{queue_bytes}: {took:?}");
        let deep_kernel = wait_behind_bulk(SLOW.with_queue(queue_bytes).with_notsent_lowat(4 << 20)).await;
        assert!((least..=most).contains(&deep_kernel), "{queue_bytes} under a deep kernel: {deep_kernel:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_makes_no_line_faster() {
    for queue_bytes in [0, 1024 * 1024] {
        let net = Net::new(SLOW.with_queue(queue_bytes));
        let (mut edge, mut hub) = net.pair().await;
        let began = Instant::now();
        net.tasks.spawn("sender", async move { edge.write_all(&vec![1; 5 * 1024 * 1000]).await.unwrap() });
        take(&mut hub, 5 * 1024 * 1000).await;
        let took = began.elapsed().as_secs_f64();
        assert!((5.0..5.05).contains(&took), "{queue_bytes}: {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn what_stands_in_the_queue_of_a_link_that_is_cut_arrives_when_it_heals() {
    let net = Net::new(SLOW.with_queue(64 * 1024));
    let (mut edge, mut hub) = net.pair().await;
    edge.write_all(&[7; 30_000]).await.unwrap();
    net.fabric.cut("hub", "edge");
    assert!(timeout(LONG, hub.read_u8()).await.is_err(), "a byte came through a cut link");
    net.fabric.heal("hub", "edge");
    assert_eq!(take(&mut hub, 30_000).await, [7; 30_000]);
}

#[tokio::test(start_paused = true)]
async fn the_reset_of_a_crash_comes_behind_what_stands_in_the_queue() {
    let net = Net::new(SLOW.with_queue(64 * 1024));
    let (mut edge, mut hub) = net.pair().await;
    hub.write_all(&[7; 30_000]).await.unwrap();
    net.fabric.crash(HUB);
    assert_eq!(take(&mut edge, 30_000).await, [7; 30_000]);
    assert_eq!(edge.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}
