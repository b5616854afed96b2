//! Clients who want work done, and whoever meddles with it.

use ergate_events::id::Ordinal;
use ergate_events::task::Ask as Setting;
use ergate_events::time::Micros;

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
        let ask = Ask::Submit { client, payload: client.to_le_bytes(), key, settings };
        if self.engine.is_some() {
            self.unanswered.insert(client, ask.clone());
            self.send(ask);
        }
        let next = self.random.spread(self.options.arrival_millis * 1_000);
        self.plan(next, What::Arrive);
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

    pub(super) fn lose_replica(&mut self) {
        let index = self.random.below(self.alive.len() as u64) as usize;
        let Some(replica) = self.alive.iter().nth(index).copied() else { return };
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
