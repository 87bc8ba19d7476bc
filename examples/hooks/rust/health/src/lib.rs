//! Whether nginx answers, and how fast.

use std::time::Duration;

use tagfall_hooks::prelude::*;

#[derive(Deserialize)]
struct Args {
    url: String,
    /// From how many milliseconds on an answer is a warning.
    #[serde(default = "slow")]
    slow_ms: u64,
}

fn slow() -> u64 {
    500
}

tagfall_hooks::health_check!(check);

fn check(call: &Call<Args>) -> Result<Report> {
    let answer = http::get(&call.args.url)?;
    let took = answer.elapsed.as_millis().to_string();
    Ok(judge(answer.status, answer.elapsed, Duration::from_millis(call.args.slow_ms)).extra("took_ms", took))
}

fn judge(status: u16, took: Duration, slow: Duration) -> Report {
    match status {
        200..400 if took >= slow => Report::warning(format!("answered {status}, but only after {} ms", took.as_millis())),
        200..400 => Report::ok(format!("answered {status}")),
        _ => Report::critical(format!("answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_a_warning_and_an_error_is_critical() {
        let (fast, slow) = (Duration::from_millis(1), Duration::from_millis(500));
        assert_eq!(judge(204, fast, slow).health, Health::Ok);
        assert_eq!(judge(200, slow, slow).health, Health::Warning);
        assert_eq!(judge(502, fast, slow).health, Health::Critical);
    }
}
