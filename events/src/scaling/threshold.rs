//! Rules as people write them down first: "CPU above 70 % for 5 minutes: one more", "idle for 5 minutes: none".

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::decision::{Answer, By, Decision, LimitKind, Reason, Verdict};
use super::policy::{Cadence, Policy};
use super::real::Real;
use super::setting::{self, SettingError, require};
use super::signal::{Bounds, Observation, names};
use crate::time::{Micros, Timestamp};

/// Settings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Threshold {
    /// Any of these makes the pool larger.
    pub up: Vec<Rule>,
    /// All of these together make it smaller.
    pub down: Vec<Rule>,
    /// When nobody is needed at all.
    pub idle: Option<Idle>,
    /// Shortest time between two steps in the same direction, for a new replica to make a difference: 60 s.
    pub spacing: Micros,
}

/// One rule: a signal beyond a limit for long enough.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The signal.
    pub signal: String,
    /// The limit: above it in `up`, below it in `down`; at the limit a rule is quiet.
    pub limit: Real,
    /// For how long, in a row; 0 is at once.
    #[serde(default)]
    pub lasting: Micros,
    /// How many replicas more, or fewer.
    #[serde(default = "one")]
    pub by: u32,
}

/// When nobody is needed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Idle {
    /// The signal: 0 means that there is nothing to do.
    pub signal: String,
    /// For how long there has to be nothing.
    pub lasting: Micros,
    /// How many replicas remain.
    pub replicas: u32,
}

const fn one() -> u32 {
    1
}

impl Default for Threshold {
    fn default() -> Self {
        Threshold { up: Vec::new(), down: Vec::new(), idle: None, spacing: Micros::from_secs(60) }
    }
}

impl Default for Idle {
    fn default() -> Self {
        Idle { signal: names::WORK.to_owned(), lasting: Micros::from_secs(300), replicas: 0 }
    }
}

/// What it remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Since when each rule holds, `up` first, then `down`, then idle.
    since: Vec<Option<Timestamp>>,
    grown: Option<Timestamp>,
    shrunk: Option<Timestamp>,
}

impl Policy for Threshold {
    type Memory = Memory;

    fn check(&self, bounds: Bounds) -> Result<(), SettingError> {
        require(bounds.max >= bounds.min.max(1), "max", bounds.max, "at least 1 and at least the minimum")?;
        setting::inputs("up, down and idle", self.up.len() + self.down.len() + usize::from(self.idle.is_some()))?;
        for (name, rules) in [("up", &self.up), ("down", &self.down)] {
            for (index, rule) in rules.iter().enumerate() {
                let key = format!("{name}[{index}]");
                setting::name(&format!("{key}.signal"), &rule.signal)?;
                setting::span(&format!("{key}.lasting"), rule.lasting, Micros(0), setting::SPAN_MAX)?;
                require((1..=10_000).contains(&rule.by), &format!("{key}.by"), rule.by, "1 to 10000")?;
            }
        }
        if let Some(idle) = &self.idle {
            setting::name("idle.signal", &idle.signal)?;
            setting::span("idle.lasting", idle.lasting, Micros(0), setting::SPAN_MAX)?;
            let allowed = "the pool's minimum to its maximum";
            require((bounds.min..=bounds.max).contains(&idle.replicas), "idle.replicas", idle.replicas, allowed)?;
        }
        setting::span("spacing", self.spacing, Micros(0), setting::SPAN_MAX)
    }

    fn cadence(&self) -> Cadence {
        Cadence::EVENTS
    }

    fn input(&self, index: u16) -> String {
        let rules = self.up.iter().chain(&self.down).map(|rule| &rule.signal);
        let signal = rules.chain(self.idle.iter().map(|idle| &idle.signal)).nth(usize::from(index));
        signal.map_or_else(|| format!("rule {index}"), Clone::clone)
    }

    fn evaluate(&self, memory: &mut Memory, observation: &Observation) -> Decision {
        let mut decision = Decision::draft(observation);
        let current = observation.replicas.wanted;
        let count = self.up.len() + self.down.len() + 1;
        memory.since.resize(count, None);
        for (index, rule) in self.up.iter().enumerate() {
            self.rule(memory, observation, &mut decision, index, rule, true);
        }
        for (index, rule) in self.down.iter().enumerate() {
            self.rule(memory, observation, &mut decision, self.up.len() + index, rule, false);
        }
        let is_idle = self.idle(memory, observation, &mut decision);
        self.choose(memory, observation, &mut decision, is_idle);
        decision.bound(observation);
        if decision.is_change() {
            memory.changed(observation.at, current, decision.wanted);
            decision.look_again = None;
        }
        decision
    }

    fn overruled(&self, memory: &mut Memory, observation: &Observation, wanted: u32) {
        memory.grown = memory.grown.filter(|at| *at != observation.at);
        memory.shrunk = memory.shrunk.filter(|at| *at != observation.at);
        memory.changed(observation.at, observation.replicas.wanted, wanted);
    }
}

/// What the idle rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Idleness {
    /// There is work, or nobody knows.
    Busy,
    /// There is work, and nobody who does it.
    Awake,
    /// There is none, but not for long enough.
    Cooling,
    /// There was none for long enough.
    Idle,
}

