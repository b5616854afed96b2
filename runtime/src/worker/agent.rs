//! The worker itself: one loop that owns everything it knows, and never waits for a task.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use ergate_actors::clock::Clock;
use ergate_actors::report::Report;
use ergate_actors::usage::{Meter, Usage};
use ergate_actors::workers::runner::{News, Reports, Runner};
use ergate_events::id::{AttemptId, Ordinal, TypeId};
use tokio::sync::watch;

use super::WorkerError;
use super::given::Fetch;
use super::lane::Called;
use super::line::Road;
use super::link::{Link, On};
use super::links::{Astray, Ways};
use super::pace::Pace;
use super::plan::Plan;
use super::share;
use super::table::{Held, Left, Stage, Table};

/// How long a worker without a free slot waits for one before it asks for orders alone.
const FULL_AFTER: Duration = Duration::from_millis(50);
/// How long attempts that were told to end may take for it at the end of a drain.
const GRACE: Duration = Duration::from_secs(1);
/// How long after a drain the engine may take to hear of it.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// How long a worker whose server broke a connection asks for nothing: by then it is known whether that has died, which takes a few milliseconds, or
/// 200 where something holds its pipes.
const DOUBT: Duration = Duration::from_millis(300);
/// How long what has ended already may take to be told, before the rest is given back.
const GIVE_BACK_AFTER: Duration = Duration::from_millis(250);
/// Longest sleep where nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// What whoever runs a worker wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Go on.
    Work,
    /// End well.
    Drain,
    /// End soon: what runs cannot end any more, and goes to others.
    GiveBack,
    /// End now.
    Now,
}

/// An end that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// Until when attempts may end; as long as they take where an engine asked for it.
    pub(super) until: Option<Instant>,
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
    /// The engines; attempts know the place of theirs.
    pub(super) links: Vec<Option<Link>>,
    pub(super) ways: Ways,
    /// Reports that no engine could take at the time.
    pub(super) astray: Vec<Astray>,
    /// The engine that is asked next, where several may be.
    pub(super) turn: usize,
    /// Until when it asks for nothing, because what does its work may be gone.
    doubt_until: Option<Instant>,
    pub(super) full_since: Option<Instant>,
    pub(super) drain: Option<Drain>,
    pub(super) is_gone: bool,
    /// How many attempts it may have now.
    room: Option<watch::Receiver<u32>>,
    /// Finds out how many do best, where it is to.
    pub(super) pace: Option<Pace>,
    /// How many it could have at most when it asked last.
    pub(super) most_before: usize,
    /// Measures what this process uses.
    pub(super) meter: Meter,
    /// What it used when that was measured last.
    pub(super) usage: Option<(Usage, Instant)>,
}

