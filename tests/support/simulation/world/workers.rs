//! Workers: they run attempts, hang, go deaf, and report until somebody answers.

use ergate_events::id::{Ordinal, ReplicaId};

use super::{MINUTE, What, World};
use crate::simulation::ask::{Ask, Done};
use crate::simulation::engine::Effect;

impl World {
    pub(super) fn take_effect(&mut self, effect: Effect) -> Result<(), String> {
        self.note(&format!("{effect:?}"));
        match effect {
            Effect::Start { task, attempt, replica, again } => self.start_attempt(task, attempt, replica, again)?,
            Effect::Stop { task, attempt, replica } => {
                self.running.remove(&(task, attempt));
                if self.alive.contains(&replica) && !self.unreported.contains_key(&(task, attempt)) {
                    self.report(task, attempt, replica, Done::Stopped);
                }
            }
            Effect::Cancel { task, attempt, replica } => {
                let deaf = self.random.chance(self.options.deaf);
                if !deaf && self.running.remove(&(task, attempt)).is_some() {
                    let done = if self.random.chance(300) { Done::Succeeded } else { Done::Failed { retryable: true } };
                    self.report(task, attempt, replica, done);
                }
            }
        }
        Ok(())
    }

    pub(super) fn start_attempt(&mut self, task: Ordinal, attempt: u32, replica: ReplicaId, again: bool) -> Result<(), String> {
        if !self.alive.contains(&replica) {
            return Ok(());
        }
        if !self.ledger.execute(task, attempt, replica, again)? {
            self.cover("repeated start");
            return Ok(());
        }
        self.running.insert((task, attempt), replica);
        if self.random.chance(self.options.hang) {
            if self.random.chance(500) {
                self.plan(MINUTE / 2, What::Silence(task, attempt));
            }
        } else {
            let duration = self.random.spread(self.options.run_millis * 1_000);
            self.plan(duration, What::End(task, attempt));
        }
        Ok(())
    }

    pub(super) fn end_attempt(&mut self, task: Ordinal, attempt: u32) {
        let Some(replica) = self.running.remove(&(task, attempt)) else { return };
        let failed = self.random.chance(self.options.fail);
        let retryable = self.random.chance(900);
        self.report(task, attempt, replica, if failed { Done::Failed { retryable } } else { Done::Succeeded });
    }

    pub(super) fn report(&mut self, task: Ordinal, attempt: u32, replica: ReplicaId, done: Done) {
        let ask = Ask::Report { task, attempt, replica, done };
        self.unreported.insert((task, attempt), ask.clone());
        self.send(ask);
    }
}
