//! User stories as scripts: what is learned goes in, what is asked for and waited for comes out, line by line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tagfall::manifest::parse_release;
use tagfall::model::*;
use tagfall::plan::*;
use tagfall::release::Selection;

const SECOND: u64 = 1000;

/// A supervisor in the hand of a test: answers are given by the script, nothing is carried out.
struct Story {
    core: Core,
    now_ms: u64,
    open: Vec<(Key, u64, Action)>,
    told: Vec<String>,
    /// What the keeper was last asked to run.
    spec: Option<ServiceSpec>,
    /// How much time the service has asked for.
    extended: Option<Duration>,
}

fn host() -> Host {
    Host {
        member_id: MemberId::new("m1"),
        labels: BTreeMap::from([("role".to_owned(), "web".to_owned())]),
        data_dir: "/data".to_owned(),
        facts: Digest::of(b"facts"),
        selection: Selection { prefix: "v".to_owned(), range: None, prerelease: false },
        poll: Duration::from_secs(30),
        logs: tagfall::model::LogPolicy::default(),
    }
}

fn group(text: &str) -> Group {
    let toml = format!("format = 1\n[placement]\nlabels = {{ role = \"web\" }}\n{text}");
    let mut files = vec![file("groups/web/group.toml", Some(&toml))];
    if text.contains("[mount]") {
        files.push(file("groups/web/config/app.conf", None));
    }
    let parsed = parse_release(&files, None).expect("a manifest without errors");
    Group::clone(parsed.groups.values().next().expect("one group"))
}

fn file(path: &str, content: Option<&str>) -> TreeFile {
    let bytes: Option<Arc<[u8]>> = content.map(|text| text.as_bytes().into());
    TreeFile { path: path.to_owned(), blob: ObjectId::from_bytes([7; 20]), executable: false, size: 1, content: bytes }
}

fn tag(version: u8) -> RemoteTag {
    RemoteTag { name: TagName::new(format!("v1.{version}.0")), object: ObjectId::from_bytes([version; 20]) }
}

fn release(version: u8, groups: &[Group]) -> Arc<Release> {
    let RemoteTag { name, object } = tag(version);
    let groups = groups.iter().map(|group| (group.name.clone(), Arc::new(group.clone()))).collect();
    Arc::new(Release {
        tag: name,
        tag_object: object,
        commit: ObjectId::from_bytes([version + 100; 20]),
        signers: Vec::new(),
        groups,
    })
}

fn web() -> GroupName {
    "web".parse().expect("a valid name")
}

fn publication(version: u8) -> PublicationId {
    PublicationId { content: Digest::from_bytes([version; 32]), copy: 0 }
}

const SERVICE: &str =
    "[service]\nexec = [\"/bin/web\"]\nreload_signal = \"SIGHUP\"\n[config]\nport = 1\n[mount]\npath = \"/etc/web\"\n";

impl Story {
    fn new() -> Self {
        Self::with(Remembered::default())
    }

    fn with(remembered: Remembered) -> Self {
        let core = Core::new(host(), remembered);
        Self { core, now_ms: 0, open: Vec::new(), told: Vec::new(), spec: None, extended: None }
    }

    fn now(&self) -> Now {
        Now { moment: Moment(self.now_ms), wall: Timestamp(self.now_ms) }
    }

    /// Plans, begins everything, and writes down what was asked for and what is waited for.
    fn turn(&mut self) -> &mut Self {
        let plan = self.core.plan(self.now());
        for (key, action) in plan.actions {
            let attempt = self.core.begin(&key, &action);
            self.told.push(format!("do {}", brief(&action)));
            if let Action::Run { spec, .. } | Action::Amend { spec } = &action {
                self.spec = Some(ServiceSpec::clone(spec));
            }
            self.open.push((key, attempt, action));
        }
        let waits = plan.waits.iter().map(|wait| format!("wait {:?}: {}", wait.reason, wait.message));
        let groups = plan
            .groups
            .iter()
            .flat_map(|(name, waits)| waits.iter().map(move |wait| format!("{name} waits {:?}: {}", wait.reason, wait.message)));
        self.told.extend(waits.chain(groups));
        self
    }

