//! `plan` over ten thousand groups: all of them pending, and all of them as they should be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tagfall::model::{
    CheckResult, Digest, HealthStatus, MemberId, Moment, MountMode, Now, ObjectId, PublicationId, Release, RemoteTag,
    ServiceReport, ServiceSpec, ServiceState, TagName, Timestamp, TreeFile,
};
use tagfall::plan::{Action, Core, Event, Host, Outcome, Overview, Plan, Prepared, Remembered, Wanted, explain};
use tagfall::release::Selection;

use crate::Failure;
use crate::clock::{ms_between, spent_ns};
use crate::table::{Row, Sample};

const GROUPS: usize = 10_000;
const ROUNDS: usize = 200;
const WANTED_MS: f64 = 20.0;
const TURNS_MAX: usize = 50;
const AT: Now = Now { moment: Moment(1_000_000), wall: Timestamp(1_000_000) };

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let release = release()?;
    let mut core = Core::new(host(), Remembered::default());
    core.observe(Event::KeeperReady, AT);
    let (mut pending, mut told) = (None, None);
    let mut turns = 0;
    loop {
        let plan = core.plan(AT);
        if plan.is_converged() && plan.actions.is_empty() {
            break;
        }
        if pending.is_none() && core.desired().groups.len() == GROUPS {
            pending = Some(time(&core));
            told = Some(time_words(&core, &plan));
        }
        turns += 1;
        if turns > TURNS_MAX {
            return Err(format!("not converged after {TURNS_MAX} turns: {:?}", plan.groups.iter().next()).into());
        }
        carry_out(&mut core, plan, &release);
    }
    let (converged, told_converged) = (time(&core), time_words(&core, &core.plan(AT)));
    let (pending, told) = (pending.ok_or("never pending")?, told.ok_or("never pending")?);
    let row = |what: &str, sample: &Sample| {
        Row::new(
            format!("plan, {GROUPS} groups, {what}, processor time"),
            "<= 20 ms",
            sample.words("ms"),
            sample.percentile(99) <= WANTED_MS,
        )
    };
    Ok(vec![
        row("all converged", &converged),
        row("all pending", &pending),
        Row::told("status words beside it, all converged", told_converged.words("ms")),
        Row::told("status words beside it, all pending", told.words("ms")),
    ])
}

fn time(core: &Core) -> Sample {
    let once = |_| {
        let begun = spent_ns();
        let plan = core.plan(AT);
        let end = spent_ns();
        drop(plan);
        ms_between(begun, end)
    };
    Sample::new((0..ROUNDS).map(once).collect())
}

fn time_words(core: &Core, plan: &Plan) -> Sample {
    let before = Overview::default();
    let once = |_| {
        let begun = spent_ns();
        let overview = explain(core, plan, &before, false, AT);
        let end = spent_ns();
        drop(overview);
        ms_between(begun, end)
    };
    Sample::new((0..ROUNDS / 10).map(once).collect())
}

fn host() -> Host {
    Host {
        member_id: MemberId::new("bench"),
        labels: BTreeMap::from([("role".to_owned(), "web".to_owned())]),
        data_dir: "/data".to_owned(),
        facts: Digest::of(b"facts"),
        selection: Selection { prefix: "v".to_owned(), range: None, prerelease: false },
        logs: tagfall::model::LogPolicy::default(),
        poll: Duration::from_secs(30),
    }
}

fn release() -> Result<Arc<Release>, Failure> {
    let file = |number: usize| {
        let text = format!(
            "format = 1\n[placement]\nlabels = {{ role = \"web\" }}\n[service]\nexec = [\"/bin/server\"]\n\
             reload_signal = \"SIGHUP\"\n[config]\nport = {number}\n[mount]\npath = \"/etc/bench/web{number}\"\n\
             [hooks.health-check]\nmodule = \"builtin:tcp\"\ninterval = \"10s\"\nargs = {{ address = \"127.0.0.1:1\" }}\n"
        );
        let content: Arc<[u8]> = Arc::from(text.into_bytes());
        let path = format!("groups/web{number}/group.toml");
        TreeFile { path, blob: object(3), executable: false, size: content.len() as u64, content: Some(content) }
    };
    let files: Vec<TreeFile> = (0..GROUPS).map(file).collect();
    let parsed = tagfall::manifest::parse_release(&files, None).map_err(|found| format!("{:?}", found.first()))?;
    let tag = TagName::new("v1.0.0");
    Ok(Arc::new(Release { tag, tag_object: object(1), commit: object(2), signers: Vec::new(), groups: parsed.groups }))
}

