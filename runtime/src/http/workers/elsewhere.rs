//! Other engines, where the log is on Kafka: workers are told where those are, and news of attempts whose tasks they lead is passed on to them.
//!
//! News goes on at most once, and without waiting for a leader: a worker that hears that there is none keeps its news, and nobody else's is held up.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse, rt};
use ergate_events::id::{AttemptId, ShardId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Stop;
use super::reported::{Elsewhere, Fate, Refused};
use crate::http::forward::{self, Asked, Sent};
use crate::http::led::FORWARDED;
use crate::http::problem::{Problem, elsewhere};
use crate::http::service::Service;
use crate::whereabouts::Whereabouts;

/// How often it is looked which engines there are, while any worker is known: a new one has no work for workers before they know it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long another engine may take with news: the worker that waits for it has more to tell.
const PASSED_ON_WITHIN: Duration = Duration::from_secs(3);

/// Looks which engines there are from the first worker on.
pub(super) async fn look(service: &Data<Service>) {
    if !service.runtime.is_on_kafka() || service.is_looking.swap(true, Ordering::Relaxed) {
        return;
    }
    look_now(service).await;
    let service = service.clone();
    rt::spawn(async move {
        loop {
            tokio::select! {
                () = service.stopped() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if !service.runtime.hub().is_empty() {
                look_now(&service).await;
            }
        }
    });
}

async fn look_now(service: &Service) {
    // What was known before holds while the brokers do not tell.
    if let Ok(urls) = service.runtime.engines().await {
        service.runtime.hub().set_engines(urls);
    }
}

/// Whether another engine has passed a request on.
pub(super) fn is_passed_on(request: &HttpRequest) -> bool {
    request.headers().contains_key(FORWARDED)
}

/// Fetches what the leader of a shard has; `None` where that is this engine.
pub(super) async fn fetch(
    request: &HttpRequest,
    service: &Data<Service>,
    shard: ShardId,
) -> Result<Option<HttpResponse>, Problem> {
    if service.runtime.leads(shard) || shard.0 >= service.runtime.shards() {
        return Ok(None);
    }
    if is_passed_on(request) {
        return Err(elsewhere(shard));
    }
    match forward::send(service, shard, &Asked::of(request, Bytes::new())).await? {
        Sent::Answered(answer) => Ok(Some(forward::relay(service.clone(), answer))),
        Sent::Here => Ok(None),
    }
}

/// A report, of which nobody here has to know what is in it.
#[derive(Default, Deserialize, Serialize)]
struct Report<'a> {
    #[serde(default, borrow)]
    outcomes: Vec<&'a RawValue>,
    #[serde(default, borrow)]
    heartbeats: Vec<&'a RawValue>,
}

/// What became of one, as another engine tells.
#[derive(Deserialize)]
struct Told {
    refused: Vec<Refused>,
    #[serde(default)]
    elsewhere: Vec<Elsewhere>,
    stop: Vec<Stop>,
}

/// Passes news on that other engines have to record, and notes what became of it; gives what those want to be stopped.
pub(super) async fn pass_on(
    request: &HttpRequest,
    service: &Service,
    body: &[u8],
    ids: &[AttemptId],
    fates: &mut [Fate],
) -> Vec<Stop> {
    let mut stop = Vec::new();
    for (address, indices) in leaders(service, ids, fates).await {
        indices.iter().for_each(|index| fates[*index] = Fate::Elsewhere(Some(address.clone())));
        let Some(part) = part(body, &indices) else { continue };
        let target = request.uri().path().to_owned();
        let asked = Asked::with(request, target, part.into()).within(PASSED_ON_WITHIN);
        let told = forward::once(service, &address, &asked)
            .await
            .and_then(|told| serde_json::from_value::<Told>(told).map_err(|error| format!("its answer cannot be read: {error}")));
        match told {
            Ok(told) => {
                indices.iter().for_each(|index| fates[*index] = told.of(ids[*index]));
                stop.extend(told.stop);
            }
            Err(reason) => tracing::debug!(address, reason, "news of a worker was not passed on"),
        }
    }
    stop
}

/// Who has to record news: the indices of what is for each engine that is known to lead a shard.
async fn leaders(service: &Service, ids: &[AttemptId], fates: &[Fate]) -> BTreeMap<String, Vec<usize>> {
    let mut by_shard: BTreeMap<ShardId, Vec<usize>> = BTreeMap::new();
    let elsewhere = fates.iter().enumerate().filter(|(_, fate)| matches!(fate, Fate::Elsewhere(_)));
    elsewhere.for_each(|(index, _)| by_shard.entry(ids[index].task.shard).or_default().push(index));
    let mut leaders: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (shard, indices) in by_shard {
        // One that is led here by now is reported here again.
        if let Ok(Whereabouts::At(address)) = service.runtime.whereabouts(shard, None).await {
            leaders.entry(address).or_default().extend(indices);
        }
    }
    leaders
}

/// Some of a report: news is counted as it is answered, heartbeats first.
fn part(body: &[u8], indices: &[usize]) -> Option<Vec<u8>> {
    let Report { outcomes, heartbeats } = serde_json::from_slice(body).ok()?;
    let mut part = Report::default();
    for index in indices {
        match index.checked_sub(heartbeats.len()) {
            None => part.heartbeats.push(heartbeats[*index]),
            Some(index) => part.outcomes.push(outcomes.get(index)?),
        }
    }
    serde_json::to_vec(&part).ok()
}

impl Told {
    /// What became of news of an attempt. What is refused of two pieces is taken for both: the attempt is over.
    fn of(&self, id: AttemptId) -> Fate {
        if let Some(refused) = self.refused.iter().find(|refused| refused.attempt == id) {
            return Fate::Refused { reason: refused.reason.clone(), detail: refused.detail.clone() };
        }
        match self.elsewhere.iter().find(|elsewhere| elsewhere.attempt == id) {
            Some(Elsewhere { engine, .. }) => Fate::Elsewhere(engine.clone()),
            None => Fate::Taken,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_report_is_what_it_was() {
        let body = br#"{"outcomes":[{"attempt":"0-1.1","result": {"a" : 1}},{"attempt":"1-2.1","returned":true}],
            "heartbeats":[{"attempt":"2-3.1","checkpoint":[7]},{"attempt":"0-4.1"}]}"#;
        let text = |indices: &[usize]| String::from_utf8(part(body, indices).unwrap()).unwrap();
        assert_eq!(
            text(&[0, 2]),
            r#"{"outcomes":[{"attempt":"0-1.1","result": {"a" : 1}}],"heartbeats":[{"attempt":"2-3.1","checkpoint":[7]}]}"#
        );
        assert_eq!(text(&[3]), r#"{"outcomes":[{"attempt":"1-2.1","returned":true}],"heartbeats":[]}"#);
        assert!(part(body, &[4]).is_none());
    }

    #[test]
    fn what_the_leader_says_is_what_became_of_it() {
        let told: Told = serde_json::from_str(
            r#"{"taken":1,"refused":[{"attempt":"0-1.1","reason":"stale-attempt","detail":"no"}],"elsewhere":[{"attempt":"0-2.1"}],"stop":[],"drain":false}"#,
        )
        .unwrap();
        let of = |id: &str| told.of(id.parse().unwrap());
        assert!(matches!(of("0-1.1"), Fate::Refused { reason, .. } if reason == "stale-attempt"));
        assert!(matches!(of("0-2.1"), Fate::Elsewhere(None)));
        assert!(matches!(of("0-3.1"), Fate::Taken));
    }
}
