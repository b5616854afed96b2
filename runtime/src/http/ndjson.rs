//! A stream of requests, one a line, of any length: read, submitted and answered batch by batch as it comes, in bounded memory.
//!
//! Reading stops while [`BATCHES_IN_FLIGHT`] batches wait to be durable, so a sender is held back by TCP and not by memory. The answer is one summary at
//! the end, or, if the sender accepts NDJSON, a line for each line as soon as it is durable; such a sender has to read while it sends.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::http::header;
use actix_web::rt::task::JoinHandle;
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse, rt};
use ergate_actors::submission::{BatchAnswer, RequestBatch, SubmitError};
use ergate_events::id::TaskId;
use futures_core::Stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::gather::Answer;
use super::problem::{CLOSED, INVALID, Problem};
use super::service::Service;
use super::{body, submit};
use crate::request::{self, Record, VALUE_BYTES_MAX};

/// Most requests in one batch.
const BATCH_REQUESTS: usize = 1_000;
/// Payload bytes after which a batch is full.
const BATCH_BYTES: usize = 4 << 20;
/// Batches of one stream that wait to be durable.
const BATCHES_IN_FLIGHT: usize = 8;
/// Refusals that a summary names; it counts the rest.
const REFUSALS_MAX: usize = 100;
/// How long lines that name others wait for lines that may be meant.
const NAMED_WITHIN: Duration = Duration::from_millis(50);
/// Pieces of the answer that wait for their reader.
const PIECES_AHEAD: usize = 4;

/// A line that was refused before it was submitted.
struct Refused {
    line: u64,
    field: Option<String>,
    reason: String,
}

/// Lines that travel together.
#[derive(Default)]
struct Work {
    requests: RequestBatch,
    /// The numbers of their lines.
    lines: Vec<u64>,
    refused: Vec<Refused>,
}

impl Work {
    fn len(&self) -> usize {
        self.lines.len() + self.refused.len()
    }

    fn is_full(&self) -> bool {
        self.len() >= BATCH_REQUESTS || self.requests.bytes() >= BATCH_BYTES
    }
}

/// Lines with their answers.
struct Answered {
    lines: Vec<u64>,
    refused: Vec<Refused>,
    answer: Result<BatchAnswer, SubmitError>,
}

/// Takes the answers, in the order of the batches.
enum Answers {
    Summary(Summary),
    Lines(mpsc::Sender<Bytes>),
}

#[derive(Default)]
struct Summary {
    accepted: u64,
    duplicates: u64,
    refused: u64,
    first: Option<TaskId>,
    last: Option<TaskId>,
    /// The last line that has an answer.
    line: u64,
    refusals: Vec<Value>,
}

pub(super) async fn submit(request: &HttpRequest, payload: Payload, service: Data<Service>) -> Result<HttpResponse, Problem> {
    body::plain_only(request)?;
    if submit::has_key(request.headers()) {
        let reason = "`Idempotency-Key` is one key for many requests; give each line a `key` of its own";
        return Err(Problem::new(INVALID, reason).field("Idempotency-Key").close());
    }
    let accepts = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepts.contains("ndjson") {
        let (pieces, answer) = mpsc::channel(PIECES_AHEAD);
        rt::spawn(Intake::new(service, Answers::Lines(pieces)).run(payload));
        let mut response = HttpResponse::Ok();
        response.content_type("application/x-ndjson").insert_header((header::CONTENT_ENCODING, "identity"));
        return Ok(response.streaming(Pieces(answer)));
    }
    let (answers, ended) = Intake::new(service, Answers::Summary(Summary::default())).run(payload).await;
    match answers {
        Answers::Summary(summary) => summary.response(ended),
        Answers::Lines(_) => Ok(HttpResponse::Ok().finish()),
    }
}

/// The answer as it comes.
struct Pieces(mpsc::Receiver<Bytes>);

impl Stream for Pieces {
    type Item = Result<Bytes, actix_web::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|piece| piece.map(Ok))
    }
}

/// Reads lines and submits them.
struct Intake {
    service: Data<Service>,
    answers: Answers,
    in_flight: VecDeque<JoinHandle<Answered>>,
    work: Work,
    /// The beginning of a line of which the rest has not come.
    rest: Vec<u8>,
    /// Whether the line is longer than a line may be, and passed over to its end.
    too_long: bool,
    line: u64,
}

impl Intake {
    fn new(service: Data<Service>, answers: Answers) -> Intake {
        let (in_flight, work, rest) = (VecDeque::new(), Work::default(), Vec::new());
        Intake { service, answers, in_flight, work, rest, too_long: false, line: 0 }
    }

