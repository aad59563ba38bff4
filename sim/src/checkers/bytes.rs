//! A body is whole or visibly aborted: what HTTP calls whole must be a whole document, and where every byte is known it
//! arrives once and in order.

use serde::de::IgnoredAny;

use crate::caller::{Ending, Entry};
use crate::story::Story;

pub(super) fn check(story: &Story) -> anyhow::Result<()> {
    story.stage().ledger.look(|book| {
        if let Some(finding) = book.findings.first() {
            anyhow::bail!("{finding}");
        }
        for entry in book.answers.iter().filter(|entry| entry.ending == Ending::Whole && entry.is_document) {
            anyhow::ensure!(is_whole(entry), "{} ended as if whole after {} bytes, and is not", entry.what, entry.n_bytes);
        }
        Ok(())
    })
}

fn is_whole(entry: &Entry) -> bool {
    match entry.kept.len() == entry.n_bytes {
        true => serde_json::from_slice::<IgnoredAny>(&entry.kept).is_ok(),
        // Too long to keep: the end has to do.
        false => matches!(entry.last, b'}' | b']'),
    }
}
