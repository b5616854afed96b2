//! Attempts as spans of OpenTelemetry, sent by OTLP over HTTP to the collector that the standard variables name.
//!
//! An attempt of a task whose request had a trace context is a child of the span there; what is logged while it runs are its events.

use std::fmt;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use hyper::Uri;
use hyper::body::Bytes;
use hyper::header::{HOST, HeaderValue};
use opentelemetry::trace::{
    Span, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio_rustls::TlsConnector;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context as Layers;
use tracing_subscriber::registry::LookupSpan;

use super::exit::Trouble;
use super::remote;

/// How long a collector may take for a batch of spans, and for the last one at the end.
const WITHIN: Duration = Duration::from_secs(5);
/// The span that an executor opens for each attempt.
const ATTEMPT: &str = "attempt";
/// Variables that name a collector.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// What sends, until [`end`].
static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// The layer that sends spans; `None` where no collector is named.
///
/// # Errors
/// [`Trouble::Usage`] when what the variables say cannot be used.
pub(super) fn layer<S: Subscriber + for<'span> LookupSpan<'span>>() -> Result<Option<impl Layer<S>>, Trouble> {
    let is_off = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    if is_off || ENDPOINTS.iter().all(|name| std::env::var_os(name).is_none_or(|value| value.is_empty())) {
        return Ok(None);
    }
    let unusable =
        |reason: String| Trouble::Usage(format!("spans cannot be sent to the collector that {} names: {reason}", ENDPOINTS[1]));
    let client = Client::new().map_err(unusable)?;
    let exporter = SpanExporter::builder().with_http().with_http_client(client).build();
    let exporter = exporter.map_err(|error| unusable(error.to_string()))?;
    let resource = Resource::builder();
    let resource = if std::env::var_os("OTEL_SERVICE_NAME").is_none() { resource.with_service_name("ergate") } else { resource };
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    let tracer = PROVIDER.get_or_init(|| provider).tracer("ergate");
    Ok(Some(Attempts(tracer).with_filter(LevelFilter::INFO)))
}

/// Sends what is left.
pub(super) fn end() {
    if let Some(provider) = PROVIDER.get()
        && let Err(error) = provider.shutdown_with_timeout(WITHIN)
    {
        tracing::warn!(%error, "the last spans were not sent");
    }
}

/// Makes spans of attempts.
struct Attempts(SdkTracer);

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Attempts {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, layers: Layers<'_, S>) {
        let Some(span) = layers.span(id).filter(|span| span.name() == ATTEMPT) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let named = fields.take("trace").zip(fields.take("parent"));
        let parent = named.and_then(|(trace, parent)| remote_span(&trace, &parent));
        let context = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let builder = self.0.span_builder(ATTEMPT).with_kind(SpanKind::Consumer).with_attributes(fields.attributes());
        span.extensions_mut().insert(self.0.build_with_context(builder, &context));
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, layers: Layers<'_, S>) {
        let Some(found) = layers.span(id) else { return };
        let mut extensions = found.extensions_mut();
        let Some(span) = extensions.get_mut::<opentelemetry_sdk::trace::Span>() else { return };
        let mut fields = Fields::default();
        record.record(&mut fields);
        if let Some(error) = fields.take("error") {
            span.set_status(Status::error(error));
        }
        span.set_attributes(fields.attributes());
    }

    fn on_event(&self, event: &Event<'_>, layers: Layers<'_, S>) {
        let Some(found) = layers.event_span(event) else { return };
        let mut extensions = found.extensions_mut();
        let Some(span) = extensions.get_mut::<opentelemetry_sdk::trace::Span>() else { return };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let name = fields.take("message").unwrap_or_else(|| event.metadata().name().to_owned());
        span.add_event(name, fields.attributes());
    }

    fn on_close(&self, id: Id, layers: Layers<'_, S>) {
        let span = layers.span(&id).and_then(|span| span.extensions_mut().remove::<opentelemetry_sdk::trace::Span>());
        if let Some(mut span) = span {
            span.end();
        }
    }
}

/// Fields as texts.
#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Fields {
    fn take(&mut self, name: &str) -> Option<String> {
        let index = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.swap_remove(index).1)
    }

    fn attributes(self) -> Vec<KeyValue> {
        self.0.into_iter().map(|(name, value)| KeyValue::new(format!("ergate.{name}"), value)).collect()
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }
}

/// The span that asked for a task: its trace, and its id and flags as a W3C trace context has them.
fn remote_span(trace: &str, parent: &str) -> Option<SpanContext> {
    let trace = TraceId::from_hex(trace).ok()?;
    let (span, rest) = parent.split_once('-')?;
    let span = SpanId::from_hex(span).ok()?;
    let flags = u8::from_str_radix(rest.get(..2)?, 16).ok()?;
    let context = SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::default());
    context.is_valid().then_some(context)
}

/// What sending comes to.
type Sending<'sending> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'sending>>;

/// Sends batches of spans, one at a time, from the thread of the library.
struct Client {
    tokio: tokio::runtime::Runtime,
    tls: Option<TlsConnector>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    fn new() -> Result<Client, String> {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        // The standard variable for the certificate to trust; those of this machine without it.
        let ca = std::env::var_os("OTEL_EXPORTER_OTLP_CERTIFICATE").map(std::path::PathBuf::from);
        let is_secret = ENDPOINTS.iter().any(|name| std::env::var(name).is_ok_and(|url| url.starts_with("https")));
        let tls = is_secret.then(|| remote::tls(ca.as_deref())).transpose().map_err(|error| error.to_string())?;
        Ok(Client { tokio, tls })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut head, body) = request.into_parts();
        let authority = head.uri.authority().ok_or("the address names no host")?.clone();
        let url = format!("{}://{authority}", head.uri.scheme_str().unwrap_or("http")).parse()?;
        head.headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
        head.uri = head.uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| path.clone().into());
        let response = remote::exchange(&url, self.tls.as_ref(), Request::from_parts(head, body)).await?;
        if !response.status().is_success() {
            return Err(format!("the collector answers {}", response.status()).into());
        }
        Ok(response)
    }
}

impl HttpClient for Client {
    fn send_bytes<'client, 'sending>(&'client self, request: Request<Bytes>) -> Sending<'sending>
    where
        'client: 'sending,
        Self: 'sending,
    {
        // Awaited by a thread of the library that has no tokio and nothing else to do.
        Box::pin(async move {
            let url = request.uri().to_string();
            let outcome = self.tokio.block_on(async { tokio::time::timeout(WITHIN, self.send(request)).await });
            let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {} s", WITHIN.as_secs()).into()));
            outcome.inspect_err(|error| tracing::warn!(url, %error, "spans were not sent"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_names_a_span_or_none() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let found = remote_span(trace, "00f067aa0ba902b7-01");
        assert!(found.is_some_and(|span| span.is_sampled() && span.is_remote()));
        assert!(remote_span("00000000000000000000000000000000", "00f067aa0ba902b7-01").is_none());
        for wrong in ["", "00", "0-00", "00f067aa0ba902b7", "00f067aa0ba902b7-", "00f067aa0ba902b7-x1", "0000000000000000-01"] {
            assert!(remote_span(trace, wrong).is_none(), "{wrong}");
        }
    }
}
