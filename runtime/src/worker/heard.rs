//! What a worker does with answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use serde::Deserialize;

use ergate_actors::usage::MEASURE_EVERY;
use ergate_actors::workers::runner::News;
use ergate_events::id::Ordinal;
use ergate_events::task::Failure;

use super::WorkerError;
use super::agent::Agent;
use super::answer::{Refusal, Verdict};
use super::lane::{Called, WAIT_MAX};
use super::line::LineError;
use super::link::{Link, On, Talk};
use super::outbox::Parcel;
use super::pace::Notice;
use super::share::IN_VAIN_AFTER;
use super::table::{Held, Left, Stage};
use super::wire::{Elsewhere, Leased, Registered, Reported, Stop, Told};

/// How often a worker says that it is gone to an engine that does not answer.
const LEAVE_TRIES: u32 = 3;
/// Shortest time between two registrations.
const REGISTER_EVERY: Duration = Duration::from_millis(200);
/// How long an engine is left alone that refused the worker, while others take it.
const REFUSED_FOR: Duration = Duration::from_secs(30);

impl Agent {
    /// The answer to a call.
    pub(super) fn hear(&mut self, at: usize, on: On, called: Called) -> Result<(), WorkerError> {
        let outcome = match on {
            On::Ask => self.asked(at, called),
            On::Tell => self.told(at, called),
            On::Talk => self.talked(at, called),
            On::Fetch => self.fetched(at, called),
        };
        outcome.or_else(|error| self.bear(at, error))
    }

    /// Goes on without an engine that refuses the worker, where that is one that another engine has named, and another one takes it.
    fn bear(&mut self, at: usize, error: WorkerError) -> Result<(), WorkerError> {
        let is_taken = self.places().any(|other| other != at && self.link(other).is_some_and(|link| link.is_known));
        let Some(link) = self.link_mut(at).filter(|link| !link.is_first && is_taken) else { return Err(error) };
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        tracing::warn!(engine = %link.url, reason, "the worker goes on without an engine");
        link.is_known = false;
        link.ask.give_up();
        link.fetch.give_up();
        link.talk.hold_until(Instant::now() + REFUSED_FOR);
        link.troubled.get_or_insert_with(Instant::now);
        self.hand_over(at);
        Ok(())
    }

    /// An answer to a question for attempts.
    fn asked(&mut self, at: usize, called: Called) -> Result<(), WorkerError> {
        let Some(body) = self.judge(at, On::Ask, Verdict::of(called))? else {
            if let Some(link) = self.link_mut(at) {
                link.is_short = true;
            }
            return Ok(());
        };
        let Leased { attempts, engines, told } = read(&body)?;
        let is_one_of_several = self.asked_engines().0.len() > 1;
        if let Some(link) = self.link_mut(at) {
            link.seq += 1;
            // What came late came up while it waited.
            let is_late = is_one_of_several && link.ask.begun().elapsed() >= IN_VAIN_AFTER;
            link.is_short = if link.asked == 0 { link.is_short } else { attempts.len() < link.asked || is_late };
            link.said = link.said.after(link.asked, attempts.len(), Instant::now());
        }
        self.take_in(at, attempts);
        if let Some(link) = self.link_mut(at) {
            link.limit = 0;
            link.is_last_given = told.drain;
        }
        self.obey(at, told);
        self.follow(at, engines);
        Ok(())
    }

    /// An answer to a report.
    fn told(&mut self, at: usize, called: Called) -> Result<(), WorkerError> {
        let verdict = match Verdict::of(called) {
            Verdict::TooLarge(refusal) => return self.divide(at, refusal),
            verdict @ (Verdict::Done(_) | Verdict::Again(..) | Verdict::Unattached | Verdict::Refused(_)) => verdict,
        };
        let Some(body) = self.judge(at, On::Tell, verdict)? else { return Ok(()) };
        let Reported { refused, elsewhere, told } = read(&body)?;
        for one in refused {
            tracing::info!(attempt = %one.attempt, reason = one.reason, detail = one.detail, "the engine did not count a report");
        }
        if let Some(parcel) = self.link_mut(at).and_then(|link| link.parcels.pop_front()) {
            let kept = self.keep(&parcel, elsewhere);
            parcel.places().filter(|place| !kept.contains(place)).for_each(|place| self.table.forget(place));
        }
        self.obey(at, told);
        Ok(())
    }

