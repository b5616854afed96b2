//! The hello-world of the README: `cargo run --example hello`
#![expect(clippy::print_stdout, reason = "it is an example")]

use ergate::{Runtime, TaskError};

async fn greet(name: String) -> Result<String, TaskError> {
    Ok(format!("hello, {name}"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::builder().data("ergate-data").task("greet", greet).start().await?;
    let task = runtime.submit("greet", "world").await?; // durable from here on
    println!("{}", task.result::<String>().await?);
    Ok(runtime.shutdown().await?)
}