fn object(kind: u8) -> ObjectId {
    ObjectId::from_bytes([kind; 20])
}

/// A world in which everything works at once.
fn carry_out(core: &mut Core, plan: Plan, release: &Arc<Release>) {
    for (key, action) in plan.actions {
        let attempt = core.begin(&key, &action);
        let (outcome, report) = answer(action, release);
        if let Some(report) = report {
            core.observe(Event::Service(Box::new(report)), AT);
        }
        core.observe(Event::Done { key, attempt, outcome }, AT);
    }
}

fn answer(action: Action, release: &Arc<Release>) -> (Outcome, Option<ServiceReport>) {
    let outcome = match action {
        Action::List => Outcome::Listed(Ok(vec![RemoteTag { name: release.tag.clone(), object: release.tag_object }])),
        Action::Examine { tag } => Outcome::Examined { tag, result: Ok(release.clone()) },
        Action::Accept { release, first_tags } => Outcome::Accepted { release, first_tags },
        Action::MarkApplied { tag, .. } => Outcome::Applied { tag },
        Action::Stage { wanted, .. } => {
            let (inputs, first) = (wanted.inputs, wanted.first.clone());
            Outcome::Staged { inputs, first, result: Ok(Box::new(prepared(&wanted))) }
        }
        Action::Switch { publication, mount_path, .. } => Outcome::Switched { publication, mount_path },
        Action::Verify { publication, .. } => Outcome::Verified { publication, drifted: Vec::new() },
        Action::Prune { in_use, .. } => Outcome::Pruned(in_use),
        Action::Withdraw { .. } => Outcome::Withdrawn,
        Action::Check { incarnation, .. } => Outcome::Checked { incarnation, result: CheckResult::new(HealthStatus::Ok, "fine") },
        Action::Run { spec, .. } => return (Outcome::Asked, Some(running(&spec))),
        Action::Amend { .. }
        | Action::Reload { .. }
        | Action::MarkReady { .. }
        | Action::Stop { .. }
        | Action::Call(_)
        | Action::Owe { .. }
        | Action::Signal { .. }
        | Action::Restart { .. }
        | Action::Forget { .. } => Outcome::Asked,
    };
    (outcome, None)
}

fn prepared(wanted: &Wanted) -> Prepared {
    let publication = PublicationId { content: Digest::of(wanted.group.name.to_string().as_bytes()), copy: 0 };
    Prepared {
        publication: wanted.group.mount.as_ref().map(|_| publication),
        launch: wanted.group.service.as_ref().map(|service| tagfall::model::Launch {
            argv: service.exec.clone(),
            working_dir: "/var".to_owned(),
            ..tagfall::model::Launch::default()
        }),
        check: wanted.group.hooks.values().next().map(|hook| hook.check.clone()),
        hooks: std::collections::BTreeMap::new(),
        copies: vec![publication],
        notices: Vec::new(),
    }
}

fn running(spec: &ServiceSpec) -> ServiceReport {
    ServiceReport {
        group: spec.group.clone(),
        state: ServiceState::Running,
        pid: Some(4242),
        incarnation: 1,
        restarts: 0,
        since: AT.wall,
        next_try: None,
        launch: spec.launch.digest(),
        policy: spec.policy.clone(),
        revision: spec.revision,
        publication: spec.view.as_ref().map(|view| view.publication),
        mount_mode: MountMode::Namespace,
        last_exit: None,
        message: String::new(),
        start_extended: None,
        logs: tagfall::model::LogLosses::default(),
    }
}
