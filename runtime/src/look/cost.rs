//! What pools have cost: how long their replicas were there, and what that is at the price of an hour.

use std::collections::BTreeMap;

use ergate_events::state::State;
use ergate_events::time::Timestamp;
use ergate_events::view::ReplicaTime;
use serde_json::{Value, json};

use super::LookError;
use super::fold::Source;
use super::moment::Moment;
use super::record;

const SECONDS_OF_AN_HOUR: f64 = 3_600.0;

/// Prices of an hour of one replica, by pool; in which currency is for whoever sets them to know.
pub type Prices = BTreeMap<String, f64>;

/// The time of replicas from a moment on, or from the first that the log can tell, until `now`, or until its last event. As programs see it, the pools by
/// name.
///
/// # Errors
/// As [`Source::fold`].
pub fn cost(source: &Source<'_>, since: Option<Moment>, now: Option<Timestamp>, prices: &Prices) -> Result<Value, LookError> {
    let from = since.unwrap_or(Moment::Position(source.reader.span().first));
    let mut state = source.fold(from, &mut |_| {})?;
    // What was there at a time counts from that, however long ago the last event was.
    let mut begin = match from {
        Moment::Time(at) => at.max(state.last_at),
        Moment::Position(_) => state.last_at,
    };
    let mut time = ReplicaTime::of(&state.control, begin);
    let mut cursor = source.reader.cursor(state.position)?;
    while let Some(block) = cursor.next_block()? {
        for record in record::of(&block) {
            let record = record?;
            if record.envelope.position < state.position {
                continue;
            }
            if begin == Timestamp::default() {
                // The log begins here.
                begin = record.envelope.recorded_at;
            }
            state.apply(&record.envelope);
            time.apply(&record.envelope);
        }
    }
    let until = now.unwrap_or(state.last_at).max(begin);
    Ok(told(&state, &time, (begin, until), prices))
}

fn told(state: &State, time: &ReplicaTime, (begin, until): (Timestamp, Timestamp), prices: &Prices) -> Value {
    let sums = time.until(until);
    let of_pool = |(index, pool): (usize, &ergate_events::state::control::PoolSize)| {
        let sum = u16::try_from(index).ok().and_then(|index| sums.get(&ergate_events::id::PoolId(index)));
        let seconds = sum.map_or(0.0, |sum| sum.0 as f64 / 1e6);
        let price = prices.get(&pool.name).copied();
        json!({
            "pool": pool.name, "replica_seconds": seconds, "replica_hours": seconds / SECONDS_OF_AN_HOUR,
            "price": price, "cost": price.map(|price| price * seconds / SECONDS_OF_AN_HOUR),
        })
    };
    let pools: Vec<Value> = state.control.pools.iter().enumerate().map(of_pool).collect();
    json!({ "since": begin.rfc3339(), "until": until.rfc3339(), "pools": pools })
}
