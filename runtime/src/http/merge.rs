//! Answers that are made of what the leaders of all shards tell.
//!
//! Each is asked as anybody would ask about one shard, by the parameter `shard`; a shard that has no leader at the moment is named in the answer
//! and never left out silently.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;

use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, ResponseError, rt};
use ergate_events::id::{ShardId, TaskId};
use serde_json::{Value, json};

use super::forward::{Asked, ask_json};
use super::look::{CURSOR, read_cursor};
use super::places::{Place, Places};
use super::problem::{ELSEWHERE, INVALID, Problem, internal};
use super::service::Service;
use crate::look::row::Cursor;
use crate::shards::shard_name;

/// Shards that are asked at one time, for one request.
const TOGETHER: usize = 32;

/// What the leaders of shards told.
pub(super) struct Gathered {
    /// By shard.
    pub(super) told: BTreeMap<ShardId, Value>,
    /// Those that nobody leads at the moment.
    pub(super) missing: Vec<ShardId>,
}

impl Gathered {
    /// The names of the shards that nothing is told of, as a member of the answer.
    pub(super) fn missing(&self) -> Value {
        self.missing.iter().map(|shard| shard_name(*shard)).collect()
    }
}

/// Asks the leaders of shards at the same time; those that are led here are asked by `local`.
///
/// # Errors
/// What any of them refuses, and when none has a leader.
pub(super) async fn gather<L, F>(service: &Data<Service>, mut asked: Vec<(ShardId, Asked)>, local: L) -> Result<Gathered, Problem>
where
    L: Fn(Data<Service>, ShardId) -> F + Clone + 'static,
    F: Future<Output = Result<Value, Problem>> + 'static,
{
    let (mut gathered, mut last) = (Gathered { told: BTreeMap::new(), missing: Vec::new() }, None);
    while !asked.is_empty() {
        let together = asked.drain(..asked.len().min(TOGETHER));
        let asking: Vec<_> = together
            .map(|(shard, asked)| {
                let (service, local) = (service.clone(), local.clone());
                (shard, rt::spawn(async move { tell(&service, shard, &asked, local).await }))
            })
            .collect();
        for (shard, told) in asking {
            match told.await.unwrap_or_else(|error| Err(internal(&error))) {
                Ok(told) => drop(gathered.told.insert(shard, told)),
                Err(problem) if problem.status_code().as_u16() == ELSEWHERE.0 => {
                    gathered.missing.push(shard);
                    last = Some(problem);
                }
                Err(problem) => return Err(problem),
            }
        }
    }
    match last {
        Some(problem) if gathered.told.is_empty() => Err(problem),
        Some(_) | None => Ok(gathered),
    }
}

/// What the leader of a shard tells, wherever it is.
///
/// # Errors
/// As [`ask_json`], and what `local` answers.
pub(super) async fn tell<L, F>(service: &Data<Service>, shard: ShardId, asked: &Asked, local: L) -> Result<Value, Problem>
where
    L: Fn(Data<Service>, ShardId) -> F,
    F: Future<Output = Result<Value, Problem>>,
{
    if service.runtime.leads(shard) {
        match local(service.clone(), shard).await {
            // It has just gone to another engine.
            Err(problem) if problem.is(ELSEWHERE) => {}
            told => return told,
        }
    }
    match ask_json(service, shard, asked).await? {
        Some(told) => Ok(told),
        None => local(service.clone(), shard).await,
    }
}

/// The address of the same request about one shard, with these parameters of its own.
pub(super) fn target(request: &HttpRequest, shard: ShardId, cursor: Option<&str>) -> String {
    let own = |pair: &&str| !matches!(pair.split('=').next(), Some("cursor" | "shard" | ""));
    let mut target = format!("{}?shard={}", request.path(), shard_name(shard));
    for pair in request.query_string().split('&').filter(own) {
        target.push('&');
        target.push_str(pair);
    }
    cursor.into_iter().for_each(|cursor| target.push_str(&format!("&cursor={cursor}")));
    target
}

