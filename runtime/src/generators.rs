//! Starts the generators of a shard that only this process has, and on Kafka those of the shards that are led here.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Actor, Arbiter};
use ergate_actors::generate::{Desk, Generator, LocalFuture};
use ergate_actors::submission::{BatchAnswer, RequestBatch, SubmitError};
use ergate_events::id::{ShardId, TypeId};
use ergate_events::log::index::TaskIndex;
use ergate_events::state::State;
use ergate_events::time::Timestamp;

#[cfg(feature = "kafka")]
pub(crate) use self::led::follow;
use crate::builder::Builder;
#[cfg(feature = "kafka")]
use crate::runtime::WeakRuntime;
use crate::wiring::Parts;

/// A shard as its generators need it.
struct ShardDesk {
    parts: Parts,
    /// The numbers of task types in requests. By a topic these are the engine's own, for each shard numbers its types by itself.
    types: BTreeMap<String, TypeId>,
    requests: Requests,
}

/// Where what they generate goes.
enum Requests {
    /// To the shard itself, which has at most so many live tasks.
    Shard(usize),
    /// To the shard by its topic: who leads a shard on Kafka decides what is there.
    #[cfg(feature = "kafka")]
    Topic(WeakRuntime),
}

/// Starts them; they end with the system, or when their hosts are stopped.
pub(crate) fn start(builder: &Builder, parts: &Parts) {
    if builder.plugins.generators().is_empty() {
        return;
    }
    let (types, requests) = (parts.types.clone(), Requests::Shard(builder.tasks_live_max));
    let desk = Arc::new(ShardDesk { parts: parts.clone(), types, requests });
    let arbiter = Arbiter::new().handle();
    for host in builder.plugins.generators() {
        let (host, desk) = (host.clone(), Arc::clone(&desk));
        Generator::start_in_arbiter(&arbiter, move |_| Generator::new(host, desk));
    }
}

impl ShardDesk {
    async fn durable_state(&self) -> Result<Box<State>, String> {
        let state = self.parts.state().await.map_err(|error| error.to_string())?;
        match self.parts.durable_at(state.position).await {
            Ok(true) => Ok(state),
            Ok(false) => Err(self.parts.failure().unwrap_or_default()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn record(&self, requests: RequestBatch) -> Result<BatchAnswer, SubmitError> {
        match &self.requests {
            Requests::Shard(tasks_live_max) => {
                self.parts.admit(requests.len(), *tasks_live_max)?;
                Ok(self.parts.submit(requests, None).await?.answer)
            }
            #[cfg(feature = "kafka")]
            Requests::Topic(runtime) => {
                let runtime = runtime.upgrade().ok_or_else(|| self.parts.closed())?;
                Ok(runtime.submit_to(self.parts.shard, requests).await?.answer)
            }
        }
    }
}

impl Desk for ShardDesk {
    fn shard(&self) -> ShardId {
        self.parts.shard
    }

    fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    fn index(&self) -> Arc<TaskIndex> {
        Arc::clone(&self.parts.index)
    }

    fn look(&self) -> LocalFuture<'_, Result<Box<State>, String>> {
        Box::pin(self.durable_state())
    }

    fn request_type(&self, name: &str) -> Option<TypeId> {
        self.types.get(name).copied()
    }

    fn is_over(&self) -> bool {
        match &self.requests {
            Requests::Shard(_) => false,
            #[cfg(feature = "kafka")]
            Requests::Topic(runtime) => {
                let led = runtime.upgrade().and_then(|runtime| runtime.on_kafka()?.leading.get(self.parts.shard));
                led.is_none_or(|led| led.writer != self.parts.writer)
            }
        }
    }

    fn submit(&self, requests: RequestBatch) -> LocalFuture<'_, Result<BatchAnswer, SubmitError>> {
        Box::pin(self.record(requests))
    }
}

/// On Kafka: a generator belongs to one shard, and runs where that is led.
#[cfg(feature = "kafka")]
mod led {
    use std::sync::Arc;
    use std::time::Duration;

    use actix::{Actor, Addr};
    use ergate_actors::generate::{Generator, GeneratorHost};

    use super::{Requests, ShardDesk};
    use crate::builder::Builder;
    use crate::runtime::{Runtime, WeakRuntime};

    /// How often it is looked which shards are led here: a small part of the shortest time between two questions to a generator.
    const LOOK_EVERY: Duration = Duration::from_millis(200);

    /// A generator, and who asks it while its shard is led here.
    struct Known {
        host: GeneratorHost,
        asks: Option<Addr<Generator<ShardDesk>>>,
    }

    /// Lets each generator be asked while the shard of its task type's name is led here.
    pub(crate) fn follow(builder: &Builder, runtime: &Runtime) {
        let hosts = builder.plugins.generators().to_vec();
        let Some(engine) = runtime.on_kafka().filter(|_| !hosts.is_empty()) else { return };
        let (arbiter, runtime) = (engine.system.arbiter().clone(), runtime.downgrade());
        // An engine that has ended runs nothing more.
        arbiter.spawn_fn(move || drop(actix::spawn(look_after(hosts, runtime))));
    }

    async fn look_after(hosts: Vec<GeneratorHost>, runtime: WeakRuntime) {
        let mut all: Vec<_> = hosts.into_iter().map(|host| Known { host, asks: None }).collect();
        while let Some(now) = runtime.upgrade() {
            all.iter_mut().for_each(|known| known.look(&now));
            drop(now);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    impl Known {
        fn look(&mut self, runtime: &Runtime) {
            if self.asks.as_ref().is_some_and(Addr::connected) {
                return;
            }
            let shard = runtime.home(self.host.task_type());
            let led = runtime.on_kafka().and_then(|engine| engine.leading.get(shard));
            self.asks = led.map(|parts| {
                let (types, requests) = (runtime.task_types().clone(), Requests::Topic(runtime.downgrade()));
                let desk = ShardDesk { parts, types, requests };
                Generator::new(self.host.clone(), Arc::new(desk)).start()
            });
        }
    }
}
