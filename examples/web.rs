//! A web service with the runtime inside: its own page submits work, and the routes of Ergate lie below `/ergate`. `cargo run --example web`
#![expect(clippy::print_stdout, reason = "it is an example")]

use actix_web::web::{self, Data, Path};
use actix_web::{App, HttpResponse, HttpServer};
use ergate::http::{Settings, configure};
use ergate::{Runtime, TaskError};

async fn greet(name: String) -> Result<String, TaskError> {
    Ok(format!("hello, {name}"))
}

/// A page of the service itself: does the work as a task, durable before it begins, and answers with its result.
async fn page(runtime: Data<Runtime>, name: Path<String>) -> actix_web::Result<HttpResponse> {
    let task = runtime.submit("greet", &*name).await.map_err(actix_web::error::ErrorServiceUnavailable)?;
    let greeting: String = task.result().await.map_err(actix_web::error::ErrorInternalServerError)?;
    Ok(HttpResponse::Ok().body(greeting))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    actix_web::rt::System::new().block_on(async {
        let data = std::env::args().nth(1).unwrap_or_else(|| "ergate-data".to_owned());
        let runtime = Runtime::builder().data(data).task("greet", greet).start().await?;
        let shared = runtime.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(Data::new(shared.clone()))
                .route("/greet/{name}", web::get().to(page))
                .service(web::scope("/ergate").configure(configure(shared.clone(), Settings::default())))
        });
        let server = server.workers(1).bind("127.0.0.1:0")?;
        println!("http://{}", server.addrs()[0]);
        server.run().await?;
        Ok(runtime.shutdown().await?)
    })
}
