//! An engine as its worker knows it: the ways to it, and what waits to be told there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::given::Fetch;
use super::lane::{Called, Lane};
use super::line::Road;
use super::outbox::{Outbox, Parcel};
use super::pace::Notice;
use super::share::{Asked, Out, Said};

/// How often an engine is asked in vain for what is on its way to a worker that wants to leave.
const ASK_TRIES: u32 = 3;

/// What is said on the connection for everything but questions, reports and payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Talk {
    Register,
    Sign,
    Drain,
    Leave,
}

/// Which connection a call was on.
#[derive(Clone, Copy, Debug)]
pub(super) enum On {
    Ask,
    Tell,
    Talk,
    Fetch,
}

/// An engine.
pub(super) struct Link {
    /// Where it is reached.
    pub(super) url: String,
    /// Whether somebody named it to the worker, rather than another engine.
    pub(super) is_first: bool,
    /// The engines that it named last, itself first; none where it is the only one.
    pub(super) engines: Vec<String>,
    /// Reports that were not answered, the first on its way.
    pub(super) parcels: VecDeque<Parcel>,
    /// Payloads that have to be fetched, the first on its way.
    pub(super) fetches: VecDeque<Fetch>,
    pub(super) outbox: Outbox,
    pub(super) ask: Lane,
    pub(super) tell: Lane,
    pub(super) talk: Lane,
    pub(super) fetch: Lane,
    pub(super) talking: Talk,
    /// The number of the next question, and how many attempts the one on its way asks for.
    pub(super) seq: u64,
    /// The number that was asked under last, for one that is asked again under it.
    pub(super) asked_seq: u64,
    pub(super) asked: usize,
    /// How many attempts at a time did best when it was asked that, at most since the answer before.
    pub(super) limit: usize,
    pub(super) said: Said,
    /// Whether it had less than it was asked for last.
    pub(super) is_short: bool,
    /// What it knows of the limit that the worker has found.
    pub(super) notice: Notice,
    /// Whether the engine knows what runs.
    pub(super) is_known: bool,
    /// When it came to know that.
    pub(super) known_at: Option<Instant>,
    /// How often it wants to hear what the worker uses; never where it does not say.
    pub(super) usage_every: Option<Duration>,
    /// When it was told last what that is, or came to know the worker.
    pub(super) usage_told: Instant,
    /// When the last call began that was answered: the engine has counted the lease from then or later.
    pub(super) heard: Instant,
    /// Whether it knows that the worker drains.
    pub(super) is_drain_said: bool,
    /// Whether it has said since that nothing more is on its way.
    pub(super) is_last_given: bool,
    /// Since when it does not answer.
    pub(super) troubled: Option<Instant>,
}

impl Link {
    pub(super) fn new(road: Road, is_first: bool) -> Link {
        let url = road.url.to_string();
        let road = Arc::new(road);
        let (now, lane) = (Instant::now(), || Lane::new(&road));
        Link {
            url,
            is_first,
            engines: Vec::new(),
            parcels: VecDeque::new(),
            fetches: VecDeque::new(),
            outbox: Outbox::new(),
            ask: lane(),
            tell: lane(),
            talk: lane(),
            fetch: lane(),
            talking: Talk::Register,
            seq: 1,
            asked_seq: 0,
            asked: 0,
            limit: 0,
            said: Said::nothing_yet(now),
            is_short: false,
            notice: Notice::default(),
            is_known: false,
            known_at: None,
            usage_every: None,
            usage_told: now,
            heard: now,
            is_drain_said: false,
            is_last_given: false,
            troubled: None,
        }
    }

    /// The call that has ended, if one has.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<(On, Called)> {
        let lanes =
            [(On::Ask, &mut self.ask), (On::Tell, &mut self.tell), (On::Talk, &mut self.talk), (On::Fetch, &mut self.fetch)];
        for (on, lane) in lanes {
            if let Poll::Ready(called) = lane.poll(context) {
                return Poll::Ready((on, called));
            }
        }
        Poll::Pending
    }

    fn lanes(&self) -> [&Lane; 4] {
        [&self.ask, &self.tell, &self.talk, &self.fetch]
    }

    /// When a call may begin that waits for its turn.
    pub(super) fn free_at(&self) -> impl Iterator<Item = Instant> {
        self.lanes().into_iter().filter_map(Lane::free_at)
    }

    /// What it is called by the others, and by itself.
    pub(super) fn is_called(&self, url: &str) -> bool {
        self.url == url || self.engines.first().is_some_and(|own| own == url)
    }

    /// Whether news is told here: it knows the worker, and the last call on each connection was answered.
    pub(super) fn is_well(&self) -> bool {
        self.is_known && self.lanes().iter().all(|lane| lane.failures() == 0)
    }

    /// Whether it has said, in an answer to a question, that nothing more is on its way from it; or does not answer questions.
    pub(super) const fn is_through(&self) -> bool {
        self.is_last_given || self.ask.failures() >= ASK_TRIES
    }

    /// Whether it forgot the worker, and may believe that this has what was on its way.
    pub(super) const fn is_owed_a_word(&self) -> bool {
        !self.is_known && self.known_at.is_some() && !self.is_last_given && self.troubled.is_none()
    }

    /// Whether nothing waits to be told here.
    pub(super) fn is_empty(&self) -> bool {
        self.outbox.is_empty() && self.parcels.is_empty()
    }

    /// How it stands with questions for attempts.
    pub(super) fn as_asked(&self) -> Asked {
        let out = self.ask.is_calling().then(|| Out { slots: self.asked, since: self.ask.begun() });
        Asked { out, is_free: self.ask.is_free(), said: self.said, is_short: self.is_short }
    }

    /// For how long it has not answered.
    pub(super) fn trouble(&self) -> Option<Duration> {
        self.troubled.map(|since| since.elapsed())
    }

    /// Takes what waits to be told here and is not on its way.
    pub(super) fn take_parcels(&mut self) -> Vec<Parcel> {
        let on_its_way = if self.tell.is_calling() { self.parcels.pop_front() } else { None };
        if self.parcels.iter().any(Parcel::has_beside) {
            // That was for this engine.
            self.notice.take_back();
        }
        let mut taken: Vec<Parcel> = self.parcels.drain(..).filter_map(Parcel::without_beside).collect();
        self.parcels.extend(on_its_way);
        while !self.outbox.is_empty() {
            taken.push(self.outbox.pack(None));
        }
        taken
    }
}
