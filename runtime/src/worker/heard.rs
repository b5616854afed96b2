//! What a worker does with answers.

use std::time::{Duration, Instant};

use hyper::body::Bytes;
use serde::Deserialize;

use ergate_actors::workers::runner::News;
use ergate_events::id::Ordinal;
use ergate_events::task::Failure;

use super::WorkerError;
use super::agent::{Agent, Drain, Talk};
use super::answer::{Refusal, Verdict};
use super::lane::WAIT_MAX;
use super::line::{Answer, LineError};
use super::outbox::Parcel;
use super::table::{Held, Left, Stage};
use super::wire::{Leased, Reported, Stop, Told};

/// How often a worker says that it is gone to an engine that does not answer.
const LEAVE_TRIES: u32 = 3;

/// Shortest time between two registrations.
const REGISTER_EVERY: Duration = Duration::from_millis(200);

/// Which connection a call was on.
#[derive(Clone, Copy)]
enum Lane {
    Ask,
    Tell,
    Talk,
    Fetch,
}

impl Agent {
    /// An answer to a question for attempts.
    pub(super) fn asked(&mut self, answer: Result<Answer, LineError>) -> Result<(), WorkerError> {
        let Some(body) = self.judge(Lane::Ask, Verdict::of(answer))? else {
            self.starve(true);
            return Ok(());
        };
        let Leased { attempts, told } = read(&body)?;
        self.starve(attempts.len() < self.asked);
        self.seq += 1;
        self.take_in(attempts);
        self.obey(told);
        Ok(())
    }

    fn starve(&mut self, is_starved: bool) {
        if let Some(pace) = &mut self.pace {
            pace.starve(is_starved);
        }
    }

    /// An answer to a report.
    pub(super) fn told(&mut self, answer: Result<Answer, LineError>) -> Result<(), WorkerError> {
        let verdict = match Verdict::of(answer) {
            Verdict::TooLarge(refusal) => return self.divide(refusal),
            verdict @ (Verdict::Done(_) | Verdict::Again(..) | Verdict::Unattached | Verdict::Refused(_)) => verdict,
        };
        let Some(body) = self.judge(Lane::Tell, verdict)? else { return Ok(()) };
        let Reported { refused, told } = read(&body)?;
        for one in refused {
            tracing::info!(attempt = %one.attempt, reason = one.reason, detail = one.detail, "the engine did not count a report");
        }
        let parcel = self.parcels.pop_front();
        parcel.iter().flat_map(Parcel::places).for_each(|place| self.table.forget(place));
        self.obey(told);
        Ok(())
    }

    /// Reports in smaller pieces; of one that is still too large nothing but that is reported.
    fn divide(&mut self, refusal: Refusal) -> Result<(), WorkerError> {
        let Some(parcel) = self.parcels.pop_front() else { return Err(WorkerError::Refused(refusal)) };
        let parts = parcel.split();
        if parts.is_empty() {
            let message = format!("the engine takes no report of {} bytes: {refusal}", parcel.body.len());
            tracing::warn!(message, "news of an attempt was too large");
            for place in parcel.places() {
                let Some(Held { id, .. }) = self.table.get(place) else { continue };
                let failure = Failure { class: "result_too_large", message: &message, retryable: false, delay: None };
                self.outbox.add(place, id, News::Failed(failure));
            }
        }
        parts.into_iter().rev().for_each(|part| self.parcels.push_front(part));
        Ok(())
    }

    /// An answer to what is neither a question nor a report.
    pub(super) fn talked(&mut self, answer: Result<Answer, LineError>) -> Result<(), WorkerError> {
        match self.talking {
            Talk::Register => return self.registered(answer),
            Talk::Leave => return self.left(answer),
            Talk::Sign | Talk::Drain => {}
        }
        let Some(body) = self.judge(Lane::Talk, Verdict::of(answer))? else { return Ok(()) };
        if self.talking == Talk::Drain {
            self.drain = self.drain.map(|drain| Drain { is_said: true, ..drain });
        }
        self.obey(read(&body)?);
        Ok(())
    }

