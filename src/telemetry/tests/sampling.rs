//! Who decides what is recorded: the caller first, the ratio for the others.

use super::*;

/// The trace ids of what a pipeline exports of three calls: one that its caller
/// records, one that its caller does not, one without a caller's trace.
async fn recorded(sampler: &str, ratio: &str) -> Vec<String> {
    let (endpoint, mut receiver) = receiver().await;
    let (_guard, telemetry, _) = pipeline(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_TRACES_SAMPLER", sampler),
        ("OTEL_TRACES_SAMPLER_ARG", ratio),
    ]);
    let mut registry = metrics::registry();
    let layer = trace::TraceLayer::new(red::Red::registered(&mut registry), telemetry.calls());
    let unsampled = format!("00-{:032x}-{:016x}-00", 0xbad, 0xbad);
    for place in [Some(GIVEN), Some(&unsampled), None] {
        let service = layer.layer(service_fn(|_: Request<Empty<Bytes>>| async {
            tracing::info_span!("append").in_scope(|| tracing::warn!("inside"));
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::new())))
        }));
        let mut request = request(UNARY);
        request.headers_mut().remove("traceparent");
        if let Some(place) = place {
            request.headers_mut().insert("traceparent", place.parse().expect("ASCII"));
        }
        let response = service.oneshot(request).await.expect("infallible");
        response.into_body().collect().await.expect("a body");
    }
    telemetry.shutdown(Duration::from_secs(5)).await;
    let named = metrics::encode(&registry).matches("# {trace_id=").count();
    let mut traces = Vec::new();
    while let Ok(sent) = receiver.try_recv() {
        let scopes = sent.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        traces.extend(scopes.flat_map(|scope| scope.spans).map(|span| {
            span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        }));
    }
    traces.sort();
    assert_eq!(traces.len() % 2, 0, "a call and what is below it, or neither: {traces:?}");
    traces.dedup();
    assert!(named <= traces.len(), "an exemplar names what can be found");
    traces
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_caller_decides_and_the_ratio_for_those_who_say_nothing() {
    let callers = "0af7651916cd43dd8448eb211c80319c";
    assert_eq!(recorded("parentbased_traceidratio", "0").await, [callers]);
    let all = recorded("parentbased_traceidratio", "1").await;
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all.iter().any(|trace| trace == callers), "{all:?}");
    assert!(recorded("always_off", "1").await.is_empty());
    assert_eq!(recorded("always_on", "1").await.len(), 3);
}
