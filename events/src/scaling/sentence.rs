//! What a decision says to a person: one sentence with the numbers.
//!
//! It is made from the decision when somebody asks, and not kept: the log holds the numbers once, and a better wording is no other decision.

use std::fmt;

use super::decision::{Answer, By, Decision, Failure, LimitKind, Reason, Verdict};

impl Decision {
    /// One sentence for a person, with the numbers; `input` names the inputs of the policy.
    pub fn sentence(&self, input: impl Fn(u16) -> String) -> String {
        let mut text = if self.is_change() {
            format!("from {} to {}: ", self.from, count(self.wanted))
        } else {
            format!("stays at {}: ", count(self.wanted))
        };
        text.push_str(self.reason.phrase());
        let winner = self.winner.and_then(|index| Some((index, self.verdicts.get(usize::from(index))?)));
        if let Some((index, verdict)) = winner {
            text.push_str(&format!("; {} {verdict}", input(index)));
        }
        for limit in &self.limits {
            let arithmetic = if let By::Ceiling(fit) = limit.by { format!(" of {fit}") } else { String::new() };
            text.push_str(&format!("; {}{arithmetic} makes {} of {}", limit.kind.phrase(), limit.to, limit.from));
        }
        for (index, failure) in self.failures() {
            text.push_str(&format!("; {} could not be used: {failure}", input(u16::try_from(index).unwrap_or(u16::MAX))));
        }
        text
    }
}

fn count(replicas: u32) -> String {
    format!("{replicas} replica{}", if replicas == 1 { "" } else { "s" })
}

/// What stands after the name of the input.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.raw {
            Some(raw) => write!(f, "is {raw}")?,
            None => f.write_str("is unknown")?,
        }
        if let Some(ratio) = self.ratio {
            write!(f, " ({ratio} of its target)")?;
        }
        match &self.answer {
            Answer::Replicas(replicas) => write!(f, " and asks for {replicas}"),
            Answer::Nothing => f.write_str(" and asks for nothing"),
            Answer::Failed(failure) => write!(f, ": {failure}"),
        }
    }
}

impl Reason {
    const fn phrase(self) -> &'static str {
        match self {
            Reason::Proposed => "the signals ask for it",
            Reason::Content => "nothing asks for another size",
            Reason::OutOfBounds => "the pool may have no other size",
            Reason::Asleep => "the pool has no replica, and this policy starts none there",
            Reason::Unknown => "too little is known to change anything",
            Reason::Woken => "there is work, and nobody who does it",
            Reason::Idle => "there was no work for long enough",
            Reason::CoolingDown => "there is no work, but not for long enough",
            Reason::Fallback => "the signals failed too often, and this is the size for that",
            Reason::Paused => "the policy is paused",
            Reason::Panic => "the load rose suddenly",
        }
    }
}

impl LimitKind {
    const fn phrase(self) -> &'static str {
        match self {
            LimitKind::Min => "the pool's minimum",
            LimitKind::Max => "the pool's maximum",
            LimitKind::UpWindow => "the window for growing",
            LimitKind::DownWindow => "the window for shrinking",
            LimitKind::UpRate => "the limit on how fast it grows",
            LimitKind::DownRate => "the limit on how fast it shrinks",
            LimitKind::UpCooldown => "the cooldown after growing",
            LimitKind::DownCooldown => "the cooldown before shrinking",
            LimitKind::UpDisabled => "that it never grows",
            LimitKind::DownDisabled => "that it never shrinks",
            LimitKind::KeepAlive => "that idle replicas are kept as long as new ones take to start",
            LimitKind::Panic => "that nothing shrinks in panic",
            LimitKind::Pause => "the pause",
            LimitKind::Hold => "that somebody holds its size",
            LimitKind::Ceiling => "the pool's ceiling",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Missing => f.write_str("nobody read it"),
            Failure::Source(reason) => f.write_str(reason),
            Failure::Negative => f.write_str("it is below zero"),
            Failure::NoPods => f.write_str("no pods returned by selector while calculating replica count"),
            Failure::NoSamples => f.write_str("did not receive metrics for targeted pods (pods might be unready)"),
            Failure::NoRequest => f.write_str("missing request in a container of a pod"),
            Failure::ZeroRequest => f.write_str("no metrics returned matched known pods"),
            Failure::NoNumber => f.write_str("the calculation has no result"),
        }
    }
}
