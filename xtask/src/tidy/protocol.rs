//! The description of the wire says which frames it describes.

use std::path::Path;

use anyhow::{Context, Result};

use super::Finding;

const FRAMES: &str = "tunnel/src/frame.rs";
const DOCUMENT: &str = "tunnel/PROTOCOL.md";
const LABEL: &str = "frame.rs hash: ";

/// Silent while there is no document.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let Ok(document) = std::fs::read_to_string(root.join(DOCUMENT)) else { return Ok(Vec::new()) };
    Ok(judge(&document, &std::fs::read(root.join(FRAMES)).context(FRAMES)?).into_iter().collect())
}

fn judge(document: &str, frames: &[u8]) -> Option<Finding> {
    let now = format!("{:016x}", fnv1a(frames));
    let (index, said) = said(document).unwrap_or((0, "nothing"));
    (said != now).then(|| Finding {
        file: DOCUMENT.into(),
        line: index + 1,
        rule: "protocol",
        what: format!("`{LABEL}` says {said}, and {FRAMES} is {now}"),
        reason: "people write other ends of this wire from the document alone",
        cure: "read both, mend the document, then cargo xtask tidy --fix".into(),
    })
}

/// Writes the hash into the document's line, if it has one.
pub(crate) fn fix(root: &Path) -> Result<()> {
    let Ok(document) = std::fs::read_to_string(root.join(DOCUMENT)) else { return Ok(()) };
    let now = format!("{:016x}", fnv1a(&std::fs::read(root.join(FRAMES)).context(FRAMES)?));
    if let Some((_, said)) = said(&document)
        && said != now
    {
        std::fs::write(root.join(DOCUMENT), document.replace(&format!("{LABEL}{said}"), &format!("{LABEL}{now}")))?;
    }
    Ok(())
}

/// The hash line: its index and its hash.
fn said(document: &str) -> Option<(usize, &str)> {
    let line = |line: &'_ str| line.find(LABEL).map(|at| at + LABEL.len());
    document.lines().enumerate().find_map(|(index, text)| {
        let hash = &text[line(text)?..];
        Some((index, hash.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default()))
    })
}

/// FNV-1a, 64 bits (draft-eastlake-fnv): enough to notice a change, and four lines.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_of_the_draft() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_document_of_other_frames_is_found() {
        let good = "# Wire\n\n`frame.rs hash: 85944171f73967e8`\n";
        assert_eq!(judge(good, b"foobar"), None);
        assert_eq!(judge(good, b"foobaz").expect("frames changed").line, 3);
        assert!(judge("# Wire\n", b"foobar").is_some());
    }
}
