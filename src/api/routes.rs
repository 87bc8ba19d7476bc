//! The paths and their handlers: each asks the daemon and writes the answer down.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Extension, Path, Query as Params, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use serde::{Deserialize, Serialize};

use super::door::{Door, guard};
use super::events::{Places, follow};
use super::metrics;
use super::port::{Answer, ApiError, Caller, Command, Daemon, Failure, LogQuery, Query, ReleaseVerb, ServiceVerb};
use super::wire;
use crate::model::{ConditionKind, GroupName, HealthStatus, TagName, Timestamp, Truth};

/// Longest body of a request, in bytes.
const BODY_MAX_BYTES: usize = 16 * 1024;
/// Longest wait for the daemon's answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Readers that stay (events, logs), so that they never use up all connections.
const FOLLOWERS_MAX: usize = 32;
/// Lines of a log where no number is given.
const LOG_LINES: usize = 100;

/// The API of one daemon behind one door.
pub fn router<D: Daemon>(daemon: D, door: Door) -> Router {
    let here = Here { daemon, places: Arc::new(tokio::sync::Semaphore::new(FOLLOWERS_MAX)) };
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz::<D>))
        .route("/metrics", get(metrics_text::<D>))
        .route("/v1/status", get(async |State(here): State<Here<D>>| json(&*here.daemon.status())))
        .route("/v1/census", get(async |State(here): State<Here<D>>| json(&here.daemon.status().ring)))
        .route("/v1/releases", get(async |State(here): State<Here<D>>| here.ask(Query::Releases).await))
        .route("/v1/releases/{tag}", get(release::<D>))
        .route("/v1/releases/{tag}/verify", get(verify::<D>))
        .route("/v1/releases/{tag}/{verb}", post(word_on_release::<D>))
        .route("/v1/events", get(events::<D>))
        .route("/v1/plan", get(plan::<D>))
        .route("/v1/diff", get(diff::<D>))
        .route("/v1/trace", get(trace::<D>))
        .route("/v1/groups/{name}", get(group::<D>))
        .route("/v1/groups/{name}/health", get(health::<D>))
        .route("/v1/groups/{name}/config", get(config::<D>))
        .route("/v1/groups/{name}/why", get(why::<D>))
        .route("/v1/groups/{name}/logs", get(logs::<D>))
        .route("/v1/groups/{name}/service/{verb}", post(service::<D>))
        .route("/v1/source/poll", post(poll::<D>))
        .fallback(async || ApiError::new(Failure::NotFound, "NoSuchPath", "the API has no such path"))
        .method_not_allowed_fallback(async || {
            ApiError::new(Failure::Method, "MethodNotAllowed", "the API has this path, but not with this method")
        })
        .layer(axum::middleware::from_fn_with_state(door, guard))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(here)
}

#[derive(Clone)]
struct Here<D> {
    daemon: D,
    places: Places,
}

impl<D: Daemon> Here<D> {
    async fn answer(&self, query: Query) -> Result<Answer, ApiError> {
        tokio::time::timeout(ANSWER_MAX, self.daemon.ask(query)).await.map_err(|_| late())?
    }

    async fn ask(&self, query: Query) -> Result<Response, ApiError> {
        self.answer(query).await.map(|answer| json(&answer))
    }

    async fn command(&self, command: Command, caller: Caller) -> Result<Response, ApiError> {
        tokio::time::timeout(ANSWER_MAX, self.daemon.command(command, caller)).await.map_err(|_| late())??;
        let accepted = serde_json::json!({"accepted": true});
        Ok((StatusCode::ACCEPTED, json(&accepted)).into_response())
    }

    /// The name of a group that is here, from the path; `.default` may be left out.
    fn group(&self, name: &str) -> Result<GroupName, ApiError> {
        self.group_in_status(name).map(|(_, name)| name)
    }

