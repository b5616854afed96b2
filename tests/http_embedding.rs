//! The routes in a service of somebody else's, as `examples/web.rs` puts them there.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use actix_web::{App, HttpServer, web};
use ergate::http::{Settings, configure};
use ergate::{Runtime, TaskError};

async fn greet(name: String) -> Result<String, TaskError> {
    Ok(format!("hello, {name}"))
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn an_application_has_the_routes_below_a_path_of_its_own() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().to_owned();
    actix_web::rt::System::new().block_on(async move {
        let runtime = Runtime::builder().data(data).task("greet", greet).start().await.unwrap();
        let shared = runtime.clone();
        let server = HttpServer::new(move || {
            let mounted = web::scope("/ergate").configure(configure(shared.clone(), Settings::default()));
            App::new().route("/own", web::get().to(|| async { "own" })).service(mounted)
        });
        let server = server.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        let asked = web::block(move || {
            let body = r#"{"type":"greet","payload":"world"}"#;
            let head = "POST /ergate/v1/tasks HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
            let made = ask(address, &format!("{head}content-length: {}\r\n\r\n{body}", body.len()));
            assert!(made.starts_with("HTTP/1.1 201") && made.contains("location: /ergate/v1/tasks/0-0"), "{made}");
            let get = |path: &str| ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
            assert!(get("/ergate/v1/tasks/0-0/result?wait=30s").ends_with("\"hello, world\""));
            assert!(get("/own").ends_with("own") && get("/ergate/readyz").contains("ready"));
            assert!(get("/v1/tasks").starts_with("HTTP/1.1 404"));
        });
        asked.await.unwrap();
        handle.stop(true).await;
        runtime.shutdown().await.unwrap();
    });
}