    fn registered(&mut self, answer: Result<Answer, LineError>) -> Result<(), WorkerError> {
        let is_first = self.plan.ready.is_some();
        if let Err(LineError::Untrusted(reason)) = &answer
            && is_first
        {
            return Err(WorkerError::Untrusted(reason.clone()));
        }
        let verdict = match Verdict::of(answer) {
            // A worker that registers is known, to whoever knows workers.
            Verdict::Unattached => {
                let detail = "it serves no workers".to_owned();
                Verdict::Refused(Refusal { status: 404, kind: "not-found".to_owned(), detail })
            }
            verdict @ (Verdict::Done(_) | Verdict::Again(..) | Verdict::TooLarge(_) | Verdict::Refused(_)) => verdict,
        };
        let Some(body) = self.judge(Lane::Talk, verdict)? else { return Ok(()) };
        let told: Told = read(&body)?;
        (self.is_known, self.seq, self.asked) = (true, 1, 0);
        self.known_at = Some(Instant::now());
        if let Some(pace) = &mut self.pace {
            pace.tell_again();
        }
        [&mut self.ask, &mut self.tell, &mut self.fetch].into_iter().for_each(super::lane::Lane::went_well);
        if let Some(drain) = &mut self.drain {
            drain.is_said = told.drain;
        }
        if let Some(ready) = self.plan.ready.take() {
            ready();
        }
        self.obey(told);
        Ok(())
    }

    fn left(&mut self, answer: Result<Answer, LineError>) -> Result<(), WorkerError> {
        match Verdict::of(answer) {
            Verdict::Again(reason, asked) if self.talk.failures() < LEAVE_TRIES => {
                self.is_troubled = true;
                tracing::debug!(reason, "the engine did not hear that the worker is gone");
                self.talk.went_wrong(asked, WAIT_MAX);
            }
            Verdict::Refused(refusal) => return Err(WorkerError::Refused(refusal)),
            Verdict::Done(_) | Verdict::Unattached | Verdict::Again(..) | Verdict::TooLarge(_) => self.is_gone = true,
        }
        Ok(())
    }

    /// An answer with a payload.
    pub(super) fn fetched(&mut self, answer: Result<Answer, LineError>) -> Result<(), WorkerError> {
        let verdict = match Verdict::of(answer) {
            // Somebody else has the attempt, or nobody any more.
            Verdict::Refused(refusal) if refusal.status == 410 => {
                self.fetch.went_well();
                if let Some(fetch) = self.fetches.pop_front()
                    && let Some(held) = self.table.get(fetch.place).filter(|held| fetch.is_for(*held))
                {
                    self.leave(fetch.place, held.id, Left::Stopped);
                }
                return Ok(());
            }
            verdict @ (Verdict::Done(_)
            | Verdict::Again(..)
            | Verdict::Unattached
            | Verdict::TooLarge(_)
            | Verdict::Refused(_)) => verdict,
        };
        let Some(body) = self.judge(Lane::Fetch, verdict)? else { return Ok(()) };
        if let Some(fetch) = self.fetches.pop_front() {
            self.run_fetched(&fetch, &body);
        }
        Ok(())
    }

    /// Does what an answer asks for whatever it answers.
    fn obey(&mut self, told: Told) {
        for Stop { attempt, hard } in told.stop {
            match self.table.find(attempt) {
                Some((place, held)) if hard || held.stage == Stage::Fetching => self.end_now(place, held, Left::Stopped),
                Some((place, Held { stage: Stage::Running, .. })) => {
                    self.runner.stop(Ordinal(place as u64), attempt.number, false);
                }
                Some(_) | None => {}
            }
        }
        if told.drain && self.drain.is_none() {
            tracing::warn!(engine = %self.plan.url, "the engine gives this worker nothing more; it ends what runs, and leaves");
            self.begin_drain(None, true);
        }
    }

    /// The body of an answer; none where the call is repeated.
    fn judge(&mut self, on: Lane, verdict: Verdict) -> Result<Option<Bytes>, WorkerError> {
        let sign_every = self.plan.sign_every();
        let lane = match on {
            Lane::Ask => &mut self.ask,
            Lane::Tell => &mut self.tell,
            Lane::Talk => &mut self.talk,
            Lane::Fetch => &mut self.fetch,
        };
        match verdict {
            Verdict::Done(body) => {
                lane.went_well();
                let begun = lane.begun();
                self.hear(begun);
                Ok(Some(body))
            }
            Verdict::Again(reason, asked) => {
                // Signs of life share a connection with registrations, and a lease does not wait.
                lane.went_wrong(asked, if matches!(on, Lane::Talk) { sign_every.min(WAIT_MAX) } else { WAIT_MAX });
                self.say_trouble(&reason);
                Ok(None)
            }
            Verdict::Unattached => {
                self.is_known = false;
                // An engine that forgets at once is not asked at once.
                if let Some(at) = self.known_at {
                    self.talk.hold_until(at + REGISTER_EVERY);
                }
                Ok(None)
            }
            Verdict::TooLarge(refusal) | Verdict::Refused(refusal) => Err(WorkerError::Refused(refusal)),
        }
    }

    fn say_trouble(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.is_troubled, true) {
            tracing::warn!(engine = %self.plan.url, reason, "the engine does not answer; trying again until it does");
        }
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, WorkerError> {
    serde_json::from_slice(body).map_err(|error| WorkerError::Foreign(error.to_string()))
}
