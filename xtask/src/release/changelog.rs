//! CHANGELOG.md as a release reads it.

use anyhow::{Result, bail, ensure};

/// What the changelog says of `version`, without its heading. A version without a date, or of which nothing is said, is an error.
pub(super) fn section(changelog: &str, version: &str) -> Result<String> {
    let heading = format!("## [{version}]");
    let mut lines = changelog.lines().skip_while(|line| !line.starts_with(&heading));
    let Some(first) = lines.next() else {
        bail!("CHANGELOG.md has no section {heading}: give what stands under Unreleased that heading, with a date");
    };
    let date = first[heading.len()..].trim_start_matches([' ', '-']);
    let dated = date.len() == 10 && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    ensure!(dated, "CHANGELOG.md: {first:?} has no date; write {heading} - YYYY-MM-DD");
    let body: Vec<_> = lines.take_while(|line| !line.starts_with("## ") && !is_link(line)).collect();
    let body = body.join("\n").trim().to_owned();
    ensure!(!body.is_empty(), "CHANGELOG.md says nothing under {heading}");
    Ok(body + "\n")
}

/// Whether `line` defines what a heading links to.
fn is_link(line: &str) -> bool {
    line.starts_with('[') && line.contains("]: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGELOG: &str = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2027-01-02\n\n### Fixed\n\n- A thing.\n\n\
                             ## [0.1.0]\n\n- First.\n\n[0.2.0]: ../x\n";

    #[test]
    fn a_versions_section_is_what_stands_between_its_heading_and_the_next() {
        assert_eq!(section(CHANGELOG, "0.2.0").expect("it is there"), "### Fixed\n\n- A thing.\n");
    }

    #[test]
    fn a_version_without_a_section_a_date_or_a_word_is_refused() {
        let refused = |changelog, version| section(changelog, version).expect_err("refused").to_string();
        assert!(refused(CHANGELOG, "0.3.0").contains("no section ## [0.3.0]"));
        assert!(refused(CHANGELOG, "0.1.0").contains("no date"));
        assert!(refused("## [0.1.0] - 2027-01-02\n\n[0.1.0]: ../x\n", "0.1.0").contains("nothing"));
    }
}
