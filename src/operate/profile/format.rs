//! A profile in pprof's format (perftools.profiles.Profile), compressed with
//! gzip: what `go tool pprof` and others read.

use std::collections::HashMap;
use std::io::Write;
use std::time::UNIX_EPOCH;

use flate2::Compression;
use flate2::write::GzEncoder;
use pprof::{Report, Symbol};
use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    text: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// The report, encoded and compressed.
pub(super) fn encode(report: &Report) -> std::io::Result<Vec<u8>> {
    let profile = Tables::default().profile(report);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&profile.encode_to_vec())?;
    gzip.finish()
}

/// What samples refer to by number.
#[derive(Default)]
struct Tables {
    strings: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
    locations: HashMap<Vec<(u64, i64)>, u64>,
    profile: Profile,
}

impl Tables {
    fn profile(mut self, report: &Report) -> Profile {
        // The format wants the empty string at number 0.
        self.string("");
        let frequency = i64::from(report.timing.frequency.max(1));
        let period = 1_000_000_000 / frequency;
        let counted = ValueType { kind: self.string("samples"), unit: self.string("count") };
        let timed = ValueType { kind: self.string("cpu"), unit: self.string("nanoseconds") };
        let thread = self.string("thread");
        for (frames, count) in &report.data {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            let stack = frames.frames.iter().skip_while(|symbols| is_ours(symbols));
            let location_id = stack.map(|symbols| self.location(symbols)).collect();
            let text = self.string(&frames.thread_name_or_id());
            self.profile.sample.push(Sample {
                location_id,
                value: vec![count, count.saturating_mul(period)],
                label: vec![Label { key: thread, text }],
            });
        }
        let began = report.timing.start_time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = |time: std::time::Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        Profile {
            sample_type: vec![counted, timed],
            time_nanos: nanos(began),
            duration_nanos: nanos(report.timing.duration),
            period_type: Some(timed),
            period,
            ..self.profile
        }
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(number) = self.strings.get(text) {
            return *number;
        }
        let number = i64::try_from(self.profile.string_table.len()).unwrap_or(i64::MAX);
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), number);
        number
    }

    /// A place in the code, with what was inlined there, innermost first.
    fn location(&mut self, symbols: &[Symbol]) -> u64 {
        let lines: Vec<(u64, i64)> = symbols
            .iter()
            .map(|symbol| (self.function(symbol), i64::from(symbol.lineno())))
            .collect();
        if let Some(id) = self.locations.get(&lines) {
            return *id;
        }
        let id = self.profile.location.len() as u64 + 1;
        let line =
            lines.iter().map(|(function_id, line)| Line { function_id: *function_id, line: *line });
        self.profile.location.push(Location { id, line: line.collect() });
        self.locations.insert(lines, id);
        id
    }

    fn function(&mut self, symbol: &Symbol) -> u64 {
        let (name, filename) = (self.string(&symbol.name()), self.string(&symbol.filename()));
        if let Some(id) = self.functions.get(&(name, filename)) {
            return *id;
        }
        let id = self.profile.function.len() as u64 + 1;
        let system_name = self.string(&symbol.sys_name());
        self.profile.function.push(Function { id, name, system_name, filename });
        self.functions.insert((name, filename), id);
        id
    }
}

/// Whether a frame is the profiler's own, above the code that it interrupted.
fn is_ours(symbols: &[Symbol]) -> bool {
    symbols.iter().any(|symbol| {
        let name = symbol.name();
        let name = name.trim_start_matches('<');
        name.starts_with("pprof::") || name.starts_with("backtrace::")
    })
}
