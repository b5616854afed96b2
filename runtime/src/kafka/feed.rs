//! Records of the requests topic as the shards take them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ergate_actors::records::{Around, Records};
use ergate_events::task::TypeSettings;
use ergate_events::time::Timestamp;
use rdkafka::message::{BorrowedMessage, Headers, Message};

use crate::request::{self, Record, Refusal};

/// Reads requests with the settings of the task types that are known here.
pub(crate) struct Feed {
    types: Arc<BTreeMap<String, TypeSettings>>,
    fallback: TypeSettings,
    /// What requests may have answers sent to.
    reply_topics: Vec<String>,
}

impl Feed {
    pub(crate) fn new(types: BTreeMap<String, TypeSettings>, reply_topics: Vec<String>) -> Feed {
        Feed { types: Arc::new(types), fallback: TypeSettings::default(), reply_topics }
    }

    /// Adds what a message says to the records of its shard.
    pub(crate) fn read(&self, message: &BorrowedMessage<'_>, now: Timestamp, records: &mut Records) {
        let headers = headers(message);
        let record = Record { key: message.key(), value: message.payload(), headers: headers.as_deref().unwrap_or_default() };
        let offset = u64::try_from(message.offset()).unwrap_or_default();
        let raw = message.payload().unwrap_or_default();
        let around = around(&record);
        let unreadable = || Refusal::new("headers", "have a name that is not UTF-8, and cannot be kept; UTF-8 is expected");
        let read = headers.is_some().then_some(()).ok_or_else(unreadable);
        let read =
            read.and_then(|()| request::parse(&record, now)).and_then(|request| self.check_reply(&request).map(|()| request));
        match read {
            Ok(mut request) => {
                let settings = self.types.get(&*request.task_type).unwrap_or(&self.fallback);
                let extras = request.take_extras(settings);
                records.push_request(offset, raw, (&request.task_type, &request.payload), extras, around);
            }
            Err(refusal) => records.push_refused(offset, raw, &refusal.to_string(), around),
        }
    }

    /// Answers go only where the operator lets them: a topic that cannot be written to would hold up the whole shard.
    fn check_reply(&self, request: &request::Request<'_>) -> Result<(), Refusal> {
        match &request.reply_to {
            Some(topic) if !self.reply_topics.contains(topic) => Err(Refusal::new(
                "reply_to",
                format!("is {topic:?}, which is not among the topics that this engine may answer on"),
            )),
            Some(_) | None => Ok(()),
        }
    }
}

/// A header.
type Named<'a> = (&'a str, Option<&'a [u8]>);

/// The headers, or `None` where the client cannot give them: it panics over a name that is not UTF-8, which anybody may send.
pub(crate) fn headers<'a>(message: &'a BorrowedMessage<'_>) -> Option<Vec<Named<'a>>> {
    let Some(headers) = message.headers() else { return Some(Vec::new()) };
    let all = || headers.iter().map(|header| (header.key, header.value)).collect();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(all)).ok()
}

/// What the dead-letter topic needs beside the value; the usual record has nothing of it.
fn around(record: &Record<'_>) -> Option<Box<Around>> {
    let is_tombstone = record.value.is_none();
    if record.key.is_none() && record.headers.is_empty() && !is_tombstone {
        return None;
    }
    let headers = record.headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec))).collect();
    Some(Box::new(Around { key: record.key.map(<[u8]>::to_vec), headers, is_tombstone }))
}
