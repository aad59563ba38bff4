//! Charts of a release: with the registry's name in them, packed by Helm, and rendered once to see it there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{PARTS, Part, Release, images};
use crate::run::{run, said};
use crate::workspace::root;

/// Checks that every chart has the workspace's version, as its own and as its app's.
pub(super) fn check_versions(root: &Path, version: &str) -> Result<()> {
    for Part { chart: folder, .. } in PARTS {
        let file = root.join(folder).join("Chart.yaml");
        let chart = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        check_chart(&chart, version).with_context(|| format!("{folder}/Chart.yaml"))?;
    }
    Ok(())
}

fn check_chart(chart: &str, version: &str) -> Result<()> {
    for key in ["version", "appVersion"] {
        let value = chart.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let value = value.with_context(|| format!("no {key}"))?.trim().trim_matches('"');
        ensure!(value == version, "{key} is {value}, and the workspace's is {version}: let them be one");
    }
    Ok(())
}

/// Packs every chart, for the release's registry.
pub(super) fn package(release: &Release) -> Result<Vec<PathBuf>> {
    let scratch = release.dist.join("charts");
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch)?;
    }
    PARTS.iter().map(|part| package_one(release, part, &scratch.join(part.name))).collect()
}

fn package_one(release: &Release, part: &Part, to: &Path) -> Result<PathBuf> {
    let Part { name: part, chart, least_values } = *part;
    copy(&root().join(chart), to)?;
    let values = to.join("values.yaml");
    let repository = release.repository(part);
    let text = std::fs::read_to_string(&values)?;
    std::fs::write(&values, with_repository(&text, part, &repository).with_context(|| values.display().to_string())?)?;
    run(Command::new("helm").arg("package").arg(to).arg("--destination").arg(&release.dist))?;
    let package = release.dist.join(format!("{part}-{}.tgz", release.version));
    let image = format!("{repository}:{}", release.version);
    let rendered = said(Command::new("helm").args(["template", "x"]).arg(&package).args(["--set", least_values]))?;
    ensure!(rendered.contains(&image), "{} renders no image {image}", package.display());
    Ok(package)
}

/// Pushes a packed chart, and signs what the registry has then.
pub(super) fn push(release: &Release, package: &Path, predicate: &Path) -> Result<()> {
    let charts = format!("{}/charts", release.registry);
    let remote = &release.remote;
    let mut push = Command::new("helm");
    push.arg("push").arg(package).arg(format!("oci://{charts}"));
    let digest = remote.digest(&mut push, "the chart", pushed_digest)?;
    let part = PARTS.iter().find(|part| is_of(package, part.name)).context("a package is of a chart")?;
    images::sign(release, &format!("{charts}/{}@{digest}", part.name), predicate)
}

/// What Helm says that the registry calls the chart now.
fn pushed_digest(said: &str) -> Result<String> {
    let digest = said.lines().find_map(|line| line.strip_prefix("Digest:"));
    Ok(digest.context("helm has not said under which digest it pushed")?.trim().to_owned())
}

fn is_of(package: &Path, part: &str) -> bool {
    package.file_name().is_some_and(|name| name.to_string_lossy().starts_with(part))
}

/// `values` with `repository` in the place of `part`, which stands there once, under `image`.
fn with_repository(values: &str, part: &str, repository: &str) -> Result<String> {
    let mut in_image = false;
    let mut n_replaced = 0;
    let mut text = String::new();
    for line in values.lines() {
        if line.starts_with(|first: char| first.is_alphabetic()) {
            in_image = line.starts_with("image:");
        }
        let named = line.trim_start().strip_prefix("repository:").map(|name| name.trim().trim_matches('"'));
        if in_image && named == Some(part) {
            n_replaced += 1;
            text += &line.replace(part, repository);
        } else {
            text += line;
        }
        text.push('\n');
    }
    match n_replaced {
        1 => Ok(text),
        n => bail!("image.repository should be {part} in one line, and is so in {n}"),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_of_another_version_is_refused_by_the_key_that_differs() {
        assert!(check_chart("name: x\nversion: 0.1.0\nappVersion: \"0.1.0\"\n", "0.1.0").is_ok());
        let error = check_chart("version: 0.1.0\nappVersion: \"0.0.9\"\n", "0.1.0").expect_err("older").to_string();
        assert!(error.contains("appVersion is 0.0.9"), "{error}");
        assert!(check_chart("appVersion: 0.1.0\n", "0.1.0").is_err());
    }

    #[test]
    fn a_pushed_charts_digest_is_what_helm_says() {
        assert_eq!(pushed_digest("Pushed: ghcr.io/a/charts/x:0.1.0\nDigest: sha256:aa\n").expect("said"), "sha256:aa");
        assert!(pushed_digest("Pushed: ghcr.io/a/charts/x:0.1.0\n").is_err());
    }

    #[test]
    fn the_registry_is_written_where_the_images_name_stands_and_nowhere_else() {
        let values = "# of postern-server\nimage:\n  repository: postern-server # here\n  tag: \"\"\ntest:\n  repository: postern-server\n";
        let error = with_repository(values, "postern-agent", "r/postern-agent").expect_err("not there").to_string();
        assert!(error.contains("in 0"), "{error}");
        let plain = values.replace(" # here", "");
        let written = with_repository(&plain, "postern-server", "r/postern-server").expect("once");
        assert_eq!(written, plain.replacen("  repository: postern-server", "  repository: r/postern-server", 1));
    }
}
