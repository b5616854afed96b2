//! What workers ask of a runtime: to be known, to be given attempts, to be heard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ergate_actors::executor::context::Progress;
use ergate_actors::executor::function::TaskError;
use ergate_actors::log_writer::{AttachWorker, DepartWorker, PaceWorker};
use ergate_actors::report::Report;
use ergate_actors::submission::SubmitError;
use ergate_actors::workers::{AskError, Asked, JoinError, Leased, Session, WorkerSpec};
use ergate_events::command::Rejection;
use ergate_events::id::{AttemptId, ShardId, TaskId};
use ergate_events::ran::Ran;
use ergate_events::task::Outcome;
use ergate_events::worker::WorkerId;
use tokio::sync::oneshot;

use crate::runtime::{Front, Runtime};
use crate::wiring::Parts;

/// Longest wait for attempts: shorter than the time after which proxies close a silent connection.
pub const LEASE_WAIT_MAX: Duration = Duration::from_secs(60);

/// Why a worker is not served.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WorkerError {
    /// This engine does not know it.
    #[error("this engine does not know the worker: register, with all that is running")]
    Unknown,
    /// It cannot be taken in.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// It is given nothing now.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// It names something that is not there.
    #[error("{what} {name:?} is not known to this engine; known are: {known}")]
    NotThere {
        /// What it is.
        what: &'static str,
        /// Its name.
        name: String,
        /// The first few that are there.
        known: String,
    },
    /// The log does not answer.
    #[error(transparent)]
    Log(#[from] SubmitError),
}

/// News of one attempt.
#[derive(Clone, Debug)]
pub enum News {
    /// It is over: how, and where it ran, if the worker says so.
    Ended(End, Option<Box<Ran>>),
    /// It goes on; how far it is, and what the next attempt shall receive.
    Beat(Option<Progress>, Option<Vec<u8>>),
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum End {
    /// With a result.
    Succeeded(Outcome, Vec<u8>),
    /// Without one.
    Failed(TaskError),
    /// The worker will not end it.
    Returned,
    /// It was told to stop, and did.
    Stopped,
}

/// What became of a piece of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Taken,
    /// It does not count, and will not.
    Refused(Rejection),
    /// It is for another engine to say, or for none at this moment: nothing of it is recorded here.
    Elsewhere,
}

/// How many attempts at a time a worker does best with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// How many, from now on.
    pub limit: u32,
    /// How many it was when the worker said so last.
    pub was: u32,
    /// Why.
    pub reason: String,
}

/// Workers.
impl Runtime {
    /// Takes a worker in, or finds it again; says which of what it runs is not its own any more. What the log gives it beside that returns to the queue.
    /// Of what it runs of shards that other engines lead nothing is said: it is theirs to say.
    ///
    /// # Errors
    /// [`WorkerError`] when there are too many, it is another one under the same id, or names what is not there.
    pub async fn register_worker(&self, spec: WorkerSpec, running: &[AttemptId]) -> Result<Vec<AttemptId>, WorkerError> {
        self.check_spec(&spec)?;
        let hub = self.hub();
        let session = hub.join(spec)?;
        session.attach();
        let running: BTreeSet<AttemptId> = running.iter().copied().collect();
        let mut stale: Vec<AttemptId> = running.iter().filter(|attempt| !self.is_shard(attempt.task.shard)).copied().collect();
        for parts in self.led_here() {
            let own = running.iter().filter(|attempt| attempt.task.shard == parts.shard);
            let (reply, answer) = oneshot::channel();
            let running = own.map(|attempt| (attempt.task.ordinal, attempt.number)).collect();
            let attach = AttachWorker { worker: session.id(), running, reply };
            match ask(&parts, attach, answer).await {
                Ok(gone) => stale.extend(gone.into_iter().map(|(ordinal, number)| attempt_id(parts.shard, ordinal, number))),
                // It is led elsewhere, or again here, by whoever asks what runs.
                Err(_) if self.is_on_kafka() => {}
                Err(error) => return Err(error.into()),
            }
        }
        session.attached();
        Ok(stale)
    }

    /// Gives a worker what there is for it, up to so many attempts, as soon as there is anything; waits at most so long.
    ///
    /// # Errors
    /// [`WorkerError::Unknown`] or [`WorkerError::Ask`].
    pub async fn lease(&self, worker: WorkerId, seq: u64, slots: u32, wait: Duration) -> Result<Arc<Leased>, WorkerError> {
        let session = self.worker(worker)?;
        let waiting = match self.hub().wait(&session, seq, slots)? {
            Asked::Again(answer) => return Ok(answer),
            Asked::Waits(waiting) => waiting,
        };
        match tokio::time::timeout(wait.min(LEASE_WAIT_MAX), waiting.leased(seq)).await {
            Ok(leased) => Ok(leased?),
            Err(_) => Ok(waiting.end(seq)?),
        }
    }