/// A list that each shard has a part of.
pub(super) struct Listing {
    /// The member of a page that has the rows.
    member: &'static str,
    /// The member of a row with the time by which rows are merged.
    since: &'static str,
    /// Where the list goes on behind a row.
    place: fn(&Value) -> Option<Cursor>,
    /// Where it goes on behind a page of one shard, as the page's cursor says.
    next: fn(&str) -> Option<Cursor>,
    /// How one shard is told so.
    text: fn(ShardId, Cursor) -> String,
}

/// Live tasks by the time of their requests, then ended ones by that of their ends.
pub(super) const TASKS: Listing = Listing {
    member: "tasks",
    since: "since",
    place: |row| row["cursor"].as_str()?.parse().ok(),
    next: read_cursor,
    text: |_, cursor| cursor.to_string(),
};

/// Dead letters by the time of their requests.
pub(super) const DEAD_LETTERS: Listing = Listing {
    member: "dead_letters",
    since: "requested",
    place: |row| place_of(row["task"].as_str()?),
    next: place_of,
    text: |shard, cursor| letter(shard, cursor).map(|id| id.to_string()).unwrap_or_default(),
};

/// The place of a dead letter.
fn place_of(id: &str) -> Option<Cursor> {
    let id: TaskId = id.parse().ok()?;
    Some(Cursor::Live { before: id.ordinal, as_of: None })
}

/// The dead letter at a place.
pub(super) fn letter(shard: ShardId, place: Cursor) -> Option<TaskId> {
    match place {
        Cursor::Live { before, .. } => Some(TaskId { shard, ordinal: before }),
        Cursor::Ended(_) => None,
    }
}

/// A page of a list of all shards: its rows, where the next page begins, and which shards are missing on it.
///
/// # Errors
/// As [`gather`], and a cursor that is none of this list.
pub(super) async fn page<L, F>(
    service: &Data<Service>,
    request: &HttpRequest,
    (listing, limit, cursor): (&'static Listing, usize, Option<&str>),
    local: L,
) -> Result<Value, Problem>
where
    L: Fn(Data<Service>, ShardId, Option<Cursor>) -> F + Clone + 'static,
    F: Future<Output = Result<Value, Problem>> + 'static,
{
    let shards = service.runtime.shards();
    let places = cursor.map_or_else(|| Some(Places::default()), |cursor| Places::read(cursor, shards));
    let places = places.ok_or_else(|| {
        let detail = format!(
            "`cursor` is {:?} where {CURSOR} is expected",
            cursor.unwrap_or_default().chars().take(64).collect::<String>()
        );
        Problem::new(INVALID, detail).field("cursor")
    })?;
    let behind = |places: &Places, shard| match places.0.get(&shard) {
        Some(Place::Behind(cursor)) => Some(*cursor),
        Some(Place::End) | None => None,
    };
    let open = (0..shards).map(ShardId).filter(|shard| places.0.get(shard) != Some(&Place::End));
    let ask = |shard| {
        let cursor = behind(&places, shard).map(|cursor| (listing.text)(shard, cursor));
        (shard, Asked::with(request, target(request, shard, cursor.as_deref()), Bytes::new()))
    };
    let asked = open.map(ask).collect();
    let begun = places.clone();
    let gathered = gather(service, asked, move |service, shard| local(service, shard, behind(&begun, shard))).await?;
    merged(listing, limit, places, gathered)
}

/// The page of one shard while it is merged with others.
struct Part {
    /// Its rows that are not in the merged page yet.
    rows: VecDeque<Value>,
    /// Where it goes on behind them.
    next: Option<Cursor>,
    /// What of it is still to come was not later than this, where that is known.
    looked_to: Option<String>,
}

impl Part {
    fn of(listing: &Listing, page: &mut Value) -> Option<Part> {
        let next = page["cursor"].as_str().and_then(listing.next);
        let looked_to = page["looked_to"].as_str().map(str::to_owned);
        let Value::Array(rows) = page[listing.member].take() else { return None };
        Some(Part { rows: rows.into(), next, looked_to })
    }

    /// What this shard may have next: its next row, or whatever it tells behind the page. Nothing that comes after it may be shown before that.
    fn order<'a>(&'a self, listing: &Listing) -> Option<(bool, &'a str)> {
        let behind = |next| (matches!(next, Cursor::Live { .. }), self.looked_to.as_deref().unwrap_or(LATEST));
        self.rows.front().map(|row| order(listing, row)).or_else(|| self.next.map(behind))
    }
}

