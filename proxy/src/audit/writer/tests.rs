//! What a log has on its disk, whatever the disk and the process do.

use std::sync::Mutex;

use http::Method;
use tokio::time::advance;

use super::*;
use crate::audit::chain::Hash;
use crate::audit::disk::Disk;
use crate::audit::{Asked, AuditConfig, Kind, Outcome};
use crate::request::RequestInfo;

const LOG: &str = "/audit/log";
const PROGRAM: Program = Program { name: "postern-test", version: "1" };

#[tokio::test(start_paused = true)]
async fn a_full_disk_loses_no_record_once_there_is_room() {
    let disk = Disk::new();
    let (log, _) = begin(&disk, None).await;
    leave(&log, 0);
    sleep_of(LINGER).await;
    let n_before = lines(&disk).len();
    assert!(!is_forbidden(&log));
    disk.set_room(Some(100));
    for n in 1..50 {
        leave(&log, n);
    }
    sleep_of(LINGER).await;
    assert!(is_forbidden(&log) && lines(&disk).len() == n_before);
    sleep_of(10 * RETRY_INTERVAL).await;
    assert!(is_forbidden(&log) && lines(&disk).len() == n_before, "there is no room yet");
    disk.set_room(None);
    sleep_of(2 * RETRY_INTERVAL).await;
    assert!(!is_forbidden(&log));
    assert_eq!(lines(&disk).len(), n_before + 49);
    log.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_tried_is_left_as_it_was() {
    let disk = Disk::new();
    let config = AuditConfig::new(LOG);
    config.try_place(&disk.host()).await.expect("a good place");
    assert!(disk.files().is_empty(), "{:?}", disk.files());
    disk.write(LOG, b"kept");
    config.try_place(&disk.host()).await.expect("a good place");
    assert_eq!(disk.files()[LOG], b"kept");
    disk.write(LOG, b"");
    config.try_place(&disk.host()).await.expect("a good place");
    assert!(disk.files().contains_key(LOG), "an empty file that was there stays");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_wait_for_its_disk_is_closed_in_time() {
    let disk = Disk::new();
    let (log, _) = begin(&disk, None).await;
    sleep_of(LINGER).await;
    disk.set_room(Some(0));
    leave(&log, 1);
    sleep_of(LINGER).await;
    let began = Instant::now();
    log.close().await;
    assert!(began.elapsed() < RETRY_INTERVAL, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_stands_a_minute_behind_what_it_proves_and_another_when_a_peer_has_news() {
    let disk = Disk::new();
    let others = Arc::<Others>::default();
    let (log, _) = begin(&disk, Some(others.clone())).await;
    sleep_of(LINGER).await;
    assert_eq!(others.n_told(), 1, "a new chain is told");
    sleep_of(CHECKPOINT_INTERVAL).await;
    assert_eq!((kinds(&disk), others.n_told()), (vec!["chain", "checkpoint"], 2));
    others.have("edge-1", 7);
    sleep_of(CHECKPOINT_INTERVAL).await;
    assert_eq!((kinds(&disk), others.n_told()), (vec!["chain", "checkpoint", "checkpoint"], 3));
    assert!(lines(&disk)[2].contains("\"cluster\":\"edge-1\""), "{}", lines(&disk)[2]);
    others.have("edge-1", 8);
    sleep_of(10 * CHECKPOINT_INTERVAL).await;
    assert_eq!(kinds(&disk).len(), 3, "two idle logs do not keep each other busy");
    leave(&log, 1);
    sleep_of(CHECKPOINT_INTERVAL + LINGER).await;
    sleep_of(10 * CHECKPOINT_INTERVAL).await;
    assert_eq!(kinds(&disk)[3..], ["request", "checkpoint"]);
    assert!(lines(&disk)[4].contains(":8:"), "{}", lines(&disk)[4]);
    log.close().await;
    assert_eq!(kinds(&disk)[5..], ["end"]);
}

#[tokio::test(start_paused = true)]
async fn the_heads_of_a_fleet_fit_into_lines() {
    let disk = Disk::new();
    let others = Arc::<Others>::default();
    for n in 0..PEERS_MAX + 1 {
        others.have(&format!("edge-{n}"), 7);
    }
    let (log, _) = begin(&disk, Some(others)).await;
    sleep_of(LINGER).await;
    sleep_of(CHECKPOINT_INTERVAL + LINGER).await;
    assert_eq!(kinds(&disk), ["chain", "checkpoint", "checkpoint"]);
    log.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_others_are_told_is_on_the_disk() {
    let disk = Disk::new();
    let others = Arc::new(Others { disk: Some(disk.clone()), ..Others::default() });
    let (log, _) = begin(&disk, Some(others.clone())).await;
    for n in 0..10 {
        leave(&log, n);
        sleep_of(CHECKPOINT_INTERVAL / 2).await;
    }
    assert!(others.n_told() > 2);
    log.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_goes_on_in_its_chain_and_a_crash_begins_another() {
    let disk = Disk::new();
    for _ in 0..2 {
        let (log, _) = begin(&disk, None).await;
        leave(&log, 1);
        log.close().await;
    }
    assert_eq!(kinds(&disk), ["chain", "request", "checkpoint", "end", "start", "request", "checkpoint", "end"]);
    let (log, host) = begin(&disk, None).await;
    leave(&log, 2);
    sleep_of(2 * LINGER).await;
    host.tasks().abort_all();
    let before = disk.files()[LOG].clone();
    let (log, _) = begin(&disk, None).await;
    log.close().await;
    assert_eq!(disk.files()["/audit/log.00000000000000000001"], before, "what a crash left is not touched");
    assert_eq!(kinds(&disk), ["chain", "checkpoint", "end"]);
    let first = &lines(&disk)[0];
    assert!(
        first.starts_with("{\"seq\":11,") && first.contains("\"recovered\":{\"file\":\"log.00000000000000000001\","),
        "{first}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_two_files_or_in_a_first_record_is_recovered_from() {
    let disk = Disk::new();
    let (log, _) = begin(&disk, None).await;
    log.close().await;
    let whole = disk.files()[LOG].clone();
    for torn in [&b""[..], b"{\"seq\":4,", b"\0\0\0\0"] {
        disk.set_files([("/audit/log.00000000000000000001".to_owned(), whole.clone()), (LOG.to_owned(), torn.to_vec())].into());
        let (log, _) = begin(&disk, None).await;
        log.close().await;
        let first = lines(&disk)[0].clone();
        assert!(first.starts_with("{\"seq\":4,") && first.contains(&format!("\"torn_bytes\":{}}}", torn.len())), "{first}");
    }
    disk.set_files([(LOG.to_owned(), b"{\"seq\":1,\"pr".to_vec())].into());
    let (log, _) = begin(&disk, None).await;
    log.close().await;
    assert!(lines(&disk)[0].starts_with("{\"seq\":1,"));
}

#[tokio::test(start_paused = true)]
async fn crashes_in_one_first_record_after_another_are_recovered_from() {
    let disk = Disk::new();
    let (log, _) = begin(&disk, None).await;
    log.close().await;
    let whole = disk.files()[LOG].clone();
    let rotated = |nth: &str| format!("/audit/log.{nth}");
    let torn = || (rotated("00000000000000000004"), b"{\"seq\":4,".to_vec());
    for (own, n_torn) in [(&b""[..], 9), (b"{\"se", 13)] {
        disk.set_files([(rotated("00000000000000000001"), whole.clone()), torn(), (LOG.to_owned(), own.to_vec())].into());
        let (log, _) = begin(&disk, None).await;
        log.close().await;
        let first = lines(&disk)[0].clone();
        assert!(first.starts_with("{\"seq\":4,") && first.contains(&format!("\"torn_bytes\":{n_torn}}}")), "{first}");
        // With no whole record anywhere, the log begins at its beginning.
        disk.set_files([(rotated("00000000000000000001"), b"{\"seq\":1".to_vec()), (LOG.to_owned(), own.to_vec())].into());
        let (log, _) = begin(&disk, None).await;
        log.close().await;
        assert!(lines(&disk)[0].starts_with("{\"seq\":1,"), "{:?}", lines(&disk));
    }
}

#[tokio::test(start_paused = true)]
async fn however_many_zeros_a_loss_of_power_leaves_they_are_recovered_from() {
    let disk = Disk::new();
    let (log, host) = begin(&disk, None).await;
    leave(&log, 1);
    sleep_of(LINGER).await;
    host.tasks().abort_all();
    let whole = disk.files()[LOG].clone();
    for n_zeros in [600 << 10, (3 << 20) + 1] {
        for begun in [&b""[..], b"{\"seq\":3,"] {
            let torn = [begun, &vec![0; n_zeros], begun].concat();
            disk.set_files([(LOG.to_owned(), [&whole[..], &torn].concat())].into());
            let (log, _) = begin(&disk, None).await;
            log.close().await;
            let first = lines(&disk)[0].clone();
            assert!(first.starts_with("{\"seq\":3,"), "{first}");
            assert!(first.contains(&format!("\"torn_bytes\":{}}}", torn.len())), "{first}");
        }
        // Of the first record of all.
        disk.set_files([(LOG.to_owned(), vec![0; n_zeros])].into());
        let (log, _) = begin(&disk, None).await;
        log.close().await;
        assert!(lines(&disk)[0].starts_with("{\"seq\":1,"));
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_the_file_away_gets_no_later_record_with_it() {
    type Taking = fn(&Disk);
    let takings: [Taking; 4] = [
        |disk| disk.move_away(LOG, None),
        |disk| disk.move_away(LOG, Some("/audit/log.1")),
        // As an editor does, and as a copy that is put in the file's place.
        |disk| disk.write(LOG, &disk.files()[LOG]),
        |disk| disk.write(LOG, b"something else"),
    ];
    for (n, taking) in takings.into_iter().enumerate() {
        let disk = Disk::new();
        let (log, _) = begin(&disk, None).await;
        leave(&log, 1);
        sleep_of(LINGER).await;
        let head = lines(&disk).last().map(|line| Hash::of(line.as_bytes()).to_string()).expect("a record");
        taking(&disk);
        let taken: Vec<_> = disk.files().into_iter().filter(|(path, _)| path != LOG).collect();
        leave(&log, 2);
        sleep_of(LINGER).await;
        assert_eq!(kinds(&disk), ["file", "request"], "{n}");
        assert!(lines(&disk)[0].contains(&head), "{n}: the new file does not name what was taken");
        assert!(taken.iter().all(|(path, content)| disk.files()[path] == *content), "{n}");
        assert!(!is_forbidden(&log), "{n}");
        log.close().await;
        if n == 3 {
            assert_eq!(disk.files()["/audit/log.00000000000000000001"], b"something else");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_renamed_at_its_limit_and_fails_all_the_same_is_gone_on_from() {
    let disk = Disk::new();
    let host = disk.host();
    let config = AuditConfig { file_bytes_max: 4096, n_files: 0, ..AuditConfig::new(LOG) };
    let (log, writer) = config.open(&host, &PROGRAM).await.expect("open");
    host.spawn("audit log", writer.run());
    disk.fail_rename();
    for n in 0..30 {
        leave(&log, n);
        sleep_of(LINGER).await;
    }
    sleep_of(2 * RETRY_INTERVAL).await;
    assert!(!is_forbidden(&log));
    assert!(disk.files().contains_key("/audit/log.00000000000000000001"));
    log.close().await;
    let all: Vec<_> = disk.files().into_values().collect();
    assert_eq!(String::from_utf8_lossy(&all.concat()).matches("\"kind\":\"request\"").count(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_file_of_something_else_is_not_written_to() {
    for content in [&b"hello\n"[..], b"hello", b"{\"seq\":1,\"hello\":true}\n", &[b'x'; 2 << 20]] {
        let disk = Disk::new();
        disk.write(LOG, content);
        let opened = AuditConfig::new(LOG).open(&disk.host(), &PROGRAM).await;
        assert!(opened.is_err(), "{}", content.len());
        assert_eq!(disk.files()[LOG], content);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_requests_that_end_and_counts_those_that_do_not() {
    let disk = Disk::new();
    let (log, host) = begin(&disk, None).await;
    let (ends, stays) = (log.enter(), log.enter());
    host.spawn("request", async move {
        advance(Duration::from_millis(100)).await;
        leave_by(&ends, 1);
        drop(ends);
    });
    log.close().await;
    assert!(kinds(&disk).contains(&"request"));
    assert!(lines(&disk).last().is_some_and(|end| end.ends_with("\"n_running\":1}")), "{:?}", lines(&disk).last());
    drop(stays);
}

#[tokio::test(start_paused = true)]
async fn few_writes_take_many_records() {
    let disk = Disk::new();
    let (log, _) = begin(&disk, None).await;
    sleep_of(LINGER).await;
    let n_syncs = disk.n_syncs();
    for n in 0..1000 {
        leave(&log, n);
    }
    sleep_of(2 * LINGER).await;
    assert_eq!(lines(&disk).len(), 1001);
    assert_eq!(disk.n_syncs(), n_syncs, "only a checkpoint waits for the disk");
    log.close().await;
}

/// Other ends as a test has them.
#[derive(Default)]
struct Others {
    heads: Mutex<BTreeMap<String, u64>>,
    told: Mutex<Vec<String>>,
    /// Where all that was told must be synced.
    disk: Option<Disk>,
}

impl Others {
    fn have(&self, cluster: &str, seq: u64) {
        self.heads.lock().expect("unpoisoned").insert(cluster.to_owned(), seq);
    }

    fn n_told(&self) -> usize {
        self.told.lock().expect("unpoisoned").len()
    }
}

impl Peers for Others {
    fn heads(&self) -> Vec<PeerHead> {
        let head = |(cluster, seq): (&String, &u64)| PeerHead {
            cluster: cluster.clone(),
            name: "postern-agent".to_owned(),
            note: format!("{:016x}:{seq}:{}", 1, "0".repeat(64)),
        };
        self.heads.lock().expect("unpoisoned").iter().map(head).collect()
    }

    fn tell(&self, head: &str) {
        if let Some(disk) = &self.disk {
            let seq = head.split(':').nth(1).expect("a number");
            let whole = disk.synced(LOG);
            let text = String::from_utf8_lossy(&whole);
            assert!(text.contains(&format!("{{\"seq\":{seq},")), "{head} was told and may be lost");
        }
        self.told.lock().expect("unpoisoned").push(head.to_owned());
    }
}

async fn begin(disk: &Disk, peers: Option<Arc<dyn Peers>>) -> (Arc<Log>, Host) {
    let host = disk.host();
    let (log, mut writer) = AuditConfig::new(LOG).open(&host, &PROGRAM).await.expect("open");
    writer.peers = peers;
    host.spawn("audit log", writer.run());
    (log, host)
}

fn asked(n: u64) -> Asked {
    let info = RequestInfo::parse(&Method::GET, "/api/v1/namespaces/default/pods/web-0", None);
    Asked::new(&format!("{n:016x}"), &info, "")
}

fn leave(log: &Log, n: u64) {
    log.record(Kind::Request, &asked(n), &Outcome::default());
}

fn leave_by(running: &crate::audit::Running, n: u64) {
    running.record(Kind::Request, &asked(n), &Outcome::default());
}

fn is_forbidden(log: &Log) -> bool {
    log.forbids(&RequestInfo::parse(&Method::POST, "/api/v1/namespaces/default/pods", None), false)
}

fn lines(disk: &Disk) -> Vec<String> {
    let whole = disk.files().get(LOG).cloned().unwrap_or_default();
    String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect()
}

fn kinds(disk: &Disk) -> Vec<&'static str> {
    const KINDS: [&str; 9] = ["chain", "start", "file", "request", "checkpoint", "lost", "removed", "end", "open"];
    let kind = |line: &String| KINDS.into_iter().find(|kind| line.contains(&format!("\"kind\":\"{kind}\""))).expect("a kind");
    lines(disk).iter().map(kind).collect()
}

/// Lets virtual time pass in steps, so that whoever waits in turns has them.
async fn sleep_of(time: Duration) {
    let step = LINGER / 2;
    let end = Instant::now() + time + 2 * step;
    while Instant::now() < end {
        let left = end - Instant::now();
        advance(left.min(step.max(time / 100))).await;
        tokio::task::yield_now().await;
    }
}
