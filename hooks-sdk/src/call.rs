//! What a hook is told of its call, with its arguments in a type of its own.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::error::placeless;
use crate::generated::bindings::tagfall::hooks as wit;
use crate::{Error, Result, clock};

/// Most characters of unfit arguments that an error shows.
const SHOWN_MAX: usize = 160;

/// What a hook is told of its call.
///
/// `A` is the type of its `args` in `group.toml`. Without one, they are any JSON: `call.args["url"]`.
///
/// ```
/// use std::time::Duration;
/// use tagfall_hooks::prelude::*;
///
/// #[derive(Deserialize)]
/// struct Args {
///     url: String,
///     #[serde(default)]
///     strict: bool,
/// }
///
/// fn check(call: &Call<Args>) -> Result<Report> {
///     Ok(Report::ok(format!("{} strictly: {}", call.args.url, call.args.strict)))
/// }
///
/// // A test needs no Tagfall for what a hook decides by itself.
/// let call = Call::new(Args { url: "http://[::1]/".to_owned(), strict: true });
/// assert_eq!(check(&call).unwrap().message, "http://[::1]/ strictly: true");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Call<A = serde_json::Value> {
    /// `args` of the hook in `group.toml`, with its templates rendered.
    pub args: A,
    /// The first half of the group's name: `redis` of `redis.default`.
    pub service: String,
    /// The group's whole name: `redis.default`.
    pub group: String,
    /// The tag of the release that the hook belongs to. Empty where there is none, as with `tagfall hook run`.
    pub release: String,
    /// The commit of that tag, as 40 hexadecimal digits, or empty.
    pub commit: String,
    /// What led to this call.
    pub reason: Reason,
    /// 1 for the first call; higher where an earlier one failed or was cut off.
    pub attempt: u32,
    /// The call is ended when so long has passed since it began, waiting included.
    pub deadline: Duration,
    /// The same in everything that Tagfall says about this call.
    pub trace_id: String,
    /// More, by name.
    pub extra: Vec<(String, String)>,
}

/// What led to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The supervisor started.
    Boot,
    /// The hook's interval has passed.
    Interval,
    /// An earlier call failed or was cut off.
    Retry,
    /// A release is being rolled out.
    Update,
    /// A release is being taken back.
    Rollback,
    /// The service is being stopped.
    Stop,
    /// The service's files have changed.
    Reload,
    /// A leader is to be elected.
    Election,
    /// Somebody asked for it; also anything that this version does not know.
    Manual,
}

impl Reason {
    fn of(word: &str) -> Self {
        match word {
            "boot" => Self::Boot,
            "interval" => Self::Interval,
            "retry" => Self::Retry,
            "update" => Self::Update,
            "rollback" => Self::Rollback,
            "stop" => Self::Stop,
            "reload" => Self::Reload,
            "election" => Self::Election,
            _ => Self::Manual,
        }
    }
}

impl<A> Call<A> {
    /// A call by hand with these arguments and nothing else: for tests.
    pub fn new(args: A) -> Self {
        Self {
            args,
            service: String::new(),
            group: String::new(),
            release: String::new(),
            commit: String::new(),
            reason: Reason::Manual,
            attempt: 1,
            deadline: Duration::from_secs(2),
            trace_id: String::new(),
            extra: Vec::new(),
        }
    }

    /// One of `extra`: a hook of a rollout finds `direction` there, which is `forward` or `back`.
    pub fn extra(&self, name: &str) -> Option<&str> {
        self.extra.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What is left of the call's time.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_sub(clock::elapsed())
    }
}

impl<A: DeserializeOwned> Call<A> {
    /// A call as Tagfall makes it.
    pub(crate) fn of(context: wit::types::Context) -> Result<Self> {
        Ok(Self {
            args: args(&context.args_json)?,
            service: context.service,
            group: context.group,
            release: context.release,
            commit: context.commit,
            reason: Reason::of(&context.reason),
            attempt: context.attempt,
            deadline: Duration::from_millis(context.deadline_ms.into()),
            trace_id: context.trace_id,
            extra: context.extra,
        })
    }
}

/// The arguments in their type. An error shows them, since they are not written anywhere as they are here.
fn args<A: DeserializeOwned>(json: &str) -> Result<A> {
    // `args = {}` and no `args` at all are the same to who writes `group.toml`.
    let json = if json.trim().is_empty() { "{}" } else { json };
    serde_json::from_str(json).map_err(|error| {
        let shown: String = json.chars().take(SHOWN_MAX).collect();
        let more = if shown.len() < json.len() { "…" } else { "" };
        Error::new("bad-args", format!("`args` do not fit: {}, in {shown}{more}", placeless(&error)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Args {
        url: String,
        #[serde(default)]
        port: u16,
    }

    #[test]
    fn arguments_come_in_their_type() {
        assert_eq!(args::<Args>(r#"{"url": "x", "more": 1}"#), Ok(Args { url: "x".to_owned(), port: 0 }));
        assert_eq!(args::<serde_json::Value>(""), Ok(serde_json::json!({})));
        let message = |json: &str| args::<Args>(json).unwrap_err().message().to_owned();
        assert_eq!(message("{}"), "`args` do not fit: missing field `url`, in {}");
        assert_eq!(
            message(r#"{"url":"x","port":"80"}"#),
            r#"`args` do not fit: invalid type: string "80", expected u16, in {"url":"x","port":"80"}"#
        );
        assert!(message(&format!(r#"{{"urn":"{}"}}"#, "x".repeat(1_000))).ends_with("xxx…"));
        assert_eq!(args::<Args>("{").unwrap_err().code(), "bad-args");
    }

    #[test]
    fn a_call_has_what_tagfall_said() {
        let context = wit::types::Context {
            service: "redis".to_owned(),
            group: "redis.default".to_owned(),
            release: "v1".to_owned(),
            commit: String::new(),
            reason: "rollback".to_owned(),
            attempt: 2,
            deadline_ms: 1_500,
            trace_id: "t".to_owned(),
            args_json: "{\"url\":\"x\"}".to_owned(),
            extra: vec![("direction".to_owned(), "back".to_owned())],
        };
        let call: Call<Args> = Call::of(context).unwrap();
        assert_eq!((call.reason, call.attempt, call.deadline), (Reason::Rollback, 2, Duration::from_millis(1_500)));
        assert_eq!((call.extra("direction"), call.extra("speed")), (Some("back"), None));
        assert_eq!(Reason::of("sunspots"), Reason::Manual);
    }
}
