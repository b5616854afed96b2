//! What a worker asks and tells: which call begins now, and what is in it.

use std::time::{Duration, Instant};

use hyper::Method;
use hyper::body::Bytes;
use serde::Serialize;

use super::agent::{Agent, Talk};
use super::line::Call;
use super::pace::Pace;
use super::wire::{self, Ask, PROTOCOL, Registration};

/// How long a question may wait: shorter than the time after which proxies close a silent connection.
const WAIT: Duration = Duration::from_secs(30);
/// How long an answer may take beyond that: the log of an engine may be slow, or change hands.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Shortest limit of a sign of life.
const SIGN_WITHIN_MIN: Duration = Duration::from_millis(500);

impl Agent {
    /// Begins every call that is due and has its connection free.
    pub(super) fn begin_calls(&mut self) {
        if self.drain.is_some() && self.is_empty() && !self.is_known {
            // Nobody has to be told.
            self.is_gone = true;
        } else if self.is_known {
            self.talk_now();
            self.tell_now();
            self.ask_now();
            self.fetch_now();
        } else if self.talk.is_free() && !self.tell.is_calling() {
            self.ask.give_up();
            self.fetch.give_up();
            self.talk(Talk::Register);
        }
    }

    fn talk_now(&mut self) {
        if !self.talk.is_free() {
            return;
        }
        match self.drain {
            Some(_) if self.is_empty() => self.talk(Talk::Leave),
            Some(drain) if !drain.is_said => self.talk(Talk::Drain),
            Some(_) | None if !self.table.is_empty() && self.heard.elapsed() >= self.plan.sign_every() => self.talk(Talk::Sign),
            Some(_) | None => {}
        }
    }

    fn talk(&mut self, what: Talk) {
        self.talking = what;
        let call = match what {
            Talk::Register => self.call(Method::PUT, "", json(&self.registration()), ANSWER_WITHIN),
            Talk::Sign => {
                let within = self.plan.sign_every().clamp(SIGN_WITHIN_MIN, ANSWER_WITHIN);
                self.call(Method::POST, "/report", Bytes::from_static(b"{}"), within)
            }
            Talk::Drain => self.call(Method::POST, "/drain", Bytes::new(), ANSWER_WITHIN),
            Talk::Leave => self.call(Method::DELETE, "", Bytes::new(), ANSWER_WITHIN),
        };
        self.talk.begin(call);
    }

    fn registration(&self) -> Registration<'_> {
        let plan = &self.plan;
        Registration {
            protocol: PROTOCOL,
            pool: &plan.pool,
            slots: plan.slots,
            types: plan.names().collect(),
            name: &plan.name,
            labels: &plan.labels,
            lease: wire::span(plan.lease),
            // Also what is over and was not reported: the engine would give it to others.
            running: self.table.all().map(|(_, held)| held.id).collect(),
        }
    }

    fn tell_now(&mut self) {
        if !self.tell.is_free() {
            return;
        }
        if self.parcels.is_empty() {
            let concurrency = self.pace.as_mut().and_then(Pace::tell);
            if concurrency.is_some() || !self.outbox.is_empty() {
                self.parcels.push_back(self.outbox.pack(concurrency));
            }
        }
        if let Some(parcel) = self.parcels.front() {
            let call = self.call(Method::POST, "/report", parcel.body.clone(), ANSWER_WITHIN);
            self.tell.begin(call);
        }
    }

    fn ask_now(&mut self) {
        let free = self.free();
        if free > 0 {
            self.full_since = None;
        }
        // What was asked for may be more than there is room for now, or nothing although there is some.
        if self.ask.is_calling() && (self.asked > free || (self.asked == 0 && free > 0)) {
            // The same number again is the same question: an answer that is on its way already comes once more.
            self.ask.give_up();
        }
        if self.drain.is_some() || !self.ask.is_free() || (free == 0 && !self.is_long_full()) {
            return;
        }
        self.asked = free;
        let question = json(&Ask { seq: self.seq, slots: free, wait: wire::span(WAIT) });
        let call = self.call(Method::POST, "/lease", question, WAIT + ANSWER_WITHIN);
        self.ask.begin(call);
    }

    fn fetch_now(&mut self) {
        if !self.fetch.is_free() {
            return;
        }
        // While a call is on its way the first one is what it is for.
        self.forget_fetches();
        if let Some(fetch) = self.fetches.front() {
            let (method, path) = (Method::GET, fetch.path.clone());
            self.fetch.begin(Call { method, path, body: Bytes::new(), within: ANSWER_WITHIN });
        }
    }

    fn call(&self, method: Method, below: &str, body: Bytes, within: Duration) -> Call {
        Call { method, path: format!("/v1/workers/{}{below}", self.plan.id), body, within }
    }

    /// The last call was answered: the lease counts from its beginning or later.
    pub(super) fn hear(&mut self, begun: Instant) {
        self.heard = self.heard.max(begun);
        if std::mem::take(&mut self.is_troubled) {
            tracing::warn!(engine = %self.plan.url, "the engine answers again");
        }
    }
}

fn json(value: &impl Serialize) -> Bytes {
    // Texts and numbers can always be written.
    serde_json::to_vec(value).unwrap_or_default().into()
}
