//! One message, one trace, in a real Jaeger.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use simpul::proto::chat::v1::SendMessageRequest;

use crate::clients::{Clients, unary};
use crate::kit::{not_run, until};
use crate::pods::get;
use crate::site::{NODES, Site};

/// Spans leave a second after they ended.
const EXPORTED: Duration = Duration::from_secs(30);

/// Sends a message with a caller's own trace: its spans come from every pod.
pub async fn across(site: &Site, _: &Clients) -> String {
    if !site.has_jaeger {
        not_run("Kubernetes: a trace in Jaeger: SIMPUL_TEST_JAEGER names no binary of it");
        return "not run".to_owned();
    }
    let client = unary(site, "u0").await;
    let trace = format!("{:032x}", rand::random::<u128>() | 1);
    // Hundreds read this room, on every node.
    let mut request = client.unary(SendMessageRequest {
        room_id: "hall".to_owned(),
        client_message_id: trace.clone(),
        body: "followed".to_owned(),
        reply_to: 0,
    });
    let parent = format!("00-{trace}-00000000000000aa-01").parse().expect("ASCII");
    request.metadata_mut().insert("traceparent", parent);
    client.chat().send_message(request).await.expect("sent");
    let spans = until("the trace of all pods is in Jaeger", EXPORTED, async || {
        let spans = spans(&trace).await?;
        let pods: BTreeSet<&str> = spans.iter().map(|(_, pod)| pod.as_str()).collect();
        (pods.len() == NODES).then_some(spans)
    })
    .await;
    let names: Vec<String> = spans.iter().map(|(name, pod)| format!("{name} on {pod}")).collect();
    names.join(", ")
}

/// The names of a trace's spans and the pods that sent them, once the delivery to
/// readers is among them.
async fn spans(trace: &str) -> Option<Vec<(String, String)>> {
    let body = get("jaeger.simpul.svc:16686", &format!("/api/traces/{trace}")).await?;
    let json: Value = serde_json::from_str(&body).ok()?;
    let trace = json["data"].get(0)?;
    let pod = |process: &str| {
        let tags = trace["processes"][process]["tags"].as_array()?;
        let tag = tags.iter().find(|tag| tag["key"] == "k8s.pod.name")?;
        tag["value"].as_str().map(str::to_owned)
    };
    let mut spans = Vec::new();
    for span in trace["spans"].as_array()? {
        let name = span["operationName"].as_str()?.to_owned();
        spans.push((name, pod(span["processID"].as_str()?)?));
    }
    let delivered = spans.iter().any(|(name, _)| name == "chat.deliver");
    delivered.then_some(spans)
}
