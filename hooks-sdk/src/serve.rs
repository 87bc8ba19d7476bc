//! From a call of Tagfall to a hook's function and back: arguments into their type, answers and errors out of it, panics into the
//! log. The macros of `hooks.rs` expand to calls of this; nobody else uses it.

use std::sync::Once;

use serde::de::DeserializeOwned;

use crate::generated::bindings::exports::tagfall::hooks as exports;
use crate::generated::bindings::tagfall::hooks::types;
use crate::{Call, Result, log};

pub use exports::{
    file_updated, health_check, init, post_run, post_stop, post_update, pre_stop, pre_update, reconfigure, suitability,
};
pub use types::{Context, ExitStatus, Failure, Outcome, Report};

/// A hook that answers whether it is done, or with a number.
pub fn plain<A: DeserializeOwned, T>(context: Context, hook: impl FnOnce(&Call<A>) -> Result<T>) -> Result<T, Failure> {
    log_panics();
    let answer = Call::of(context).and_then(|call| hook(&call));
    answer.map_err(crate::Error::into_failure)
}

/// A hook that answers with a report. A server that was asked and did not answer is one.
pub fn check<A: DeserializeOwned>(
    context: Context,
    hook: impl FnOnce(&Call<A>) -> Result<crate::Report>,
) -> Result<Report, Failure> {
    let hook = |call: &Call<A>| match hook(call) {
        Err(error) if error.is_unanswered() => Ok(crate::Report::critical(error.message())),
        answer => answer,
    };
    plain(context, hook).map(crate::Report::into_wit)
}

/// A hook that decides what comes next.
pub fn decide<A: DeserializeOwned>(
    context: Context,
    hook: impl FnOnce(&Call<A>) -> Result<crate::Outcome>,
) -> Result<Outcome, Failure> {
    plain(context, hook).map(crate::Outcome::into_wit)
}

/// The end of a process, as a hook's function takes it.
pub fn exit(status: ExitStatus) -> crate::ExitStatus {
    crate::ExitStatus::of(status)
}

/// What a panic says goes to the log, where a trap would leave nothing but itself.
fn log_panics() {
    static ONCE: Once = Once::new();
    // Elsewhere panics belong to the test that made them.
    if cfg!(target_arch = "wasm32") {
        ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| log::error(panic.to_string().replace('\n', " ")))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, Health};

    fn context(args_json: &str) -> Context {
        Context {
            service: "web".to_owned(),
            group: "web.default".to_owned(),
            release: String::new(),
            commit: String::new(),
            reason: "interval".to_owned(),
            attempt: 1,
            deadline_ms: 2_000,
            trace_id: String::new(),
            args_json: args_json.to_owned(),
            extra: Vec::new(),
        }
    }

    fn refused() -> Error {
        Error::of_probe(types_error("refused"))
    }

    fn types_error(code: &str) -> crate::host::probe::ProbeError {
        crate::host::probe::ProbeError { code: code.to_owned(), message: "nobody listens".to_owned() }
    }

    #[test]
    fn an_answer_and_an_error_arrive_as_they_are() {
        assert_eq!(plain(context("{}"), |_: &Call| Ok(7)), Ok(7));
        let failure = plain::<serde_json::Value, ()>(context("{}"), |_| Err("no".into())).unwrap_err();
        assert_eq!((failure.code.as_str(), failure.message.as_str()), ("failed", "no"));
    }

    #[test]
    fn unfit_arguments_are_a_failure_and_the_hook_is_not_called() {
        let failure = check(context("{}"), |call: &Call<(u8, u8)>| panic!("called with {:?}", call.args)).unwrap_err();
        assert_eq!(failure.code, "bad-args");
    }

    #[test]
    fn only_a_check_takes_silence_for_an_answer() {
        let report = check(context("{}"), |_: &Call| Err(refused())).unwrap();
        assert_eq!((report.health, report.message.as_str()), (Health::Critical, "nobody listens"));
        let failure = check(context("{}"), |_: &Call| Err(Error::of_probe(types_error("denied")))).unwrap_err();
        assert_eq!(failure.code, "denied");
        let failure = decide(context("{}"), |_: &Call| Err(refused())).unwrap_err();
        assert_eq!(failure.code, "refused");
    }
}