    /// Reads to the end of the body; says why it did not come so far, if so.
    async fn run(mut self, mut payload: Payload) -> (Answers, Result<(), Problem>) {
        let mut ended = self.read(&mut payload).await;
        if ended.is_ok() && (self.too_long || !self.rest.is_empty()) {
            ended = self.line_end(&[]).await;
        }
        let sent = self.send().await;
        while !self.in_flight.is_empty() {
            self.settle_one().await;
        }
        let ended = ended.and(sent);
        if let (Answers::Lines(pieces), Err(problem)) = (&self.answers, &ended) {
            let mut last = problem.json();
            last["line"] = self.line.into();
            // Nobody is left to tell when this fails.
            let _ = pieces.send(Bytes::from(format!("{last}\n"))).await;
        }
        (self.answers, ended)
    }

    async fn read(&mut self, payload: &mut Payload) -> Result<(), Problem> {
        let patience = self.service.settings.body_timeout;
        loop {
            let piece = match self.next_soon(payload).await {
                Some(piece) => piece,
                None => {
                    // What is here goes on its way before more is waited for.
                    self.send().await?;
                    let next = timeout(patience, body::piece(payload));
                    tokio::select! {
                        piece = next => piece.map_err(|_| body::late(patience))?,
                        () = self.service.stopped() => return Err(Problem::new(CLOSED, "the service is stopping; send the rest again")),
                    }
                }
            };
            match piece {
                Some(bytes) => self.take(&bytes.map_err(|error| body::broken(&error))?).await?,
                None => return Ok(()),
            }
        }
    }

    /// The next piece of the body, if it is here, or comes at once behind lines that may name what is in it.
    async fn next_soon(&self, payload: &mut Payload) -> Option<Option<Result<Bytes, actix_web::error::PayloadError>>> {
        if self.work.requests.names_tasks() {
            return timeout(NAMED_WITHIN, body::piece(payload)).await.ok();
        }
        next_now(payload).await
    }

