//! Every tampering with the files of a log is found and named, and nothing else is.

mod forged;
mod lives;

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use proptest::prelude::*;
use tokio::time::advance;

use super::*;
use crate::audit::disk::Disk;
use crate::audit::{Asked, AuditConfig, Log, Outcome, PeerHead, Peers, Program, record};
use crate::request::RequestInfo;
use report::Sign;

const LOG: &str = "/audit/log";
const KEY: &[u8] = b"0123456789abcdef";
const PROGRAM: Program = Program { name: "postern-test", version: "1" };

/// A change to the lines of all files, which are one after another; names the file and line at which it must be found.
type Tampering = fn(&mut Files);

/// What was done, the change, and what must be found: the sign, and the file and line.
const CORPUS: &[(&str, Tampering, Sign, &str)] = &[
    ("a record is cut out", |f| drop(f.lines(1).remove(3)), Sign::Gap, "F1:4"),
    ("three records are cut out", |f| drop(f.lines(1).drain(3..6)), Sign::Gap, "F1:4"),
    ("a record is changed", |f| f.change(1, 3, "\"status\":200", "\"status\":201"), Sign::Edited, "F1:4"),
    ("a record's time is changed", |f| f.change(1, 3, "2026", "2025"), Sign::Edited, "F1:4"),
    ("a record's number is changed", |f| f.renumber(1, 3), Sign::Gap, "F1:4"),
    ("a record names another hash", |f| f.forge_prev(1, 3), Sign::Edited, "F1:3"),
    ("the last record of a file is changed", |f| f.change_last(1), Sign::Edited, "F1:last"),
    ("a record stands there twice", |f| f.copy(1, 3, 4), Sign::Duplicate, "F1:5"),
    ("an old record comes again", |f| f.copy(1, 3, 8), Sign::Duplicate, "F1:9"),
    ("a record of one's own is put in", |f| f.insert_copy(1, 3), Sign::Inserted, "F1:5"),
    ("two records change places", |f| f.lines(1).swap(3, 4), Sign::Reordered, "F1:5"),
    ("a line of something else is put in", |f| f.lines(1).insert(3, b"hello".to_vec()), Sign::Garbage, "F1:4"),
    ("a record becomes something else", |f| f.lines(1)[3] = b"hello".to_vec(), Sign::Garbage, "F1:4"),
    ("an empty line is put in", |f| f.lines(1).insert(3, Vec::new()), Sign::Garbage, "F1:4"),
    ("a line is no text", |f| f.lines(1)[3][20] = 0xff, Sign::Garbage, "F1:4"),
    ("lines end as those of Windows", |f| f.lines(1)[3].push(b'\r'), Sign::Garbage, "F1:4"),
    ("a line is longer than any record", |f| f.lines(1)[3].resize(LINE_BYTES_MAX + 1, b' '), Sign::Garbage, "F1:4"),
    ("two lines become one", |f| f.join(1, 3), Sign::Garbage, "F1:4"),
    ("a file in the middle is gone", |f| drop(f.0.remove(1)), Sign::Gap, "F1:1"),
    ("records of two files change places", |f| f.swap_contents(1, 2), Sign::Reordered, "F1:3"),
    ("the first file is gone", |f| drop(f.0.remove(0)), Sign::Beginning, "F0:1"),
    ("the first lines are gone", |f| drop(f.lines(0).drain(..3)), Sign::Beginning, "F0:1"),
    ("a file loses its end", |f| f.truncate(1, 3), Sign::Gap, "F2:1"),
    ("what a crash left is cut further", |f| f.truncate_crashed(), Sign::Recovery, "chain"),
    ("what a crash left has a record more", |f| f.grow_crashed(), Sign::Recovery, "chain"),
    ("the torn bytes of a crash are gone", |f| f.cut_torn(), Sign::Recovery, "chain"),
    ("a chain forgets the one before it", |f| f.forget_recovery(), Sign::Recovery, "chain"),
    ("a signature is changed", |f| f.change_checkpoint("\"hmac\":\"", "0"), Sign::Forged, "checkpoint"),
    ("a checkpoint is changed", |f| f.change_checkpoint("\"time\":\"", "1"), Sign::Forged, "checkpoint"),
    ("a checkpoint loses its signature", |f| f.unsign(), Sign::Unsigned, "checkpoint"),
    ("a checkpoint names another key", |f| f.change_checkpoint("\"key\":\"", "0"), Sign::UnknownKey, "checkpoint"),
    ("a checkpoint's key is no key's name", |f| f.change_checkpoint("\"key\":\"", "x"), Sign::Garbage, "checkpoint"),
    ("history is written anew without the key", |f| f.rewrite(), Sign::Forged, "checkpoint"),
];

