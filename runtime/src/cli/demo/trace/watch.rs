//! Shows how a pool follows its work: on a terminal a screen that is drawn again and again, elsewhere a line a second.

use std::time::{Duration, Instant};

use ergate::Runtime;
use ergate::events::event::Event;
use ergate::events::id::Position;
use ergate::events::log::Cursor;
use ergate::events::scaling::{AnyPolicy, Decision, Policy};
use ergate::events::state::control::ReplicaPhase;
use ergate::events::time::{Micros, Timestamp};
use ergate::look::record;

use super::screen::{Screen, bars};
use super::{POOL, Plan};
use crate::cli::progress::number;
use crate::cli::{Format, Globals, output};

/// Lines for the last decisions.
const DECISION_LINES: usize = 9;
/// How many characters of a sentence stand in a line, and how far they are from the left.
const SENTENCE: usize = 64;
const INDENT: usize = 14;
/// How often a number is kept for the bars, and how many bars there are.
const BAR_EVERY: Duration = Duration::from_millis(500);
const BARS: usize = 56;
/// How often a plain line is printed.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Looks at a pool and shows it.
pub(super) struct Watch {
    title: String,
    count: usize,
    policy: AnyPolicy,
    most: u32,
    show: Show,
    cursor: Option<Box<dyn Cursor>>,
    /// The last decisions that changed the size, the newest last: when, and what they say.
    decisions: Vec<(Timestamp, String)>,
    replicas: Vec<f64>,
    backlog: Vec<f64>,
    kept: Option<Instant>,
}

enum Show {
    Nothing,
    Screen(Screen),
    Lines { last: Instant, told: usize },
}

/// What there is at a moment.
struct Seen {
    ready: usize,
    starting: usize,
    draining: usize,
    wanted: u32,
    waiting: u64,
    running: u64,
    done: u64,
    waits: [Micros; 3],
}

impl Watch {
    pub(super) fn new(plan: &Plan, runtime: &Runtime, globals: &Globals) -> anyhow::Result<Watch> {
        let screen = if globals.output == Format::Table && !globals.quiet { Screen::open() } else { None };
        let show = match (globals.quiet, screen) {
            (true, _) => Show::Nothing,
            (false, Some(screen)) => Show::Screen(screen),
            (false, None) => Show::Lines { last: Instant::now(), told: 0 },
        };
        Ok(Watch {
            title: format!("{} at {}x, sized by {}", output::escape(&plan.name), plan.speed, output::escape(&plan.policy)),
            count: plan.arrivals.len(),
            policy: plan.setup.policy.clone(),
            most: plan.setup.bounds.max,
            show,
            cursor: Some(runtime.reader().cursor(Position(0))?),
            decisions: Vec::new(),
            replicas: Vec::new(),
            backlog: Vec::new(),
            kept: None,
        })
    }

