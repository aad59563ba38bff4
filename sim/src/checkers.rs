//! What must hold in every world; looked at when its story has ended well, unmentioned.

mod bytes;
mod leftovers;
mod quiet;

use crate::story::Story;

/// Runs all checkers.
///
/// # Errors
/// The first thing found wrong.
pub(crate) async fn check(story: &Story) -> anyhow::Result<()> {
    bytes::check(story)?;
    leftovers::check(story).await?;
    // Last, so that the way down is heard too.
    quiet::check(story)
}
