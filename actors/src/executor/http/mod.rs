//! Calls to a service as task types: the payload is posted, and the body of the answer is the result.
//!
//! Where a call goes comes from the configuration alone: redirects are not followed, and the address of every connection is looked at when it is
//! made. A service that takes its time says that it lives by calling back with the token of the attempt ([`callbacks()`]).

mod address;
mod call;
mod callbacks;
mod connect;
mod response;
mod retry_after;
mod target;

use std::sync::Arc;
use std::time::Duration;

use ergate_events::task::{PAYLOAD_BYTES_MAX, TypeSettings};
use hyper::header::{HeaderName, HeaderValue};
use tokio::sync::Semaphore;

use self::address::Network;
use self::call::Idle;
use self::connect::Connector;
use self::target::Target;
use super::bytes::BytesRunner;
use super::factory::{ExecutorFactory, FactoryError};
use super::function::{Runner, TaskFunction};

pub use self::callbacks::{Callbacks, UnknownToken, callbacks};

/// Calls of one task type at one time unless the settings say otherwise.
pub const CONCURRENCY_DEFAULT: usize = 64;
/// How long connecting may take unless the settings say otherwise.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Longest delay that a service may ask for unless the settings say otherwise.
pub const RETRY_AFTER_MAX_DEFAULT: Duration = Duration::from_secs(3_600);

/// A call as a task type.
#[derive(Clone)]
pub struct HttpSettings {
    /// What requests call it.
    pub task_type: String,
    /// Where it goes: `http://…` or `https://…`.
    pub url: String,
    /// The media type of the payload.
    pub content_type: String,
    /// Headers that every call has, secrets included.
    pub headers: Vec<(String, String)>,
    /// Calls at one time from this process, at least 1; other attempts wait in their slots.
    pub concurrency: usize,
    /// How long resolving the name, connecting and TLS may take together. The call itself may take what the attempt may.
    pub connect_timeout: Duration,
    /// Bytes of a response, at most [`PAYLOAD_BYTES_MAX`].
    pub response_max: usize,
    /// Longest delay that the service may ask for.
    pub retry_after_max: Duration,
    /// Networks, as `ADDRESS/BITS`, that may be called although they are link-local, multicast or where clouds give credentials out.
    pub allow_networks: Vec<String>,
}

impl HttpSettings {
    /// Calls of this URL with the defaults for all else.
    pub fn new(task_type: &str, url: impl Into<String>) -> HttpSettings {
        HttpSettings {
            task_type: task_type.to_owned(),
            url: url.into(),
            content_type: "application/json".to_owned(),
            headers: Vec::new(),
            concurrency: CONCURRENCY_DEFAULT,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            response_max: PAYLOAD_BYTES_MAX,
            retry_after_max: RETRY_AFTER_MAX_DEFAULT,
            allow_networks: Vec::new(),
        }
    }
}

/// Why a call cannot be a task type. No value of a header is in it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum HttpError {
    /// The URL is none.
    #[error("the URL of the task type {task_type:?} cannot be called: {reason}")]
    Url { task_type: String, reason: String },
    /// A header cannot be sent.
    #[error("a header of the task type {task_type:?} cannot be sent: {reason}")]
    Header { task_type: String, reason: String },
    /// A network is none.
    #[error("the task type {task_type:?} allows {network:?}, which is no network such as 169.254.7.0/24")]
    Network { task_type: String, network: String },
    /// There is nothing to check certificates with.
    #[error("the task type {task_type:?} calls by https, and {reason}")]
    Tls { task_type: String, reason: String },
}

/// Calls a service for every attempt.
pub struct HttpTask(Arc<Parts>);

/// What all attempts of a task type share.
struct Parts {
    settings: HttpSettings,
    connector: Connector,
    content_type: HeaderValue,
    headers: Vec<(HeaderName, HeaderValue)>,
    gate: Arc<Semaphore>,
}

impl HttpTask {
    /// Looks at everything that the calls are made of, once and for all. Nothing is called yet.
    ///
    /// # Errors
    /// [`HttpError`] for what no call can be made of.
    pub fn new(settings: HttpSettings) -> Result<HttpTask, HttpError> {
        let task_type = || settings.task_type.clone();
        let target = Target::parse(&settings.url).map_err(|reason| HttpError::Url { task_type: task_type(), reason })?;
        let header = |reason| HttpError::Header { task_type: task_type(), reason };
        let headers = call::headers(&settings.headers).map_err(header)?;
        let content_type = settings.content_type.parse().map_err(|_| header("its content type is none".to_owned()))?;
        let network = |text: &String| {
            Network::parse(text).ok_or_else(|| HttpError::Network { task_type: task_type(), network: text.clone() })
        };
        let allowed = settings.allow_networks.iter().map(network).collect::<Result<_, _>>()?;
        let tls =
            target.tls.then(connect::tls).transpose().map_err(|reason| HttpError::Tls { task_type: task_type(), reason })?;
        let gate = Arc::new(Semaphore::new(settings.concurrency.clamp(1, Semaphore::MAX_PERMITS)));
        let connector = Connector { target, tls, allowed, timeout: settings.connect_timeout };
        let settings = HttpSettings { response_max: call::response_max(settings.response_max), ..settings };
        Ok(HttpTask(Arc::new(Parts { settings, connector, content_type, headers, gate })))
    }
}

impl TaskFunction for HttpTask {
    fn runner(&self) -> Box<dyn Runner> {
        let (parts, idle) = (Arc::clone(&self.0), Idle::default());
        let make = move |context, payload, _| call::run(Arc::clone(&parts), Idle::clone(&idle), context, payload);
        // A call that is dropped closes its connection.
        Box::new(BytesRunner::new(make, true))
    }
}

/// Registers a call: settings of the task type, and of the call.
#[derive(Clone)]
pub struct HttpFactory {
    /// What the rules need to know.
    pub settings: TypeSettings,
    /// What to call.
    pub http: HttpSettings,
}

impl ExecutorFactory for HttpFactory {
    fn task_type(&self) -> &str {
        &self.http.task_type
    }

    fn settings(&self) -> TypeSettings {
        self.settings.clone()
    }

    fn create(&self) -> Result<Arc<dyn TaskFunction>, FactoryError> {
        Ok(Arc::new(HttpTask::new(self.http.clone())?))
    }
}
