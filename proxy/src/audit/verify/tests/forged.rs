//! What somebody invents who can write the files and has no key, also between two processes.

use super::*;

/// What a test does to the files while no process runs.
type Forgery = fn(&mut Files);

#[test]
fn no_forged_end_has_the_key_sign_what_is_before_it() {
    let forgeries: [(&str, Forgery); 4] = [
        ("all but three records are cut off, and an end is invented", |f| {
            f.lines(0).truncate(3);
            f.invent_end("");
        }),
        ("a record is changed, and all after it is chained anew", |f| {
            f.change(0, 2, "\"status\":200", "\"status\":204");
            f.chain_anew();
        }),
        ("the end is signed with another key", |f| {
            f.lines(0).pop();
            f.invent_end(",\"key\":\"9f9f5111\",\"hmac\":\"00\"");
        }),
        ("the record before the end is another", |f| {
            let before = f.lines(0).len() - 2;
            f.change(0, before, "\"hmac\":\"", "\"hmac\":\"0");
        }),
    ];
    for (what, forgery) in forgeries {
        let disk = run(async |disk| {
            live(disk).await;
            let mut files = Files::of(disk);
            assert_eq!(files.0.len(), 1);
            forgery(&mut files);
            disk.write(LOG, &files.map()[LOG]);
            live(disk).await;
        });
        let report = judge(&task(&[], &[]), &disk.host()).expect("readable");
        assert_eq!((report.n_files, report.n_chains), (2, 2), "{what}: the forged chain goes on\n{report}");
        assert!(report.n_findings() > 0, "{what}\n{report}");
    }
}

#[test]
fn what_a_crash_left_is_told_as_signed_by_nobody() {
    let disk = run(async |disk| {
        live(disk).await;
        let mut files = Files::of(disk);
        // No checkpoint, no end: as a crash within the first minute leaves it.
        files.lines(0).truncate(3);
        disk.write(LOG, &files.map()[LOG]);
        live(disk).await;
    });
    let report = judge(&task(&[], &[]), &disk.host()).expect("readable");
    assert_eq!(report.n_findings(), 0, "{report}");
    let told = "; records 1 to 3 are signed by nobody; what was cut off there by hand looks the same";
    assert!(report.facts.iter().any(|fact| fact.contains(told)), "{report}");
}

#[test]
fn an_end_that_is_older_than_the_last_is_no_finding_and_each_start_says_that_nobody_would_see_it() {
    let disk = run(async |disk| {
        live(disk).await;
        let older = disk.files();
        live(disk).await;
        disk.set_files(older);
        live(disk).await;
    });
    let whole = disk.files()[LOG].clone();
    let report = judge(&task(&[], &[]), &disk.host()).expect("readable");
    assert_eq!((report.n_findings(), report.n_chains), (0, 1), "{report}");
    let is_told = |report: &Report| report.facts.iter().any(|fact| fact.contains("a process goes on behind record "));
    assert!(is_told(&report), "{report}");
    // Who was told of that end knows it.
    let lines: Vec<_> = whole.split(|byte| *byte == b'\n').collect();
    let end = lines.iter().find(|line| String::from_utf8_lossy(line).contains("\"kind\":\"end\"")).expect("an end");
    let end = Line::parse(end).expect("a record");
    let head = Head { chain: report.head.expect("a head").chain, seq: end.seq, hash: end.hash };
    let report = judge(&task(&[head], &[]), &disk.host()).expect("readable");
    assert!(!is_told(&report), "{report}");
}

#[test]
fn an_end_without_a_signature_is_an_alarm() {
    for (cut, sign) in [(",\"key\"", Sign::Unsigned), (",\"hmac\"", Sign::Forged)] {
        let disk = run(async |disk| {
            live(disk).await;
            let mut files = Files::of(disk);
            let end = String::from_utf8(files.lines(0).pop().expect("an end")).expect("text");
            let (before, _) = end.split_once(cut).expect("a signature");
            files.lines(0).push(format!("{before}}}").into_bytes());
            disk.write(LOG, &files.map()[LOG]);
        });
        let report = judge(&task(&[], &[]), &disk.host()).expect("readable");
        assert!(report.findings.iter().any(|finding| finding.sign == sign), "{report}");
    }
}

#[test]
fn a_chain_goes_on_behind_its_end_without_a_key_and_with_a_key_that_is_new_another_begins() {
    let unsigned = AuditConfig { key: None, ..config() };
    let disk = run(async |disk| {
        for config in [&unsigned, &unsigned, &config()] {
            let (log, _) = begin(disk, config).await;
            leave(&log, 0);
            log.close().await;
        }
    });
    let report = judge(&Task { keys: Vec::new(), ..task(&[], &[]) }, &disk.host()).expect("readable");
    assert_eq!((report.n_findings(), report.n_chains), (0, 2), "{report}");
}