    /// The same, with the one snapshot in which it is.
    fn group_in_status(&self, name: &str) -> Result<(Arc<wire::Status>, GroupName), ApiError> {
        let name: GroupName = name
            .parse()
            .map_err(|error: crate::model::InvalidName| ApiError::new(Failure::NotFound, "GroupNotHere", error.to_string()))?;
        let status = self.daemon.status();
        if status.group(&name).is_some() {
            return Ok((status, name));
        }
        let wanted = name.to_string();
        let near = status.groups.iter().map(|group| group.name.to_string());
        let near = near.max_by(|a, b| strsim::jaro(a, &wanted).total_cmp(&strsim::jaro(b, &wanted)));
        let hint = match near.filter(|near| strsim::jaro(near, &wanted) > 0.8) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("{} groups are here; `tagfall status` lists them", status.groups.len()),
        };
        Err(ApiError::new(Failure::NotFound, "GroupNotHere", format!("group `{name}` is not on this supervisor: {hint}")))
    }

    fn place(&self) -> Result<tokio::sync::OwnedSemaphorePermit, ApiError> {
        let words = || format!("{FOLLOWERS_MAX} readers follow events or logs already: try again when one has gone");
        let busy = |_| ApiError::new(Failure::Unavailable, "TooManyFollowers", words());
        self.places.clone().try_acquire_owned().map_err(busy)
    }
}

fn late() -> ApiError {
    let words = format!("the supervisor gave no answer within {} s; nothing is known of the outcome", ANSWER_MAX.as_secs());
    ApiError::new(Failure::Late, "NoAnswerInTime", words)
}

fn json<T: Serialize>(value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            ([(header::CONTENT_TYPE, "application/json")], bytes).into_response()
        }
        Err(error) => ApiError::new(Failure::Internal, "NotWritable", error.to_string()).into_response(),
    }
}

/// A name as the wire writes it.
pub(super) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(error) => error.to_string(),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = wire::ErrorBody { error: wire::ErrorDetail { reason: self.reason, message: self.message } };
        let mut response = (self.failure.status(), json(&body)).into_response();
        if self.failure == Failure::Unauthorized {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

type Reply = Result<Response, ApiError>;
type Given<T> = Result<Params<T>, QueryRejection>;

fn given<T>(params: Given<T>) -> Result<T, ApiError> {
    let invalid = |error: QueryRejection| ApiError::new(Failure::Invalid, "InvalidParameter", error.body_text());
    params.map(|Params(inner)| inner).map_err(invalid)
}

async fn readyz<D: Daemon>(State(here): State<Here<D>>) -> Response {
    let status = here.daemon.status();
    match status.condition(ConditionKind::Ready) {
        Some(ready) if ready.status == Truth::True => "ok\n".into_response(),
        Some(ready) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}: {}\n", word(&ready.reason), ready.message)).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "not known yet\n").into_response(),
    }
}