    /// Looks, and shows what there is.
    pub(super) async fn look(&mut self, runtime: &Runtime, fed: usize, elapsed: Duration) -> anyhow::Result<()> {
        if matches!(self.show, Show::Nothing) {
            return Ok(());
        }
        self.read_on()?;
        let seen = seen(runtime).await?;
        if self.kept.is_none_or(|kept| kept.elapsed() >= BAR_EVERY) {
            self.kept = Some(Instant::now());
            self.replicas.push((seen.ready + seen.starting + seen.draining) as f64);
            self.backlog.push(seen.waiting as f64);
        }
        let lines = self.lines(&seen, fed, elapsed);
        match &mut self.show {
            Show::Nothing => {}
            Show::Screen(screen) => screen.draw(&lines),
            Show::Lines { last, told } if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                for (at, sentence) in self.decisions.iter().skip(*told) {
                    output::note(&output::escape(&format!("{} {sentence}", at.rfc3339())));
                }
                *told = self.decisions.len();
                output::note(&format!(
                    "{} of {} tasks done, {} waiting, {} running, {} replicas",
                    number(seen.done),
                    number(self.count as u64),
                    number(seen.waiting),
                    seen.running,
                    seen.ready
                ));
            }
            Show::Lines { .. } => {}
        }
        Ok(())
    }

    /// Leaves the last picture where it is.
    pub(super) fn finish(self) {
        drop(self.show);
    }

    /// Reads what was decided since the last look.
    fn read_on(&mut self) -> anyhow::Result<()> {
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        while let Some(block) = cursor.next_block()? {
            for record in record::of(&block) {
                let record = record?;
                let Event::PoolScaled { decision, shadow: None, .. } = &record.envelope.event else { continue };
                let decision: Decision = serde_json::from_str(decision)?;
                if decision.is_change() {
                    let sentence = decision.sentence(|input| self.policy.input(input));
                    self.decisions.push((record.envelope.recorded_at, sentence));
                }
            }
        }
        Ok(())
    }

    fn lines(&self, seen: &Seen, fed: usize, elapsed: Duration) -> Vec<String> {
        let most_waiting = self.backlog.iter().copied().fold(0.0, f64::max);
        let clock = |at: Timestamp| at.rfc3339().chars().skip(11).take(12).collect::<String>();
        let wait = |span: Micros| format!("{:.2} s", span.0 as f64 / 1e6);
        let [p50, p95, p99] = seen.waits.map(wait);
        let mut lines = vec![
            self.title.clone(),
            format!(
                "{:>4} s   {} of {} tasks arrived, {} done",
                elapsed.as_secs(),
                number(fed as u64),
                number(self.count as u64),
                number(seen.done)
            ),
            String::new(),
            format!(
                "replicas  {:>6} of {}: {} ready, {} starting, {} draining",
                seen.wanted, self.most, seen.ready, seen.starting, seen.draining
            ),
            format!("          {}", bars(&self.replicas, f64::from(self.most), BARS)),
            format!("waiting   {:>6}, at most {}; {} running", number(seen.waiting), most_waiting, seen.running),
            format!("          {}", bars(&self.backlog, most_waiting, BARS)),
            format!("waits     half within {p50}, 95 % within {p95}, 99 % within {p99}"),
            String::new(),
            format!("last decisions of {}", number(self.decisions.len() as u64)),
        ];
        let above = lines.len();
        for (at, sentence) in self.decisions.iter().rev().take(DECISION_LINES) {
            let parts = wrapped(&output::escape(sentence), SENTENCE);
            let heads = std::iter::once(clock(*at)).chain(std::iter::repeat(String::new()));
            lines.extend(heads.zip(parts).map(|(head, part)| format!("{head:<INDENT$}{part}")));
        }
        lines.resize(above + DECISION_LINES, String::new());
        lines
    }
}

async fn seen(runtime: &Runtime) -> anyhow::Result<Seen> {
    let state = runtime.state().await?;
    let control = &state.control;
    let pool = control.pool(POOL);
    let of = |phase: ReplicaPhase| {
        control.replicas.values().filter(|life| Some(life.pool) == pool.map(|(id, _)| id) && life.phase == phase).count()
    };
    let (waiting, running, done, waits) = runtime.with_progress(|progress| {
        let waits = [0.5, 0.95, 0.99].map(|share| progress.start_waits.quantile(share));
        (progress.backlog(), progress.running, progress.done(), waits)
    });
    Ok(Seen {
        ready: of(ReplicaPhase::Ready),
        starting: of(ReplicaPhase::Requested),
        draining: of(ReplicaPhase::Draining),
        wanted: pool.map_or(0, |(_, size)| size.replicas),
        waiting,
        running,
        done,
        waits,
    })
}

/// A text in lines of at most so many characters, broken between words.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut().filter(|line| line.chars().count() + 1 + word.chars().count() <= most) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_broken_between_words() {
        assert_eq!(
            wrapped("from 2 to 3 replicas: the signals ask for it", 20),
            ["from 2 to 3", "replicas: the", "signals ask for it"]
        );
        assert_eq!(wrapped("", 5), [""]);
    }
}
