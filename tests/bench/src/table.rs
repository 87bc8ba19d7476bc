//! What is printed: one row per figure, and on which machine.

use std::io::Write as _;

/// A measured figure.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) wanted: String,
    pub(crate) measured: String,
    /// `None`: reported, not held to anything.
    pub(crate) met: Option<bool>,
}

impl Row {
    /// A figure with its verdict.
    pub(crate) fn new(what: impl Into<String>, wanted: impl Into<String>, measured: impl Into<String>, met: bool) -> Self {
        Self { what: what.into(), wanted: wanted.into(), measured: measured.into(), met: Some(met) }
    }

    /// A number to look at.
    pub(crate) fn told(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self { what: what.into(), wanted: String::new(), measured: measured.into(), met: None }
    }

    /// Prints it; `false` where it was missed.
    pub(crate) fn print(&self, name: &str) -> bool {
        let verdict = match self.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        say(&format!("{name:7} {:64} {:28} {:74} {verdict}", self.what, self.wanted, self.measured));
        self.met != Some(false)
    }
}

/// Where it is measured.
pub(crate) fn head() {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let uname = rustix::system::uname();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    let kernel = uname.release().to_string_lossy().into_owned();
    say(&format!("machine: {cores} cores, Linux {kernel} {}, load {load}", uname.machine().to_string_lossy()));
    say(&format!("{:7} {:64} {:28} {:74} verdict", "name", "figure", "wanted", "measured"));
}

/// A line for people.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody there to read it.
    let _ = writeln!(out, "{}", line.trim_end()).and_then(|()| out.flush());
}

/// A line about what went wrong, or how far it is.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Measurements of one kind.
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The smallest value that so many per cent of all are not above.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    /// Median, 99th percentile, largest, count.
    pub(crate) fn words(&self, unit: &str) -> String {
        let (p50, p99, max, n) = (self.percentile(50), self.percentile(99), self.max(), self.0.len());
        format!("p50 {p50:.2} {unit}, p99 {p99:.2} {unit}, max {max:.2} {unit}, n {n}")
    }
}