    /// Keeps news that nobody has recorded who leads its task; of which attempts that is.
    fn keep(&mut self, parcel: &Parcel, elsewhere: Vec<Elsewhere>) -> BTreeSet<usize> {
        let mut by_engine: BTreeMap<Option<String>, BTreeSet<usize>> = BTreeMap::new();
        for Elsewhere { attempt, engine } in elsewhere {
            if let Some((place, _)) = self.table.find(attempt) {
                by_engine.entry(engine).or_default().insert(place);
            }
        }
        let mut kept = BTreeSet::new();
        for (engine, places) in by_engine {
            self.keep_astray(parcel.part(&places), engine);
            kept.extend(places);
        }
        kept
    }

    /// Reports in smaller pieces; of one that is still too large nothing but that is reported.
    fn divide(&mut self, at: usize, refusal: Refusal) -> Result<(), WorkerError> {
        let Some(link) = self.links.get_mut(at).and_then(Option::as_mut) else { return Ok(()) };
        let Some(parcel) = link.parcels.pop_front() else { return Err(WorkerError::Refused(refusal)) };
        let parts = parcel.split();
        if parts.is_empty() {
            if parcel.has_beside() {
                link.notice.take_back();
            }
            let message = format!("the engine takes no report of {} bytes: {refusal}", parcel.body.len());
            tracing::warn!(message, "news of an attempt was too large");
            for place in parcel.places() {
                let Some(Held { id, .. }) = self.table.get(place) else { continue };
                let failure = Failure { class: "result_too_large", message: &message, retryable: false, delay: None };
                link.outbox.add(place, id, News::Failed(failure));
            }
        }
        parts.into_iter().rev().for_each(|part| link.parcels.push_front(part));
        Ok(())
    }

    /// An answer to what is neither a question nor a report.
    fn talked(&mut self, at: usize, called: Called) -> Result<(), WorkerError> {
        let talking = self.link(at).map(|link| link.talking);
        match talking {
            Some(Talk::Register) => return self.registered(at, called),
            Some(Talk::Leave) => return self.left(at, called),
            Some(Talk::Sign | Talk::Drain) | None => {}
        }
        let Some(body) = self.judge(at, On::Talk, Verdict::of(called))? else { return Ok(()) };
        if let Some(link) = self.link_mut(at) {
            link.is_drain_said |= talking == Some(Talk::Drain);
        }
        self.obey(at, read(&body)?);
        Ok(())
    }

    fn registered(&mut self, at: usize, called: Called) -> Result<(), WorkerError> {
        let is_ready = self.plan.ready.is_none();
        if let Err(LineError::Untrusted(reason)) = &called
            && !is_ready
        {
            return Err(WorkerError::Untrusted(reason.clone()));
        }
        let verdict = match Verdict::of(called) {
            // A worker that registers is known, to whoever knows workers.
            Verdict::Unattached => {
                let detail = "it serves no workers".to_owned();
                Verdict::Refused(Refusal { status: 404, kind: "not-found".to_owned(), detail })
            }
            verdict @ (Verdict::Done(_) | Verdict::Again(..) | Verdict::TooLarge(_) | Verdict::Refused(_)) => verdict,
        };
        let Some(body) = self.judge(at, On::Talk, verdict)? else { return Ok(()) };
        let Registered { engines, usage_every, told } = read(&body)?;
        let usage_every = usage_every.and_then(|text| crate::request::parse_span(&text));
        let usage_every = usage_every.map(|every| every.to_std().max(MEASURE_EVERY));
        if let Some(link) = self.link_mut(at) {
            (link.is_known, link.seq, link.asked, link.limit) = (true, 1, 0, 0);
            (link.asked_seq, link.is_last_given) = (0, false);
            let now = Instant::now();
            (link.known_at, link.notice) = (Some(now), Notice::default());
            // The first it hears of it soon.
            (link.usage_every, link.usage_told) = (usage_every, now);
            [&mut link.ask, &mut link.tell, &mut link.fetch].into_iter().for_each(super::lane::Lane::went_well);
            link.is_drain_said = told.drain;
        }
        if let Some(ready) = self.plan.ready.take() {
            ready();
        }
        self.obey(at, told);
        self.follow(at, engines);
        Ok(())
    }

    fn left(&mut self, at: usize, called: Called) -> Result<(), WorkerError> {
        let Some(link) = self.link_mut(at) else { return Ok(()) };
        match Verdict::of(called) {
            Verdict::Again(reason, asked) if link.talk.failures() < LEAVE_TRIES => {
                link.troubled.get_or_insert_with(Instant::now);
                tracing::debug!(reason, "the engine did not hear that the worker is gone");
                link.talk.went_wrong(asked, WAIT_MAX);
            }
            Verdict::Refused(refusal) => return Err(WorkerError::Refused(refusal)),
            // Nobody has to be told any more.
            Verdict::Done(_) | Verdict::Unattached | Verdict::Again(..) | Verdict::TooLarge(_) => {
                (link.is_known, link.is_last_given) = (false, true);
            }
        }
        Ok(())
    }