impl Agent {
    pub(super) fn new(mut plan: Plan, first: Vec<Road>, ways: Ways, clock: Arc<dyn Clock>, runner: Runner) -> Agent {
        let ids = (0..=u16::MAX).map(TypeId);
        Agent {
            room: plan.room.take(),
            pace: Pace::of(plan.concurrency, plan.slots),
            types: plan.names().map(str::to_owned).zip(ids).collect(),
            table: Table::new(plan.slots),
            plan,
            clock,
            runner,
            links: first.into_iter().map(|road| Some(Link::new(road, true))).collect(),
            ways,
            astray: Vec::new(),
            turn: 0,
            most_before: 0,
            meter: Meter::default(),
            usage: None,
            doubt_until: None,
            full_since: None,
            drain: None,
            is_gone: false,
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
                (at, on, called) = answered(&mut self.links) => self.hear(at, on, called)?,
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
                self.begin_drain(Some(Instant::now() + self.plan.drain));
                Ok(())
            }
            Wish::GiveBack => {
                self.begin_drain(Some(Instant::now() + GIVE_BACK_AFTER));
                Ok(())
            }
            Wish::Now => Err(WorkerError::Interrupted { running: self.table.live() }),
        }
    }

    /// Takes nothing more.
    pub(super) fn begin_drain(&mut self, until: Option<Instant>) {
        let drain = self.drain.get_or_insert(Drain { until, is_over: false });
        drain.until = until.or(drain.until);
    }

    /// Lets go of payloads that nobody needs any more.
    pub(super) fn forget_fetches(&mut self, at: usize) {
        let table = &self.table;
        let is_wanted = |fetch: &Fetch| table.get(fetch.place).is_some_and(|held| fetch.is_for(held));
        if let Some(link) = self.links[at].as_mut() {
            link.fetches.retain(is_wanted);
        }
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
        let Some(Held { id, stage, from }) = self.table.get(place).filter(|held| held.id.number == number) else { return };
        if stage == Stage::Over {
            return;
        }
        if let News::Failed(failure) = news
            && failure.class == "connect"
            && self.room.is_some()
        {
            self.doubt_until = Some(Instant::now() + DOUBT);
        }
        let Some(link) = self.teller(from) else { return };
        match (stage, news) {
            (_, News::Kept(_) | News::Progressed(_) | News::Ran(_) | News::Alive) => return link.outbox.add(place, id, news),
            (Stage::Ending(left), News::Released) => link.outbox.leave(place, id, left),
            (_, News::Released | News::Succeeded(..) | News::Failed(_)) => link.outbox.add(place, id, news),
        }
        self.over(place, news);
    }

    /// Tells an attempt to end at once.
    pub(super) fn end_now(&mut self, place: usize, held: Held, left: Left) {
        match held.stage {
            Stage::Fetching => self.leave(place, held, left),
            Stage::Running => {
                self.table.set(place, Stage::Ending(left));
                self.runner.stop(Ordinal(place as u64), held.id.number, true);
            }
            Stage::Ending(_) | Stage::Over => {}
        }
    }

    /// Reports an attempt as one that was not ended.
    pub(super) fn leave(&mut self, place: usize, Held { id, from, .. }: Held, left: Left) {
        if let Some(link) = self.teller(from) {
            link.outbox.leave(place, id, left);
        }
        self.over(place, News::Released);
    }

    fn over(&mut self, place: usize, news: News<'_>) {
        self.table.set(place, Stage::Over);
        if let Some(pace) = &mut self.pace {
            pace.end(place, news);
        }
    }

    /// Gives an attempt back for which there is no slot.
    pub(super) fn return_beyond(&mut self, id: AttemptId, from: usize) {
        if let Some(place) = self.table.take_beyond(id, from)
            && let Some(link) = self.teller(from)
        {
            link.outbox.leave(place, id, Left::Returned);
        }
    }

    /// Does what is due at this time.
    fn look(&mut self) -> Result<(), WorkerError> {
        let Some(Drain { until: Some(until), is_over }) = self.drain else { return Ok(()) };
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
            live.into_iter().for_each(|(place, held)| self.leave(place, held, Left::Returned));
        }
        match self.table.all().count() {
            _ if since < CLOSE_MAX => {}
            0 => self.is_gone = true,
            outcomes => return Err(WorkerError::Unheard { outcomes }),
        }
        Ok(())
    }

    /// When something is due next, of what nothing else wakes for.
    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        let links = || self.links.iter().flatten();
        let lanes = links().flat_map(Link::free_at);
        let known = links().filter(|link| link.is_known && !self.table.is_empty());
        let signs = known.map(|link| link.heard + self.plan.sign_every());
        let full = self.full_since.map(|since| since + FULL_AFTER);
        let drain = self.drain.and_then(|drain| drain.until);
        let drain = drain.into_iter().flat_map(|until| [Duration::ZERO, GRACE, CLOSE_MAX].map(|after| until + after));
        let astray = self.astray.iter().map(|astray| astray.due);
        let shares = share::wake_at(&self.asked_engines().1, now);
        let is_told = |link: &&Link| link.is_known && self.drain.is_none();
        let paces = links().filter(is_told).filter_map(|link| self.pace.as_ref()?.due(&link.notice));
        let usages = links().filter(|link| link.is_known).filter_map(|link| self.usage_due(link));
        // A moment later, so that what is due then is not just not yet due.
        let due = lanes
            .chain(signs)
            .chain(full)
            .chain(drain)
            .chain(astray)
            .chain(shares)
            .chain(paces)
            .chain(usages)
            .chain(self.doubt_until);
        due.map(|at| at + Duration::from_millis(1)).filter(|at| *at > now).min().unwrap_or(now + IDLE)
    }

    fn room(&self) -> usize {
        let slots = self.plan.slots as usize;
        self.room.as_ref().map_or(slots, |room| slots.min(*room.borrow() as usize))
    }

    /// How many attempts do best, where it finds that out.
    pub(super) fn limit(&self) -> usize {
        self.pace.as_ref().map_or(usize::MAX, |pace| pace.limit() as usize)
    }

    /// How many attempts it may have at this moment, of all engines together.
    pub(super) fn most(&self) -> usize {
        self.room().min(self.limit())
    }

    /// Whether it takes one more that this engine gives. What was asked for before the limit fell is done, also where it comes with a later answer: of
    /// an engine alone that is never more than there was room for then, of several it may be.
    pub(super) fn takes_from(&self, at: usize) -> bool {
        let is_alone = self.links.iter().flatten().count() == 1;
        let asked_at = self.link(at).map_or(0, |link| link.limit);
        let limit = if is_alone { usize::MAX } else { asked_at.max(self.limit()) };
        self.table.live() < self.room().min(limit)
    }

    /// How many more attempts it may be given.
    pub(super) fn free(&self) -> usize {
        if self.doubt_until.is_some_and(|until| Instant::now() < until) {
            return 0;
        }
        self.table.free().min(self.most().saturating_sub(self.table.live()))
    }

    /// Notes whether there is work for free places.
    pub(super) fn measure(&mut self) {
        let is_dry = |agent: &Agent| agent.free() > 0 && share::is_dry(&agent.asked_engines().1, Instant::now());
        let is_starved = self.pace.is_some() && is_dry(self);
        if let Some(pace) = &mut self.pace {
            pace.starve(is_starved);
        }
    }

    /// Whether it is time to ask although there is no free slot.
    pub(super) fn is_long_full(&mut self) -> bool {
        self.full_since.get_or_insert_with(Instant::now).elapsed() >= FULL_AFTER
    }

    /// Whether there is nothing to do and nothing to report.
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty() && self.astray.is_empty() && self.links.iter().flatten().all(Link::is_empty)
    }
}

/// The next call that ends, on which connection to which engine. Nothing is lost when this is dropped and called again.
async fn answered(links: &mut [Option<Link>]) -> (usize, On, Called) {
    poll_fn(|context| {
        for (at, link) in links.iter_mut().enumerate() {
            if let Some(link) = link
                && let Poll::Ready((on, called)) = link.poll(context)
            {
                return Poll::Ready((at, on, called));
            }
        }
        Poll::Pending
    })
    .await
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
