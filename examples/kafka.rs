//! A service with task types of its own, on Kafka or without it: `cargo run --example kafka [kafka://HOST:PORT/NAMESPACE | DIRECTORY]`
//!
//! Ergate runs *tasks*: somebody asks for work, a registered function does it, and every step is an event in a log. What this service needs of it
//! is the same wherever the log is kept, so only one line below differs:
//!
//! - without an argument the log is in memory, and ends with the program: for a first look, and for tests;
//! - with a directory it is there, and a task that was accepted is done even if the program is killed in between;
//! - with `kafka://…` it is on Kafka. Start the program on as many machines as you like: they share the work, and when one of them is gone the
//!   others go on with its tasks. Any other program may ask for work too, by publishing JSON to `NAMESPACE.requests`. The topics have to be
//!   there: `ergate kafka init --log kafka://HOST:PORT/NAMESPACE` makes them.
#![expect(clippy::print_stdout, reason = "it is an example")]

use std::error::Error;

use ergate::events::time::Micros;
use ergate::kafka::KafkaSettings;
use ergate::{Builder, Context, Extras, RetryPolicy, Runtime, SubmitError, TaskError, TypeSettings, WaitError};
use serde::{Deserialize, Serialize};

/// What a payment is asked for with. A payload is anything that serde can write as JSON.
#[derive(Serialize, Deserialize)]
struct Payment {
    order: String,
    cents: u64,
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Receipt {
    order: String,
    attempts: u32,
}

/// The work: an async function of the payload. The context tells which attempt this is.
async fn charge(context: Context, payment: Payment) -> Result<Receipt, TaskError> {
    if payment.cents == 0 {
        // An error of this class is not tried again, see below.
        return Err(TaskError::new("invalid", format!("order {} costs nothing", payment.order)));
    }
    if context.attempt().number == 1 {
        // Any other error is: the task waits for a moment and is started again.
        return Err(TaskError::new("network", "the bank does not answer"));
    }
    Ok(Receipt { order: payment.order, attempts: context.attempt().number })
}

/// Everything that the service wants, but for where the log is.
pub(crate) fn service() -> Builder {
    let retry = RetryPolicy { attempts: 3, initial: Micros::from_millis(20), ..RetryPolicy::default() };
    let settings = TypeSettings { retry, non_retryable: vec!["invalid".to_owned()], ..TypeSettings::default() };
    // A pool of one thread with 64 slots runs them; on Kafka, for each shard that this engine leads.
    Runtime::builder().task_with("charge", settings, ergate::function(charge)).pool("default", 1, 64)
}

/// Where the log is: the only thing that differs.
pub(crate) fn on(place: Option<&str>) -> Result<Builder, Box<dyn Error>> {
    Ok(match place {
        None => service().memory(),
        // The directory keeps copies of the shards that this engine leads, so that it need not read the topics again after a restart.
        Some(address) if address.starts_with("kafka://") => {
            service().data("ergate-data").kafka(address.parse::<KafkaSettings>()?)
        }
        Some(directory) => service().data(directory),
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let place = std::env::args().nth(1);
    let runtime = on(place.as_deref())?.start().await?;
    run(&runtime).await?;
    Ok(runtime.shutdown().await?)
}

/// What the service does: the same on Kafka and without it.
pub(crate) async fn run(runtime: &Runtime) -> Result<(), Box<dyn Error>> {
    // `submit` answers when the request is in the log: on Kafka, when the engine that leads its shard has committed it. From then on the task will
    // end, whatever happens to this program.
    let payment = Payment { order: "1001".to_owned(), cents: 2_500 };
    let task = runtime.submit("charge", &payment).await?;
    println!("task {} is accepted", task.id);
    let receipt: Receipt = task.result().await?;
    println!("order {} is paid, at attempt {}", receipt.order, receipt.attempts);

    // Asked twice with the same key, it is done once: for whoever does not know whether the first time was heard.
    let once = || Extras { key: Some("order-1002".to_owned()), ..Extras::default() };
    let payment = Payment { order: "1002".to_owned(), cents: 900 };
    let first = runtime.submit_with("charge", &payment, once()).await?;
    let again = runtime.submit_with("charge", &payment, once()).await?;
    println!("asked twice, one task: {}", first.id == again.id && again.duplicate);
    again.result::<Receipt>().await?;

    // The same key for other work is refused.
    let other = Payment { order: "1002".to_owned(), cents: 901 };
    match runtime.submit_with("charge", &other, once()).await.err() {
        // Here the core says no; on Kafka the engine does that read the request, in words.
        Some(SubmitError::Rejected(_) | SubmitError::Refused { .. }) => println!("the key was used for another payload"),
        unexpected => return Err(format!("a conflict was answered {unexpected:?}").into()),
    }

    // A task that fails for good says why.
    let nothing = Payment { order: "1003".to_owned(), cents: 0 };
    match runtime.submit("charge", &nothing).await?.result::<Receipt>().await {
        Err(WaitError::Unsuccessful { failure, .. }) => println!("order 1003 failed: {failure}"),
        other => return Err(format!("it should have failed: {other:?}").into()),
    }
    Ok(())
}