    fn event(&mut self, event: Event) -> &mut Self {
        let now = self.now();
        self.core.observe(event, now);
        self
    }

    /// Answers the action of that name.
    fn answer(&mut self, name: &str, outcome: Outcome) -> &mut Self {
        let at = self.open.iter().position(|(_, _, action)| action.name() == name);
        let at = at.unwrap_or_else(|| panic!("`{name}` was not asked for: {:#?}", self.told));
        let (key, attempt, _) = self.open.remove(at);
        self.event(Event::Done { key, attempt, outcome })
    }

    fn listed(&mut self, tags: &[RemoteTag]) -> &mut Self {
        self.answer("list", Outcome::Listed(Ok(tags.to_vec())))
    }

    fn accepted(&mut self, version: u8, group: &Group) -> &mut Self {
        let release = release(version, std::slice::from_ref(group));
        self.answer("examine", Outcome::Examined { tag: tag(version), result: Ok(release.clone()) }).turn();
        let first_tags = first_tags(&self.core.desired().first_tags, &release);
        self.answer("accept", Outcome::Accepted { release, first_tags }).turn()
    }

    fn staged(&mut self, version: u8) -> &mut Self {
        let wanted = self.core.desired().groups[&web()].clone();
        let launch = wanted.group.service.as_ref().map(|service| Launch { argv: service.exec.clone(), ..Launch::default() });
        let publication = wanted.group.mount.as_ref().map(|_| publication(version));
        let check = wanted.group.hooks.get(&HookKind::HealthCheck).map(|hook| hook.check.clone());
        let copies = publication.into_iter().collect();
        let prepared = Prepared { publication, launch, check, hooks: BTreeMap::new(), copies, notices: Vec::new() };
        self.answer(
            "stage",
            Outcome::Staged { inputs: wanted.inputs, first: wanted.first.clone(), result: Ok(Box::new(prepared)) },
        )
        .turn()
    }

    fn switched(&mut self, version: u8) -> &mut Self {
        let outcome = Outcome::Switched { publication: publication(version), mount_path: "/etc/web".to_owned() };
        self.answer("switch", outcome).turn()
    }

    /// The keeper did as it was asked and tells how the service stands.
    fn report(&mut self, state: ServiceState, incarnation: u64, sees: Option<u8>) -> &mut Self {
        let spec = self.spec.clone().expect("the keeper was asked to run it");
        let report = ServiceReport {
            group: web(),
            state,
            pid: Some(u32::try_from(incarnation).expect("a small number") + 100),
            incarnation,
            restarts: 0,
            since: Timestamp(self.now_ms),
            next_try: None,
            launch: spec.launch.digest(),
            policy: spec.policy.clone(),
            revision: spec.revision,
            publication: sees.map(publication),
            mount_mode: MountMode::Namespace,
            last_exit: None,
            message: String::new(),
            start_extended: self.extended,
            logs: tagfall::model::LogLosses::default(),
        };
        self.event(Event::Service(Box::new(report)))
    }

    /// A supervisor that has converged on `v1.1.0` of `group`.
    fn running(group: &Group) -> Self {
        let mut story = Self::new();
        story.event(Event::KeeperReady).turn().listed(&[tag(1)]).turn().accepted(1, group).staged(1).switched(1);
        story.report(ServiceState::Running, 1, Some(1)).answer("run", Outcome::Asked).turn();
        story.answer("mark-applied", Outcome::Applied { tag: tag(1) }).turn();
        story.told.clear();
        story
    }

    /// A newer tag is pushed and passes.
    fn pushed(&mut self, version: u8, group: &Group) -> &mut Self {
        self.event(Event::LookNow).turn().listed(&[tag(1), tag(version)]).turn().accepted(version, group)
    }

    /// What the status notes of the group.
    fn notices(&mut self) -> String {
        let plan = self.core.plan(self.now());
        explain(&self.core, &plan, &Overview::default(), true, self.now()).groups[&web()].notices.join(" ")
    }

