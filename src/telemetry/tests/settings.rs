use std::time::Duration;

use crate::telemetry::context::TraceContext;
use crate::telemetry::otel::{Settings, propagates};

fn read(pairs: &[(&str, &str)]) -> (Option<Settings>, Vec<String>) {
    let env: Vec<_> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Settings::of(&env)
}

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger:4317");

#[test]
fn traces_are_exported_when_asked_for() {
    assert!(read(&[]).0.is_none());
    assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]).0.is_none());
    assert!(read(&[ENDPOINT]).0.is_some());
    assert!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "True")]).0.is_none());
    assert!(read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]).0.is_none());
    let default = read(&[("OTEL_TRACES_EXPORTER", "otlp")]).0.expect("wanted");
    assert_eq!(default.endpoint, "http://localhost:4317");
    for other in ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] {
        let (settings, warnings) = read(&[ENDPOINT, (other, "http/protobuf")]);
        assert!(settings.is_none());
        assert!(warnings[0].starts_with(other), "{warnings:?}");
    }
}

#[test]
fn every_variable_has_its_effect() {
    let (settings, warnings) = read(&[
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20abc, x-team = kedai"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "/cert.pem"),
        ("OTEL_SERVICE_NAME", "kedai"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=pasar%2Cbaru"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "512"),
        ("OTEL_BSP_SCHEDULE_DELAY", "250"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "7"),
        ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "5"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "3"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "64"),
    ]);
    assert!(warnings.is_empty(), "{warnings:?}");
    let settings = settings.expect("wanted");
    assert_eq!(settings.endpoint, "http://collector:4317");
    let headers = [("authorization", "Basic abc"), ("x-team", "kedai")];
    assert_eq!(settings.headers, headers.map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert_eq!(settings.timeout, Duration::from_millis(2500));
    assert!(settings.gzip);
    assert_eq!(settings.ca_file.as_deref(), Some("/ca.pem"));
    assert_eq!(settings.client_key.as_deref(), Some("/key.pem"));
    assert_eq!(settings.client_certificate.as_deref(), Some("/cert.pem"));
    assert_eq!(settings.service_name.as_deref(), Some("kedai"));
    assert_eq!(settings.resource[0].value.as_str(), "pasar,baru");
    let sampler = format!("{:?}", settings.sampler);
    assert_eq!(sampler, "ParentBased(TraceIdRatioBased(0.25))");
    assert_eq!((settings.queue, settings.batch), (100, 100));
    assert_eq!(settings.delay, Duration::from_millis(250));
    assert_eq!(settings.limits.max_attributes_per_span, 7);
    assert_eq!(settings.limits.max_attributes_per_event, 5);
    assert_eq!(settings.limits.max_links_per_span, 3);
    assert_eq!(settings.value_length, Some(64));
}

#[test]
fn wrong_values_are_warnings_by_name_and_defaults_hold() {
    let (settings, mut warnings) = read(&[
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_HEADERS", "planted-secret"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "planted-time"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "planted-zip"),
        ("OTEL_TRACES_SAMPLER", "planted-sampler"),
        ("OTEL_TRACES_SAMPLER_ARG", "7"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "planted-size"),
    ]);
    assert_eq!(settings.expect("wanted").queue, 2048);
    let env = [("OTEL_PROPAGATORS".to_owned(), "b3,planted".to_owned())];
    assert!(!propagates(&env, &mut warnings));
    assert_eq!(warnings.len(), 7, "{warnings:?}");
    let text = warnings.join("\n");
    assert!(
        !text.contains("planted") && text.lines().all(|line| line.starts_with("OTEL_")),
        "{text}"
    );
    assert!(propagates(&[], &mut warnings));
}

#[test]
fn only_a_sound_traceparent_is_taken() {
    let sound = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let read = TraceContext::parse(sound).expect("sound");
    assert_eq!(read.to_string(), sound);
    assert_eq!(read.trace_id(), "0af7651916cd43dd8448eb211c80319c");
    assert!(TraceContext::parse(&format!("01{}-later", &sound[2..])).is_some());
    for wrong in [
        "",
        "00",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-ñaf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ] {
        assert!(TraceContext::parse(wrong).is_none(), "{wrong}");
    }
}
