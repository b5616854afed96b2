//! The HTTP service: the whole life of a task over one port, as JSON.
//!
//! [`Server`] serves it on a thread of its own; [`configure`] puts the same routes into an actix-web service that has others too. `docs/http.md`
//! describes it for its users, and `/openapi.json` for their programs.

mod act;
mod body;
pub mod client;
mod copy;
mod dead;
mod follow;
mod forward;
mod gate;
mod gather;
mod health;
mod led;
mod look;
mod merge;
mod ndjson;
mod openapi;
mod pieces;
mod places;
mod pools;
mod problem;
mod query;
mod redrive;
mod report;
mod schedules;
mod schema;
mod server;
mod service;
mod state;
mod submit;
mod tls;
mod token;
mod wait;
mod watched;
mod why;
mod workers;

use actix_web::web::{self, Data, ServiceConfig};

use self::gather::Gather;
use self::service::Service;
use crate::Runtime;

pub use self::openapi::document;
#[cfg(feature = "process")]
pub(crate) use self::server::serve_workers;
pub use self::server::{Listening, Server, ServerError, ServerSettings};
pub use self::service::Settings;
pub use self::tls::TlsError;
pub use self::token::{Bearer, NewToken, Right, Scope, TokenError, Tokens};

/// Puts the routes of this service into an actix-web application: `App::new().configure(configure(runtime, settings))`.
///
/// The routes lie under `/v1` and beside it (`/livez`, `/readyz`, `/version`, `/metrics`, `/openapi.json`), or below the scope that the application gives them.
/// Without tokens in the settings whoever reaches the application may do everything; protect it as the rest of the application is.
pub fn configure(runtime: Runtime, settings: Settings) -> impl FnOnce(&mut ServiceConfig) {
    routes(Data::new(Service::new(runtime, settings)))
}

/// The routes of a service that several threads share.
fn routes(service: Data<Service>) -> impl FnOnce(&mut ServiceConfig) {
    move |config| {
        config.app_data(service).app_data(Data::new(Gather::default()));
        health::routes(config);
        config.service(
            web::scope("/v1")
                .configure(submit::routes)
                .configure(dead::routes)
                .configure(why::routes)
                .configure(pools::routes)
                .configure(schedules::routes)
                .configure(follow::routes)
                .configure(copy::routes)
                .configure(state::routes)
                .configure(report::routes)
                .configure(workers::routes)
                .default_service(gate::guarded(web::to(health::nothing), None)),
        );
    }
}
