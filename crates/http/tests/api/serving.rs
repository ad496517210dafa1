//! The server on a real socket.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use polyreward_http::{Drained, Limits, ServeOptions, serve};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::fixture::Server;

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Drained>,
}

async fn start(server: &Server, options: ServeOptions) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let state = server.state.clone();
    let shutdown = async { drop(stopped.await) };
    let serving = tokio::spawn(serve(listener, state, options, shutdown));
    Running { address, stop, serving }
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client
}

/// Sends what is left of a request and reads to the end of the connection.
async fn finish(mut client: TcpStream, rest: &str) -> String {
    let rest = rest.to_owned();
    let talk = move || {
        client.write_all(rest.as_bytes()).unwrap();
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        reply
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

fn post(body: &Value) -> (String, String) {
    let body = body.to_string();
    let head = format!(
        "POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    (head, body)
}

/// Asks until the answer has what is wanted; the server changes on its own time, bounded by the test runner's.
async fn ask_until(address: SocketAddr, path: &str, wanted: &str) -> String {
    for _ in 0..100_000 {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let reply = finish(connect(address), &request).await;
        if reply.contains(wanted) {
            return reply;
        }
    }
    panic!("{path} never answered {wanted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_says_so_before_it_closes() {
    let server = Server::new().await;
    // No end of the grace is waited for.
    let options = ServeOptions { grace: Duration::from_hours(1), ..ServeOptions::default() };
    let running = start(&server, options).await;
    ask_until(running.address, "/ready", "HTTP/1.1 200").await;
    drop(running.stop);
    let ready = ask_until(running.address, "/ready", "HTTP/1.1 503").await;
    assert!(ready.contains("/problems/draining"), "{ready}");
    let (head, body) = post(&json!({"items": [{"prompt": "", "responses": ["A trout."]}]}));
    let reply = finish(connect(running.address), &format!("{head}{body}")).await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    running.serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_loses_no_request() {
    let server = Server::with_limits(Limits { max_in_flight: 1, ..Limits::default() }).await;
    let running = start(&server, ServeOptions::default()).await;
    let (head, body) = post(&json!({"items": [{"prompt": "Name a fish.", "responses": ["A trout."]}]}));
    let mut busy = connect(running.address);
    busy.write_all(head.as_bytes()).unwrap();
    busy.write_all(&body.as_bytes()[..10]).unwrap();
    // To ask for anything but a probe might take the one place before the request does.
    ask_until(running.address, "/metrics", "polyreward_http_in_flight 1").await;
    drop(running.stop);
    while TcpStream::connect(running.address).is_ok() {
        tokio::task::yield_now().await;
    }
    let reply = finish(busy, &body[10..]).await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert!(reply.contains("\"rewards\""), "{reply}");
    assert_eq!(running.serving.await.unwrap(), Drained::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_still_writes_hears_why_its_body_is_refused() {
    let server = Server::with_limits(Limits { max_body_bytes: 100_000, ..Limits::default() }).await;
    let running = start(&server, ServeOptions::default()).await;
    let head = "POST /score HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let body = " ".repeat(300_000);
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let reply = finish(connect(running.address), &request).await;
    assert!(reply.starts_with("HTTP/1.1 413"), "{reply}");
    assert!(reply.contains("max_body_bytes"), "{reply}");
    drop(running.stop);
    assert_eq!(running.serving.await.unwrap(), Drained::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_many_requests() {
    let server = Server::new().await;
    let running = start(&server, ServeOptions::default()).await;
    let (head, body) = post(&json!({"pairs": [{"prompt": "", "response_a": "a", "response_b": "b"}]}));
    let last = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let replies = finish(connect(running.address), &format!("{head}{body}{head}{body}{last}")).await;
    assert_eq!(replies.matches("HTTP/1.1 200 OK").count(), 3, "{replies}");
}
