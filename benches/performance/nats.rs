//! As much of the NATS protocol as a publisher and a subscriber need.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::process::Server;

/// Starts nats-server with TLS from the handshake on.
pub fn start(program: &Path, prefix: &[&str], dir: &Path, port: u16) -> Server {
    let config = format!(
        "listen: \"127.0.0.1:{port}\"\ntls {{ cert_file: \"{0}/server.pem\", key_file: \
         \"{0}/server-key.pem\", handshake_first: true }}\n",
        dir.display()
    );
    let file = dir.join("nats.conf");
    std::fs::write(&file, config).expect("written");
    let child = Command::new(prefix[0])
        .args(&prefix[1..])
        .arg(program)
        .arg("-c")
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server");
    Server { child }
}

/// One connection.
pub struct Client {
    stream: TlsStream<TcpStream>,
    buffer: BytesMut,
}

impl Client {
    pub async fn connect(port: u16, ca: &[u8]) -> Client {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca) {
            roots.add(certificate.expect("PEM")).expect("a CA");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = loop {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(tcp) => break tcp,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        };
        tcp.set_nodelay(true).expect("set");
        let name = ServerName::try_from("localhost").expect("a name");
        let stream =
            TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("a handshake");
        let mut client = Client { stream, buffer: BytesMut::with_capacity(1 << 16) };
        client.line().await; // INFO
        client.write(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n").await;
        while client.line().await != "PONG" {}
        client
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("sent");
        self.stream.flush().await.expect("sent");
    }

    pub async fn subscribe(&mut self, subject: &str) {
        self.write(format!("SUB {subject} 1\r\nPING\r\n").as_bytes()).await;
        while self.line().await != "PONG" {}
    }

    async fn fill(&mut self) {
        let read = self.stream.read_buf(&mut self.buffer).await.expect("data");
        assert!(read > 0, "the server hung up");
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.split_to(end);
                self.buffer.advance(2);
                return String::from_utf8_lossy(&line).into_owned();
            }
            self.fill().await;
        }
    }

    /// Reads once and hands out the payload of every whole MSG.
    pub async fn messages(&mut self, mut each: impl FnMut(&[u8])) {
        self.fill().await;
        loop {
            let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") else { return };
            let head = &self.buffer[..end];
            if !head.starts_with(b"MSG ") {
                let ping = head == b"PING";
                self.buffer.advance(end + 2);
                if ping {
                    self.write(b"PONG\r\n").await;
                }
                continue;
            }
            let size = head.rsplit(|byte| *byte == b' ').next().expect("a size");
            let size: usize = std::str::from_utf8(size).expect("ASCII").parse().expect("a number");
            if self.buffer.len() < end + 2 + size + 2 {
                return;
            }
            each(&self.buffer[end + 2..end + 2 + size]);
            self.buffer.advance(end + 2 + size + 2);
        }
    }
}
