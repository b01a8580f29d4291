//! The way to the collector over TLS, and what it knows of the process.

use opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::*;

/// An authority, whose certificate is PEM.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for this machine, and its key.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }
}

/// A receiver that takes what comes from holders of the authority's
/// certificates.
async fn guarded(authority: &Authority) -> (String, mpsc::Receiver<ExportTraceServiceRequest>) {
    let (sender, receiver) = mpsc::channel(64);
    let (certificate, key) = authority.issue();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(&authority.pem));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let server = Server::builder()
        .tls_config(tls)
        .expect("sound")
        .add_service(TraceServiceServer::new(Receiver(sender)))
        .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
    crate::task::spawn("receiver", server);
    (format!("https://{address}"), receiver)
}

/// Writes them where the variables can point to.
fn files(dir: &std::path::Path, name: &str, authority: &str, of: &(String, String)) -> [String; 3] {
    [("ca", authority), ("cert", &of.0), ("key", &of.1)].map(|(what, text)| {
        let path = dir.join(format!("{name}-{what}.pem"));
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    })
}

const POD: &str = "k8s.pod.name=simpul-0,k8s.namespace.name=pasar,k8s.node.name=worker-1,\
    k8s.container.name=simpul";

/// What one call's span comes to: how many were taken and how many failed.
async fn exported(endpoint: &str, [ca, cert, key]: &[String; 3]) -> (u64, u64) {
    let (_guard, telemetry, _) = pipeline(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", cert),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", key),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
        ("OTEL_RESOURCE_ATTRIBUTES", POD),
    ]);
    let mut registry = metrics::registry();
    telemetry.register(&mut registry);
    let layer = trace::TraceLayer::new(red::Red::registered(&mut registry), telemetry.calls());
    unary(&layer, UNARY, "0").await;
    telemetry.shutdown(Duration::from_secs(20)).await;
    let text = metrics::encode(&registry);
    let count = |what: &str| {
        let name = format!("simpul_trace_spans_{what}_total ");
        let found = text.lines().find_map(|line| line.strip_prefix(&name));
        found.and_then(|count| count.parse().ok()).expect("a count")
    };
    (count("exported"), count("failed"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collector_and_node_prove_themselves_to_each_other() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (endpoint, mut receiver) = guarded(&ours).await;
    let dir = tempfile::tempdir().expect("a directory");
    let good = files(dir.path(), "good", &ours.pem, &ours.issue());
    assert_eq!(exported(&endpoint, &good).await, (2, 0));
    let sent = receiver.recv().await.expect("an export");
    let resource = sent.resource_spans[0].resource.as_ref().expect("a resource");
    for (key, value) in [
        ("k8s.pod.name", "simpul-0"),
        ("k8s.namespace.name", "pasar"),
        ("k8s.node.name", "worker-1"),
        ("k8s.container.name", "simpul"),
        ("service.name", "simpul"),
        ("service.instance.id", "node-1"),
    ] {
        let found = resource.attributes.iter().find(|attribute| attribute.key == key);
        let found = found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref());
        assert_eq!(found, Some(&StringValue(value.to_owned())), "{key}");
    }

    let stranger = files(dir.path(), "stranger", &ours.pem, &theirs.issue());
    assert_eq!(exported(&endpoint, &stranger).await, (0, 2), "the collector knows its nodes");
    let deceived = files(dir.path(), "deceived", &theirs.pem, &ours.issue());
    assert_eq!(exported(&endpoint, &deceived).await, (0, 2), "the node knows its collector");
}
