//! Figures, and how they are shown.

use std::time::Duration;

/// One line of the table.
#[derive(Debug)]
pub struct Figure {
    pub name: String,
    pub measured: String,
    pub floor: &'static str,
    pub goal: &'static str,
}

impl Figure {
    pub fn new(
        name: impl Into<String>,
        measured: impl Into<String>,
        floor: &'static str,
        goal: &'static str,
    ) -> Figure {
        Figure { name: name.into(), measured: measured.into(), floor, goal }
    }
}

pub fn table(figures: &[Figure]) {
    println!("| figure | measured | floor | goal |");
    println!("|---|---|---|---|");
    for Figure { name, measured, floor, goal } in figures {
        println!("| {name} | {measured} | {floor} | {goal} |");
    }
}

/// The value that so many percent do not exceed.
pub fn percentile(mut values: Vec<Duration>, percent: usize) -> Duration {
    values.sort();
    let place = (values.len() * percent).div_ceil(100).clamp(1, values.len());
    values[place - 1]
}

pub fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    if millis < 100.0 { format!("{millis:.2} ms") } else { format!("{millis:.0} ms") }
}
