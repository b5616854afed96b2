//! The engine's process: it steps, writes, syncs, tells, crashes and starts again.

use std::collections::BTreeMap;

use ergate_events::command::{Accepted, Rejection};
use ergate_events::event::{Cause, Departure, Envelope, Event};
use ergate_events::id::{Ordinal, ReplicaId};
use ergate_events::invariant;
use ergate_events::shard::Answer;
use ergate_events::state::control::ReplicaPhase;
use ergate_events::time::{Micros, Timestamp};
use ergate_events::worker::WORKER_FIRST;

use super::{MINUTE, What, World};
use crate::simulation::ask::Ask;
use crate::simulation::disk::DiskError;
use crate::simulation::engine::{Engine, Waiting};

impl World {
    pub(super) fn step(&mut self) -> Result<(), String> {
        (self.stepping, self.tick) = (false, None);
        let (now, mut seen) = (self.now, Vec::new());
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let released = engine.step(now, &self.types, &self.facts, &mut |envelope| seen.push((kind(envelope), envelope.position)));
        for (what, position) in seen {
            self.note(&format!("{position} {}", what.unwrap_or("event")));
            what.into_iter().for_each(|what| self.cover(what));
        }
        self.spread_word(released)?;
        self.reconcile();
        self.miss_guests();
        self.look_after();
        if self.steps.is_multiple_of(8) {
            let state = self.engine.as_ref().map(|engine| engine.shard.state());
            state.map_or(Ok(()), invariant::check).map_err(|broken| broken.to_string())?;
        }
        Ok(())
    }

    /// Sends off what is ready to be written, and plans the next batch.
    pub(super) fn look_after(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        if engine.launch() {
            let (position, sample) = (engine.shard.state().position, self.random.chance(30));
            if sample {
                self.digests.insert(position, engine.shard.state().digest());
            }
            let delay = self.random.below(200);
            self.plan(delay, What::Append(self.process));
        }
        let Some(engine) = &self.engine else { return };
        let due = engine.due().map(|due| due.max(self.now + 1));
        if let Some(due) = due.filter(|due| self.tick.is_none_or(|tick| *due < tick)) {
            self.tick = Some(due);
            self.plan(due - self.now, What::Tick(self.process, due));
        }
    }

    pub(super) fn append(&mut self) {
        let Some(flight) = self.engine.as_ref().and_then(|engine| engine.flight.as_ref()) else { return };
        match self.disk.append(&flight.sealed.bytes, &mut self.random, &self.options) {
            Ok(()) => {
                let delay = self.random.spread(self.options.sync_micros);
                self.plan(delay, What::Sync(self.process));
            }
            Err(error) => self.poison(error),
        }
    }

    pub(super) fn sync(&mut self) {
        let Some(flight) = self.engine.as_ref().and_then(|engine| engine.flight.as_ref()) else { return };
        let next = flight.sealed.header.next_position();
        match self.disk.sync(next, &mut self.random, &self.options) {
            Ok(()) => self.plan(1, What::Release(self.process)),
            Err(error) => self.poison(error),
        }
    }

    pub(super) fn release(&mut self) -> Result<(), String> {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        self.blocks += 1;
        let whole = engine.shard.open_block().count() == 0;
        let head = engine.flight.as_ref().map(|flight| flight.sealed.hash);
        let released = engine.land();
        let snapshot = self.options.snapshot_blocks > 0 && self.blocks.is_multiple_of(self.options.snapshot_blocks);
        if let Some(head) = head.filter(|_| whole && snapshot) {
            self.disk.write_snapshot(engine.shard.state(), head, &mut self.random, &self.options);
        }
        self.spread_word(released)?;
        self.look_after();
        Ok(())
    }

    pub(super) fn spread_word(&mut self, released: Waiting) -> Result<(), String> {
        for effect in released.effects {
            self.take_effect(effect)?;
        }
        released.replies.into_iter().try_for_each(|(ask, answer)| self.answer(ask, answer))
    }