impl Threshold {
    /// Looks at one rule and notes since when it holds.
    fn rule(
        &self,
        memory: &mut Memory,
        observation: &Observation,
        decision: &mut Decision,
        index: usize,
        rule: &Rule,
        is_up: bool,
    ) {
        let (at, current) = (observation.at, observation.replicas.wanted);
        let verdict = match observation.read(&rule.signal) {
            Err(failure) => {
                memory.since[index] = None;
                Verdict::failed(failure)
            }
            Ok(value) => {
                let (number, limit) = (value.real(), rule.limit.get());
                let is_beyond = if is_up { number > limit } else { number < limit };
                let answer = if memory.holds(index, is_beyond, rule.lasting, at, decision) {
                    let to = if is_up { current.saturating_add(rule.by) } else { current.saturating_sub(rule.by) };
                    Answer::Replicas(to)
                } else {
                    Answer::Nothing
                };
                Verdict::of(value, number / limit, answer)
            }
        };
        decision.verdicts.push(verdict);
    }

    fn idle(&self, memory: &mut Memory, observation: &Observation, decision: &mut Decision) -> Idleness {
        let Some(idle) = &self.idle else { return Idleness::Busy };
        let index = self.up.len() + self.down.len();
        let current = observation.replicas.wanted;
        let (answer, raw) = match observation.count(&idle.signal) {
            Err(failure) => {
                memory.since[index] = None;
                decision.verdicts.push(Verdict::failed(failure));
                return Idleness::Busy;
            }
            Ok((raw, number)) => {
                let is_over = memory.holds(index, number <= 0.0, idle.lasting, observation.at, decision);
                let idleness = match (number > 0.0, is_over) {
                    (true, _) if current == 0 => Idleness::Awake,
                    (true, _) => Idleness::Busy,
                    (false, false) => Idleness::Cooling,
                    (false, true) => Idleness::Idle,
                };
                (idleness, raw)
            }
        };
        let asked = match answer {
            Idleness::Awake => Answer::Replicas(1),
            Idleness::Idle => Answer::Replicas(idle.replicas.min(current)),
            Idleness::Busy | Idleness::Cooling => Answer::Nothing,
        };
        decision.verdicts.push(Verdict { raw: Some(raw), ratio: None, pods: None, answer: asked });
        answer
    }

    /// Any rule may grow the pool, idleness empties it, and all rules together may shrink it.
    fn choose(&self, memory: &Memory, observation: &Observation, decision: &mut Decision, idleness: Idleness) {
        let (at, current) = (observation.at, observation.replicas.wanted);
        let last = decision.verdicts.len().saturating_sub(1);
        let asked = |decision: &Decision, index: usize| match decision.verdicts.get(index).map(|verdict| &verdict.answer) {
            Some(Answer::Replicas(count)) => Some(*count),
            Some(Answer::Nothing | Answer::Failed(_)) | None => None,
        };
        let up = (0..self.up.len()).filter_map(|index| Some((asked(decision, index)?, index)));
        // Of equals the first.
        let up = up.reduce(|best, other| if other.0 > best.0 { other } else { best });
        let down = (self.up.len()..self.up.len() + self.down.len()).map(|index| Some((asked(decision, index)?, index)));
        let down = down.collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max());
        let (wanted, winner, reason) = match (up, idleness, down) {
            (_, Idleness::Idle, _) => (asked(decision, last).unwrap_or(current), last, Reason::Idle),
            (Some((wanted, index)), _, _) => (wanted, index, Reason::Proposed),
            (None, Idleness::Awake, _) => (1, last, Reason::Woken),
            (None, _, Some((wanted, index))) => (wanted, index, Reason::Proposed),
            (None, Idleness::Cooling, None) => {
                decision.reason = Reason::CoolingDown;
                return;
            }
            (None, Idleness::Busy, None) => {
                decision.reason = if decision.failures().next().is_some() { Reason::Unknown } else { Reason::Content };
                return;
            }
        };
        decision.winner = u16::try_from(winner).ok();
        decision.wanted = wanted;
        decision.reason = if wanted == current { Reason::Content } else { reason };
        let (kind, made) = if wanted > current {
            (LimitKind::UpCooldown, memory.grown)
        } else {
            (LimitKind::DownCooldown, memory.shrunk.max(memory.grown))
        };
        // Work that nobody does, and nothing to do at all, wait for no spacing.
        let is_step = reason == Reason::Proposed;
        if let Some(made) = made.filter(|made| is_step && at.since(*made) < self.spacing) {
            decision.cut(kind, current, By::Decision(made));
            decision.look_again_at(made.after(self.spacing));
        }
    }
}

impl Memory {
    /// Notes whether a rule is beyond its limit, and says whether it has been for long enough; if not, when to look again.
    fn holds(&mut self, index: usize, is_beyond: bool, lasting: Micros, at: Timestamp, decision: &mut Decision) -> bool {
        if !is_beyond {
            self.since[index] = None;
            return false;
        }
        let since = *self.since[index].get_or_insert(at);
        let is_over = at.since(since) >= lasting;
        if !is_over {
            decision.look_again_at(since.after(lasting));
        }
        is_over
    }

    /// After a step every rule has to hold anew: what it measured was the pool before the step.
    fn changed(&mut self, at: Timestamp, from: u32, to: u32) {
        if to == from {
            return;
        }
        self.since.fill(None);
        if to > from {
            self.grown = Some(at);
        } else {
            self.shrunk = Some(at);
        }
    }
}