#[test]
fn every_tampering_is_found_and_named() {
    let (files, _) = produced();
    for (what, tampering, sign, spot) in CORPUS {
        let mut tampered = files.clone();
        tampering(&mut tampered);
        assert_ne!(tampered.0, files.0, "{what}: nothing was changed");
        let report = tampered.judged(&[], &[]);
        let spot = tampered.spot(spot);
        let is_found = |finding: &report::Finding| {
            finding.sign == *sign && spot.as_ref().is_none_or(|spot| *spot == finding.spot.to_string())
        };
        assert!(report.findings.iter().any(is_found), "{what}: {sign:?} at {spot:?} not in\n{report}");
    }
}

#[test]
fn nothing_of_a_forged_file_reaches_the_terminal_as_it_stands() {
    let (files, _) = produced();
    let forgeries: [(usize, &str, &str); 2] = [
        (files.crashed() + 1, "\"recovered\":{\"file\":\"log.", "\"recovered\":{\"chain\":\"\\u001b[2J\\nverified\",\"x\":\""),
        (files.checkpoint().0, "\"key\":\"", "\"key\":\"\\u001b[2J\\nverified: records 1"),
    ];
    for (file, from, to) in forgeries {
        let mut forged = files.clone();
        let n = forged.lines(file).iter().position(|line| String::from_utf8_lossy(line).contains(from)).expect("a line");
        forged.change(file, n, from, to);
        if from.contains("recovered") {
            let text = String::from_utf8(forged.lines(file)[n].clone()).expect("text");
            let (before, after) = text.rsplit_once("\"chain\":\"").expect("the chain before");
            forged.lines(file)[n] = format!("{before}\"file\":\"{after}").into_bytes();
        }
        assert_ne!(forged.0, files.0);
        let told = forged.judged(&[], &[]).to_string();
        assert!(told.contains("NOT verified") && !told.contains('\u{1b}') && !told.contains("\nverified"), "{told:?}");
    }
}

#[test]
fn what_nobody_touched_is_verified_whatever_befell_it() {
    let (files, head) = produced();
    for heads in [&[][..], &[head]] {
        let report = files.judged(heads, &[]);
        assert_eq!(report.n_findings(), 0, "{report}");
    }
    let report = files.judged(&[head], &[]);
    assert!(report.n_records > 100 && report.n_chains == 2 && report.n_files > 4, "{report}");
    assert_eq!(report.head, Some(head));
}

#[test]
fn crashes_in_one_first_record_after_another_are_no_alarm_before_the_next_start_and_behind_it() {
    let (files, head) = produced();
    let mut crashed = files.map();
    let last = crashed.remove(LOG).expect("the last file");
    let first = Line::parse(last.split(|byte| *byte == b'\n').next().expect("a line")).expect("a record").seq;
    crashed.insert(format!("{LOG}.{first:020}"), last);
    crashed.insert(format!("{LOG}.{:020}", head.seq + 1), b"{\"seq\":".to_vec());
    crashed.insert(LOG.to_owned(), b"{\"s".to_vec());
    let report = judged(crashed.clone(), &[head], &[]);
    assert_eq!(report.n_findings(), 0, "{report}");
    let disk = run(async |disk| {
        disk.set_files(crashed.clone());
        disk.write("/key", KEY);
        let (log, _) = begin(disk, &config()).await;
        log.close().await;
    });
    let report = judge(&task(&[head], &[]), &disk.host()).expect("readable");
    assert_eq!(report.n_findings(), 0, "{report}");
    assert!(report.facts.iter().any(|fact| fact.contains(" and 10 bytes of a record")), "{report}");
}

