//! One call from the request to its answer.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ergate_events::task::PAYLOAD_BYTES_MAX;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};

use super::callbacks::callbacks;
use super::connect::Connection;
use super::response::{Answer, Terms, outcome};
use super::{Parts, callbacks::Registered};
use crate::executor::context::Context;
use crate::executor::function::TaskError;
use crate::executor::gate;

/// How long a connection may be idle to be used again: services close them after five seconds or more.
const IDLE_MAX: Duration = Duration::from_secs(3);
/// Connections that are kept idle for each task type and replica.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// Bytes read of a response that is no success: more than its message will hold.
const FAILURE_BYTES_MAX: usize = 16 << 10;
/// Longest checkpoint that is a header, in bytes; longer ones are fetched with the token.
const CHECKPOINT_HEADER_MAX: usize = 4 << 10;

/// Connections that wait for the next call, on one thread.
pub(super) type Idle = Rc<RefCell<Vec<(Connection, Instant)>>>;

/// Makes the call of an attempt; its result is the body of the answer.
pub(super) async fn run(parts: Arc<Parts>, idle: Idle, context: Context, payload: Vec<u8>) -> Result<Vec<u8>, TaskError> {
    let _room = gate::enter(&parts.gate, &context).await?;
    let token = callbacks().register(context.clone()).map_err(|error| TaskError::new("token", error.to_string()))?;
    let call = Call { parts: &parts, context: &context, payload: payload.into(), token };
    tokio::select! {
        answer = call.make(&idle) => {
            let terms = Terms {
                now: context.control.clock.now(),
                response_max: parts.settings.response_max,
                retry_after_max: parts.settings.retry_after_max,
            };
            outcome(answer?, terms)
        }
        () = context.cancelled() => Err(gate::cancelled("and its call was given up")),
    }
}

struct Call<'a> {
    parts: &'a Parts,
    context: &'a Context,
    payload: Bytes,
    token: Registered,
}

impl Call<'_> {
    async fn make(&self, idle: &Idle) -> Result<Answer, TaskError> {
        let connector = &self.parts.connector;
        if let Some(mut connection) = take(idle) {
            // It may have been closed just now. Nothing came back then, and the key tells the service if it comes a second time.
            match connection.sender.send_request(self.request()?).await {
                Ok(response) => return self.read(connection, response, idle).await,
                Err(error) if error.is_canceled() || error.is_incomplete_message() || error.is_closed() => {}
                Err(error) => return Err(connector.failed(&error)),
            }
        }
        let mut connection = connector.connect().await?;
        let response = connection.sender.send_request(self.request()?).await.map_err(|error| connector.failed(&error))?;
        self.read(connection, response, idle).await
    }

    /// Reads an answer; a connection that can be used again is kept.
    async fn read(&self, mut connection: Connection, response: Response<Incoming>, idle: &Idle) -> Result<Answer, TaskError> {
        let (head, mut rest) = response.into_parts();
        let max = if head.status.is_success() { self.parts.settings.response_max } else { FAILURE_BYTES_MAX };
        let (mut body, mut cut) = (Vec::new(), false);
        while let Some(frame) = rest.frame().await {
            let frame = frame.map_err(|error| self.parts.connector.failed(&error))?;
            let Ok(bytes) = frame.into_data() else { continue };
            let room = max - body.len();
            cut = bytes.len() > room;
            body.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if cut {
                break;
            }
        }
        // What is not read to its end cannot be used again.
        if !cut && connection.sender.ready().await.is_ok() && idle.borrow().len() < IDLE_CONNECTIONS_MAX {
            idle.borrow_mut().push((connection, Instant::now()));
        }
        Ok(Answer { status: head.status, headers: head.headers, body, cut })
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, TaskError> {
        let (target, attempt, fence) = (&self.parts.connector.target, self.context.attempt(), self.context.fence());
        let mut request = Request::builder().method(Method::POST).uri(&target.path).header(HOST, &target.authority);
        request = request.header(USER_AGENT, concat!("ergate/", env!("CARGO_PKG_VERSION")));
        request = request.header(CONTENT_TYPE, &self.parts.content_type);
        let own = [
            ("idempotency-key", format!("{}-{fence}", attempt.task)),
            ("ergate-task", attempt.task.to_string()),
            ("ergate-attempt", attempt.number.to_string()),
            ("ergate-fence", fence.to_string()),
            ("ergate-type", self.parts.settings.task_type.clone()),
            ("ergate-deadline", self.context.deadline().rfc3339()),
            ("ergate-report", self.token.token().to_owned()),
        ];
        for (name, value) in own {
            request = request.header(name, value);
        }
        if let Some(trace) = self.context.trace_parent() {
            request = request.header("traceparent", trace);
        }
        if let Some(checkpoint) = self.context.checkpoint() {
            request = request.header("ergate-checkpoint-size", checkpoint.len());
            if checkpoint.len() <= CHECKPOINT_HEADER_MAX {
                request = request.header("ergate-checkpoint", STANDARD.encode(checkpoint));
            }
        }
        for (name, value) in &self.parts.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(self.payload.clone()));
        request.map_err(|error| TaskError::permanent("request", format!("the call cannot be written: {error}")))
    }
}

/// The newest connection that was not idle for too long; the others are closed.
fn take(idle: &Idle) -> Option<Connection> {
    let mut idle = idle.borrow_mut();
    idle.retain(|(connection, since)| since.elapsed() < IDLE_MAX && !connection.sender.is_closed());
    idle.pop().map(|(connection, _)| connection)
}

/// Headers of the configuration as they are sent; what is secret is marked, so that nothing prints it.
pub(super) fn headers(all: &[(String, String)]) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let header = |(name, value): &(String, String)| {
        let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is no name of a header"))?;
        let mut value: HeaderValue = value.parse().map_err(|_| format!("the value of the header {name} cannot be sent"))?;
        value.set_sensitive(true);
        Ok((name, value))
    };
    all.iter().map(header).collect()
}

/// A limit of a response that fits into a result.
pub(super) const fn response_max(wanted: usize) -> usize {
    if wanted < PAYLOAD_BYTES_MAX { wanted } else { PAYLOAD_BYTES_MAX }
}
