//! What a worker asks and tells: which call begins now, and what is in it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ergate_actors::usage::{MEASURE_EVERY, Usage};
use hyper::Method;
use hyper::body::Bytes;
use serde::Serialize;

use super::agent::Agent;
use super::line::Call;
use super::link::{Link, Talk};
use super::share::{self, Room};
use super::wire::{self, Ask, PROTOCOL, Registration, Sign, Used};

/// How long a question may wait: shorter than the time after which proxies close a silent connection.
const WAIT: Duration = Duration::from_secs(30);
/// How long an answer may take beyond that: the log of an engine may be slow, or change hands.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Shortest limit of a sign of life.
const SIGN_WITHIN_MIN: Duration = Duration::from_millis(500);

impl Agent {
    /// Begins every call that is due and has its connection free.
    pub(super) fn begin_calls(&mut self) {
        self.send_astray();
        let is_over = self.drain.is_some() && self.is_empty();
        // Whoever ends the worker does not wait for what is on its way: that goes to others.
        let is_hurried = self.drain.is_some_and(|drain| drain.until.is_some());
        let owes = |link: &Link| !is_hurried && link.is_owed_a_word();
        if is_over && self.links.iter().flatten().all(|link| !link.is_known && !owes(link)) {
            // Nobody has to be told.
            self.is_gone = true;
            return;
        }
        for at in 0..self.links.len() {
            match &mut self.links[at] {
                Some(link) if link.is_known => {
                    self.talk_now(at);
                    self.tell_now(at);
                    self.fetch_now(at);
                }
                Some(link) if (!is_over || owes(link)) && link.talk.is_free() && !link.tell.is_calling() => {
                    link.ask.give_up();
                    link.fetch.give_up();
                    self.talk(at, Talk::Register);
                }
                Some(_) | None => {}
            }
        }
        self.ask_now();
        self.measure();
    }

    fn talk_now(&mut self, at: usize) {
        let Some(link) = self.link(at).filter(|link| link.talk.is_free()) else { return };
        match self.drain {
            Some(drain) if self.is_empty() && (drain.until.is_some() || link.is_through()) => self.talk(at, Talk::Leave),
            Some(_) if !link.is_drain_said => self.talk(at, Talk::Drain),
            Some(_) | None if self.is_sign_due(link) => self.talk(at, Talk::Sign),
            Some(_) | None => {}
        }
    }

    fn talk(&mut self, at: usize, what: Talk) {
        let call = match what {
            Talk::Register => self.call(Method::PUT, "", json(&self.registration()), ANSWER_WITHIN),
            Talk::Sign => {
                let within = self.plan.sign_every().clamp(SIGN_WITHIN_MIN, ANSWER_WITHIN);
                let body = self.sign(at);
                self.call(Method::POST, "/report", body, within)
            }
            Talk::Drain => self.call(Method::POST, "/drain", Bytes::new(), ANSWER_WITHIN),
            Talk::Leave => self.call(Method::DELETE, "", Bytes::new(), ANSWER_WITHIN),
        };
        if let Some(link) = self.link_mut(at) {
            link.talking = what;
            link.talk.begin(call);
        }
    }

    /// Whether an engine is to hear that the worker lives, or what it uses.
    fn is_sign_due(&self, link: &Link) -> bool {
        let is_silent = !self.table.is_empty() && link.heard.elapsed() >= self.plan.sign_every();
        is_silent || self.usage_due(link).is_some_and(|due| due <= Instant::now())
    }

    /// When an engine is to hear what the worker uses: with its signs of life while it has work, and as often as the engine wants otherwise.
    pub(super) fn usage_due(&self, link: &Link) -> Option<Instant> {
        let every = link.usage_every?;
        let is_first = link.known_at == Some(link.usage_told);
        let soon = if self.table.is_empty() { every } else { self.plan.sign_every().max(MEASURE_EVERY).min(every) };
        Some(link.usage_told + if is_first { MEASURE_EVERY } else { soon })
    }

