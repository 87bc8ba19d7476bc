//! A hundred thousand ends right after the start: whether the keeper knows of each.
//!
//! Each service counts its own starts in a file, ends at once, and asks to stay ended after the last of them. One end that the
//! keeper does not hear of would leave its service up for ever.

use std::time::Duration;

use tagfall::keeper::wire::Request;
use tagfall::model::ServiceState;

use crate::Failure;
use crate::clock::{ms_between, now_ns};
use crate::direct::{Direct, service};
use crate::rest::ticks;
use crate::stage::small_service;
use crate::table::Row;

const SERVICES: usize = 1_000;
const STARTS_EACH: u64 = 100;
const BOUND: Duration = Duration::from_secs(600);
/// Microseconds of a clock tick of /proc.
const US_PER_TICK: f64 = 10_000.0;

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let dir = common::temp_dir();
    let mut direct = Direct::start(dir.path(), &[])?;
    let (program, count) = (small_service()?, STARTS_EACH.to_string());
    let places = |number: usize| dir.path().join(format!("starts{number}")).display().to_string();
    let specs = (0..SERVICES).map(|number| service(&format!("bench{number}"), &[&program, "end", &places(number), &count]));
    let requests = specs.map(|spec| Ok(Request::Run(Box::new(spec?)))).collect::<Result<Vec<_>, Failure>>()?;
    let begun = now_ns();
    direct.order(requests)?;
    let all = direct.until("all have ended for good", BOUND, |direct| direct.count(ServiceState::Failed) == SERVICES);
    let took_s = ms_between(begun, now_ns()) / 1_000.0;
    let starts: u64 = (0..SERVICES).filter_map(|number| std::fs::metadata(places(number)).ok()).map(|file| file.len()).sum();
    // Each restart follows from an end; the last one led to none.
    let ends: u64 = direct.reports.values().map(|report| report.restarts + u64::from(report.state == ServiceState::Failed)).sum();
    let lost = starts.saturating_sub(ends);
    let wanted = SERVICES as u64 * STARTS_EACH;
    let words = format!("{lost} lost of {starts} in {took_s:.0} s");
    #[expect(clippy::cast_precision_loss, reason = "starts of a benchmark fit")]
    let each_us = ticks(direct.keeper_pid()) * US_PER_TICK / starts.max(1) as f64;
    Ok(vec![
        Row::new("ends right after the start that the keeper lost", format!("0 of {wanted}"), words, {
            lost == 0 && starts == wanted && all.is_ok()
        }),
        Row::told("the keeper's own processor time for a start and an end of one of a thousand", format!("{each_us:.0} µs")),
    ])
}
