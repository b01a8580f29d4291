//! The methods that the node serves, from its own descriptors: the bounded set
//! of names for spans and metrics, with what each call needs ready.

use std::sync::LazyLock;

use prost::Message;
use prost_types::FileDescriptorSet;

use crate::path::PathMap;

/// One method. They live as long as the process: there are a few dozen.
#[derive(Debug)]
pub(super) struct Method {
    /// `package.Service/Method`; the label of metrics.
    pub(super) name: &'static str,
    /// The name of its span.
    pub(super) span_name: &'static str,
    /// `rpc.method` of its spans.
    pub(super) attribute: &'static str,
    /// The name of the span that ends a stream.
    pub(super) end_name: &'static str,
    /// Whether either side sends a stream.
    pub(super) streaming: bool,
    /// Its place among all.
    pub(super) index: usize,
}

/// Methods of services that are not ours, and whether they stream.
const FOREIGN: [(&str, bool); 5] = [
    ("grpc.health.v1.Health/Check", false),
    ("grpc.health.v1.Health/List", false),
    ("grpc.health.v1.Health/Watch", true),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", true),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", true),
];

/// What any other path counts as.
const UNKNOWN: &str = "unknown";

/// What the conventions call a method that is none, and its span.
const OTHER: (&str, &str) = ("_OTHER", "grpc");

static METHODS: LazyLock<Methods> = LazyLock::new(Methods::read);

struct Methods {
    all: Vec<&'static Method>,
    by_path: PathMap<String, &'static Method>,
    unknown: &'static Method,
}

impl Methods {
    fn read() -> Self {
        // The set is a constant of this binary; were it damaged, every method
        // would count as unknown, and the policy would stop the start-up.
        let set = FileDescriptorSet::decode(crate::proto::DESCRIPTORS).unwrap_or_default();
        let mut names: Vec<(String, bool)> = Vec::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                    names.push((name, method.client_streaming() || method.server_streaming()));
                }
            }
        }
        names.extend(FOREIGN.map(|(name, streaming)| (name.to_owned(), streaming)));
        names.push((UNKNOWN.to_owned(), false));
        let all: Vec<&'static Method> = names
            .into_iter()
            .enumerate()
            .map(|(index, (name, streaming))| {
                let end_name: &'static str = format!("{name} end").leak();
                let name: &'static str = name.leak();
                let known = name != UNKNOWN;
                let (attribute, span_name) = if known { (name, name) } else { OTHER };
                &*Box::leak(Box::new(Method {
                    name,
                    span_name,
                    attribute,
                    end_name,
                    streaming,
                    index,
                }))
            })
            .collect();
        let unknown: &'static Method = match all.last() {
            Some(last) => last,
            None => &Method {
                name: UNKNOWN,
                span_name: OTHER.1,
                attribute: OTHER.0,
                end_name: UNKNOWN,
                streaming: false,
                index: 0,
            },
        };
        let by_path = all
            .iter()
            .filter(|method| method.name != UNKNOWN)
            .map(|method| (format!("/{}", method.name), *method))
            .collect();
        Self { all, by_path, unknown }
    }
}

/// Every method, the unknown one last.
pub(super) fn all() -> &'static [&'static Method] {
    &METHODS.all
}

/// The method of a request's path.
pub(super) fn of(path: &str) -> &'static Method {
    METHODS.by_path.get(path).copied().unwrap_or(METHODS.unknown)
}