#[test]
fn what_was_cut_off_is_seen_with_a_head_and_honestly_not_seen_without() {
    let (files, head) = produced();
    for n_cut in [1, 2, 5] {
        let mut cut = files.clone();
        let last = cut.0.len() - 1;
        let n_lines = cut.lines(last).len();
        cut.lines(last).truncate(n_lines - n_cut);
        let report = cut.judged(&[], &[]);
        assert_eq!(report.n_findings(), 0, "{report}");
        assert!(report.facts.iter().any(|fact| fact.starts_with("what was cut off behind record ")), "{report}");
        let report = cut.judged(&[head], &[]);
        assert!(report.findings.iter().any(|finding| finding.sign == Sign::Truncated), "{report}");
    }
    // All files of the last chain.
    let mut cut = files.clone();
    cut.0.retain(|(_, lines, _)| !lines.iter().any(|line| String::from_utf8_lossy(line).contains(&head.chain.to_string())));
    let report = cut.judged(&[head], &[]);
    assert!(report.findings.iter().any(|finding| finding.sign == Sign::Truncated), "{report}");
}

#[test]
fn the_other_ends_checkpoints_prove_what_was_cut_off() {
    let (files, _) = produced();
    let head = files.head_at(files.0.len() - 1);
    let other = other_end_that_knows(&head.to_string());
    let report = files.judged(&[], &other);
    assert_eq!(report.n_findings(), 0, "{report}");
    let mut cut = files.clone();
    let last = cut.0.len() - 1;
    cut.lines(last).pop();
    let report = cut.judged(&[], &other);
    let finding = report.findings.first().expect("a finding");
    assert_eq!(finding.sign, Sign::Truncated, "{report}");
    assert!(finding.words.contains("/other/log:"), "{report}");
}

#[test]
fn a_log_that_was_deleted_whole_is_found_with_the_other_ends_file() {
    let (files, _) = produced();
    let (old, seq) = ("00000000000000aa", files.judged(&[], &[]).n_records);
    let zeros = "0".repeat(64);
    let ours = files.head_at(files.0.len() - 1).to_string();
    let [of_old, before] = [seq, 1].map(|seq| format!("{old}:{seq}:{zeros}"));
    let told = |cluster: &str, heads: &[&str]| {
        let heads: Vec<_> = heads.iter().map(|head| (cluster, *head)).collect();
        files.judged(&[], &other_end_that_knows_of(&heads))
    };
    // An agent's file, which knows one hub: whatever the order in which it was told of its chains, and of the old one alone.
    for heads in [&[&*of_old, &*ours][..], &[&ours, &of_old], &[&of_old]] {
        let report = told("", heads);
        let is_found = report.findings.iter().any(|finding| finding.sign == Sign::Truncated && finding.words.contains(old));
        assert!(is_found && report.n_findings() == 1, "{report}");
    }
    // What may have been removed to keep few files is no alarm.
    let mut kept = files.clone();
    kept.0.remove(0);
    let report = kept.judged(&[], &other_end_that_knows_of(&[("", &before), ("", &ours)]));
    assert!(!report.to_string().contains(old), "{report}");
    // A hub's file, which may know several agents of a cluster.
    let report = told("edge-1", &[&of_old, &ours]);
    assert_eq!(report.n_findings(), 0, "{report}");
    assert!(report.facts.iter().any(|fact| fact.contains(old) && fact.contains("a log that was deleted")), "{report}");
    let report = told("edge-1", &[&of_old]);
    assert!(report.findings.iter().any(|finding| finding.sign == Sign::Truncated), "{report}");
    // Other clusters are not asked about.
    let report = files.judged(&[], &other_end_that_knows_of(&[("edge-1", &ours), ("edge-2", &of_old)]));
    assert!(report.n_findings() == 0 && !report.to_string().contains(old), "{report}");
}

