//! No ERROR in any log, unless the story announced it: an error is what a person should look at.

use crate::story::Story;

pub(super) fn check(story: &Story) -> anyhow::Result<()> {
    let announced = story.announced_errors();
    let unexpected =
        story.trace().lines().into_iter().find(|line| line.is_error && !announced.iter().any(|part| line.what.contains(part)));
    match unexpected {
        Some(line) => anyhow::bail!("an error was logged that the story did not announce: {line}"),
        None => Ok(()),
    }
}