#[test]
fn a_forged_log_without_a_checkpoint_is_an_alarm_whatever_times_it_invents() {
    // Seconds after 2026 began, of one record each.
    let times: [(&str, &[u64]); 4] = [
        ("forward", &[0, 60, 200, 300]),
        ("the first is dated far ahead", &[2_000_000_000, 0, 60, 300]),
        ("backward", &[3000, 2000, 1000, 0]),
        ("forth and back", &[100, 0, 221, 100]),
    ];
    for (what, times) in times {
        let disk = on_clock(async || Disk::new());
        disk.write(LOG, &invented(times, "request"));
        for keys in [Vec::new(), task(&[], &[]).keys] {
            let report = judge(&Task { keys, ..task(&[], &[]) }, &disk.host()).expect("readable");
            assert!(report.findings.iter().any(|finding| finding.sign == Sign::NoCheckpoint), "{what}\n{report}");
        }
    }
    for kind in ["end", "start", "file"] {
        let report = judged([(LOG.to_owned(), invented(&[0, 1, 2], kind))].into(), &[], &[]);
        assert!(report.findings.iter().any(|finding| finding.sign == Sign::NoCheckpoint), "{kind}\n{report}");
    }
    // A log that is a minute old has none yet.
    let report = judged([(LOG.to_owned(), invented(&[0, 30, 61], "request"))].into(), &[], &[]);
    assert_eq!(report.n_findings(), 0, "{report}");
}

#[test]
fn a_log_without_a_record_is_an_alarm() {
    for content in [&b""[..], b"{\"seq\":1,\"pr"] {
        let report = judged([(LOG.to_owned(), content.to_vec())].into(), &[], &[]);
        assert!(report.findings.iter().any(|finding| finding.sign == Sign::Beginning), "{report}");
    }
}

#[test]
fn numbers_that_no_log_comes_to_neither_go_on_nor_end_anything() {
    for kind in ["end", "request"] {
        let forged = String::from_utf8(invented(&[0, 1], kind)).expect("text");
        let forged = forged.replace("{\"seq\":2,", &format!("{{\"seq\":{},", u64::MAX));
        let rotated = format!("{LOG}.{:020}", 1);
        let files = [[(LOG, forged.as_str())].to_vec(), [(rotated.as_str(), forged.as_str()), (LOG, "{\"seq\"")].to_vec()];
        for files in files {
            run(async |disk| {
                let files: BTreeMap<_, _> =
                    files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
                disk.set_files(files.clone());
                let opened = AuditConfig::new(LOG).open(&disk.host(), &PROGRAM).await;
                let why = format!("{:?}", opened.map(|_| ()).expect_err("such a number"));
                assert!(why.contains(&u64::MAX.to_string()), "{why}");
                assert_eq!(disk.files(), files);
            });
        }
        assert!(judged([(LOG.to_owned(), forged.into_bytes())].into(), &[], &[]).n_findings() > 0);
    }
    let recovered = format!(
        ",\"recovered\":{{\"file\":\"x\",\"chain\":\"{:016x}\",\"seq\":{},\"hash\":\"{}\",\"torn_bytes\":0}}}}",
        7,
        u64::MAX,
        "0".repeat(64)
    );
    let forged = String::from_utf8(invented(&[0], "chain")).expect("text").replace("}\n", &format!("{recovered}\n"));
    assert!(judged([(LOG.to_owned(), forged.into_bytes())].into(), &[], &[]).n_findings() > 0);
}

/// A chain of one's own with a record of this kind at each of these times, whose hashes fit.
fn invented(times_s: &[u64], kind: &str) -> Vec<u8> {
    let (mut chain, mut out) = (Chain::new(7, 0), Vec::new());
    for (n, time_s) in times_s.iter().enumerate() {
        let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + time_s);
        let kind = if n == 0 { "chain" } else { kind };
        let body = format!("\"kind\":\"{kind}\",\"chain\":\"{}\"}}", chain.head.chain);
        chain.seal(time, &body, |_| None, &mut out);
    }
    out
}

/// A process comes, has five requests and goes.
async fn live(disk: &Disk) {
    let (log, _) = begin(disk, &config()).await;
    for n in 0..5 {
        leave(&log, n);
    }
    log.close().await;
}

impl Files {
    /// An end behind the last record, whose hash fits.
    fn invent_end(&mut self, signature: &str) {
        let last = Line::parse(self.lines(0).last().expect("records")).expect("a record");
        let (mut chain, mut out) = (Chain::new(0, last.seq), Vec::new());
        chain.head.hash = last.hash;
        let body = format!("\"kind\":\"end\",\"chain\":\"{}\"{signature}}}", chain.head.chain);
        chain.seal(last.time.into(), &body, |_| None, &mut out);
        out.pop();
        self.lines(0).push(out);
    }
}