#[test]
fn files_that_were_removed_to_keep_few_are_no_alarm() {
    let disk = run(async |disk| {
        let config = AuditConfig { n_files: 2, file_bytes_max: 4096, ..config() };
        let (log, _) = begin(disk, &config).await;
        for n in 0..200 {
            leave(&log, n);
            if n % 10 == 0 {
                advance(Duration::from_millis(50)).await;
            }
        }
        log.close().await;
    });
    assert_eq!(disk.files().keys().filter(|path| path.starts_with("/audit/log.")).count(), 2);
    let report = judge(&task(&[], &[]), &disk.host()).expect("readable");
    assert_eq!(report.n_findings(), 0, "{report}");
    assert!(report.facts.iter().any(|fact| fact.contains("were removed to keep few files")), "{report}");
    // One more is gone than the log says.
    let mut files = Files::of(&disk);
    files.0.remove(0);
    let report = files.judged(&[], &[]);
    assert!(report.findings.iter().any(|finding| finding.sign == Sign::Beginning), "{report}");
}

#[test]
fn a_clock_that_is_set_forward_makes_no_alarm() {
    let disk = run(async |disk| {
        let (log, _) = begin(disk, &config()).await;
        for n in 0..5 {
            leave(&log, n);
            disk.skew(Duration::from_secs(3600));
            leave(&log, n);
            advance(Duration::from_secs(1)).await;
        }
        log.close().await;
    });
    let report = judge(&task(&[], &[]), &disk.host()).expect("readable");
    assert_eq!(report.n_findings(), 0, "{report}");
}

#[test]
fn records_without_checkpoints_are_an_alarm() {
    let (mut files, _) = produced();
    // Signed ones are easily left out by who writes a chain anew.
    files.drop_checkpoints();
    let report = files.judged(&[], &[]);
    assert!(report.findings.iter().any(|finding| finding.sign == Sign::NoCheckpoint), "{report}");
}

