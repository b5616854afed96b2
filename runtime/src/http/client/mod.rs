//! How a service is reached over HTTP: by the command line, and by an engine that asks another one.

mod connect;
mod url;

pub use self::connect::{ConnectError, TlsConnector, open, trust};
pub use self::url::ServiceUrl;
