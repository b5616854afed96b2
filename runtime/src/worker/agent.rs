//! The worker itself: one loop that owns everything it knows, and never waits for a task.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ergate_actors::clock::Clock;
use ergate_actors::report::Report;
use ergate_actors::workers::runner::{News, Reports, Runner};
use ergate_events::id::{Ordinal, TypeId};
use tokio::sync::watch;

use super::WorkerError;
use super::given::Fetch;
use super::lane::Lane;
use super::line::Road;
use super::outbox::{Outbox, Parcel};
use super::pace::Pace;
use super::plan::Plan;
use super::table::{Held, Left, Stage, Table};

/// How long a worker without a free slot waits for one before it asks for orders alone.
const FULL_AFTER: Duration = Duration::from_millis(50);
/// How long attempts that were told to end may take for it at the end of a drain.
const GRACE: Duration = Duration::from_secs(1);
/// How long after a drain the engine may take to hear of it.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// Longest sleep where nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// What whoever runs a worker wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Go on.
    Work,
    /// End well.
    Drain,
    /// End now.
    Now,
}

/// What is said on the connection for everything but questions, reports and payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Talk {
    Register,
    Sign,
    Drain,
    Leave,
}

/// An end that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// Until when attempts may end; as long as they take where the engine asked for it.
    pub(super) until: Option<Instant>,
    /// Whether the engine knows.
    pub(super) is_said: bool,
    /// Whether what ran on was told to end.
    pub(super) is_over: bool,
}

/// A worker.
pub(super) struct Agent {
    pub(super) plan: Plan,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) types: HashMap<String, TypeId>,
    pub(super) runner: Runner,
    pub(super) table: Table,
    pub(super) outbox: Outbox,
    /// Reports that were not answered, the first on its way.
    pub(super) parcels: VecDeque<Parcel>,
    /// Payloads that have to be fetched, the first on its way.
    pub(super) fetches: VecDeque<Fetch>,
    pub(super) ask: Lane,
    pub(super) tell: Lane,
    pub(super) talk: Lane,
    pub(super) fetch: Lane,
    pub(super) talking: Talk,
    /// The number of the next question, and how many attempts the one on its way asks for.
    pub(super) seq: u64,
    pub(super) asked: usize,
    /// Whether the engine knows what runs.
    pub(super) is_known: bool,
    /// When it came to know that.
    pub(super) known_at: Option<Instant>,
    /// When the last call began that was answered: the engine has counted the lease from then or later.
    pub(super) heard: Instant,
    pub(super) full_since: Option<Instant>,
    pub(super) drain: Option<Drain>,
    pub(super) is_gone: bool,
    /// Whether the log of the process says that the engine does not answer.
    pub(super) is_troubled: bool,
    /// How many attempts it may have now.
    room: Option<watch::Receiver<u32>>,
    /// Finds out how many do best, where it is to.
    pub(super) pace: Option<Pace>,
}

impl Agent {
    pub(super) fn new(mut plan: Plan, road: Road, clock: Arc<dyn Clock>, runner: Runner) -> Agent {
        let road = Arc::new(road);
        let lane = || Lane::new(&road);
        let ids = (0..=u16::MAX).map(TypeId);
        Agent {
            room: plan.room.take(),
            pace: Pace::of(plan.concurrency, plan.slots),
            types: plan.names().map(str::to_owned).zip(ids).collect(),
            table: Table::new(plan.slots),
            plan,
            clock,
            runner,
            outbox: Outbox::new(),
            parcels: VecDeque::new(),
            fetches: VecDeque::new(),
            ask: lane(),
            tell: lane(),
            talk: lane(),
            fetch: lane(),
            talking: Talk::Register,
            seq: 1,
            asked: 0,
            is_known: false,
            known_at: None,
            heard: Instant::now(),
            full_since: None,
            drain: None,
            is_gone: false,
            is_troubled: false,
        }
    }

    /// Works until somebody wants an end of it, or the engine refuses it.
    pub(super) async fn work(mut self, mut reports: Reports, mut wishes: watch::Receiver<Wish>) -> Result<(), WorkerError> {
        let outcome = self.go_on(&mut reports, &mut wishes).await;
        self.runner.end();
        outcome
    }

    async fn go_on(&mut self, reports: &mut Reports, wishes: &mut watch::Receiver<Wish>) -> Result<(), WorkerError> {
        loop {
            self.begin_calls();
            if self.is_gone {
                return Ok(());
            }
            let wake = tokio::time::Instant::from_std(self.wake_at());
            tokio::select! {
                report = reports.next() => self.take(report.ok_or(WorkerError::Runner)?, reports),
                answer = self.ask.done() => self.asked(answer)?,
                answer = self.tell.done() => self.told(answer)?,
                answer = self.talk.done() => self.talked(answer)?,
                answer = self.fetch.done() => self.fetched(answer)?,
                () = tokio::time::sleep_until(wake) => self.look()?,
                // The next turn asks anew, for more or for less.
                () = changed(&mut self.room) => {}
                changed = wishes.changed() => {
                    let wish = if changed.is_ok() { *wishes.borrow_and_update() } else { Wish::Now };
                    self.heed(wish)?;
                }
            }
        }
    }

    fn heed(&mut self, wish: Wish) -> Result<(), WorkerError> {
        match wish {
            Wish::Work => Ok(()),
            Wish::Drain => {
                self.begin_drain(Some(Instant::now() + self.plan.drain), false);
                Ok(())
            }
            Wish::Now => Err(WorkerError::Interrupted { running: self.table.live() }),
        }
    }