    /// An answer with a payload.
    fn fetched(&mut self, at: usize, called: Called) -> Result<(), WorkerError> {
        let verdict = match Verdict::of(called) {
            // Somebody else has the attempt, or nobody any more.
            Verdict::Refused(refusal) if refusal.status == 410 => {
                let fetch = self.link_mut(at).and_then(|link| {
                    link.fetch.went_well();
                    link.fetches.pop_front()
                });
                if let Some(fetch) = fetch
                    && let Some(held) = self.table.get(fetch.place).filter(|held| fetch.is_for(*held))
                {
                    self.leave(fetch.place, held, Left::Stopped);
                }
                return Ok(());
            }
            verdict @ (Verdict::Done(_)
            | Verdict::Again(..)
            | Verdict::Unattached
            | Verdict::TooLarge(_)
            | Verdict::Refused(_)) => verdict,
        };
        let Some(body) = self.judge(at, On::Fetch, verdict)? else { return Ok(()) };
        if let Some(fetch) = self.link_mut(at).and_then(|link| link.fetches.pop_front()) {
            self.run_fetched(&fetch, &body);
        }
        Ok(())
    }

    /// Does what an answer asks for whatever it answers.
    fn obey(&mut self, at: usize, told: Told) {
        for Stop { attempt, hard } in told.stop {
            match self.table.find(attempt) {
                Some((place, held)) if hard || held.stage == Stage::Fetching => self.end_now(place, held, Left::Stopped),
                Some((place, Held { stage: Stage::Running, .. })) => {
                    self.runner.stop(Ordinal(place as u64), attempt.number, false);
                }
                Some(_) | None => {}
            }
        }
        if told.drain {
            let Some(link) = self.link_mut(at) else { return };
            link.is_drain_said = true;
            let engine = link.url.clone();
            if self.drain.is_none() {
                tracing::warn!(engine, "the engine gives this worker nothing more; it ends what runs, and leaves");
                self.begin_drain(None);
            }
        }
    }

    /// The body of an answer; none where the call is repeated.
    fn judge(&mut self, at: usize, on: On, verdict: Verdict) -> Result<Option<Bytes>, WorkerError> {
        let sign_every = self.plan.sign_every();
        let Some(link) = self.link_mut(at) else { return Ok(None) };
        let lane = match on {
            On::Ask => &mut link.ask,
            On::Tell => &mut link.tell,
            On::Talk => &mut link.talk,
            On::Fetch => &mut link.fetch,
        };
        match verdict {
            Verdict::Done(body) => {
                lane.went_well();
                let begun = lane.begun();
                link.answers(begun);
                Ok(Some(body))
            }
            Verdict::Again(reason, asked) => {
                // Signs of life share a connection with registrations, and a lease does not wait.
                lane.went_wrong(asked, if matches!(on, On::Talk) { sign_every.min(WAIT_MAX) } else { WAIT_MAX });
                link.does_not_answer(&reason);
                // What it does not hear another one passes on to whoever leads its tasks by now.
                self.hand_over(at);
                self.drop_unnamed();
                Ok(None)
            }
            Verdict::Unattached => {
                link.is_known = false;
                // An engine that forgets at once is not asked at once.
                if let Some(at) = link.known_at {
                    link.talk.hold_until(at + REGISTER_EVERY);
                }
                Ok(None)
            }
            Verdict::TooLarge(refusal) | Verdict::Refused(refusal) => Err(WorkerError::Refused(refusal)),
        }
    }
}

impl Link {
    /// It answered a call that was begun then: the lease counts from its beginning or later.
    fn answers(&mut self, begun: Instant) {
        self.heard = self.heard.max(begun);
        if self.troubled.take().is_some() {
            tracing::warn!(engine = %self.url, "the engine answers again");
        }
    }

    fn does_not_answer(&mut self, reason: &str) {
        if self.troubled.is_none() {
            self.troubled = Some(Instant::now());
            tracing::warn!(engine = %self.url, reason, "the engine does not answer; trying again until it does");
        }
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, WorkerError> {
    serde_json::from_slice(body).map_err(|error| WorkerError::Foreign(error.to_string()))
}
