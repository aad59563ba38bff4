//! Pages of a list of objects like pods: made once, kept as plain JSON and as gzip, the same for every kind.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// Items of a page at most; client-go asks for 500.
pub(super) const PAGE_ITEMS_MAX: usize = 10_000;

/// Pages that are kept, plain and compressed counting as two; when there are more, all are made again. Lists of 5,000 objects
/// have ten pages of half a MiB.
const PAGES_MAX: usize = 256;

/// What the kube-apiserver compresses with: it wants the CPU for other things.
const GZIP_LEVEL: u32 = 1;

/// A part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Page {
    /// The index of its first item, which is what `continue` says.
    pub(super) first: usize,
    pub(super) limit: usize,
    /// Items of the whole list.
    pub(super) total: usize,
}

impl Page {
    /// Where the next page begins, if this is not the last.
    pub(super) fn next(self) -> Option<usize> {
        let end = self.end();
        (end < self.total && end > self.first).then_some(end)
    }

    fn end(self) -> usize {
        self.first.saturating_add(self.limit.min(PAGE_ITEMS_MAX)).min(self.total)
    }

    fn plain(self) -> Bytes {
        let next = self.next().map(|next| next.to_string()).unwrap_or_default();
        let items: Vec<_> = (self.first..self.end()).map(pod).collect();
        let remaining = self.total - self.end();
        let metadata = format!(r#"{{"resourceVersion":"1000000","continue":"{next}","remainingItemCount":{remaining}}}"#);
        let items = items.join(",");
        Bytes::from(format!(r#"{{"kind":"BenchList","apiVersion":"bench.postern/v1","metadata":{metadata},"items":[{items}]}}"#))
    }
}

/// The pages that were asked for.
#[derive(Default)]
pub(super) struct Pages(Mutex<BTreeMap<(Page, bool), Bytes>>);

impl Pages {
    /// The body of a page. Others wait while one is made, rather than make it too.
    pub(super) fn get(&self, page: Page, gzip: bool) -> Bytes {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(body) = kept.get(&(page, gzip)) {
            return body.clone();
        }
        let plain = page.plain();
        let body = if gzip { compressed(&plain) } else { plain };
        if kept.len() >= PAGES_MAX {
            kept.clear();
        }
        kept.insert((page, gzip), body.clone());
        body
    }
}

fn compressed(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL));
    // Writing to memory cannot fail.
    let _ = encoder.write_all(plain);
    encoder.finish().unwrap_or_default().into()
}

/// The n-th object: 1 KiB as a small pod has it, with as much chance in it (ids, addresses, times) as real ones.
fn pod(n: usize) -> String {
    let ids = [1, 2, 3, 4].map(|salt| mixed(n as u64 * 4 + salt));
    let uid = format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        ids[0] >> 32,
        ids[0] & 0xffff,
        ids[1] & 0xfff,
        ids[1] >> 52,
        ids[2] >> 16
    );
    let [image, suffix] = [ids[3], ids[1] >> 16 & 0xfffff];
    let (node, ip, minute) = (n % 40, format!("10.{}.{}.{}", ids[0] & 63, n >> 8 & 255, n & 255), n / 60 % 60);
    let (second, version) = (n % 60, 100_000 + n * 7);
    let time = format!("2025-01-02T03:{minute:02}:{second:02}Z");
    format!(
        concat!(
            r#"{{"metadata":{{"name":"web-{n}-{suffix:05x}","generateName":"web-{n}-","namespace":"bench","uid":"{uid}","#,
            r#""resourceVersion":"{version}","creationTimestamp":"{time}","labels":{{"app":"web-{n}","team":"bench","#,
            r#""pod-template-hash":"{suffix:05x}"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-{n}","#,
            r#""controller":true}}]}},"spec":{{"containers":[{{"name":"web","image":"registry.example.com/bench/web@sha256:{image:016x}","#,
            r#""resources":{{"limits":{{"memory":"128Mi"}},"requests":{{"cpu":"100m","memory":"64Mi"}}}},"imagePullPolicy":"IfNotPresent"}}],"#,
            r#""restartPolicy":"Always","nodeName":"node-{node}","serviceAccountName":"default"}},"status":{{"phase":"Running","#,
            r#""conditions":[{{"type":"Initialized","status":"True","lastTransitionTime":"{time}"}},{{"type":"Ready","status":"True","#,
            r#""lastTransitionTime":"{time}"}}],"podIP":"{ip}","startTime":"{time}"}}}}"#,
        ),
        n = n,
        suffix = suffix,
        uid = uid,
        version = version,
        time = time,
        image = image,
        node = node,
        ip = ip,
    )
}

/// Spreads a number over 64 bits (the finalizer of SplitMix64), so that ids look like ids and are the same in each run.
fn mixed(n: u64) -> u64 {
    let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_json_of_about_a_kibibyte() {
        for n in [0, 7, 4999, 1_000_000] {
            let pod = pod(n);
            serde_json::from_str::<serde_json::Value>(&pod).expect("JSON");
            assert!((900..1150).contains(&pod.len()), "{} bytes: {pod}", pod.len());
        }
    }

    #[test]
    fn objects_compress_about_as_real_ones_do() {
        let pages = Pages::default();
        let page = Page { first: 0, limit: 500, total: 5000 };
        let (plain, gzip) = (pages.get(page, false).len(), pages.get(page, true).len());
        assert!((4..20).contains(&(plain / gzip)), "{plain} became {gzip}");
    }

    #[test]
    fn a_page_behind_the_end_is_the_last_one_and_empty() {
        let page = Page { first: 9000, limit: 500, total: 5000 };
        assert_eq!(page.next(), None);
        assert!(page.plain().ends_with(br#""items":[]}"#));
    }
}
