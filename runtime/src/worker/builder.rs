//! Making a worker, and running it on a thread of its own.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix::System;
use ergate_actors::clock::SystemClock;
use ergate_actors::executor::factory::ExecutorFactory;
use ergate_actors::executor::function::{IntoTask, TaskFunction};
use ergate_actors::workers::runner::{Runner, RunnerParts};
use ergate_events::state::replicas::SLOTS_MAX;
use ergate_events::time::Timestamp;
use ergate_events::worker::{LEASE_MAX, LEASE_MIN, WorkerId};
use hyper::header::HeaderValue;
use tokio::sync::{oneshot, watch};

use super::WorkerError;
use super::agent::{Agent, Wish};
use super::line::Road;
use super::links::Ways;
use super::pace::Concurrency;
use super::plan::Plan;
use crate::http::client::{self, ServiceUrl};

/// How long a worker may be silent while it has work, unless it says otherwise.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(5);
/// How long attempts may go on after somebody asked for an end, unless it is said otherwise.
const DRAIN_DEFAULT: Duration = Duration::from_secs(30);

/// A worker that is being made. See the [module's documentation](super).
pub struct Worker {
    urls: Vec<String>,
    token: Option<HeaderValue>,
    tls: Option<client::TlsConnector>,
    /// Drawn where whoever made it did not.
    id: Option<WorkerId>,
    plan: Plan,
    /// When nothing that runs can end any more.
    lost: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// What is wrong with it, said when it is run.
    fault: Option<String>,
}

impl Worker {
    /// A worker of the engine at this URL, such as `http://127.0.0.1:7420`, and of all that this one names: where the log is on Kafka there are
    /// several.
    pub fn builder(url: &str) -> Worker {
        let plan = Plan {
            id: WorkerId::default(),
            pool: "default".to_owned(),
            slots: 1,
            concurrency: Concurrency::Fixed,
            name: format!("pid {}", std::process::id()),
            labels: BTreeMap::new(),
            lease: LEASE_DEFAULT,
            drain: DRAIN_DEFAULT,
            tasks: BTreeMap::new(),
            ready: None,
            room: None,
        };
        Worker { urls: vec![url.to_owned()], token: None, tls: None, id: None, plan, lost: None, fault: None }
    }

    /// One more engine to begin with, for when the others do not answer. An engine, not what distributes requests to several.
    #[must_use]
    pub fn engine(mut self, url: &str) -> Worker {
        self.urls.push(url.to_owned());
        self
    }

    /// Whose work it does; without this, that of the pool `default`.
    #[must_use]
    pub fn pool(mut self, pool: &str) -> Worker {
        pool.clone_into(&mut self.plan.pool);
        self
    }

    /// How many attempts it runs at a time; one without this.
    #[must_use]
    pub const fn slots(mut self, slots: u32) -> Worker {
        self.plan.slots = slots;
        self
    }

    /// How many of its slots it uses; all of them without this.
    #[must_use]
    pub const fn concurrency(mut self, concurrency: Concurrency) -> Worker {
        self.plan.concurrency = concurrency;
        self
    }

    /// What people call it.
    #[must_use]
    pub fn name(mut self, name: &str) -> Worker {
        name.clone_into(&mut self.plan.name);
        self
    }

    /// Gives it an id, which no other process may have; without this it draws one.
    #[must_use]
    pub const fn id(mut self, id: WorkerId) -> Worker {
        self.id = Some(id);
        self
    }

    /// Lets it have at most so many attempts at this moment: 0 while what does the work is not ready. Those that it has are not ended.
    #[must_use]
    pub fn room(mut self, room: watch::Receiver<u32>) -> Worker {
        self.plan.room = Some(room);
        self
    }

    /// Says something of it that tells it from others.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Worker {
        self.plan.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// How long it may be silent while it has work, before that goes to others; [`LEASE_DEFAULT`] without this.
    #[must_use]
    pub const fn lease(mut self, lease: Duration) -> Worker {
        self.plan.lease = lease;
        self
    }

    /// How long attempts may go on after somebody asked for an end; 30 s without this.
    #[must_use]
    pub const fn drain(mut self, drain: Duration) -> Worker {
        self.plan.drain = drain;
        self
    }

    /// The token that lets it work, with the scope `work`.
    #[must_use]
    pub fn token(mut self, token: &str) -> Worker {
        match HeaderValue::from_str(&format!("Bearer {}", token.trim())) {
            Ok(mut header) => {
                header.set_sensitive(true);
                self.token = Some(header);
            }
            Err(_) => self.fault = Some("the token has characters in it that no token has".to_owned()),
        }
        self
    }

    /// A file with the certificates to trust, in PEM; without this, those that this machine trusts.
    #[must_use]
    pub fn ca(mut self, path: &Path) -> Worker {
        match client::trust(Some(path)) {
            Ok(tls) => self.tls = Some(tls),
            Err(reason) => self.fault = Some(reason),
        }
        self
    }

    /// Runs tasks of this type with an async function.
    #[must_use]
    pub fn task<Args>(self, name: &str, function: impl IntoTask<Args>) -> Worker {
        self.task_function(name, function.into_task())
    }

    /// Runs tasks of this type with what [`crate::blocking`] or [`crate::function`] made.
    #[must_use]
    pub fn task_function(mut self, name: &str, function: Arc<dyn TaskFunction>) -> Worker {
        if self.plan.tasks.insert(name.to_owned(), function).is_some() {
            self.fault = Some(format!("the task type {name:?} has two functions"));
        }
        self
    }