/// Is later than every time as it is printed.
const LATEST: &str = "~";

/// Merges the pages of shards, each of which has its rows in the order of the list. Where one of them ends although its list goes on, the merged
/// page ends too, before any row that may have to stand behind what that shard has next.
fn merged(listing: &Listing, limit: usize, mut places: Places, gathered: Gathered) -> Result<Value, Problem> {
    let missing = gathered.missing();
    let mut total = None;
    let mut parts: BTreeMap<ShardId, Part> = BTreeMap::new();
    for (shard, mut page) in gathered.told {
        total = page["total"].as_u64().map(|more| more + total.unwrap_or(0)).or(total);
        parts.extend(Part::of(listing, &mut page).map(|part| (shard, part)));
    }
    let mut rows = Vec::new();
    while rows.len() < limit {
        // Of those of one time, a row goes before what is not known yet.
        let next = parts.iter().filter_map(|(shard, part)| Some((part.order(listing)?, !part.rows.is_empty(), Reverse(*shard))));
        let newest = next.max();
        let Some((true, shard)) = newest.map(|(_, has_row, Reverse(shard))| (has_row, shard)) else { break };
        let Some(mut row) = parts.get_mut(&shard).and_then(|part| part.rows.pop_front()) else { break };
        places.0.extend((listing.place)(&row).map(|place| (shard, Place::Behind(place))));
        row["cursor"] = places.write().ok_or_else(too_many)?.into();
        rows.push(row);
    }
    let looked_to = parts.values().filter(|part| part.rows.is_empty()).filter_map(|part| part.looked_to.clone()).max();
    let done = parts.iter().filter(|(_, part)| part.rows.is_empty());
    places.0.extend(done.map(|(shard, part)| (*shard, part.next.map_or(Place::End, Place::Behind))));
    let is_last = parts.values().all(|part| part.rows.is_empty() && part.next.is_none());
    let cursor = if is_last { Value::Null } else { places.write().ok_or_else(too_many)?.into() };
    let is_short = rows.len() < limit;
    let mut page = json!({ listing.member: rows, "cursor": cursor, "missing_shards": missing });
    let extra = [("total", total.map(Value::from)), ("looked_to", looked_to.filter(|_| is_short).map(Value::from))];
    let extra = extra.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    page.as_object_mut().into_iter().for_each(|page| page.extend(extra.clone()));
    Ok(page)
}

/// A list of so many shards that no address can name a place in each.
fn too_many() -> Problem {
    Problem::new(INVALID, "there are too many shards to list them all at once; name one with `shard`").field("shard")
}