    /// A sign of life, with what the worker uses where the engine wants to know that.
    fn sign(&mut self, at: usize) -> Bytes {
        let Some(link) = self.links.get_mut(at).and_then(Option::as_mut).filter(|link| link.usage_every.is_some()) else {
            return Bytes::from_static(b"{}");
        };
        link.usage_told = Instant::now();
        if self.usage.is_none_or(|(_, measured)| measured.elapsed() >= MEASURE_EVERY) {
            self.usage = self.meter.measure(&BTreeSet::new()).map(|usage| (usage, Instant::now()));
        }
        let Some((Usage { cpu_cores, memory_bytes, over }, _)) = self.usage else { return Bytes::from_static(b"{}") };
        json(&Sign { usage: Used { cpu_cores, memory_bytes, over: wire::span(over) } })
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
            // Also what is over and was not reported: the engine would give it to others. Whoever gave it, for this one may lead it by now.
            running: self.table.all().map(|(_, held)| held.id).collect(),
        }
    }

    fn tell_now(&mut self, at: usize) {
        let Some(link) = self.links.get_mut(at).and_then(Option::as_mut).filter(|link| link.tell.is_free()) else { return };
        if link.parcels.is_empty() {
            // One that takes nothing more has no use for a limit.
            let pace = self.pace.as_ref().filter(|_| self.drain.is_none());
            let concurrency = pace.and_then(|pace| pace.tell(&mut link.notice));
            if concurrency.is_some() || !link.outbox.is_empty() {
                let parcel = link.outbox.pack(concurrency);
                link.parcels.push_back(parcel);
            }
        }
        if let Some(body) = link.parcels.front().map(|parcel| parcel.body.clone()) {
            let call = self.call(Method::POST, "/report", body, ANSWER_WITHIN);
            if let Some(link) = self.link_mut(at) {
                link.tell.begin(call);
            }
        }
    }

    fn ask_now(&mut self) {
        let (free, most) = (self.free(), self.most());
        let is_long_full = if free > 0 {
            self.full_since = None;
            false
        } else {
            self.is_long_full()
        };
        if self.drain.is_some() {
            self.ask_for_the_last();
            return;
        }
        if std::mem::replace(&mut self.most_before, most) > most {
            self.take_back(free);
        }
        // As many as it may have, and not all its slots: of few, fewer wait where nothing is.
        let room = Room { free, slots: most, is_long_full };
        loop {
            let (places, engines) = self.asked_engines();
            let turn = places.iter().position(|at| *at >= self.turn).unwrap_or(0);
            let Some((index, slots)) = share::next(room, &engines, turn, Instant::now()) else { return };
            self.turn = places[index] + 1;
            self.ask(places[index], slots);
        }
    }

    /// Asks engines that know that the worker drains until they say that nothing more is on its way.
    fn ask_for_the_last(&mut self) {
        for at in self.places() {
            if self.link(at).is_some_and(|link| link.is_known && link.is_drain_said && !link.is_through() && link.ask.is_free()) {
                self.ask(at, 0);
            }
        }
    }

    /// Asks for fewer where it has asked for more than there is room for now.
    fn take_back(&mut self, free: usize) {
        loop {
            let (places, engines) = self.asked_engines();
            let Some((index, slots)) = share::excess(free, &engines) else { return };
            if slots > 0 {
                self.ask(places[index], slots);
            } else if let Some(link) = self.link_mut(places[index]) {
                // Perhaps there is room again in a moment.
                link.ask.give_up();
            }
        }
    }

    fn ask(&mut self, at: usize, slots: usize) {
        let Some((seq, again)) = self.link(at).map(|link| (link.seq, link.asked_seq == link.seq)) else { return };
        let limit = self.limit();
        let question = json(&Ask { seq, slots, wait: wire::span(WAIT), again });
        let call = self.call(Method::POST, "/lease", question, WAIT + ANSWER_WITHIN);
        if let Some(link) = self.link_mut(at) {
            // The same number again is the same question: an answer that is on its way already comes once more.
            link.said = link.as_asked().said_by(Instant::now());
            // The answer may be to what it asked before.
            link.limit = limit.max(link.limit);
            link.ask.give_up();
            (link.asked, link.asked_seq) = (slots, seq);
            link.ask.begin(call);
        }
    }

    fn fetch_now(&mut self, at: usize) {
        if self.link(at).is_none_or(|link| !link.fetch.is_free() || link.fetches.is_empty()) {
            return;
        }
        // While a call is on its way the first one is what it is for.
        self.forget_fetches(at);
        let Some(link) = self.link_mut(at) else { return };
        if let Some(fetch) = link.fetches.front() {
            let (method, path) = (Method::GET, fetch.path.clone());
            link.fetch.begin(Call { method, path, body: Bytes::new(), within: ANSWER_WITHIN });
        }
    }

    fn call(&self, method: Method, below: &str, body: Bytes, within: Duration) -> Call {
        Call { method, path: format!("/v1/workers/{}{below}", self.plan.id), body, within }
    }
}

fn json(value: &impl Serialize) -> Bytes {
    // Texts and numbers can always be written.
    serde_json::to_vec(value).unwrap_or_default().into()
}
