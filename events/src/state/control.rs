//! The control half: how large pools should be, the replicas that are to make them so, and schedules.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};

use super::scaling::{Decider, Scaling, SizeHold};
use super::schedules::Schedules;
use crate::event::{Envelope, Event, PoolMode};
use crate::id::{PoolId, Position, ReplicaId};
use crate::resources::{Asked, Fit, PoolResources};
use crate::scaling::signal::{Bounds, Observation, Replicas};
use crate::scaling::usage;
use crate::sizing::Seen;
use crate::time::Timestamp;

/// The wanted size of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct PoolSize {
    /// Its name.
    pub name: String,
    /// How many replicas it should have.
    pub replicas: u32,
    /// How many slots each new replica has.
    pub slots: u32,
}

/// Where a replica is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaPhase {
    /// Wanted, and not up yet.
    Requested,
    /// Up.
    Ready,
    /// No longer wanted; ends when its work is done.
    Draining,
}

/// A replica as the control half sees it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct ReplicaLife {
    /// Its pool.
    pub pool: PoolId,
    /// Where it is in its life.
    pub phase: ReplicaPhase,
}

/// What is said of a pool's resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct SaidResources {
    /// What is said.
    pub resources: PoolResources,
    /// The event that says it.
    pub set_at: Position,
}

/// Pools and their replicas, and schedules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// By [`PoolId`].
    pub pools: Vec<PoolSize>,
    /// All replicas that have not ended.
    pub replicas: BTreeMap<ReplicaId, ReplicaLife>,
    /// The id that the next replica gets.
    pub next_replica: u32,
    /// Pools that do not start tasks.
    pub(crate) held: BTreeMap<PoolId, PoolMode>,
    /// What is said of the resources of pools.
    pub resources: BTreeMap<PoolId, SaidResources>,
    /// How pools are sized that have a policy.
    pub scaling: BTreeMap<PoolId, Scaling>,
    /// What is done at certain times.
    pub schedules: Schedules,
}

/// What would bring a pool nearer to its wanted size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adjustment {
    /// One more.
    Request(PoolId),
    /// This one less.
    Drain(ReplicaId),
}

impl Control {
    /// The pool with this name.
    pub fn pool(&self, name: &str) -> Option<(PoolId, &PoolSize)> {
        let index = self.pools.iter().position(|pool| pool.name == name)?;
        Some((PoolId(u16::try_from(index).ok()?), &self.pools[index]))
    }

    /// Whether a pool starts tasks.
    pub fn mode(&self, pool: PoolId) -> PoolMode {
        self.held.get(&pool).copied().unwrap_or(PoolMode::Running)
    }

    /// How many slots each new replica of a pool has.
    pub(crate) fn slots(&self, pool: PoolId) -> u32 {
        self.pools.get(usize::from(pool.0)).map_or(0, |size| size.slots)
    }

    /// How many replicas of a pool fit under its ceiling; `None` where it has none.
    pub fn fit(&self, pool: PoolId) -> Option<Fit> {
        self.resources.get(&pool)?.resources.fit(self.slots(pool))
    }

    /// The ceiling of a pool where that leaves room for fewer replicas than its policy may want.
    pub fn ceiling(&self, pool: PoolId) -> Option<Fit> {
        let most = self.scaling.get(&pool)?.bounds.max;
        self.fit(pool).filter(|fit| fit.replicas() < most)
    }

    /// How few and how many replicas a pool with a policy may have, its ceiling included.
    pub fn bounds(&self, pool: PoolId) -> Option<Bounds> {
        let bounds = self.scaling.get(&pool)?.bounds;
        Some(Bounds { max: self.ceiling(pool).map_or(bounds.max, Fit::replicas), ..bounds })
    }

    /// The size of a pool while this holds; `None` where no policy sizes it.
    pub fn held_at(&self, pool: PoolId, hold: &SizeHold) -> Option<u32> {
        Some(self.bounds(pool)?.nearest(hold.replicas))
    }

