//! A report for every customer, every hour: a generator, an executor and an observer, registered as a crate of plug-ins does it.
//! `cargo run --example plugins`
#![allow(clippy::print_stdout, reason = "it is an example")]

use std::sync::Arc;
use std::time::Duration;

use ergate::events::task::Outcome;
use ergate::{
    Builder, Context, EventObserver, EventObserverFactory, ExecutorFactory, FactoryError, GenerateError, GeneratedBatch,
    GeneratorContext, ObservedAttempt, ObservedError, Runtime, TaskError, TaskFunction, TaskGenerator, View,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Serialize, Deserialize)]
struct Report {
    customer: String,
    hour: String,
}

/// Which reports there should be.
#[derive(Default)]
struct Hourly {
    customers: Vec<String>,
}

impl TaskGenerator for Hourly {
    fn task_type(&self) -> &str {
        "report"
    }

    fn every(&self) -> Duration {
        Duration::from_secs(3_600)
    }

    fn init(&mut self, context: &GeneratorContext) -> Result<(), GenerateError> {
        self.customers = serde_json::from_value(context.configuration()["customers"].clone())?;
        Ok(())
    }

    fn generate(&mut self, view: &View) -> Result<GeneratedBatch, GenerateError> {
        let mut batch = GeneratedBatch::new();
        for customer in &self.customers {
            batch.push(&Report { customer: customer.clone(), hour: view.slot().to_string() })?;
        }
        Ok(batch)
    }
}

/// What makes a report.
struct Writer;

async fn write(context: Context, report: Report) -> Result<String, TaskError> {
    context.progress(Some(50), "writing", &report.customer);
    Ok(format!("{} had a good hour at {}", report.customer, report.hour))
}

impl ExecutorFactory for Writer {
    fn task_type(&self) -> &str {
        "report"
    }

    fn create(&self) -> Result<Arc<dyn TaskFunction>, FactoryError> {
        Ok(ergate::function(write))
    }
}

/// Who wants to know.
struct Printer;

impl EventObserver for Printer {
    fn success(&mut self, attempt: &ObservedAttempt, _: Outcome, result: &[u8]) {
        println!("task {}: {}", attempt.task, String::from_utf8_lossy(result));
    }

    fn error(&mut self, attempt: &ObservedAttempt, error: &ObservedError<'_>) {
        println!("task {}, attempt {}: {}: {}", attempt.task, attempt.attempt, error.class, error.message);
    }
}

impl EventObserverFactory for Printer {
    fn task_type(&self) -> &str {
        "report"
    }

    fn create(&self) -> Result<Box<dyn EventObserver>, FactoryError> {
        Ok(Box::new(Printer))
    }
}

ergate::register!(generator = Hourly::default);
ergate::register!(executor = || Writer);
ergate::register!(observer = || Printer);

/// The program that is linked with them.
pub(crate) fn program() -> Builder {
    Runtime::builder().plugins().configuration("report", json!({ "customers": ["acme", "globex"] }))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = program().data("ergate-data").start().await?;
    // The reports of this hour are made at once, unless they were made before: then nothing is printed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(runtime.shutdown().await?)
}
