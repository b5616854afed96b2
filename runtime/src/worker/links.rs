//! The engines of a worker: those that it was told of come, those that are gone go, and news finds its way around one that does not answer.

use std::time::{Duration, Instant};

use crate::http::client::{self, ServiceUrl, TlsConnector};
use hyper::header::HeaderValue;

use super::agent::Agent;
use super::line::Road;
use super::link::Link;
use super::outbox::Parcel;
use super::share::Asked;

/// How long an engine is tried that no other names any more.
const FORGET_AFTER: Duration = Duration::from_secs(30);
/// Pauses before news is told again that nobody could record: a shard that moves in order has a leader within a second, one whose engine died after
/// some.
const ASTRAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Most engines that a worker works for.
const ENGINES_MAX: usize = 256;

/// How engines are reached.
pub(super) struct Ways {
    pub(super) tls: Option<TlsConnector>,
    pub(super) token: Option<HeaderValue>,
    /// Whether the worker was told to speak to nobody without TLS, which those that are named later do not change.
    pub(super) is_secure: bool,
}

/// A report that no engine could take.
pub(super) struct Astray {
    parcel: Parcel,
    pub(super) due: Instant,
    /// Who may lead what it is about.
    engine: Option<String>,
}

impl Ways {
    pub(super) fn road(&mut self, url: ServiceUrl) -> Result<Road, String> {
        if self.is_secure && !url.tls {
            return Err("it speaks no TLS, and others do".to_owned());
        }
        if url.tls && self.tls.is_none() {
            self.tls = Some(client::trust(None)?);
        }
        Ok(Road { tls: self.tls.clone().filter(|_| url.tls), token: self.token.clone(), url })
    }
}

impl Agent {
    pub(super) fn link(&self, at: usize) -> Option<&Link> {
        self.links.get(at)?.as_ref()
    }

    pub(super) fn link_mut(&mut self, at: usize) -> Option<&mut Link> {
        self.links.get_mut(at)?.as_mut()
    }