    /// What one replica of a pool asks for.
    pub fn asked(&self, pool: PoolId) -> Asked {
        self.resources.get(&pool).map(|known| known.resources.asked).unwrap_or_default()
    }

    /// Whether the pool with this name starts no tasks.
    pub fn holds(&self, name: &str) -> bool {
        !self.held.is_empty() && self.pool(name).is_some_and(|(pool, _)| self.mode(pool) != PoolMode::Running)
    }

    /// The next step towards the wanted sizes, the same for the same state: pools in order, the newest replica goes first.
    pub(crate) fn adjustment(&self) -> Option<Adjustment> {
        self.pools.iter().zip(0..=u16::MAX).find_map(|(size, index)| {
            let pool = PoolId(index);
            let mut live = self.replicas.iter().filter(|(_, life)| life.pool == pool && life.phase != ReplicaPhase::Draining);
            let count = live.clone().count();
            let fitting = self.fit(pool).map_or(size.replicas, |fit| size.replicas.min(fit.replicas()));
            let wanted = if self.mode(pool) == PoolMode::Drained { 0 } else { fitting as usize };
            // The last id is never given out: what is wanted under it once would be wanted for ever.
            if count < wanted && self.next_replica < u32::MAX {
                return Some(Adjustment::Request(pool));
            }
            let newest = live.next_back().map(|(id, _)| *id);
            newest.filter(|_| count > wanted).map(Adjustment::Drain)
        })
    }

    /// Folds an event of the control half; others change nothing.
    pub(crate) fn apply(&mut self, envelope: &Envelope<'_>) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "`Event::half` lists who folds what")]
        match envelope.event {
            Event::PoolDefined { pool, name, replicas, slots, .. } => {
                let size = PoolSize { name: name.to_owned(), replicas, slots };
                let (index, count) = (usize::from(pool.0), self.pools.len());
                if index < count {
                    self.pools[index] = size;
                } else if index == count {
                    self.pools.push(size);
                }
            }
            Event::PoolModeSet { pool, mode: PoolMode::Running, .. } => drop(self.held.remove(&pool)),
            // What a damaged log says of a pool that is not there is passed over.
            Event::PolicySet { pool, .. } if usize::from(pool.0) >= self.pools.len() => {}
            Event::PolicySet { pool, ref policy, least, most, .. } => {
                self.set_policy(pool, policy, Bounds { min: least, max: most }, envelope.position);
            }
            Event::ShadowSet { pool, shadow, ref policy, .. } => self.set_shadow(pool, shadow, policy, envelope.position),
            Event::SizeHeld { pool, replicas, until, by, reason } => {
                let (by, reason) = (by.to_owned(), reason.to_owned());
                let (since, set_at) = (envelope.recorded_at, envelope.position);
                self.hold(pool, replicas.map(|replicas| SizeHold { replicas, until, by, reason, since, set_at }));
            }
            Event::PoolObserved { pool, ref readings, ref work, asked, ref seen } => {
                self.observe(pool, Seen { asked, readings, work, replicas: seen }, envelope.recorded_at);
            }
            // What a damaged log says of a pool that is not there is passed over.
            Event::PoolResourcesSet { pool, .. } if usize::from(pool.0) >= self.pools.len() => {}
            Event::PoolResourcesSet { pool, ref resources, .. } if resources.is_empty() => drop(self.resources.remove(&pool)),
            Event::PoolResourcesSet { pool, ref resources, .. } => {
                self.resources.insert(pool, SaidResources { resources: **resources, set_at: envelope.position });
            }
            Event::PoolScaled { shadow: Some(_), .. } => {}
            Event::PoolScaled { pool, replicas, .. } => {
                if let Some(size) = self.pools.get_mut(usize::from(pool.0)) {
                    size.replicas = replicas;
                }
            }
            Event::PoolModeSet { pool, mode, .. } if usize::from(pool.0) < self.pools.len() => {
                self.held.insert(pool, mode);
            }
            Event::ReplicaRequested { replica, pool } => {
                self.replicas.entry(replica).or_insert(ReplicaLife { pool, phase: ReplicaPhase::Requested });
                self.next_replica = self.next_replica.max(replica.0.saturating_add(1));
            }
            Event::ReplicaReady { replica } => self.set_phase(replica, ReplicaPhase::Ready),
            Event::DrainRequested { replica } => self.set_phase(replica, ReplicaPhase::Draining),
            Event::ReplicaStopped { replica, .. } => {
                self.replicas.remove(&replica);
            }
            _ => self.schedules.apply(envelope),
        }
    }

