//! Bugs that are planted on purpose to prove that the tests find them. Only with feature `planted-bugs`; without it nothing of this is compiled in.

/// A bug that `ERGATE_PLANTED_BUG` can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// `ack-before-sync`: replies do not wait for the disk.
    AckBeforeSync,
    /// `skipped-fence`: a late report of an old attempt is taken.
    SkippedFence,
    /// `dropped-last-block`: recovery forgets the newest block.
    DroppedLastBlock,
    /// `no-limit`: decoders believe every length.
    NoLimit,
}

/// Whether this bug is planted.
#[cfg(feature = "planted-bugs")]
pub fn is(bug: Bug) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    *PLANTED.get_or_init(|| match std::env::var("ERGATE_PLANTED_BUG").as_deref() {
        Ok("ack-before-sync") => Some(Bug::AckBeforeSync),
        Ok("skipped-fence") => Some(Bug::SkippedFence),
        Ok("dropped-last-block") => Some(Bug::DroppedLastBlock),
        Ok("no-limit") => Some(Bug::NoLimit),
        Ok(_) | Err(_) => None,
    }) == Some(bug)
}

/// Whether this bug is planted: never in this build.
#[cfg(not(feature = "planted-bugs"))]
pub const fn is(_: Bug) -> bool {
    false
}