async fn metrics_text<D: Daemon>(State(here): State<Here<D>>) -> Response {
    let text = metrics::text(&here.daemon.status(), here.daemon.last_event());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn group<D: Daemon>(State(here): State<Here<D>>, Path(name): Path<String>) -> Reply {
    let (status, name) = here.group_in_status(&name)?;
    Ok(json(&status.group(&name)))
}

async fn health<D: Daemon>(State(here): State<Here<D>>, Path(name): Path<String>) -> Reply {
    let (status, name) = here.group_in_status(&name)?;
    let health = status.group(&name).map(|group| &group.health);
    let code = match health.map(|health| health.status) {
        Some(HealthStatus::Ok | HealthStatus::Warning) => StatusCode::OK,
        Some(HealthStatus::Critical) => StatusCode::SERVICE_UNAVAILABLE,
        Some(HealthStatus::Unknown) | None => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Ok((code, json(&health)).into_response())
}

async fn config<D: Daemon>(State(here): State<Here<D>>, Path(name): Path<String>) -> Reply {
    here.ask(Query::Config(here.group(&name)?)).await
}

async fn why<D: Daemon>(State(here): State<Here<D>>, Path(name): Path<String>) -> Reply {
    here.ask(Query::Why(here.group(&name)?)).await
}

async fn release<D: Daemon>(State(here): State<Here<D>>, Path(tag): Path<String>) -> Reply {
    let Answer::Releases(releases) = here.answer(Query::Releases).await? else {
        return Err(ApiError::new(Failure::Internal, "WrongAnswer", "the daemon answered another question"));
    };
    match releases.iter().find(|release| release.tag.as_str() == tag) {
        Some(release) => Ok(json(release)),
        None => Err(ApiError::new(Failure::NotFound, "TagNotKnown", format!("tag `{tag}` is not known to this supervisor"))),
    }
}

async fn verify<D: Daemon>(State(here): State<Here<D>>, Path(tag): Path<String>) -> Reply {
    here.ask(Query::Verify(TagName::new(tag))).await
}

async fn word_on_release<D: Daemon>(
    State(here): State<Here<D>>,
    Extension(caller): Extension<Caller>,
    Path((tag, verb)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Reply {
    let verbs = [ReleaseVerb::Pin, ReleaseVerb::Unpin, ReleaseVerb::Reject, ReleaseVerb::Accept];
    let Some(verb) = verbs.into_iter().find(|known| known.name() == verb) else {
        let words = format!("`{verb}` is not `pin`, `unpin`, `reject` or `accept`");
        return Err(ApiError::new(Failure::NotFound, "NoSuchPath", words));
    };
    let request: wire::ReleaseRequest = given_body(body)?;
    let command = Command::Release { tag: TagName::new(tag), verb, reason: request.reason, until: request.until };
    here.command(command, caller).await
}

/// A body that may be left out.
fn given_body<T: Default + serde::de::DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, ApiError> {
    let body = body.map_err(|_| {
        ApiError::new(Failure::TooLarge, "BodyTooLarge", format!("the request's body exceeds {BODY_MAX_BYTES} bytes"))
    })?;
    match body.trim_ascii() {
        [] => Ok(T::default()),
        text => serde_json::from_slice(text).map_err(|error| {
            ApiError::new(Failure::Invalid, "InvalidBody", format!("the body is not what is asked for here: {error}"))
        }),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanParams {
    tag: Option<TagName>,
}

async fn plan<D: Daemon>(State(here): State<Here<D>>, params: Given<PlanParams>) -> Reply {
    here.ask(Query::Plan(given(params)?.tag)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiffParams {
    from: TagName,
    to: Option<TagName>,
}

async fn diff<D: Daemon>(State(here): State<Here<D>>, params: Given<DiffParams>) -> Reply {
    let DiffParams { from, to } = given(params)?;
    here.ask(Query::Diff { from, to }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TraceParams {
    path: String,
}

async fn trace<D: Daemon>(State(here): State<Here<D>>, params: Given<TraceParams>) -> Reply {
    here.ask(Query::Trace(given(params)?.path)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventParams {
    since: Option<String>,
    #[serde(default = "yes")]
    follow: bool,
}

fn yes() -> bool {
    true
}

async fn events<D: Daemon>(State(here): State<Here<D>>, params: Given<EventParams>, headers: HeaderMap) -> Reply {
    let EventParams { since, follow: stay } = given(params)?;
    // A browser that reconnects repeats its first URL, so the header counts for more.
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let since = match last.or(since).as_deref() {
        None => 0,
        Some("latest") => here.daemon.last_event(),
        Some(id) => id.parse().map_err(|_| {
            ApiError::new(Failure::Invalid, "InvalidParameter", format!("`{id}` is not an event's id, nor `latest`"))
        })?,
    };
    if !stay {
        return Ok(json(&here.daemon.events_since(since)));
    }
    Ok(follow(here.daemon.clone(), since, here.place()?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogParams {
    lines: Option<usize>,
    since: Option<Timestamp>,
    grep: Option<String>,
    #[serde(default)]
    follow: bool,
}

async fn logs<D: Daemon>(State(here): State<Here<D>>, Path(name): Path<String>, params: Given<LogParams>) -> Reply {
    let LogParams { lines, since, grep, follow } = given(params)?;
    let lines = lines.or_else(|| since.is_none().then_some(LOG_LINES));
    let query = LogQuery { group: here.group(&name)?, lines, since, grep, follow };
    let place = here.place()?;
    let receiver = tokio::time::timeout(ANSWER_MAX, here.daemon.logs(query)).await.map_err(|_| late())??;
    let lines = stream::unfold((receiver, place), async |(mut receiver, place)| {
        let line = receiver.recv().await?;
        let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
        bytes.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(bytes)), (receiver, place)))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

async fn service<D: Daemon>(
    State(here): State<Here<D>>,
    Extension(caller): Extension<Caller>,
    Path((name, verb)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Reply {
    let verb = match verb.as_str() {
        "start" => ServiceVerb::Start,
        "stop" => ServiceVerb::Stop,
        "restart" => ServiceVerb::Restart,
        other => {
            let words = format!("`{other}` is not `start`, `stop` or `restart`");
            return Err(ApiError::new(Failure::NotFound, "NoSuchPath", words));
        }
    };
    let request: wire::ServiceRequest = given_body(body)?;
    let group = here.group(&name)?;
    here.command(Command::Service { group, verb, reason: request.reason, until: request.until }, caller).await
}

async fn poll<D: Daemon>(State(here): State<Here<D>>, Extension(caller): Extension<Caller>) -> Reply {
    here.command(Command::Poll, caller).await
}
