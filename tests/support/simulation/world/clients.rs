//! Clients who want work done, and whoever meddles with it.

use ergate_events::block::Block;
use ergate_events::id::Ordinal;
use ergate_events::limit::{LimitSettings, Rate};
use ergate_events::task::{Ask as Setting, Dependency, OnFailure};
use ergate_events::time::Micros;
use ergate_events::worker::WORKER_FIRST;

use super::{MINUTE, What, World};
use crate::simulation::ask::Ask;

impl World {
    pub(super) fn arrive(&mut self) {
        if self.calm {
            return;
        }
        self.clients += 1;
        let client = self.clients;
        let key = self.random.chance(self.options.keyed).then(|| format!("client {client}"));
        let mut settings = Vec::new();
        if let Some(engine) = self.engine.as_ref().filter(|_| self.random.chance(self.options.delayed)) {
            let due = engine.log_time(self.now).after(Micros(self.random.below(5 * MINUTE)));
            settings.push(Setting::NotBefore(due));
        }
        settings.extend(self.random.chance(200).then_some(Setting::Priority((client % 10) as u8)));
        settings
            .extend(self.random.chance(700).then_some(Setting::Label("tenant", ["red", "green", "blue"][client as usize % 3])));
        if self.random.chance(self.options.dependent) {
            self.depend(client, &mut settings);
        }
        let ask = Ask::Submit { client, payload: client.to_le_bytes(), key, settings };
        if self.engine.is_some() {
            self.unanswered.insert(client, ask.clone());
            self.send(ask);
        }
        let next = self.random.spread(self.options.arrival_millis * 1_000);
        self.plan(next, What::Arrive);
    }

    /// Lets a request come after some of those before it, acknowledged or not.
    fn depend(&mut self, client: u64, settings: &mut Vec<Setting<'static>>) {
        for _ in 0..self.random.between(1, 3) {
            let before = client.saturating_sub(self.random.between(1, 12));
            settings.extend(match self.ledger.acknowledged.get(&before) {
                Some(task) => Some(Setting::After(Dependency::Task(*task))),
                None if self.unanswered.contains_key(&before) => {
                    let key: &'static str = Box::leak(format!("client {before}").into_boxed_str());
                    Some(Setting::After(Dependency::Key(None, key)))
                }
                None => None,
            });
        }
        settings.extend(self.random.chance(400).then_some(Setting::OnFailure(OnFailure::Run)));
    }

    /// A request names a task that has ended: whoever asked looks in the log, where the end is by now, and asks again.
    pub(super) fn look_up(&mut self, client: u64, index: usize, task: Ordinal) -> Result<(), String> {
        let Some(Ask::Submit { settings, .. }) = self.unanswered.get(&client) else { return Ok(()) };
        let (blocks, _) = self.disk.blocks();
        let records = blocks.iter().flat_map(Block::records).map(|record| record.map(|envelope| envelope.event.ends()));
        let end = records.filter_map(Result::ok).flatten().find(|(ended, _)| *ended == task);
        let Some((_, outcome)) = end else { return Err(format!("I7: {task} has ended, and the log does not say how")) };
        let mut settings = settings.clone();
        let named = settings.iter_mut().filter(|setting| matches!(setting, Setting::After(_))).nth(index);
        *named.ok_or("I7: a name is refused that was not used")? = Setting::After(Dependency::Ended(task, outcome));
        if let Some(Ask::Submit { settings: known, .. }) = self.unanswered.get_mut(&client) {
            *known = settings;
        }
        self.cover("end looked up");
        self.unanswered.get(&client).cloned().into_iter().for_each(|ask| self.send(ask));
        Ok(())
    }

    pub(super) fn meddle(&mut self) {
        if self.calm {
            return;
        }
        let target =
            Ordinal(self.ledger.acknowledged.len() as u64 - self.random.below(20).min(self.ledger.acknowledged.len() as u64));
        if self.random.chance(self.options.cancel) {
            self.send(Ask::Cancel(target));
        }
        if self.random.chance(self.options.kill) {
            self.send(Ask::Kill(target));
        }
        let dead = self.engine.as_ref().and_then(|engine| engine.shard.state().work.dead.keys().next().copied());
        if let Some(dead) = dead.filter(|_| self.random.chance(self.options.redrive)) {
            self.send(Ask::Redrive(dead));
        }
        if self.random.chance(self.options.resize) {
            let (replicas, slots) = (self.random.below(6) as u32, self.random.between(1, 6) as u32);
            self.send(Ask::Resize { replicas, slots });
        }
        if self.random.chance(self.options.resize) {
            self.limit();
        }
        if self.random.chance(self.options.lose_replica) {
            self.lose_replica();
        }
        let running = self.running.keys().next().copied();
        if let Some((task, attempt)) = running.filter(|_| self.random.chance(300)) {
            self.send(Ask::Checkpoint { task, attempt });
        }
        let next = self.random.spread(MINUTE / 20);
        self.plan(next, What::Meddle);
    }

    /// Lets other numbers of tasks through from here on.
    pub(super) fn limit(&mut self) {
        let mut allows = LimitSettings { concurrency: Some(self.random.between(1, 9) as u32), ..LimitSettings::default() };
        allows.key = self.random.chance(800).then(|| "tenant".to_owned());
        allows.ready = self.random.chance(300).then(|| self.random.between(1, 4) as u32);
        let (permits, burst) = (self.random.between(1, 50) as u32, self.random.between(1, 5) as u32);
        allows.rate = self.random.chance(300).then_some(Rate { permits, per: Micros::from_secs(1), burst });
        self.send(Ask::DefineLimit(allows));
    }

    pub(super) fn lose_replica(&mut self) {
        // Guests fall silent by themselves.
        let own: Vec<_> = self.alive.iter().filter(|replica| **replica < WORKER_FIRST).copied().collect();
        let index = self.random.below(own.len() as u64) as usize;
        let Some(replica) = own.get(index).copied() else { return };
        self.note(&format!("{replica} is lost"));
        self.alive.remove(&replica);
        // Some attempts go on where nobody sees them, and report late.
        let zombie = self.random.chance(self.options.zombie);
        self.running.retain(|_, runs_on| *runs_on != replica || zombie);
        self.plan(1_000, What::Step(self.process));
    }

    pub(super) fn calm_down(&mut self) {
        self.note("no more faults");
        self.calm = true;
        self.wake_guests();
        let options = &mut self.options;
        for fault in [
            &mut options.crash,
            &mut options.disk_error,
            &mut options.disk_full,
            &mut options.torn,
            &mut options.hang,
            &mut options.zombie,
        ] {
            *fault = 0;
        }
        self.send(Ask::Resize { replicas: 2, slots: 4 });
    }
}