    pub(super) fn answer(&mut self, ask: Ask, answer: Answer) -> Result<(), String> {
        match (ask, answer) {
            (Ask::Submit { client, key, payload, settings }, Ok(Accepted { task: Some(task), duplicate, .. })) => {
                self.note(&format!("request {client} is task {task}"));
                self.ledger.acknowledge(client, task)?;
                self.unanswered.remove(&client);
                if duplicate {
                    self.cover("duplicate");
                }
                if key.is_some() && self.random.chance(self.options.repeat) {
                    self.send(Ask::Submit { client, key, payload, settings });
                }
            }
            (Ask::Submit { client, .. }, Err(Rejection::DependencyEnded { index, task })) => self.look_up(client, index, task)?,
            (Ask::Submit { client, .. }, Err(Rejection::UnknownDependency { .. })) => {
                self.note(&format!("request {client} comes after nobody"));
                self.unanswered.remove(&client);
                self.cover("unknown dependency");
            }
            (ask @ Ask::Submit { .. }, answer) => return Err(format!("I1: {ask:?} was answered with {answer:?}")),
            (ask @ Ask::Report { task, attempt, .. }, answer) => {
                self.unreported.remove(&(task, attempt));
                self.take_receipt(ask, (task, attempt), answer)?;
            }
            (Ask::JoinWorker { guest, replica, .. }, Ok(_)) => self.welcome(guest, replica),
            (Ask::Miss(replica, _), _) => self.settle(5, replica),
            (Ask::Ready(replica), _) => self.settle(0, replica),
            (Ask::Join(replica, _), _) => self.settle(1, replica),
            (Ask::Drain(replica), _) => self.settle(2, replica),
            (Ask::Leave(replica, _), _) => self.settle(3, replica),
            (Ask::Stop(replica, departure), _) => {
                self.settle(4, replica);
                if departure == Departure::Drained {
                    self.cover("drained");
                    self.alive.remove(&replica);
                }
            }
            (_, _) => {}
        }
        Ok(())
    }

    pub(super) fn take_receipt(&mut self, ask: Ask, attempt: (Ordinal, u32), answer: Answer) -> Result<(), String> {
        match answer {
            Ok(_) => {
                self.ledger.reported.insert(attempt);
                if self.random.chance(self.options.repeat) {
                    self.send(ask);
                }
            }
            Err(Rejection::StaleAttempt { .. }) => self.cover("stale report"),
            Err(other) => return Err(format!("I1: {ask:?} was answered with {other:?}")),
        }
        Ok(())
    }

    pub(super) fn settle(&mut self, kind: u8, replica: ReplicaId) {
        self.pending.remove(&(kind, replica));
        self.plan(1, What::Step(self.process));
    }

    pub(super) fn propose(&mut self, kind: u8, replica: ReplicaId, ask: Ask) {
        if self.pending.insert((kind, replica)) {
            self.send(ask);
        }
    }

    /// Makes the fleet what the control half wants, and tells the work half what became of it.
    pub(super) fn reconcile(&mut self) {
        let Some(engine) = &self.engine else { return };
        let (work, control) = (&engine.shard.state().work, &engine.shard.state().control);
        let lives: Vec<_> = control.replicas.iter().map(|(id, life)| (*id, life.phase, life.pool)).collect();
        let present: BTreeMap<_, _> =
            work.replicas.iter().map(|(id, replica)| (id, (replica.draining, replica.used()))).collect();
        let slots: Vec<u32> = control.pools.iter().map(|pool| pool.slots).collect();
        let is_orphan = |id: &&ReplicaId| **id < WORKER_FIRST && !control.replicas.contains_key(id);
        let orphans: Vec<_> = present.keys().filter(is_orphan).copied().collect();
        for replica in orphans {
            self.propose(3, replica, Ask::Leave(replica, Departure::Lost));
        }
        for (replica, phase, pool) in lives {
            let here = present.get(&replica).copied();
            let alive = self.alive.contains(&replica);
            match (phase, here) {
                (ReplicaPhase::Requested, _) if !alive => {
                    if self.starting.insert(replica) {
                        let delay = self.random.spread(5_000_000);
                        self.plan(delay, What::Up(replica));
                    }
                }
                (ReplicaPhase::Requested, _) => self.propose(0, replica, Ask::Ready(replica)),
                (ReplicaPhase::Ready, None) if alive => {
                    self.propose(1, replica, Ask::Join(replica, slots[usize::from(pool.0)]));
                }
                (ReplicaPhase::Ready | ReplicaPhase::Draining, Some(_)) if !alive => {
                    self.propose(3, replica, Ask::Leave(replica, Departure::Lost));
                    self.propose(4, replica, Ask::Stop(replica, Departure::Lost));
                }
                (ReplicaPhase::Ready, None) => self.propose(4, replica, Ask::Stop(replica, Departure::Lost)),
                (ReplicaPhase::Ready, Some(_)) => {}
                (ReplicaPhase::Draining, Some((false, _))) => self.propose(2, replica, Ask::Drain(replica)),
                (ReplicaPhase::Draining, Some((true, 0))) => {
                    self.propose(3, replica, Ask::Leave(replica, Departure::Drained));
                    self.propose(4, replica, Ask::Stop(replica, Departure::Drained));
                }
                (ReplicaPhase::Draining, Some((true, _))) => {}
                (ReplicaPhase::Draining, None) => self.propose(4, replica, Ask::Stop(replica, Departure::Drained)),
            }
        }
    }