    /// The engines that there are, by their places.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> + use<> {
        let there: Vec<usize> = (0..self.links.len()).filter(|at| self.links[*at].is_some()).collect();
        there.into_iter()
    }

    /// How it stands with the engines that may be asked, and their places.
    pub(super) fn asked_engines(&self) -> (Vec<usize>, Vec<Asked>) {
        let known = self.links.iter().enumerate().filter_map(|(at, link)| Some((at, link.as_ref()?)));
        known.filter(|(_, link)| link.is_known).map(|(at, link)| (at, link.as_asked())).unzip()
    }

    /// The engine that news of an attempt is told to that this one gave: any passes it on to whoever leads it.
    pub(super) fn teller(&mut self, from: usize) -> Option<&mut Link> {
        let own = self.link(from).map(Link::is_well);
        let at = match own {
            Some(true) => from,
            Some(false) => self.stand_in(from).unwrap_or(from),
            None => self.stand_in(from).or_else(|| self.places().next())?,
        };
        self.link_mut(at)
    }

    /// Another engine that answers.
    fn stand_in(&self, of: usize) -> Option<usize> {
        self.places().find(|at| *at != of && self.link(*at).is_some_and(Link::is_well))
    }

    /// Lets another engine hear what this one does not.
    pub(super) fn hand_over(&mut self, from: usize) {
        let Some(to) = self.stand_in(from) else { return };
        let Some(link) = self.link_mut(from) else { return };
        let (parcels, is_fetching) = (link.take_parcels(), link.fetch.is_calling());
        let fetches = if is_fetching { Vec::new() } else { link.fetches.drain(..).collect() };
        if let Some(link) = self.link_mut(to) {
            link.parcels.extend(parcels);
            link.fetches.extend(fetches);
        }
    }

    /// Keeps news that nobody could record, to tell it again.
    pub(super) fn keep_astray(&mut self, parcel: Parcel, engine: Option<String>) {
        let pause = (ASTRAY.0 * 2_u32.saturating_pow(parcel.tries.saturating_sub(1).min(16))).min(ASTRAY.1);
        self.astray.push(Astray { parcel, due: Instant::now() + pause, engine });
    }

    /// Tells again what is due of that.
    pub(super) fn send_astray(&mut self) {
        let now = Instant::now();
        if self.astray.iter().all(|astray| astray.due > now) {
            return;
        }
        for astray in std::mem::take(&mut self.astray) {
            let wells = || self.places().filter(|at| self.link(*at).is_some_and(Link::is_well));
            let is_leader =
                |at: &usize| astray.engine.as_ref().is_some_and(|url| self.link(*at).is_some_and(|link| link.is_called(url)));
            let to = wells().find(is_leader).or_else(|| wells().next());
            match to.filter(|_| astray.due <= now).and_then(|at| self.link_mut(at)) {
                Some(link) => link.parcels.push_back(astray.parcel),
                None => self.astray.push(Astray { due: astray.due.max(now + ASTRAY.0), ..astray }),
            }
        }
    }

    /// Notes which engines one has named.
    pub(super) fn follow(&mut self, at: usize, engines: Vec<String>) {
        if engines.is_empty() {
            return;
        }
        if let Some(link) = self.link_mut(at) {
            link.engines = engines;
        }
        self.drop_double(at);
        self.add_named();
        self.drop_unnamed();
    }

    /// One engine under two names is one: the way on which it answered last stays.
    fn drop_double(&mut self, at: usize) {
        let Some(own) = self.link(at).and_then(|link| link.engines.first()).cloned() else { return };
        for other in self.places().filter(|other| *other != at) {
            if self.link(other).is_some_and(|link| link.is_called(&own)) {
                let is_first = self.link(other).is_some_and(|link| link.is_first);
                if let Some(link) = self.link_mut(at) {
                    link.is_first |= is_first;
                }
                self.drop_link(other, at);
            }
        }
    }

    /// Goes to engines that it does not know yet, once those have answered or failed that it was told to go to: one of them may be one of these.
    fn add_named(&mut self) {
        if self.links.iter().flatten().any(|link| link.is_first && !link.is_known && link.talk.failures() == 0) {
            return;
        }
        let named: Vec<String> = self.named().map(str::to_owned).collect();
        for url in named {
            let is_there = self.links.iter().flatten().any(|link| link.is_called(&url));
            if is_there || self.links.iter().flatten().count() >= ENGINES_MAX {
                continue;
            }
            match url.parse::<ServiceUrl>().and_then(|url| self.ways.road(url)) {
                Ok(road) => self.add_link(Link::new(road, false)),
                Err(reason) => tracing::warn!(engine = url, reason, "an engine is named to which the worker does not go"),
            }
        }
    }

    fn add_link(&mut self, link: Link) {
        tracing::info!(engine = link.url, "the worker works for one more engine");
        match self.links.iter_mut().find(|link| link.is_none()) {
            Some(place) => *place = Some(link),
            None => self.links.push(Some(link)),
        }
    }

    /// The engines that those name that answer.
    fn named(&self) -> impl Iterator<Item = &str> {
        let answering = self.links.iter().flatten().filter(|link| link.is_known && link.troubled.is_none());
        answering.flat_map(|link| link.engines.iter().map(String::as_str))
    }

    /// Leaves engines that have not answered for a while and that nobody names any more.
    pub(super) fn drop_unnamed(&mut self) {
        if self.named().next().is_none() {
            return;
        }
        for at in self.places() {
            let Some(link) = self.link(at) else { continue };
            let is_lost = !link.is_first && link.trouble().is_some_and(|trouble| trouble >= FORGET_AFTER);
            if is_lost
                && !self.named().any(|url| link.is_called(url))
                && let Some(to) = self.stand_in(at)
            {
                tracing::info!(engine = link.url, "an engine is gone");
                self.drop_link(at, to);
            }
        }
    }

    /// Lets go of an engine; what it was to hear another one hears.
    fn drop_link(&mut self, at: usize, to: usize) {
        let Some(mut link) = self.links[at].take() else { return };
        link.tell.give_up();
        let parcels = link.take_parcels();
        if let Some(to) = self.link_mut(to) {
            to.parcels.extend(parcels);
            to.fetches.append(&mut link.fetches);
        }
    }
}