    /// Gives a pool a policy, whose shadows and whose hold stay, or takes it away with both.
    fn set_policy(&mut self, pool: PoolId, policy: &str, bounds: Bounds, set_at: Position) {
        let size = self.pools.get(usize::from(pool.0)).map_or(0, |size| size.replicas);
        let before = self.scaling.remove(&pool);
        if let Some(mut scaling) = Scaling::new(policy, bounds, size, set_at) {
            if let Some(before) = before {
                (scaling.shadows, scaling.hold) = (before.shadows, before.hold);
            }
            self.scaling.insert(pool, scaling);
        }
    }

    fn set_shadow(&mut self, pool: PoolId, shadow: &str, policy: &str, set_at: Position) {
        let size = self.pools.get(usize::from(pool.0)).map_or(0, |size| size.replicas);
        let Some(scaling) = self.scaling.get_mut(&pool) else { return };
        match Decider::new(policy, size, set_at) {
            Some(decider) => drop(scaling.shadows.insert(shadow.to_owned(), decider)),
            None => drop(scaling.shadows.remove(shadow)),
        }
    }

    /// Holds a pool at a size, or lets it go: then its policy decides next.
    fn hold(&mut self, pool: PoolId, hold: Option<SizeHold>) {
        let size = hold.as_ref().and_then(|hold| self.held_at(pool, hold));
        let Some(scaling) = self.scaling.get_mut(&pool) else { return };
        scaling.hold = hold;
        if let (Some(size), Some(known)) = (size, self.pools.get_mut(usize::from(pool.0))) {
            known.replicas = size;
        }
    }

    /// Notes what was seen of a pool, as those of its policies that were asked remember it.
    fn observe(&mut self, pool: PoolId, told: Seen<'_>, at: Timestamp) {
        let Seen { asked, work, .. } = told;
        let Some(seen) = self.observation(pool, told, at) else { return };
        if let (Some(scaling), Some(size)) = (self.scaling.get_mut(&pool), self.pools.get(usize::from(pool.0))) {
            scaling.look(asked, &seen);
            if asked & Scaling::LIVE != 0 {
                scaling.share_out(&size.name, size.slots, work);
            }
        }
    }

    /// What policies are shown of a pool; `None` where it has none, or there are not as many readings as these have signals.
    pub(crate) fn observation(&self, pool: PoolId, told: Seen<'_>, at: Timestamp) -> Option<Observation> {
        let (scaling, size) = (self.scaling.get(&pool)?, self.pools.get(usize::from(pool.0))?);
        let phase = |phase| self.replicas.values().filter(|life| life.pool == pool && life.phase == phase).count();
        let count = |phase_of| u32::try_from(phase(phase_of)).unwrap_or(u32::MAX);
        let [starting, ready, draining] = [ReplicaPhase::Requested, ReplicaPhase::Ready, ReplicaPhase::Draining].map(count);
        let live = starting.saturating_add(ready).saturating_add(draining);
        let replicas = Replicas { wanted: size.replicas, live, starting, ready, draining, slots: size.slots, running: 0 };
        let signals = scaling.observed(told.asked, told.readings)?;
        // Where nobody looked at replicas that is something else than none.
        let pods = scaling.reads_replicas(told.asked).then(|| usage::pods(told.replicas, &self.asked(pool)));
        Some(Observation { at, bounds: self.bounds(pool)?, ceiling: self.ceiling(pool), replicas, signals, pods })
    }

    fn set_phase(&mut self, replica: ReplicaId, phase: ReplicaPhase) {
        if let Some(life) = self.replicas.get_mut(&replica) {
            life.phase = phase;
        }
    }
}
