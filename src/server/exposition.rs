//! Prometheus's own text format (0.0.4), for readers that do not ask for
//! OpenMetrics: there a counter's help and type carry its whole name, and no
//! bucket names a trace.

use std::collections::HashSet;

/// What asks for OpenMetrics in an `accept` header.
pub(super) const OPENMETRICS: &str = "application/openmetrics-text";

/// The media type of [`classic`].
pub(super) const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Between a sample and the trace that it names; no label's value has it.
const EXEMPLAR: &str = " # {trace_id=";

/// The same metrics in the older format.
pub(super) fn classic(openmetrics: &str) -> String {
    let described = |line: &str, what: &str| {
        let (name, rest) = line.strip_prefix(what)?.split_once(' ')?;
        Some((name.to_owned(), rest.to_owned()))
    };
    let counters: HashSet<String> = openmetrics
        .lines()
        .filter_map(|line| described(line, "# TYPE "))
        .filter_map(|(name, kind)| (kind == "counter").then_some(name))
        .collect();
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let counter = ["# HELP ", "# TYPE "].into_iter().find_map(|what| {
            let (name, rest) = described(line, what)?;
            counters.contains(&name).then(|| format!("{what}{name}_total {rest}"))
        });
        let line = counter.as_deref().unwrap_or(line);
        text.push_str(line.split_once(EXEMPLAR).map_or(line, |(sample, _)| sample));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_loses_the_trace_that_it_names() {
        let named = "took_bucket{le=\"1.0\"} 3 # {trace_id=\"0af7\"} 0.5 1700000000.0\n# EOF\n";
        assert_eq!(classic(named), "took_bucket{le=\"1.0\"} 3\n");
    }

    #[test]
    fn counters_are_described_by_their_whole_names() {
        let openmetrics = "# HELP calls Calls that are over.\n# TYPE calls counter\n\
            calls_total{code=\"OK\"} 3\n# HELP open Calls that are open.\n# TYPE open gauge\n\
            # UNIT open calls\nopen 1\n# EOF\n";
        let wanted = "# HELP calls_total Calls that are over.\n# TYPE calls_total counter\n\
            calls_total{code=\"OK\"} 3\n# HELP open Calls that are open.\n# TYPE open gauge\nopen 1\n";
        assert_eq!(classic(openmetrics), wanted);
    }
}