    /// Takes a piece of the body apart into lines.
    async fn take(&mut self, mut bytes: &[u8]) -> Result<(), Problem> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.line_end(&bytes[..end]).await?;
            bytes = &bytes[end + 1..];
        }
        self.too_long |= self.rest.len() + bytes.len() > VALUE_BYTES_MAX;
        if self.too_long {
            self.rest.clear();
        } else {
            self.rest.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Takes the end of a line, which may have begun in an earlier piece.
    async fn line_end(&mut self, end: &[u8]) -> Result<(), Problem> {
        self.line += 1;
        if std::mem::take(&mut self.too_long) || self.rest.len() + end.len() > VALUE_BYTES_MAX {
            self.rest.clear();
            self.refuse(Problem::new(INVALID, format!("the line is longer than {VALUE_BYTES_MAX} bytes")));
        } else if self.rest.is_empty() {
            self.add(end);
        } else {
            let mut line = std::mem::take(&mut self.rest);
            line.extend_from_slice(end);
            self.add(&line);
        }
        if self.work.is_full() { self.send().await } else { Ok(()) }
    }

    fn add(&mut self, line: &[u8]) {
        let text = if self.line == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        let text = text.trim_ascii();
        if text.is_empty() {
            return;
        }
        let record = Record { value: Some(text), ..Record::default() };
        let parsed = request::parse(&record, self.service.runtime.now()).map_err(Problem::from);
        let added = parsed.and_then(|mut wanted| {
            let (task_type, extras) = submit::known(&mut wanted, &self.service)?;
            self.work.requests.push(task_type, &wanted.payload, extras);
            Ok(())
        });
        match added {
            Ok(()) => self.work.lines.push(self.line),
            Err(problem) => self.refuse(problem),
        }
    }

    fn refuse(&mut self, problem: Problem) {
        let (field, reason) = (problem.wrong_field().map(str::to_owned), problem.detail().to_owned());
        self.work.refused.push(Refused { line: self.line, field, reason });
    }

    /// Sends off what was read, once there is room for it.
    async fn send(&mut self) -> Result<(), Problem> {
        if self.work.len() == 0 {
            return Ok(());
        }
        // Lines may name those of batches before, which must be decided then.
        let most = if self.work.requests.names_tasks() { 1 } else { BATCHES_IN_FLIGHT };
        while self.in_flight.len() >= most || self.in_flight.front().is_some_and(JoinHandle::is_finished) {
            self.settle_one().await;
        }
        if let Answers::Lines(pieces) = &self.answers
            && pieces.is_closed()
        {
            self.work = Work::default();
            return Err(Problem::new(CLOSED, "whoever sent the lines is gone"));
        }
        let admitted = self.admit().await;
        let Work { requests, lines, refused } = std::mem::take(&mut self.work);
        let runtime = self.service.runtime.clone();
        let busy = admitted.as_ref().err().cloned();
        self.in_flight.push_back(rt::spawn(async move {
            let answer = match busy {
                Some(error) => Err(error),
                None if requests.is_empty() => Ok(BatchAnswer { runs: Vec::new(), position: Default::default() }),
                None => runtime.submit_batch(requests).await.map(|batch| batch.answer),
            };
            Answered { lines, refused, answer }
        }));
        Ok(admitted?)
    }

    /// Waits until the runtime has room, for as long as a sender is waited for.
    async fn admit(&self) -> Result<(), SubmitError> {
        let started = Instant::now();
        loop {
            match self.service.runtime.admit(&self.work.requests) {
                Err(SubmitError::Busy { retry_after, .. }) if started.elapsed() < self.service.settings.body_timeout => {
                    tokio::time::sleep(retry_after.to_std().min(Duration::from_millis(100))).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Waits for the oldest batch and tells its answers.
    async fn settle_one(&mut self) {
        let Some(oldest) = self.in_flight.pop_front() else { return };
        let Ok(answered) = oldest.await else { return };
        match &mut self.answers {
            Answers::Summary(summary) => summary.add(answered),
            // A sender that does not read is found out by its next batch.
            Answers::Lines(pieces) => drop(pieces.send(Bytes::from(answered.text())).await),
        }
    }
}

/// The next piece of a body, if it is here: `Some(None)` at the end.
async fn next_now(payload: &mut Payload) -> Option<Option<Result<Bytes, actix_web::error::PayloadError>>> {
    poll_fn(|context| match Pin::new(&mut *payload).poll_next(context) {
        Poll::Ready(piece) => Poll::Ready(Some(piece)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

impl Answered {
    /// The answer of each line that was submitted.
    fn each(&self) -> Vec<(u64, Answer)> {
        match &self.answer {
            Ok(answer) => self.lines.iter().copied().zip(answer.iter()).collect(),
            Err(error) => self.lines.iter().map(|line| (*line, Err(error.clone()))).collect(),
        }
    }

    /// One line of JSON for each line, in their order.
    fn text(&self) -> String {
        let mut lines: Vec<(u64, Value)> = self.each().into_iter().map(|(line, answer)| (line, told(line, answer))).collect();
        lines.extend(self.refused.iter().map(|refused| (refused.line, refused.json())));
        lines.sort_by_key(|(line, _)| *line);
        lines.into_iter().map(|(_, value)| format!("{value}\n")).collect()
    }
}

/// What became of a line.
fn told(line: u64, answer: Answer) -> Value {
    match answer {
        Ok((id, duplicate)) => json!({ "line": line, "id": id, "duplicate": duplicate }),
        Err(error) => {
            let problem = Problem::from(error);
            json!({ "line": line, "refused": problem.detail(), "field": problem.wrong_field(), "status": problem.json()["status"] })
        }
    }
}

impl Refused {
    fn json(&self) -> Value {
        json!({ "line": self.line, "refused": self.reason, "field": self.field, "status": 422 })
    }
}

impl Summary {
    fn add(&mut self, answered: Answered) {
        for (line, answer) in answered.each() {
            self.line = self.line.max(line);
            match answer {
                Ok((id, duplicate)) => {
                    self.accepted += u64::from(!duplicate);
                    self.duplicates += u64::from(duplicate);
                    self.first.get_or_insert(id);
                    self.last = Some(id);
                }
                Err(error) => self.refuse(|| told(line, Err(error))),
            }
        }
        for refused in answered.refused {
            self.line = self.line.max(refused.line);
            self.refuse(|| refused.json());
        }
    }

    fn refuse(&mut self, told: impl FnOnce() -> Value) {
        self.refused += 1;
        if self.refusals.len() < REFUSALS_MAX {
            self.refusals.push(told());
        }
    }

    fn json(&self) -> Value {
        let Summary { accepted, duplicates, refused, first, last, line, refusals } = self;
        json!({
            "accepted": accepted, "duplicates": duplicates, "refused": refused, "first": first, "last": last,
            "lines": line, "refusals": refusals,
        })
    }

    fn response(self, ended: Result<(), Problem>) -> Result<HttpResponse, Problem> {
        let told = self.json();
        if let Err(problem) = ended {
            return Err(problem.with("taken", told));
        }
        if self.refused > 0 && self.accepted + self.duplicates == 0 {
            return Err(Problem::new(INVALID, format!("all {} lines were refused", self.refused)).with("taken", told));
        }
        let status = if self.refused > 0 { actix_web::http::StatusCode::MULTI_STATUS } else { actix_web::http::StatusCode::OK };
        Ok(HttpResponse::build(status).json(told))
    }
}
