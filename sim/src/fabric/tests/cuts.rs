//! What a cut leaves behind: kernels that wait for their timers before they try again.

use super::*;

/// RTO 300 ms: bytes are repeated 0.3, 0.9, 2.1, 4.5, 9.3 and 18.9 s after they were first sent.
const WAY: Wan = Wan::LAN.with_round_trip(Duration::from_millis(100));

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A byte is written this long after a cut, which heals after `cut`: how long after healing it arrives.
async fn late_by(written: f64, cut: f64) -> Duration {
    let net = Net::new(WAY);
    let (mut edge, mut hub) = net.pair().await;
    let cut_at = Instant::now();
    net.fabric.cut("hub", "edge");
    tokio::time::sleep_until(cut_at + secs(written)).await;
    edge.write_all(b"x").await.unwrap();
    tokio::time::sleep_until(cut_at + secs(cut)).await;
    net.fabric.heal("hub", "edge");
    let healed_at = Instant::now();
    take(&mut hub, 1).await;
    healed_at.elapsed()
}

#[tokio::test(start_paused = true)]
async fn what_a_cut_swallowed_is_repeated_when_the_timer_says_so_and_not_when_it_heals() {
    for (written, cut, next) in [(0.0, 0.2, 0.3), (0.0, 1.0, 2.1), (0.0, 8.0, 9.3), (0.0, 10.0, 18.9), (7.0, 8.0, 9.1)] {
        let expected = secs(next - cut) + WAY.latency;
        let late = late_by(written, cut).await;
        assert!((expected..=expected + secs(0.004)).contains(&late), "{written} {cut}: {late:?}, not {expected:?}");
    }
    assert!(late_by(0.0, 3600.0).await <= secs(120.2), "a kernel waits longer than it may");
}

#[tokio::test(start_paused = true)]
async fn nothing_overtakes_what_is_to_be_repeated() {
    let net = Net::new(WAY);
    let (mut edge, mut hub) = net.pair().await;
    edge.write_all(b"under way, ").await.unwrap();
    tokio::time::advance(secs(0.01)).await;
    net.fabric.cut("hub", "edge");
    assert!(timeout(secs(10.0), hub.read_u8()).await.is_err());
    net.fabric.heal("hub", "edge");
    edge.write_all(b"behind").await.unwrap();
    assert!(timeout(secs(8.0), hub.read_u8()).await.is_err(), "a byte came before its time");
    assert_eq!(take(&mut hub, 17).await, b"under way, behind");
}

#[tokio::test(start_paused = true)]
async fn a_direction_with_nothing_to_repeat_works_as_soon_as_it_heals() {
    let net = Net::new(WAY);
    let (mut edge, mut hub) = net.pair().await;
    net.fabric.cut("hub", "edge");
    edge.write_all(b"x").await.unwrap();
    tokio::time::sleep(secs(10.0)).await;
    net.fabric.heal("hub", "edge");
    hub.write_all(b"y").await.unwrap();
    let healed_at = Instant::now();
    take(&mut edge, 1).await;
    assert!(healed_at.elapsed() <= secs(0.055));
}

#[tokio::test(start_paused = true)]
async fn a_cut_that_comes_back_before_the_repetition_swallows_that_too() {
    let net = Net::new(WAY);
    let (mut edge, mut hub) = net.pair().await;
    let cut_at = Instant::now();
    net.fabric.cut("hub", "edge");
    edge.write_all(b"x").await.unwrap();
    for healthy_at in [1.0, 3.0, 5.0] {
        tokio::time::sleep_until(cut_at + secs(healthy_at)).await;
        net.fabric.heal("hub", "edge");
        tokio::time::sleep(secs(1.0)).await;
        net.fabric.cut("hub", "edge");
    }
    tokio::time::sleep_until(cut_at + secs(9.0)).await;
    net.fabric.heal("hub", "edge");
    take(&mut hub, 1).await;
    assert!((9.34..9.36).contains(&cut_at.elapsed().as_secs_f64()), "{:?}", cut_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_dial_goes_on_at_its_next_syn_and_a_late_one_at_once() {
    for (cut, next) in [(0.5, 1.0), (2.0, 3.0), (8.0, 15.0)] {
        let net = Net::new(WAY);
        net.fabric.cut("hub", "edge");
        let began = Instant::now();
        let heal = async {
            tokio::time::sleep(secs(cut)).await;
            net.fabric.heal("hub", "edge");
        };
        let (dialled, ()) = tokio::join!(net.dial(), heal);
        dialled.expect("a way to the hub");
        assert!((next + 0.1..next + 0.11).contains(&began.elapsed().as_secs_f64()), "{cut}: {:?}", began.elapsed());
    }
    let net = Net::new(WAY);
    net.fabric.stall("hub", "edge");
    let began = Instant::now();
    let release = async {
        tokio::time::sleep(secs(8.0)).await;
        net.fabric.release("hub", "edge");
    };
    let (dialled, ()) = tokio::join!(net.dial(), release);
    dialled.expect("a way to the hub");
    assert!(began.elapsed() <= secs(8.11), "{:?}", began.elapsed());
}