    fn told(&mut self) -> String {
        std::mem::take(&mut self.told).join("\n")
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only some actions have something to tell beside their name")]
fn brief(action: &Action) -> String {
    let what = match action {
        Action::Examine { tag } | Action::MarkApplied { tag, .. } => tag.name.to_string(),
        Action::Accept { release, .. } => release.tag.to_string(),
        Action::Run { restart: true, .. } => "again".to_owned(),
        Action::Reload { signal, .. } => signal.map(|signal| signal.to_string()).unwrap_or_default(),
        Action::Stage { fresh_copy: true, .. } => "a fresh copy".to_owned(),
        _ => String::new(),
    };
    format!("{} {what}", action.name()).trim_end().to_owned()
}

#[test]
fn a_first_tag_becomes_a_running_service() {
    let mut story = Story::new();
    story.event(Event::KeeperReady).turn().listed(&[tag(1)]).turn().accepted(1, &group(SERVICE)).staged(1).switched(1);
    story.report(ServiceState::Running, 1, Some(1)).answer("run", Outcome::Asked).turn();
    story.answer("mark-applied", Outcome::Applied { tag: tag(1) }).turn();
    insta::assert_snapshot!(story.told(), @r"
    do list
    do examine v1.1.0
    wait Fetching: fetching and checking `v1.1.0`
    do accept v1.1.0
    wait Fetching: accepting `v1.1.0`
    do stage
    web.default waits Publishing: rendering its config
    do switch
    web.default waits Publishing: switching `/etc/web` to its new publication
    do run
    web.default waits Starting: being started
    do mark-applied v1.1.0
    ");
    assert!(story.core.plan(story.now()).is_converged());
}

#[test]
fn changed_files_reload_by_the_declared_signal_and_nothing_else() {
    let mut story = Story::running(&group(SERVICE));
    story.pushed(2, &group(&SERVICE.replace("port = 1", "port = 2"))).staged(2).switched(2);
    story.report(ServiceState::Running, 1, Some(2)).answer("reload", Outcome::Asked).turn();
    story.report(ServiceState::Running, 1, Some(2)).answer("amend", Outcome::Asked).turn();
    insta::assert_snapshot!(story.told(), @r"
    do list
    do examine v1.2.0
    wait Fetching: fetching and checking `v1.2.0`
    do accept v1.2.0
    wait Fetching: accepting `v1.2.0`
    do stage
    web.default waits Publishing: rendering its config
    do switch
    web.default waits Publishing: switching `/etc/web` to its new publication
    do reload SIGHUP
    web.default waits Reloading: being told of its new files
    do amend
    web.default waits Reloading: taking over what touches no process
    do mark-applied v1.2.0
    ");
}

#[test]
fn what_touches_no_process_is_taken_over_without_one() {
    let mut story = Story::running(&group(SERVICE));
    let slower = SERVICE.replace("[config]", "stop_timeout = \"9s\"\n[config]");
    story.pushed(2, &group(&slower));
    story.told.clear();
    let told = story.staged(1).told();
    assert_eq!(told, "do amend\nweb.default waits Reloading: taking over what touches no process");
}

/// What a keeper reports that does not know of rules for logs yet, whatever it was told.
fn older_report(story: &Story) -> ServiceReport {
    let report = story.core.observed().groups[&web()].service.clone();
    let (report, spec) = report.zip(story.spec.clone()).expect("it runs");
    ServiceReport { policy: spec.policy.known_by(0), revision: spec.revision, ..report }
}

#[test]
fn a_keeper_that_is_older_is_not_told_for_ever_what_it_does_not_understand() {
    let mut story = Story::running(&group(SERVICE));
    story.event(Event::KeeperSpeaks(0));
    let logged = SERVICE.replace("[config]", "logs = { format = \"json\" }\n[config]");
    story.pushed(2, &group(&logged)).staged(1).answer("amend", Outcome::Asked);
    let older = older_report(&story);
    story.told.clear();
    story.event(Event::Service(Box::new(older.clone()))).turn();
    assert!(!story.told().contains("amend"), "{}", story.told());
    assert!(story.notices().contains("SIGHUP"), "{}", story.notices());
    // Its successor understands it, has not been told so yet, and is.
    story.told.clear();
    story.event(Event::KeeperSpeaks(1)).event(Event::Service(Box::new(older))).turn();
    assert_eq!(story.told(), "do amend\nweb.default waits Reloading: taking over what touches no process");
    assert!(!story.notices().contains("SIGHUP"));
}

#[test]
fn another_command_line_replaces_the_process() {
    let mut story = Story::running(&group(SERVICE));
    story.pushed(2, &group(&SERVICE.replace("/bin/web", "/bin/web2")));
    story.told.clear();
    assert_eq!(story.staged(1).told(), "do run\nweb.default waits Starting: being started");
}

#[test]
fn a_release_that_leaves_a_revision_alone_does_not_touch_its_group() {
    let mut story = Story::running(&group(SERVICE));
    story.pushed(2, &group(SERVICE));
    let told = story.told();
    assert!(told.ends_with("wait Fetching: accepting `v1.2.0`\ndo mark-applied v1.2.0"), "{told}");
}

#[test]
fn a_group_that_is_gone_is_stopped_then_forgotten_then_taken_away() {
    let mut story = Story::running(&group(SERVICE));
    let elsewhere = group(&SERVICE.replace("[service]", "[service]\nuser = \"u\"").replace("web\" }", "db\" }"));
    let mut elsewhere = elsewhere;
    elsewhere.placement = BTreeMap::from([("role".to_owned(), "db".to_owned())]);
    story.pushed(2, &elsewhere);
    story.told.clear();
    let report = story.core.observed().groups[&web()].service.clone().unwrap();
    let stopped = ServiceReport { state: ServiceState::Stopped, pid: None, publication: None, ..report };
    story.event(Event::Service(Box::new(stopped))).answer("stop", Outcome::Asked).turn();
    story.event(Event::ServiceGone(web())).answer("forget", Outcome::Asked).turn();
    story.answer("withdraw", Outcome::Withdrawn).turn();
    insta::assert_snapshot!(story.told(), @r"
    do forget
    web.default waits Stopping: not placed here any more: stopped, to be forgotten
    do withdraw
    web.default waits Stopping: not placed here any more: its files are taken away
    do mark-applied v1.2.0
    ");
}

#[test]
fn an_occupied_mount_path_is_said_and_tried_again_later_while_the_old_process_goes_on() {
    let mut story = Story::running(&group(SERVICE));
    story.pushed(2, &group(&SERVICE.replace("port = 1", "port = 2"))).staged(2);
    story.told.clear();
    story.answer("switch", Outcome::Failed(Failure::new(Reason::MountOccupied, "`/etc/web` is a folder"))).turn();
    assert_eq!(story.told(), "web.default waits MountOccupied: `/etc/web` is a folder");
    story.now_ms += SECOND;
    assert_eq!(story.turn().told(), "do switch\nweb.default waits MountOccupied: `/etc/web` is a folder");
}

#[test]
fn a_hand_edit_is_compared_and_mended_by_a_fresh_copy() {
    let mut story = Story::running(&group(SERVICE));
    story.event(Event::DriftHint(web())).turn();
    let found = Outcome::Verified { publication: publication(1), drifted: vec!["app.conf (changed)".to_owned()] };
    story.answer("verify", found).turn();
    insta::assert_snapshot!(story.told(), @r"
    do verify
    do stage a fresh copy
    web.default waits DriftDetected: putting back 1 changed by hand, first `app.conf (changed)`
    ");
}

#[test]
fn an_operators_stop_holds_until_he_takes_it_back() {
    let mut story = Story::running(&group(SERVICE));
    let hold =
        Suspension { who: "uid 0".to_owned(), reason: "disk".to_owned(), since: Timestamp(0), until: None, revision: None };
    story.event(Event::Suspended { group: web(), suspension: Some(hold) }).turn();
    story.report(ServiceState::Stopped, 1, None).answer("stop", Outcome::Asked).turn();
    story.event(Event::Suspended { group: web(), suspension: None }).turn();
    insta::assert_snapshot!(story.told(), @r"
    do stop
    web.default waits StoppedByOperator: stopped by uid 0: disk
    web.default waits StoppedByOperator: stopped by uid 0: disk
    do run
    web.default waits Starting: being started
    ");
}

#[test]
fn a_refused_tag_is_passed_over_and_a_remote_in_trouble_takes_nothing_away() {
    let mut story = Story::running(&group(SERVICE));
    story.event(Event::LookNow).turn().listed(&[tag(1), tag(2)]).turn();
    let refusal = Refusal { reason: Reason::InvalidConfiguration, message: "unknown key".to_owned() };
    story.answer("examine", Outcome::Examined { tag: tag(2), result: Err(refusal) }).turn();
    story.event(Event::LookNow).turn();
    let trouble = Refusal { reason: Reason::GitOperationFailed, message: "it hangs".to_owned() };
    story.answer("list", Outcome::Listed(Err(trouble))).turn();
    insta::assert_snapshot!(story.told(), @r"
    do list
    do examine v1.2.0
    wait Fetching: fetching and checking `v1.2.0`
    do list
    ");
}

#[test]
fn a_tag_that_was_moved_is_never_applied() {
    let mut story = Story::running(&group(SERVICE));
    let moved = RemoteTag { object: ObjectId::from_bytes([9; 20]), ..tag(1) };
    story.event(Event::LookNow).turn().listed(std::slice::from_ref(&moved)).turn();
    assert_eq!(story.told(), "do list");
    let plan = story.core.plan(story.now());
    let refused = explain(&story.core, &plan, &Overview::default(), true, story.now()).refused;
    assert_eq!(refused.iter().map(|tag| tag.reason).collect::<Vec<_>>(), [Reason::TagMoved]);
}

#[test]
fn nothing_lower_than_what_succeeded_is_taken_when_the_top_tag_goes() {
    let mut story = Story::running(&group(SERVICE));
    let lower = RemoteTag { name: TagName::new("v1.0.0"), object: ObjectId::from_bytes([3; 20]) };
    story.event(Event::LookNow).turn().listed(&[lower]).turn();
    assert_eq!(story.told(), "do list");
    let plan = story.core.plan(story.now());
    let refused = explain(&story.core, &plan, &Overview::default(), true, story.now()).refused;
    assert_eq!(refused.iter().map(|tag| tag.reason).collect::<Vec<_>>(), [Reason::DowngradeRefused]);
}

#[test]
fn a_supervisor_that_comes_back_reads_the_accepted_release_and_restarts_nothing() {
    let accepted = Accepted { tag: tag(1), accepted_at: Timestamp(0), applied_at: Some(Timestamp(0)) };
    let disk = DiskFacts { shown: Some(publication(1)), link: Some("/etc/web".to_owned()), ..DiskFacts::default() };
    let remembered = Remembered { accepted: Some(accepted), disk: BTreeMap::from([(web(), disk)]), ..Remembered::default() };
    let mut story = Story::with(remembered);
    story.spec = Story::running(&group(SERVICE)).spec;
    story.turn();
    let release = release(1, &[group(SERVICE)]);
    story.answer("examine", Outcome::Examined { tag: tag(1), result: Ok(release) });
    story.report(ServiceState::Running, 4, Some(1)).event(Event::KeeperReady).turn().staged(1);
    insta::assert_snapshot!(story.told(), @r"
    do examine v1.1.0
    wait Fetching: reading the accepted release `v1.1.0` from the store
    do stage
    do list
    web.default waits Publishing: rendering its config
    ");
}

#[test]
fn before_a_release_is_known_nothing_is_taken_away() {
    let disk = DiskFacts { shown: Some(publication(1)), link: Some("/etc/web".to_owned()), ..DiskFacts::default() };
    let mut story = Story::with(Remembered { disk: BTreeMap::from([(web(), disk)]), ..Remembered::default() });
    story.event(Event::KeeperReady).turn().listed(&[]).turn();
    let told = story.told();
    assert!(told.starts_with("do list\nwait NoMatchingTag: the repository has no tags"), "{told}");
}

const CHECKED: &str = "[service]\nexec = [\"/bin/web\"]\n[hooks.health-check]\nmodule = \"builtin:tcp\"\ninterval = \"10s\"\ntimeout = \"1s\"\nfailures = 2\nargs = { address = \"127.0.0.1:1\" }\n";

/// A supervisor whose checked service has just started.
fn started() -> Story {
    let mut story = Story::new();
    story.event(Event::KeeperReady).turn().listed(&[tag(1)]).turn().accepted(1, &group(CHECKED)).staged(1);
    story.report(ServiceState::Starting, 1, None).answer("run", Outcome::Asked);
    story.told.clear();
    story.turn();
    story
}

fn checked(status: HealthStatus) -> Outcome {
    Outcome::Checked { incarnation: 1, result: CheckResult::new(status, "refused") }
}

#[test]
fn a_start_is_asked_soon_and_often_and_critical_answers_do_not_count_yet() {
    let mut story = started();
    for wait_ms in [50, 100, 200, 400] {
        story.answer("check", checked(HealthStatus::Critical)).turn();
        assert_eq!(story.core.observed().groups[&web()].health.criticals, 0);
        story.now_ms += wait_ms;
        story.turn();
    }
    story.answer("check", checked(HealthStatus::Ok)).turn();
    insta::assert_snapshot!(story.told(), @r"
    do check
    web.default waits Starting: started, not ready yet
    web.default waits Starting: started, not ready yet: refused
    do check
    web.default waits Starting: started, not ready yet: refused
    web.default waits Starting: started, not ready yet: refused
    do check
    web.default waits Starting: started, not ready yet: refused
    web.default waits Starting: started, not ready yet: refused
    do check
    web.default waits Starting: started, not ready yet: refused
    web.default waits Starting: started, not ready yet: refused
    do check
    web.default waits Starting: started, not ready yet: refused
    do mark-ready
    web.default waits Starting: started, not ready yet: refused
    ");
}

#[test]
fn a_pause_leads_to_one_check_and_failures_in_a_row_make_it_unhealthy() {
    let mut story = started();
    story.answer("check", checked(HealthStatus::Ok)).turn();
    story.report(ServiceState::Running, 1, None).answer("mark-ready", Outcome::Asked).turn();
    story.told.clear();
    story.now_ms += 3600 * SECOND;
    let told = story.turn().told();
    assert_eq!(told.matches("do check").count(), 1, "{told}");
    story.answer("check", checked(HealthStatus::Critical)).turn();
    story.now_ms += 10 * SECOND;
    story.turn().answer("check", checked(HealthStatus::Critical)).told.clear();
    assert_eq!(story.turn().told(), "web.default waits HealthCritical: 2 critical answers in a row: refused");
}

#[test]
fn one_that_asks_for_more_time_is_waited_for_so_long_and_no_longer() {
    let mut story = Story::new();
    let text = SERVICE.replace("[config]", "ready = \"notify\"\n[config]");
    story.event(Event::KeeperReady).turn().listed(&[tag(1)]).turn().accepted(1, &group(&text)).staged(1).switched(1);
    story.report(ServiceState::Starting, 1, Some(1)).answer("run", Outcome::Asked).turn();
    story.extended = Some(Duration::from_secs(90));
    story.report(ServiceState::Starting, 1, Some(1)).told();
    story.now_ms += 61_000;
    assert!(story.turn().told().contains("waits Starting: started, not ready yet"));
    story.now_ms += 30_000;
    let told = story.turn().told();
    assert!(told.contains("waits StartFailed: not ready within 1m 30s, started again") && told.contains("do run"), "{told}");
}
