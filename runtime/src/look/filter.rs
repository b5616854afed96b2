//! The states of tasks that lists can be asked for.

use ergate_events::slab::Phase;

/// States to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Filter {
    /// Not ended
    Live,
    /// Ended, dead letters included
    Ended,
    /// Failed for good and kept for redrive
    Dead,
    /// Waits for the moment that its request named
    Delayed,
    /// Waits for a slot
    Ready,
    /// Has a slot
    Running,
    /// Has a slot and was asked to give it up
    Cancelling,
    /// Waits for its next attempt
    Backoff,
    /// Waits for a limit on the flow
    Limited,
    /// Waits for the end of other tasks
    Held,
}

impl Filter {
    /// All of them with their names.
    pub const NAMES: [(&'static str, Filter); 10] = [
        ("live", Filter::Live),
        ("ended", Filter::Ended),
        ("dead", Filter::Dead),
        ("delayed", Filter::Delayed),
        ("ready", Filter::Ready),
        ("running", Filter::Running),
        ("cancelling", Filter::Cancelling),
        ("backoff", Filter::Backoff),
        ("limited", Filter::Limited),
        ("held", Filter::Held),
    ];

    /// The phase of the tasks in this state, where it is one.
    pub(super) const fn phase(self) -> Option<Phase> {
        match self {
            Filter::Live | Filter::Ended | Filter::Dead => None,
            Filter::Delayed => Some(Phase::Delayed),
            Filter::Ready => Some(Phase::Ready),
            Filter::Running => Some(Phase::Running),
            Filter::Cancelling => Some(Phase::Cancelling),
            Filter::Backoff => Some(Phase::Backoff),
            Filter::Limited => Some(Phase::Limited),
            Filter::Held => Some(Phase::Held),
        }
    }
}