#[test]
fn what_verify_says_is_readable() {
    let (files, head) = produced();
    let mut tampered = files.clone();
    tampered.lines(1).remove(3);
    tampered.change(1, 6, "\"status\":200", "\"status\":500");
    tampered.lines(2).swap(2, 3);
    let last = tampered.0.len() - 1;
    tampered.lines(last).pop();
    let texts = [
        files.judged(&[], &[]).to_string(),
        files.judged(&[head], &[]).to_string(),
        tampered.judged(&[head], &[]).to_string(),
        page("postern-server"),
    ];
    insta::assert_snapshot!(texts.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_change_of_a_byte_goes_unseen(file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let (files, head) = produced();
        let file = file.index(files.0.len());
        let mut whole = files.map();
        let (path, content) = whole.iter_mut().nth(file).expect("a file");
        // What lies behind the last whole record before a crash is as long as the next chain says, and nobody knows what it was.
        let n_records = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let at = at.index(n_records);
        content[at] ^= 1 << bit;
        let (path, at) = (path.clone(), at);
        let report = judged(whole, &[head], &[]);
        prop_assert!(report.n_findings() > 0, "byte {} of {}\n{}", at, path, report);
    }

    #[test]
    fn no_line_is_cut_out_or_moved_unseen(file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
        let (files, head) = produced();
        let file = file.index(files.0.len());
        let mut changed = files.clone();
        let n = changed.lines(file).len();
        let (at, to) = (at.index(n), to.index(n));
        let line = changed.lines(file).remove(at);
        if at != to {
            changed.lines(file).insert(to, line);
        }
        let report = changed.judged(&[head], &[]);
        prop_assert!(report.n_findings() > 0, "line {} of file {} to {}\n{}", at, file, to, report);
    }
}

/// The files of a log in their order: path, lines, and bytes behind the last newline.
#[derive(Clone)]
struct Files(Vec<(String, Vec<Vec<u8>>, Vec<u8>)>);

impl Files {
    fn of(disk: &Disk) -> Self {
        let host = disk.host();
        let order = in_order(&host, &[LOG.to_owned()]).expect("readable");
        let files = disk.files();
        let split = |path: String| {
            let mut lines: Vec<_> = files[&path].split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let torn = lines.pop().unwrap_or_default();
            (path, lines, torn)
        };
        Self(order.into_iter().map(|file| split(file.path)).collect())
    }

    fn map(&self) -> BTreeMap<String, Vec<u8>> {
        let whole = |lines: &Vec<Vec<u8>>, torn: &Vec<u8>| {
            let mut whole = lines.join(&b'\n');
            if !lines.is_empty() {
                whole.push(b'\n');
            }
            [whole, torn.clone()].concat()
        };
        self.0.iter().map(|(path, lines, torn)| (path.clone(), whole(lines, torn))).collect()
    }

    fn judged(&self, heads: &[Head], other: &[u8]) -> Report {
        judged(self.map(), heads, other)
    }

    fn lines(&mut self, file: usize) -> &mut Vec<Vec<u8>> {
        &mut self.0[file].1
    }

    fn change(&mut self, file: usize, line: usize, from: &str, to: &str) {
        let text = String::from_utf8(self.0[file].1[line].clone()).expect("text");
        self.0[file].1[line] = text.replacen(from, to, 1).into_bytes();
    }

    fn change_last(&mut self, file: usize) {
        let last = self.lines(file).len() - 1;
        self.change(file, last, "\"time\":\"2026", "\"time\":\"2027");
    }

    fn renumber(&mut self, file: usize, line: usize) {
        let seq = Line::parse(&self.0[file].1[line]).expect("a record").seq;
        self.change(file, line, &format!("\"seq\":{seq},"), &format!("\"seq\":{},", seq + 1));
    }

    fn forge_prev(&mut self, file: usize, line: usize) {
        let prev = Line::parse(&self.0[file].1[line]).expect("a record").prev.to_string();
        self.change(file, line, &prev, &"ab".repeat(32));
    }

    fn copy(&mut self, file: usize, line: usize, to: usize) {
        let copy = self.0[file].1[line].clone();
        self.lines(file).insert(to, copy);
    }

    fn insert_copy(&mut self, file: usize, line: usize) {
        self.copy(file, line, line + 1);
        self.change(file, line + 1, "\"status\":200", "\"status\":204");
    }

    fn join(&mut self, file: usize, line: usize) {
        let next = self.lines(file).remove(line + 1);
        self.lines(file)[line].extend(next);
    }

    fn swap_contents(&mut self, one: usize, other: usize) {
        // The names tell nothing: what is in the files sorts them. So the heads are exchanged.
        let (first, second) = (self.0[one].1[1].clone(), self.0[other].1[1].clone());
        self.0[one].1[1] = second;
        self.0[other].1[1] = first;
    }

    fn truncate(&mut self, file: usize, n_lines: usize) {
        let n = self.lines(file).len() - n_lines;
        self.lines(file).truncate(n);
    }

    fn crashed(&self) -> usize {
        self.0.iter().position(|(_, _, torn)| !torn.is_empty()).expect("a crash")
    }

    fn truncate_crashed(&mut self) {
        let crashed = self.crashed();
        self.truncate(crashed, 1);
    }

    fn grow_crashed(&mut self) {
        let crashed = self.crashed();
        let last = self.lines(crashed).last().expect("records").clone();
        let (mut chain, mut out) = (Chain::new(1, 0), Vec::new());
        let line = Line::parse(&last).expect("a record");
        (chain.head.seq, chain.head.hash) = (line.seq, line.hash);
        chain.seal(line.time.into(), "\"kind\":\"start\"}", |_| None, &mut out);
        out.pop();
        self.lines(crashed).push(out);
    }

    fn cut_torn(&mut self) {
        let crashed = self.crashed();
        self.0[crashed].2.clear();
    }

    fn forget_recovery(&mut self) {
        let next = self.crashed() + 1;
        let text = String::from_utf8(self.lines(next)[0].clone()).expect("text");
        let (before, _) = text.split_once(",\"recovered\"").expect("a recovery");
        self.lines(next)[0] = format!("{before}}}").into_bytes();
    }

    fn checkpoint(&self) -> (usize, usize) {
        let is_checkpoint = |line: &Vec<u8>| String::from_utf8_lossy(line).contains("\"kind\":\"checkpoint\"");
        let found = self.0.iter().enumerate().find_map(|(n, (_, lines, _))| Some((n, lines.iter().position(is_checkpoint)?)));
        found.expect("a checkpoint")
    }

    fn change_checkpoint(&mut self, before: &str, to: &str) {
        let (file, line) = self.checkpoint();
        let mut text = String::from_utf8(self.0[file].1[line].clone()).expect("text");
        let at = text.find(before).expect("a field") + before.len();
        let to = if text[at..].starts_with(to) { "f" } else { to };
        text.replace_range(at..=at, to);
        self.0[file].1[line] = text.into_bytes();
    }

    fn unsign(&mut self) {
        let (file, line) = self.checkpoint();
        let text = String::from_utf8(self.0[file].1[line].clone()).expect("text");
        let (before, _) = text.split_once(",\"key\"").expect("a signature");
        self.0[file].1[line] = format!("{before}}}").into_bytes();
    }

    /// As somebody does who can write the files and knows no key: a record is changed, and all hashes after it fit.
    fn rewrite(&mut self) {
        self.change(0, 2, "\"status\":200", "\"status\":204");
        self.chain_anew();
    }

    fn drop_checkpoints(&mut self) {
        for (_, lines, _) in &mut self.0 {
            lines.retain(|line| !String::from_utf8_lossy(line).contains("\"kind\":\"checkpoint\""));
        }
        self.chain_anew();
    }

    fn chain_anew(&mut self) {
        let (mut seq, mut prev) = (0, crate::audit::chain::Hash::NONE.to_string());
        for line in self.0.iter_mut().flat_map(|(_, lines, _)| lines) {
            let text = String::from_utf8(line.clone()).expect("text");
            let (_, rest) = text.split_once("\"time\"").expect("a time");
            if rest.contains("\"kind\":\"chain\"") {
                prev = crate::audit::chain::Hash::NONE.to_string();
            }
            seq += 1;
            *line = format!("{{\"seq\":{seq},\"prev\":\"{prev}\",\"time\"{rest}").into_bytes();
            prev = crate::audit::chain::Hash::of(line).to_string();
        }
    }

    fn head_at(&self, file: usize) -> Head {
        let report = self.judged(&[], &[]);
        assert_eq!(file, self.0.len() - 1);
        report.head.expect("a head")
    }

    /// `F1:4` is line 4 of the second file.
    fn spot(&self, told: &str) -> Option<String> {
        let at = |file: usize, line: usize| format!("{}:{line}", self.0[file].0);
        match told {
            "chain" => Some(at(self.crashed_or_first_chain(), 1)),
            "checkpoint" => {
                let (file, line) = self.checkpoint();
                Some(at(file, line + 1))
            }
            told => {
                let (file, line) = told.strip_prefix('F')?.split_once(':')?;
                let file: usize = file.parse().expect("a number");
                let line = if line == "last" { self.0[file].1.len() } else { line.parse().expect("a number") };
                Some(at(file, line))
            }
        }
    }

    /// The file that begins the second chain.
    fn crashed_or_first_chain(&self) -> usize {
        let begins =
            |(_, lines, _): &(String, Vec<Vec<u8>>, Vec<u8>)| String::from_utf8_lossy(&lines[0]).contains("\"kind\":\"chain\"");
        self.0.iter().rposition(begins).expect("a chain")
    }
}

fn judged(files: BTreeMap<String, Vec<u8>>, heads: &[Head], other: &[u8]) -> Report {
    let disk = on_clock(async || Disk::new());
    disk.set_files(files);
    disk.write("/other/log", other);
    judge(&task(heads, if other.is_empty() { &[] } else { &["/other/log"] }), &disk.host()).expect("readable")
}

fn task(heads: &[Head], against: &[&str]) -> Task {
    let keys = vec![Key::new(KEY).expect("a key")];
    let against = against.iter().map(|path| (*path).to_owned()).collect();
    Task { name: "postern-test", files: vec![LOG.to_owned()], keys, heads: heads.to_vec(), against }
}

/// Files with rotations, checkpoints, a crash in the middle of a record, a clean stop and a start behind it; and the last head.
fn produced() -> (Files, Head) {
    let disk = run(async |disk| {
        let (log, host) = begin(disk, &config()).await;
        for n in 0..60 {
            leave(&log, n);
            advance(Duration::from_secs(10)).await;
        }
        host.tasks().abort_all();
        let mut crashed = disk.files()[LOG].clone();
        crashed.extend_from_slice(b"{\"seq\":71,\"prev\":\"00");
        disk.write(LOG, &crashed);
        for _ in 0..2 {
            let (log, _) = begin(disk, &config()).await;
            for n in 0..20 {
                leave(&log, n);
                advance(Duration::from_secs(10)).await;
            }
            log.close().await;
        }
    });
    let files = Files::of(&disk);
    let head = files.judged(&[], &[]).head.expect("a head");
    (files, head)
}

fn other_end_that_knows(head: &str) -> Vec<u8> {
    other_end_that_knows_of(&[("edge-1", head)])
}

/// The file of an end that was told these heads, one behind another.
fn other_end_that_knows_of(heads: &[(&str, &str)]) -> Vec<u8> {
    struct Knowing(Vec<PeerHead>);
    impl Peers for Knowing {
        fn heads(&self) -> Vec<PeerHead> {
            self.0.clone()
        }
        fn tell(&self, _: &str) {}
    }
    let peer = |&(cluster, head): &(&str, &str)| PeerHead { cluster: cluster.into(), name: "postern".into(), note: head.into() };
    let heads: Vec<_> = heads.iter().map(peer).collect();
    let disk = run(async |disk| {
        let host = disk.host();
        let (log, writer) = config().open(&host, &PROGRAM).await.expect("open");
        host.spawn("audit log", writer.with_peers(std::sync::Arc::new(Knowing(heads.clone()))).run());
        leave(&log, 0);
        log.close().await;
    });
    disk.files()[LOG].clone()
}

fn config() -> AuditConfig {
    AuditConfig { key: Some("/key".into()), file_bytes_max: 8192, n_files: 0, ..AuditConfig::new(LOG) }
}

async fn begin(disk: &Disk, config: &AuditConfig) -> (std::sync::Arc<Log>, Host) {
    let host = disk.host();
    let (log, writer) = config.open(&host, &PROGRAM).await.expect("open");
    host.spawn("audit log", writer.run());
    (log, host)
}

fn leave(log: &Log, n: u64) {
    let info = RequestInfo::parse(&Method::GET, "/api/v1/namespaces/default/pods/web-0", None);
    let asked = Asked { caller: "kubectl".into(), ..Asked::new(&format!("{n:016x}"), &info, "") };
    let outcome = Outcome { status: 200, bytes: n, end: "whole", ..Outcome::default() };
    log.record(record::Kind::Request, &asked, &outcome);
}

/// A disk, and what `story` has done to it.
fn run(story: impl AsyncFn(&Disk)) -> Disk {
    on_clock(async || {
        let disk = Disk::new();
        disk.write("/key", KEY);
        story(&disk).await;
        disk
    })
}

fn on_clock<T>(story: impl AsyncFn() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(story())
}
