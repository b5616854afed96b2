//! The document of the service, made from its handlers.

use serde_json::{Value, json};
use utoipa::OpenApi;

use super::problem;
use super::schema::{
    DeadLetterPage, Firing, Firings, Health, History, LeaseAsk, Leased, Pool, PoolSize, Pools, ProblemDocument, Reason, Recorded,
    Redrive, Redriven, Registered, Registration, Report, Retry, Schedule, Schedules, State, StreamTaken, Submitted, Task,
    TaskPage, TaskRequest, TaskRow, Timeouts, Triggered, Version, WorkConcurrency, WorkReport, WorkReported, WorkUsage, Worker,
    WorkerTold, Workers,
};
use super::{act, copy, dead, follow, health, look, pools, redrive, report, schedules, state, submit, why, workers};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ergate",
        description = "Submit tasks, look at them, stop them, try them again. Errors are problem documents (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        submit::submit,
        look::list,
        look::show,
        look::history,
        look::result,
        act::cancel,
        act::kill,
        act::retry,
        dead::list,
        redrive::again,
        pools::list,
        pools::show,
        pools::scale,
        pools::pause,
        pools::drain,
        pools::resume,
        pools::release,
        schedules::list,
        schedules::show,
        schedules::foresee,
        schedules::pause,
        schedules::resume,
        schedules::trigger,
        follow::follow,
        copy::download,
        state::state,
        report::report,
        report::checkpoint,
        why::ask,
        why::ask_task,
        why::cost,
        why::set,
        why::set_shadow,
        workers::list,
        workers::register,
        workers::show,
        workers::leave,
        workers::lease,
        workers::report,
        workers::drain,
        workers::many::drain_many,
        workers::payload,
        health::live,
        health::ready,
        health::version,
        health::metrics,
        health::document
    ),
    components(schemas(
        DeadLetterPage,
        Firing,
        Firings,
        Health,
        History,
        LeaseAsk,
        Leased,
        Pool,
        PoolSize,
        Pools,
        ProblemDocument,
        Reason,
        Recorded,
        Redrive,
        Redriven,
        Registered,
        Registration,
        Report,
        Retry,
        Schedule,
        Schedules,
        State,
        StreamTaken,
        Submitted,
        Task,
        TaskPage,
        TaskRequest,
        TaskRow,
        Timeouts,
        Triggered,
        Version,
        WorkConcurrency,
        WorkUsage,
        WorkReport,
        WorkReported,
        Worker,
        WorkerTold,
        Workers,
    ))
)]
struct Document;

/// The OpenAPI document of the service.
pub fn document() -> Value {
    let mut document = serde_json::to_value(Document::openapi()).unwrap_or_default();
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document["components"]["securitySchemes"] = json!({
        "bearer": { "type": "http", "scheme": "bearer" },
        "attempt": { "type": "apiKey", "in": "header", "name": "ergate-report", "description": "The token that a call to do a task has in this header" },
    });
    if let Some(paths) = document["paths"].as_object_mut() {
        paths.values_mut().filter_map(Value::as_object_mut).flat_map(|path| path.values_mut()).for_each(add_problems);
    }
    document
}

/// Adds what every operation may answer: a problem document of each status that there is.
fn add_problems(operation: &mut Value) {
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for (status, ..) in problem::ALL {
        let kinds: Vec<_> =
            problem::ALL.iter().filter(|kind| kind.0 == status).map(|(_, name, title)| format!("{name}: {title}")).collect();
        let schema = json!({ "schema": { "$ref": "#/components/schemas/ProblemDocument" } });
        let response = json!({ "description": kinds.join("; "), "content": { "application/problem+json": schema } });
        responses.entry(status.to_string()).or_insert(response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_the_scope_of_every_route_that_tells_of_tasks() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().map(|paths| paths.iter().collect::<Vec<_>>()).unwrap_or_default();
        assert_eq!(paths.len(), 42);
        for (path, operations) in paths {
            for (method, operation) in operations.as_object().into_iter().flatten() {
                assert!(operation["responses"]["401"].is_object());
                if path == "/v1/report" {
                    assert!(operation["security"][0]["attempt"].is_array(), "{method} {path}");
                    continue;
                }
                let scope = operation["security"][0]["bearer"][0].as_str();
                assert_eq!(scope.is_some(), path.starts_with("/v1/") || path == "/metrics", "{method} {path}");
            }
        }
    }
}