    pub(super) fn poison(&mut self, error: DiskError) {
        self.cover(match error {
            DiskError::Io => "disk error",
            DiskError::Full => "disk full",
        });
        self.crash("the disk fails");
    }

    /// The process ends here and now; of its memory nothing remains.
    pub(super) fn crash(&mut self, why: &str) {
        self.note(&format!("{why}; the engine is gone"));
        self.cover("crash");
        self.engine = None;
        self.process += 1;
        (self.stepping, self.tick) = (false, None);
        self.pending.clear();
        self.starting.clear();
        self.disk.lose_power(&mut self.random, &self.options);
        if !self.options.remote {
            self.alive.clear();
            self.running.clear();
            self.unreported.clear();
        }
        // Who had a key asks again; the others will never know.
        self.unanswered.retain(|_, ask| matches!(ask, Ask::Submit { key: Some(_), .. }));
        let delay = self.random.between(10_000, 5_000_000);
        self.plan(delay, What::Restart);
    }

    pub(super) fn restart(&mut self) -> Result<(), String> {
        let recovered = self.disk.recover()?;
        self.restarts += 1;
        if recovered.cut {
            self.cover("torn block");
        }
        if recovered.from_snapshot {
            self.cover("snapshot");
        }
        let state = recovered.state;
        self.note(&format!("recovered up to {}", state.position));
        invariant::check(&state).map_err(|broken| broken.to_string())?;
        if self.digests.get(&state.position).is_some_and(|live| *live != state.digest()) {
            return Err(format!("I4: what is recovered at {} is not what was live there", state.position));
        }
        self.digests.retain(|position, _| *position <= state.position);
        let wall = self.wall_clock();
        let last = state.last_at;
        let stepped = last > Timestamp(0) && (wall < last || wall > last.after(Micros(60 * MINUTE)));
        self.engine = Some(Engine::new(state, recovered.head, self.now, wall.max(last)));
        self.send(Ask::Open);
        self.send(Ask::DefineType);
        self.limit();
        self.send(Ask::LimitType);
        if stepped {
            self.send(Ask::StepClock { from: last, to: wall });
        }
        self.take_over()
    }

    pub(super) fn wall_clock(&mut self) -> Timestamp {
        let day = 24 * 60 * MINUTE;
        let jumps = self.random.chance(self.options.clock_jump);
        let jump = if jumps { self.random.below(2 * day) } else { day };
        Timestamp((10 * day + self.now + jump).saturating_sub(day))
    }

    pub(super) fn take_over(&mut self) -> Result<(), String> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let (reminders, new) = (engine.remind(), engine.shard.state().control.pools.is_empty());
        let (replicas, slots) = (self.options.replicas as u32, self.options.slots as u32);
        if new || self.calm {
            self.send(Ask::Resize { replicas, slots });
        }
        let again: Vec<Ask> = self.unreported.values().chain(self.unanswered.values()).cloned().collect();
        again.into_iter().for_each(|ask| self.send(ask));
        reminders.into_iter().try_for_each(|effect| self.take_effect(effect))?;
        self.attach_guests();
        Ok(())
    }
}

/// Events that a run should meet.
fn kind(envelope: &Envelope<'_>) -> Option<&'static str> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a run that meets these has met the others")]
    Some(match envelope.event {
        Event::RetryScheduled { .. } => "retry",
        Event::Lost { .. } => "lost",
        Event::CancelRequested { .. } => "cancelled",
        Event::KillRequested { .. } => "killed",
        Event::DeadLettered { .. } => "dead letter",
        Event::Redriven { .. } => "redriven",
        Event::ClockStepped { .. } => "clock stepped",
        Event::HeartbeatMissed { .. } => "heartbeat missed",
        Event::TimedOut { .. } => "timed out",
        Event::SlotReleased { .. } => "slot released",
        Event::Checkpointed { .. } => "checkpoint",
        Event::Limited { .. } => "limited",
        Event::Admitted { .. } => "admitted",
        Event::DependencyMet { .. } => "dependency_met",
        Event::WorkAsked { .. } => "work asked",
        Event::WorkerMissed { .. } => "worker missed",
        Event::AttemptReturned { .. } => "returned",
        Event::Ended { cause: Cause::Dependency(_), .. } => "dependency failed",
        _ => return None,
    })
}
