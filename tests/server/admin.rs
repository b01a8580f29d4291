//! The admin listener from outside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use simpul::server::admin::{Admin, serve};
use simpul::server::bind::Listener;
use simpul::server::health;
use simpul::server::metrics::Metrics;
use simpul::{drain, readiness};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::harness::{CHECK, Client, call, next, soon};

async fn start() -> (SocketAddr, readiness::Readiness, drain::Drain) {
    let mut metrics = Registry::default();
    Metrics::default().register(&mut metrics);
    let readiness = readiness::Readiness::new();
    let (drain, watch) = drain::channel();
    let any = "127.0.0.1:0".parse().expect("address");
    let listener = Listener::bind("listen.admin", any).await.expect("a free port");
    let address = listener.address();
    let health = health::server(readiness.clone(), watch.clone(), &[]);
    let admin = Admin { metrics: Arc::new(metrics), readiness: readiness.clone(), health };
    simpul::task::spawn("admin listener", serve(listener, admin, watch));
    (address, readiness, drain)
}

async fn http1(address: SocketAddr, what: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.expect("a connection");
    let request = format!("{what} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    soon(tcp.read_to_string(&mut answer)).await.expect("an answer");
    answer
}

#[tokio::test]
async fn it_shows_metrics_and_readiness_and_nothing_else() {
    let (address, readiness, _drain) = start().await;
    let store = readiness.hold("store open");
    assert!(http1(address, "GET /livez").await.starts_with("HTTP/1.1 200"));
    let not_ready = http1(address, "GET /readyz").await;
    assert!(not_ready.starts_with("HTTP/1.1 503"), "{not_ready}");
    assert!(not_ready.ends_with("pending: store open\n"), "{not_ready}");
    drop(store);
    assert!(http1(address, "GET /readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = http1(address, "GET /metrics").await;
    assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("server_connections 0") && !metrics.contains("# EOF"), "{metrics}");
    assert!(metrics.contains("# HELP server_accept_errors_total "), "{metrics}");
    let asked = "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.1";
    let metrics = http1(address, &format!("GET /metrics HTTP/1.1\r\n{asked}\r\nx-rest:")).await;
    assert!(metrics.contains("application/openmetrics-text"), "{metrics}");
    assert!(metrics.contains("server_connections 0") && metrics.contains("# EOF"), "{metrics}");
    for other in ["GET /", "POST /metrics", "DELETE /readyz", "GET /grpc.health.v1.Health/Check"] {
        assert!(http1(address, other).await.starts_with("HTTP/1.1 404"), "{other}");
    }
}

#[tokio::test]
async fn probes_without_tls_ask_for_health_and_watches_end_with_the_drain() {
    let (address, readiness, drain) = start().await;
    let starting = readiness.hold("store open");
    let tcp = TcpStream::connect(address).await.expect("a connection");
    let client = Client::over(tcp).await;
    let answer = client.ask(call(CHECK)).await;
    assert_eq!((answer.code(), answer.data), (Some(Code::Ok), vec![0, 0, 0, 0, 2, 8, 2]));
    drop(starting);
    let watch = call("/grpc.health.v1.Health/Watch");
    let mut watch = client.open(watch, vec![0; 5]).await.expect("a stream").into_body();
    let serving = next(&mut watch).await.expect("a status").expect("a status");
    assert_eq!(serving, [0, 0, 0, 0, 2, 8, 1].as_slice());
    let (clean, last) =
        soon(async { tokio::join!(drain.drain(Duration::from_secs(10)), next(&mut watch)) }).await;
    assert_eq!(last.expect("a status").expect("a status"), [0, 0, 0, 0, 2, 8, 2].as_slice());
    assert!(next(&mut watch).await.is_none());
    assert!(clean, "everything ended by itself");
}
