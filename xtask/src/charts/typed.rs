//! What documents tell people to type renders: every `helm install` and `helm upgrade` of these charts in a code block.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result};

use super::{CHARTS, Problems, helm, scratch};
use crate::workspace::root;

/// One command of a document.
#[derive(Debug, PartialEq, Eq)]
struct Typed {
    line: usize,
    chart: &'static str,
    release: String,
    /// Pairs of a flag and its word.
    sets: Vec<(String, String)>,
    /// The YAML that stands before it, if it names a file of values.
    values: Option<String>,
    /// Whether it goes on with the values of the command before.
    reuses: bool,
}

pub(crate) fn check() -> Result<Problems> {
    let mut problems = Problems::new();
    for folder in [root(), root().join("charts"), root().join("charts/server"), root().join("charts/agent")] {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "md") {
                problems.extend(document(&path)?);
            }
        }
    }
    Ok(problems)
}

fn document(path: &Path) -> Result<Problems> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut problems = Problems::new();
    let mut before: BTreeMap<String, Vec<OsString>> = BTreeMap::new();
    for typed in commands(&text) {
        let mut args = if typed.reuses { before.get(&typed.release).cloned().unwrap_or_default() } else { Vec::new() };
        if let Some(values) = &typed.values {
            let file = scratch()?.join(format!("typed-{}.yaml", typed.line));
            std::fs::write(&file, values)?;
            args.extend(["--values".into(), file.into()]);
        }
        args.extend(typed.sets.iter().flat_map(|(flag, word)| [flag.into(), word.into()]));
        if let Err(error) = helm::template(typed.chart, &args)? {
            problems.push(format!("{}:{}: what is typed there does not render: {error}", path.display(), typed.line));
        }
        before.insert(typed.release, args);
    }
    Ok(problems)
}

/// The commands in the code blocks of a document.
fn commands(text: &str) -> Vec<Typed> {
    let mut found = Vec::new();
    let mut yaml = None;
    let mut lines = text.lines().zip(1..);
    let mut block: Option<(bool, String)> = None;
    while let Some((line, number)) = lines.next() {
        let fence = line.trim_start().strip_prefix("```");
        block = match (block.take(), fence) {
            (None, Some(language)) => Some((language.starts_with("yaml"), String::new())),
            (Some((true, content)), Some(_)) => {
                yaml = Some(content);
                None
            }
            (Some((false, _)), Some(_)) | (None, None) => None,
            (Some((is_yaml, content)), None) if is_yaml => Some((true, content + line + "\n")),
            (Some(shell), None) => {
                let mut whole = line.trim().to_owned();
                while let Some(begun) = whole.strip_suffix('\\') {
                    let (next, _) = lines.next().unwrap_or_default();
                    whole = format!("{begun} {}", next.trim());
                }
                found.extend(command(&whole, number, yaml.as_deref()));
                Some(shell)
            }
        };
    }
    found
}

fn command(line: &str, number: usize, yaml: Option<&str>) -> Option<Typed> {
    let words = words(line);
    let mut words = words.iter().map(String::as_str);
    words.find(|word| *word == "helm")?;
    words.next().filter(|verb| ["install", "upgrade", "template"].contains(verb))?;
    let (mut named, mut sets, mut values, mut reuses) = (Vec::new(), Vec::new(), None, false);
    while let Some(word) = words.next() {
        match word {
            "--set" | "--set-string" => sets.push((word.to_owned(), words.next()?.to_owned())),
            "-f" | "--values" => {
                words.next()?;
                values = Some(yaml.unwrap_or_default().to_owned());
            }
            "--reuse-values" | "--reset-then-reuse-values" => reuses = true,
            "-n" | "--namespace" | "--version" | "--kubeconfig" | "--kube-context" | "--timeout" => drop(words.next()),
            flag if flag.starts_with('-') => {}
            name => named.push(name),
        }
    }
    let chart = CHARTS.into_iter().find(|chart| {
        named.get(1).is_some_and(|name| name.ends_with(&format!("charts/{chart}")) || name.ends_with(&format!("postern-{chart}")))
    })?;
    Some(Typed { line: number, chart, release: named[0].to_owned(), sets, values, reuses })
}

/// A line as a shell splits it, as far as quotes and comments go.
fn words(line: &str) -> Vec<String> {
    let (mut all, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ' | '\t') => all.extend(word.take()),
            (None, '#') if word.is_none() => break,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_from_blocks_as_a_shell_would() {
        let text = "helm install in words\n```yaml\nreplicas: 1\n```\n```sh\nkubectl get pods\nhelm install hub charts/server \\\n  \
                    --namespace x -f values.yaml --set 'clusters[0].id=a' # first\nhelm upgrade hub charts/server --reuse-values\n```\n";
        let [first, second] = &commands(text)[..] else { panic!("{:?}", commands(text)) };
        assert_eq!((first.line, first.chart, first.release.as_str()), (7, "server", "hub"));
        assert_eq!(first.sets, [("--set".to_owned(), "clusters[0].id=a".to_owned())]);
        assert_eq!(first.values.as_deref(), Some("replicas: 1\n"));
        assert!(second.reuses && second.values.is_none());
    }
}
