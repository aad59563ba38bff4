//! What must hold in every world; looked at when its story has ended well, unmentioned.

mod answers;
mod bytes;
pub(crate) mod credentials;
mod leftovers;
mod quiet;

use crate::story::Story;

/// Runs all checkers.
///
/// # Errors
/// The first thing found wrong.
pub(crate) async fn check(story: &Story) -> anyhow::Result<()> {
    bytes::check(story)?;
    answers::check_hangs(story)?;
    leftovers::check(story).await?;
    answers::check(story)?;
    // Last, so that the way down is heard too.
    credentials::check(story)?;
    quiet::check(story)
}

#[cfg(test)]
mod tests;