    /// Runs tasks of a type with the executor that this makes.
    #[must_use]
    pub fn executor(mut self, factory: &(impl ExecutorFactory + ?Sized)) -> Worker {
        let name = factory.task_type().to_owned();
        match factory.init().and_then(|()| factory.create()) {
            Ok(function) => self.task_function(&name, function),
            Err(error) => {
                self.fault = Some(format!("the executor of the task type {name:?} cannot be made: {error}"));
                self
            }
        }
    }

    /// Once this is ready, nothing that runs can end any more, for instance because a device is lost: outcomes that are there are told, all else is
    /// given back at once and counts for nothing, and the worker ends.
    #[must_use]
    pub fn give_back_when(mut self, lost: impl Future<Output = ()> + Send + 'static) -> Worker {
        self.lost = Some(Box::pin(lost));
        self
    }

    /// Calls this once when the engine knows the worker.
    #[must_use]
    pub fn on_ready(mut self, ready: impl FnOnce() + Send + 'static) -> Worker {
        self.plan.ready = Some(Box::new(ready));
        self
    }

    /// Works until `shutdown` is ready, then lets attempts end, returns the others, and leaves. Also ends when the engine drains the worker. Dropped
    /// before, it ends at once.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
        self.run_until(shutdown, std::future::pending()).await
    }

    /// As [`Worker::run`]; once `now` is ready as well it ends without waiting for anything.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub async fn run_until(
        mut self,
        shutdown: impl Future<Output = ()>,
        now: impl Future<Output = ()>,
    ) -> Result<(), WorkerError> {
        let (wish, wishes) = watch::channel(Wish::Work);
        let mut lost = self.lost.take().unwrap_or_else(|| Box::pin(std::future::pending()));
        let mut is_lost = false;
        let mut ended = self.start(wishes)?;
        let gone = |ended: Result<_, oneshot::error::RecvError>| ended.unwrap_or(Err(WorkerError::Thread(None)));
        // Whoever does not hear what is sent has ended.
        tokio::select! {
            ended = &mut ended => return gone(ended),
            () = shutdown => drop(wish.send(Wish::Drain)),
            () = &mut lost => {
                is_lost = true;
                let _ = wish.send(Wish::GiveBack);
            }
        }
        tokio::pin!(now);
        loop {
            tokio::select! {
                ended = &mut ended => return gone(ended),
                () = &mut lost, if !is_lost => {
                    is_lost = true;
                    let _ = wish.send(Wish::GiveBack);
                }
                () = &mut now => break,
            }
        }
        let _ = wish.send(Wish::Now);
        gone(ended.await)
    }

    /// Starts the worker's thread: the program's own may be busy with something else.
    fn start(self, wishes: watch::Receiver<Wish>) -> Result<oneshot::Receiver<Result<(), WorkerError>>, WorkerError> {
        let (plan, first, ways) = self.check()?;
        let (end, ended) = oneshot::channel();
        let work = move || {
            let outcome = System::new().block_on(work(plan, (first, ways), wishes));
            // Whoever waited for it may have gone.
            let _ = end.send(outcome);
        };
        let thread = std::thread::Builder::new().name("ergate-worker".to_owned()).spawn(work);
        thread.map_err(|error| WorkerError::Thread(Some(error)))?;
        Ok(ended)
    }

    fn check(self) -> Result<(Plan, Vec<Road>, Ways), WorkerError> {
        let Worker { urls, token, tls, id, mut plan, lost: _, fault } = self;
        let wrong = |text: String| Err(WorkerError::Setup(text));
        if let Some(fault) = fault {
            return wrong(fault);
        }
        let mut first: Vec<ServiceUrl> = Vec::with_capacity(urls.len());
        for text in urls {
            let url = text.parse().map_err(|reason| WorkerError::Setup(format!("the engine is named {text:?}: {reason}")))?;
            if !first.contains(&url) {
                first.push(url);
            }
        }
        if !(1..=SLOTS_MAX).contains(&plan.slots) {
            return wrong(format!("it has {} slots; 1 to {SLOTS_MAX} are expected", plan.slots));
        }
        if let Some(fault) = plan.concurrency.fault(plan.slots) {
            return wrong(fault);
        }
        if plan.lease < LEASE_MIN.to_std() || plan.lease > LEASE_MAX.to_std() {
            return wrong(format!("its lease is {:?}; {LEASE_MIN} to {LEASE_MAX} are expected", plan.lease));
        }
        if plan.tasks.is_empty() {
            return wrong("it can run no task type".to_owned());
        }
        if plan.tasks.len() >= usize::from(u16::MAX) {
            return wrong(format!("it can run {} task types, which are too many", plan.tasks.len()));
        }
        plan.id = id.map_or_else(draw, Ok)?;
        let is_secure = first.iter().all(|url| url.tls);
        let mut ways = Ways { tls, token, is_secure };
        let roads: Result<Vec<Road>, String> = first.into_iter().map(|url| ways.road(url)).collect();
        Ok((plan, roads.map_err(WorkerError::Setup)?, ways))
    }
}

/// An id that no other process has.
fn draw() -> Result<WorkerId, WorkerError> {
    let mut id = [0; 16];
    let filled = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(16) => Ok(WorkerId(id)),
        Ok(_) | Err(_) => Err(WorkerError::Setup("the system has no random numbers".to_owned())),
    }
}

/// Runs on the worker's thread.
async fn work(plan: Plan, (first, ways): (Vec<Road>, Ways), wishes: watch::Receiver<Wish>) -> Result<(), WorkerError> {
    let clock = Arc::new(SystemClock::starting(Timestamp(0)));
    let functions = plan.tasks.values().cloned().collect();
    let parts = RunnerParts { slots: plan.slots, clock: Arc::clone(&clock) as _, functions };
    let (runner, reports) = Runner::start(parts).await.ok_or(WorkerError::Runner)?;
    Agent::new(plan, first, ways, clock, runner).work(reports, wishes).await
}