    /// Records news of attempts of a worker, and says of each what became of it, once that is durable.
    ///
    /// News that another engine passed on counts also where the worker has not said to this one what it runs: the log knows whose an attempt is.
    ///
    /// # Errors
    /// [`WorkerError::Unknown`], or [`WorkerError::Log`]; then nobody knows what was recorded, and it is to be reported again.
    pub async fn report_work(
        &self,
        worker: WorkerId,
        news: Vec<(AttemptId, News)>,
        is_passed_on: bool,
    ) -> Result<Vec<Verdict>, WorkerError> {
        let session = self.worker(worker);
        let session = match session {
            Ok(session) => Some(session),
            // Its lease here is over; but a shard that is on its way here may know it.
            Err(_) if is_passed_on => None,
            Err(error) => return Err(error),
        };
        if let Some(session) = &session {
            session.touch();
            if !session.is_attached() && !is_passed_on {
                return Err(AskError::Unattached.into());
            }
        }
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(news.len());
        let mut by_shard: BTreeMap<ShardId, Vec<(usize, AttemptId, News)>> = BTreeMap::new();
        for (index, (attempt, news)) in news.into_iter().enumerate() {
            // Until a shard that is led here says otherwise.
            let is_shard = self.is_shard(attempt.task.shard);
            verdicts.push(if is_shard { Verdict::Elsewhere } else { stale(attempt) });
            by_shard.entry(attempt.task.shard).or_default().push((index, attempt, news));
        }
        for parts in self.led_here() {
            let Some(news) = by_shard.remove(&parts.shard) else { continue };
            let Some(session) = &session else {
                news.iter().for_each(|(index, attempt, _)| verdicts[*index] = stale(*attempt));
                continue;
            };
            match self.record(&parts, session, news).await {
                Ok(recorded) => recorded.into_iter().for_each(|(index, verdict)| verdicts[index] = verdict),
                // Whoever leads it next knows what was recorded, and refuses that when it is reported again.
                Err(_) if self.is_on_kafka() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(verdicts)
    }

    /// Records news of attempts of one shard that is led here; what became of each, by its index.
    async fn record(
        &self,
        parts: &Parts,
        session: &Session,
        news: Vec<(usize, AttemptId, News)>,
    ) -> Result<Vec<(usize, Verdict)>, SubmitError> {
        let (mut report, answers) = Report::of_worker(session.id());
        let mut verdicts = Vec::with_capacity(news.len());
        let mut indices = Vec::with_capacity(news.len());
        for (index, attempt, news) in news {
            let before = report.len();
            push(&mut report, session, attempt, news);
            indices.extend(std::iter::repeat_n(index, report.len() - before));
            if report.len() == before {
                verdicts.push((index, Verdict::Taken));
            }
        }
        if report.is_empty() {
            return Ok(verdicts);
        }
        let lane = parts.reports.upgrade().ok_or_else(|| parts.closed())?;
        lane.send(report).await.map_err(|_| parts.closed())?;
        let answers = answers.await.map_err(|_| parts.unknown())??;
        let told = answers.into_iter().map(|answer| answer.map_or_else(Verdict::Refused, |()| Verdict::Taken));
        verdicts.extend(indices.into_iter().zip(told));
        Ok(verdicts)
    }

    /// Records with how many attempts at a time a worker does best, where it is not what is known of it; each time that it says so once.
    ///
    /// # Errors
    /// [`WorkerError::Unknown`], [`WorkerError::Ask`] where it has to register first, or [`WorkerError::Log`]; then it is to be said again.
    pub async fn change_concurrency(&self, worker: WorkerId, concurrency: Concurrency) -> Result<(), WorkerError> {
        let session = self.worker(worker)?;
        session.touch();
        if !session.is_attached() {
            return Err(AskError::Unattached.into());
        }
        let Concurrency { limit, was, reason } = concurrency;
        // The same again is a report whose answer was lost; what was is what it is, where the worker has registered anew.
        if session.concurrency() != Some(limit) && was != limit {
            for parts in self.led_here() {
                let (reply, answer) = oneshot::channel();
                match ask(&parts, PaceWorker { worker, limits: (was, limit), reason: reason.clone(), reply }, answer).await {
                    Ok(_) => {}
                    // It is led elsewhere, by an engine that the worker tells as well.
                    Err(_) if self.is_on_kafka() => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        session.set_concurrency(limit);
        Ok(())
    }

    /// Gives a worker nothing more.
    ///
    /// # Errors
    /// [`WorkerError::Unknown`], or [`WorkerError::Log`].
    pub async fn drain_worker(&self, worker: WorkerId) -> Result<(), WorkerError> {
        self.worker(worker)?.drain();
        self.depart(worker, false).await
    }

    /// A worker is gone; what it had returns to the queue.
    ///
    /// # Errors
    /// [`WorkerError::Log`].
    pub async fn remove_worker(&self, worker: WorkerId) -> Result<(), WorkerError> {
        if let Ok(session) = self.worker(worker) {
            session.drain();
        }
        self.depart(worker, true).await?;
        self.hub().forget(worker);
        Ok(())
    }

    /// A worker that is known here.
    ///
    /// # Errors
    /// [`WorkerError::Unknown`].
    pub fn worker(&self, worker: WorkerId) -> Result<Arc<Session>, WorkerError> {
        self.hub().session(worker).ok_or(WorkerError::Unknown)
    }

    /// All workers that are known here.
    pub fn workers(&self) -> Vec<Arc<Session>> {
        self.hub().sessions()
    }

    async fn depart(&self, worker: WorkerId, is_gone: bool) -> Result<(), WorkerError> {
        for parts in self.led_here() {
            let (reply, answer) = oneshot::channel();
            ask(&parts, DepartWorker { worker, is_gone, reply }, answer).await?;
        }
        Ok(())
    }

    /// Refuses a worker that waits for work which there cannot be.
    fn check_spec(&self, spec: &WorkerSpec) -> Result<(), WorkerError> {
        let known = |names: BTreeSet<&str>| names.into_iter().take(8).collect::<Vec<_>>().join(", ");
        let settings = || self.all_type_settings();
        let pools: BTreeSet<&str> = settings().map(|(_, settings)| settings.pool.as_str()).collect();
        if !pools.contains(&*spec.pool) {
            return Err(WorkerError::NotThere { what: "the pool", name: spec.pool.to_string(), known: known(pools) });
        }
        let of_pool: BTreeSet<&str> = settings().filter(|(_, one)| one.pool == *spec.pool).map(|(name, _)| name).collect();
        match spec.facts.types.iter().find(|name| !of_pool.contains(name.as_str())) {
            Some(name) => Err(WorkerError::NotThere { what: "the task type", name: name.clone(), known: known(of_pool) }),
            None => Ok(()),
        }
    }

    /// Whether there is such a shard, whoever leads it.
    fn is_shard(&self, shard: ShardId) -> bool {
        shard.0 < self.shards()
    }

    /// The shards that are led here.
    fn led_here(&self) -> Vec<Parts> {
        match self.front() {
            Front::Local(parts) => vec![Parts::clone(parts)],
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => {
                let all = engine.leading.all().into_iter();
                all.filter(|parts| parts.shard != crate::shards::CAPACITY).collect()
            }
        }
    }
}

const fn stale(attempt: AttemptId) -> Verdict {
    Verdict::Refused(Rejection::StaleAttempt { task: attempt.task.ordinal, attempt: attempt.number })
}

fn attempt_id(shard: ShardId, ordinal: ergate_events::id::Ordinal, number: u32) -> AttemptId {
    AttemptId { task: TaskId { shard, ordinal }, number }
}

fn push(report: &mut Report, session: &Session, attempt: AttemptId, news: News) {
    let (TaskId { shard, ordinal: task }, number) = (attempt.task, attempt.number);
    match news {
        News::Beat(progress, details) => {
            session.beat(shard, task, number);
            if let Some(progress) = progress {
                report.progressed(task, number, progress);
            }
            if let Some(details) = details {
                report.kept(task, number, &details);
            }
        }
        News::Ended(end, ran) => {
            if let Some(ran) = ran {
                report.ran(task, number, ran);
            }
            match end {
                End::Succeeded(outcome, result) => report.succeeded(task, number, outcome, &result),
                End::Failed(error) => report.failed(task, number, error),
                End::Returned => report.returned(task, number, false),
                End::Stopped => report.returned(task, number, true),
            }
            session.end_attempt(shard, task, number);
        }
    }
}

async fn ask<M, T>(parts: &Parts, message: M, answer: oneshot::Receiver<Result<T, SubmitError>>) -> Result<T, SubmitError>
where
    M: actix::Message<Result = ()> + Send + 'static,
    ergate_actors::log_writer::LogWriter: actix::Handler<M>,
{
    parts.writer.send(message).await.map_err(|_| parts.closed())?;
    answer.await.map_err(|_| parts.unknown())?
}