    /// Takes nothing more.
    pub(super) fn begin_drain(&mut self, until: Option<Instant>, is_said: bool) {
        let drain = self.drain.get_or_insert(Drain { until, is_said, is_over: false });
        drain.until = until.or(drain.until);
        drain.is_said |= is_said;
    }

    /// Lets go of payloads that nobody needs any more.
    pub(super) fn forget_fetches(&mut self) {
        let table = &self.table;
        let is_wanted = |fetch: &Fetch| table.get(fetch.place).is_some_and(|held| fetch.is_for(held));
        self.fetches.retain(is_wanted);
    }

    /// Takes what the runner told, and what it tells meanwhile.
    fn take(&mut self, first: Report, reports: &mut Reports) {
        let mut next = Some(first);
        while let Some(report) = next {
            report.news().for_each(|(task, number, news)| self.note(task, number, news));
            next = reports.next_now();
        }
    }

    fn note(&mut self, task: Ordinal, number: u32, news: News<'_>) {
        let Some(place) = usize::try_from(task.0).ok() else { return };
        let Some(Held { id, stage }) = self.table.get(place).filter(|held| held.id.number == number) else { return };
        match (stage, news) {
            (Stage::Over, _) => return,
            (_, News::Kept(_) | News::Progressed(_) | News::Alive) => return self.outbox.add(place, id, news),
            (Stage::Ending(left), News::Released) => self.outbox.leave(place, id, left),
            (_, News::Released | News::Succeeded(..) | News::Failed(_)) => self.outbox.add(place, id, news),
        }
        self.over(place, news);
    }

    /// Tells an attempt to end at once.
    pub(super) fn end_now(&mut self, place: usize, Held { id, stage }: Held, left: Left) {
        match stage {
            Stage::Fetching => self.leave(place, id, left),
            Stage::Running => {
                self.table.set(place, Stage::Ending(left));
                self.runner.stop(Ordinal(place as u64), id.number, true);
            }
            Stage::Ending(_) | Stage::Over => {}
        }
    }

    /// Reports an attempt as one that was not ended.
    pub(super) fn leave(&mut self, place: usize, id: ergate_events::id::AttemptId, left: Left) {
        self.outbox.leave(place, id, left);
        self.over(place, News::Released);
    }

    fn over(&mut self, place: usize, news: News<'_>) {
        self.table.set(place, Stage::Over);
        if let Some(pace) = &mut self.pace {
            pace.end(place, news);
        }
    }

    /// Does what is due at this time.
    fn look(&mut self) -> Result<(), WorkerError> {
        let Some(Drain { until: Some(until), is_over, .. }) = self.drain else { return Ok(()) };
        let since = Instant::now().saturating_duration_since(until);
        if since.is_zero() {
            return Ok(());
        }
        let live: Vec<_> = self.table.all().filter(|(_, held)| held.stage != Stage::Over).collect();
        if !is_over {
            live.into_iter().for_each(|(place, held)| self.end_now(place, held, Left::Returned));
            self.drain = self.drain.map(|drain| Drain { is_over: true, ..drain });
        } else if since >= GRACE {
            // A function that blocks its thread ends with the process.
            live.into_iter().for_each(|(place, held)| self.leave(place, held.id, Left::Returned));
        }
        if since >= CLOSE_MAX { Err(WorkerError::Unheard { outcomes: self.table.all().count() }) } else { Ok(()) }
    }

    /// When something is due next, of what nothing else wakes for.
    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        let lanes = [&self.ask, &self.tell, &self.talk, &self.fetch].into_iter().filter_map(Lane::free_at);
        let sign = (self.is_known && !self.table.is_empty()).then(|| self.heard + self.plan.sign_every());
        let full = self.full_since.map(|since| since + FULL_AFTER);
        let drain = self.drain.and_then(|drain| drain.until);
        let drain = drain.into_iter().flat_map(|until| [Duration::ZERO, GRACE, CLOSE_MAX].map(|after| until + after));
        let pace = self.pace.as_ref().filter(|_| self.is_known).and_then(Pace::due);
        // A moment later, so that what is due then is not just not yet due.
        let due = lanes.chain(sign).chain(full).chain(drain).chain(pace).map(|at| at + Duration::from_millis(1));
        due.filter(|at| *at > now).min().unwrap_or(now + IDLE)
    }

    /// How many more attempts it may be given.
    pub(super) fn free(&self) -> usize {
        let room = self.room.as_ref().map_or(usize::MAX, |room| *room.borrow() as usize);
        let limit = self.pace.as_ref().map_or(usize::MAX, |pace| pace.limit() as usize);
        self.table.free().min(room.min(limit).saturating_sub(self.table.live()))
    }

    /// Whether it is time to ask although there is no free slot.
    pub(super) fn is_long_full(&mut self) -> bool {
        self.full_since.get_or_insert_with(Instant::now).elapsed() >= FULL_AFTER
    }

    /// Whether there is nothing to do and nothing to report.
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty() && self.outbox.is_empty() && self.parcels.is_empty()
    }
}

/// Waits until there is more or less room than before.
async fn changed(room: &mut Option<watch::Receiver<u32>>) {
    let is_there = match room {
        Some(room) => room.changed().await.is_ok(),
        None => std::future::pending().await,
    };
    if !is_there {
        // Whoever could say it is gone; what was said last holds.
        std::future::pending().await
    }
}
