//! What a log lives through without anybody touching it is verified.

use super::*;

#[test]
fn a_file_that_is_full_when_a_checkpoint_is_due_is_followed_by_one_that_begins_as_files_do() {
    for n_files in [0, 1] {
        let disk = run(async |disk| {
            let config = AuditConfig { n_files, ..config() };
            let (log, _) = begin(disk, &config).await;
            for _ in 0..3 {
                fill(disk, &log).await;
                pass(Duration::from_secs(90)).await;
            }
            assert!(disk.files().len() > 2, "nothing was rotated");
            log.close().await;
            let (log, _) = begin(disk, &config).await;
            log.close().await;
        });
        for (path, content) in disk.files().iter().filter(|(path, _)| path.starts_with(LOG)) {
            let first = String::from_utf8_lossy(content).lines().next().unwrap_or_default().to_owned();
            assert!(first.contains("\"kind\":\"chain\"") || first.contains("\"kind\":\"file\""), "{path}: {first}");
        }
        let report = judge(&task(&[], &[]), &disk.host()).expect("readable");
        assert_eq!(report.n_findings(), 0, "{report}");
        assert_eq!(report.n_chains, 1, "{report}");
    }
}

#[test]
fn a_clock_that_is_set_at_a_rotation_makes_no_alarm() {
    for (forth, back) in [(3600, 0), (7200, 3600)] {
        let disk = run(async |disk| {
            let (log, _) = begin(disk, &config()).await;
            for _ in 0..4 {
                fill(disk, &log).await;
                disk.skew(Duration::from_secs(forth));
                disk.skew_back(Duration::from_secs(back));
                leave(&log, 0);
                pass(Duration::from_secs(1)).await;
                disk.skew_back(Duration::from_secs(forth - back));
            }
            log.close().await;
            let (log, _) = begin(disk, &config()).await;
            log.close().await;
        });
        let report = judge(&task(&[], &[]), &disk.host()).expect("readable");
        assert_eq!(report.n_findings(), 0, "{report}");
    }
}

#[test]
fn a_log_that_nobody_wrote_for_an_hour_makes_no_alarm() {
    let disk = run(async |disk| {
        for n in 0..3 {
            let (log, _) = begin(disk, &config()).await;
            leave(&log, n);
            log.close().await;
            disk.skew(Duration::from_secs(3600));
        }
    });
    let report = judge(&task(&[], &[]), &disk.host()).expect("readable");
    assert_eq!((report.n_findings(), report.n_chains), (0, 1), "{report}");
}

/// Leaves records until the file has no room for another.
async fn fill(disk: &Disk, log: &Log) {
    let is_full = || disk.files().get(LOG).is_some_and(|content| content.len() as u64 >= config().file_bytes_max);
    for n in 0..100 {
        leave(log, n);
        pass(Duration::from_millis(20)).await;
        if is_full() {
            return;
        }
    }
    panic!("the file has room for all");
}

/// Lets virtual time pass in steps, so that the writer has its turns.
async fn pass(time: Duration) {
    for _ in 0..100 {
        advance(time / 100).await;
        tokio::task::yield_now().await;
    }
}