/// What comes first: the greater.
fn order<'a>(listing: &Listing, row: &'a Value) -> (bool, &'a str) {
    let was_live = matches!((listing.place)(row), Some(Cursor::Live { .. }));
    (was_live, row[listing.since].as_str().unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ergate_events::id::{Ordinal, Position};

    use super::*;

    /// A page of a shard: live tasks and then ended ones, each by its time, and where it goes on.
    fn told(live: &[u64], ended: &[u64], next: Option<&str>, looked_to: Option<u64>) -> Value {
        let row = |kind: &str, at: u64| json!({"task": "0-0", "since": at.to_string(), "cursor": format!("{kind}-{at}")});
        let rows: Vec<_> = live.iter().map(|at| row("live", *at)).chain(ended.iter().map(|at| row("ended", *at))).collect();
        let mut page = json!({"tasks": rows, "cursor": next.map(|next| URL_SAFE_NO_PAD.encode(next))});
        looked_to.into_iter().for_each(|at| page["looked_to"] = at.to_string().into());
        page
    }

    /// The times of the merged rows, what follows in each shard, and how far was looked.
    fn page(told: Vec<Value>, limit: usize) -> (Vec<u64>, Option<Places>, Option<String>) {
        let shards = told.len() as u16;
        let told = told.into_iter().zip(0..).map(|(page, shard)| (ShardId(shard), page)).collect();
        let page = merged(&TASKS, limit, Places::default(), Gathered { told, missing: Vec::new() }).unwrap();
        let times = page["tasks"].as_array().unwrap().iter().map(|row| row["since"].as_str().unwrap().parse().unwrap()).collect();
        let places = page["cursor"].as_str().map(|cursor| Places::read(cursor, shards).unwrap());
        (times, places, page["looked_to"].as_str().map(str::to_owned))
    }

    fn behind(ended: u64) -> Place {
        Place::Behind(Cursor::Ended(Position(ended)))
    }

    fn places(all: &[(u16, Place)]) -> Option<Places> {
        Some(Places(all.iter().map(|(shard, place)| (ShardId(*shard), *place)).collect()))
    }

    #[test]
    fn full_pages_are_merged_by_time_and_the_last_one_says_so() {
        let both = || vec![told(&[95], &[80, 60], None, None), told(&[90], &[70], None, None)];
        assert_eq!(page(both(), 10), (vec![95, 90, 80, 70, 60], None, None));
        let (times, next, _) = page(both(), 3);
        assert_eq!(times, [95, 90, 80]);
        let live = Place::Behind(Cursor::Live { before: Ordinal(90), as_of: None });
        assert_eq!(next, places(&[(0, behind(80)), (1, live)]));
    }

    #[test]
    fn nothing_is_shown_before_what_a_short_page_may_have_left_out() {
        // The first shard has looked back to 50 and found one; the second has rows on both sides of that.
        let (times, next, looked_to) =
            page(vec![told(&[], &[80], Some("ended-55"), Some(50)), told(&[], &[70, 50, 40], None, None)], 10);
        assert_eq!((times, looked_to.as_deref()), (vec![80, 70, 50], Some("50")));
        assert_eq!(next, places(&[(0, behind(55)), (1, behind(50))]));
    }

    #[test]
    fn a_page_without_rows_goes_on_in_every_shard_that_does() {
        let empty = |next, at| told(&[], &[], Some(next), Some(at));
        let (times, next, looked_to) = page(vec![empty("ended-55", 52), empty("ended-30", 20), told(&[], &[], None, None)], 10);
        assert_eq!((times, looked_to.as_deref()), (vec![], Some("52")));
        assert_eq!(next, places(&[(0, behind(55)), (1, behind(30)), (2, Place::End)]));
    }

    #[test]
    fn live_tasks_are_shown_before_what_has_ended_and_none_while_others_may_come() {
        let (times, ..) = page(vec![told(&[], &[], Some("ended-55"), Some(99)), told(&[90], &[70], None, None)], 10);
        assert_eq!(times, [90], "no ended task of the first stands before a live one of the second");
        let (times, next, looked_to) = page(vec![told(&[97], &[], Some("live-7-3"), None), told(&[90], &[], None, None)], 10);
        assert_eq!((times, looked_to), (vec![97], None));
        let live = Place::Behind(Cursor::Live { before: Ordinal(7), as_of: Some(Position(3)) });
        assert_eq!(next, places(&[(0, live)]));
    }
}
