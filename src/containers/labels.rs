//! What a container says of itself to a supervisor that did not start it.

use std::time::Duration;

use serde_json::{Map, Value};

use super::engine::Container;
use crate::keeper::state::{Found, Resumed};
use crate::model::{
    Backoff, Digest, Exit, GroupName, Launch, LogPolicy, Policy, PublicationId, Ready, ServiceKind, ServiceSpec, Signal,
};

/// Whose it is: the group.
pub(super) const GROUP: &str = "tagfall.group";
/// Whose it is: the supervisor.
pub(super) const DATA_DIR: &str = "tagfall.data-dir";
const LAUNCH: &str = "tagfall.launch";
const REVISION: &str = "tagfall.revision";
const RELEASE: &str = "tagfall.release";
const PUBLICATION: &str = "tagfall.publication";
const INCARNATION: &str = "tagfall.incarnation";
const RESTARTS: &str = "tagfall.restarts";
const KIND: &str = "tagfall.kind";
const READY: &str = "tagfall.ready";
const STARTS: &str = "tagfall.starts";
/// Value of [`STARTS`]: hooks come before each start.
const ASKED: &str = "when-asked";

/// Of a container that is taken up again, until the plan hands in its policy: what is stopped meanwhile has so long.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Exit code by which a service says that it must not be restarted.
const EXIT_FOR_GOOD: i32 = 125;

/// A label's value.
pub(super) fn get<'a>(labels: &'a Value, name: &str) -> Option<&'a str> {
    labels.get(name)?.as_str()
}

/// The labels of a container that is about to be made.
pub(super) fn of(spec: &ServiceSpec, data_dir: &str, incarnation: u64, restarts: u64) -> Value {
    let mut labels = Map::new();
    let mut label = |name: &str, value: String| drop(labels.insert(name.to_owned(), Value::String(value)));
    label(GROUP, spec.group.to_string());
    label(DATA_DIR, data_dir.to_owned());
    label(LAUNCH, spec.launch.digest().to_string());
    label(REVISION, spec.revision.to_string());
    label(RELEASE, spec.release.clone());
    if let Some(view) = &spec.view {
        label(PUBLICATION, view.publication.to_string());
    }
    label(INCARNATION, incarnation.to_string());
    label(RESTARTS, restarts.to_string());
    let kind = if spec.policy.kind == ServiceKind::Task { "task" } else { "daemon" };
    label(KIND, kind.to_owned());
    let ready = if spec.policy.ready_when_started { "started" } else { "health" };
    label(READY, ready.to_owned());
    if spec.policy.starts_when_asked {
        label(STARTS, ASKED.to_owned());
    }
    Value::Object(labels)
}

/// What can be known of a container by its labels; `None` where it is not one of ours. Launch and delays are not among it: the
/// plan hands them in before anything is started.
pub(super) fn resumed(container: &Container) -> Option<(GroupName, Resumed)> {
    let group: GroupName = container.label(GROUP)?.parse().ok()?;
    let launch: Digest = container.label(LAUNCH)?.parse().ok()?;
    let revision: Digest = container.label(REVISION)?.parse().ok()?;
    let number = |name: &str| container.label(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    let is_task = container.label(KIND) == Some("task");
    let ready = container.label(READY) == Some("started");
    let second = Duration::from_secs(1);
    let policy = Policy {
        kind: if is_task { ServiceKind::Task } else { ServiceKind::Daemon },
        stop_signal: Signal::TERM,
        stop_timeout: STOP_TIMEOUT,
        backoff: Backoff { min: second, max: second, reset_after: second },
        ready_when_started: ready,
        ready: if ready { Ready::Started } else { Ready::Health },
        watchdog: None,
        logs: LogPolicy::default(),
        starts_when_asked: container.label(STARTS) == Some(ASKED),
    };
    let release = container.label(RELEASE).unwrap_or("").to_owned();
    let exit = Exit::Code(container.exit_code);
    let found = match container.exit_code {
        _ if container.running => Found::Up { pid: container.pid, ready },
        EXIT_FOR_GOOD => Found::Failed(exit),
        0 if is_task => Found::Done(exit),
        _ => Found::Ended(exit),
    };
    let spec = ServiceSpec { group: group.clone(), revision, release, launch: Launch::default(), policy, view: None };
    let publication = container.label(PUBLICATION).and_then(|text| text.parse::<PublicationId>().ok());
    let (incarnation, restarts) = (number(INCARNATION), number(RESTARTS));
    Some((group, Resumed { spec, launch, publication, incarnation, restarts, found }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::View;

    fn spec(kind: ServiceKind) -> ServiceSpec {
        let publication = PublicationId { content: Digest::of(b"files"), copy: 2 };
        let second = Duration::from_secs(1);
        ServiceSpec {
            group: "web".parse().unwrap(),
            revision: Digest::of(b"revision"),
            release: "v1.2.3".to_owned(),
            launch: Launch { argv: vec!["a".to_owned()], ..Launch::default() },
            policy: Policy {
                kind,
                stop_signal: Signal::HUP,
                stop_timeout: second,
                backoff: Backoff { min: second, max: second, reset_after: second },
                ready_when_started: false,
                ready: Ready::Started,
                watchdog: None,
                logs: LogPolicy::default(),
                starts_when_asked: false,
            },
            view: Some(View { publication, source: String::new(), point: String::new() }),
        }
    }

    fn container(kind: ServiceKind, running: bool, exit_code: i32) -> Container {
        Container { id: "id".to_owned(), running, pid: Some(7), exit_code, labels: of(&spec(kind), "/data", 5, 3) }
    }

    #[test]
    fn what_a_container_says_of_itself_is_understood_again() {
        let written = spec(ServiceKind::Daemon);
        let (group, resumed) = super::resumed(&container(ServiceKind::Daemon, true, 0)).unwrap();
        assert_eq!((group, resumed.launch), (written.group, written.launch.digest()));
        assert_eq!((resumed.spec.revision, resumed.spec.release), (written.revision, written.release));
        assert_eq!((resumed.incarnation, resumed.restarts), (5, 3));
        assert_eq!(resumed.publication, written.view.map(|view| view.publication));
        assert_eq!(resumed.found, Found::Up { pid: Some(7), ready: false });
    }

    #[test]
    fn how_it_ended_decides_what_it_is() {
        let found = |kind, code| super::resumed(&container(kind, false, code)).unwrap().1.found;
        assert_eq!(found(ServiceKind::Task, 0), Found::Done(Exit::Code(0)));
        assert_eq!(found(ServiceKind::Daemon, 0), Found::Ended(Exit::Code(0)));
        assert_eq!(found(ServiceKind::Task, 125), Found::Failed(Exit::Code(125)));
        assert_eq!(found(ServiceKind::Daemon, 137), Found::Ended(Exit::Code(137)));
    }

    #[test]
    fn containers_of_others_are_left_alone() {
        let mut other = container(ServiceKind::Daemon, true, 0);
        other.labels = serde_json::json!({ "tagfall.group": "web.default", "tagfall.launch": "rubbish" });
        assert!(super::resumed(&other).is_none());
    }
}
