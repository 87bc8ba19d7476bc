//! The virtual repository: tags with releases, good and bad.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tagfall::model::{
    Backoff, Check, Digest, Grants, Group, GroupName, Hardening, Hook, HookKind, Limits, Mount, ObjectId, OnFailure, OnUnhealthy,
    Ready, Reason, Refusal, Release, Reload, RemoteTag, Service, ServiceKind, Signal, Strategy, TagName, Templates, Topology,
    Update,
};

use crate::random::Random;

/// One tag of the remote.
pub(crate) struct Tag {
    pub(crate) tag: RemoteTag,
    pub(crate) version: u64,
    pub(crate) content: Result<Arc<Release>, Refusal>,
}

/// The declared groups, as a person edits them between two tags.
#[derive(Clone)]
pub(crate) struct Draft {
    groups: BTreeMap<String, DraftGroup>,
}

#[derive(Clone)]
struct DraftGroup {
    config: u64,
    launch: u64,
    policy: u64,
    placed: bool,
    reload: bool,
    checked: bool,
    published: bool,
    serves: bool,
    task: bool,
    /// Which hooks it has, a bit for each.
    hooks: u64,
    leads: bool,
}

impl Draft {
    pub(crate) fn new(random: &mut Random) -> Self {
        let names = ["web", "db", "cache", "cron"];
        let count = 1 + random.below(4) as usize;
        Self { groups: names[..count].iter().map(|name| ((*name).to_owned(), DraftGroup::new(random))).collect() }
    }

    /// One edit.
    pub(crate) fn edit(&mut self, random: &mut Random) {
        let at = random.below(self.groups.len() as u64) as usize;
        let Some(group) = self.groups.values_mut().nth(at) else { return };
        match random.below(8) {
            0 | 1 => group.config += 1,
            2 => group.launch += 1,
            3 => group.policy += 1,
            4 => group.placed = !group.placed,
            5 => *group = DraftGroup::new(random),
            6 => group.hooks ^= 1 << random.below(HookKind::ALL.len() as u64),
            _ => group.published = !group.published,
        }
    }

    pub(crate) fn tag(&self, version: u64, random: &mut Random) -> Tag {
        let name = TagName::new(format!("v1.{version}.0"));
        let object = object(version, 1);
        let content = if random.chance(25) {
            Err(Refusal { reason: Reason::InvalidConfiguration, message: "broken on purpose".to_owned() })
        } else {
            let groups = self.groups.iter().map(|(name, draft)| {
                let group = draft.group(name);
                (group.name.clone(), Arc::new(group))
            });
            let groups = groups.collect();
            Ok(Arc::new(Release {
                tag: name.clone(),
                tag_object: object,
                commit: self::object(version, 2),
                signers: Vec::new(),
                groups,
            }))
        };
        Tag { tag: RemoteTag { name, object }, version, content }
    }
}

fn object(version: u64, kind: u8) -> ObjectId {
    let mut bytes = [kind; 20];
    bytes[..8].copy_from_slice(&version.to_le_bytes());
    ObjectId::from_bytes(bytes)
}

impl DraftGroup {
    fn new(random: &mut Random) -> Self {
        let serves = random.chance(85);
        Self {
            config: random.below(1000),
            launch: random.below(1000),
            policy: random.below(1000),
            placed: random.chance(85),
            reload: random.chance(50),
            checked: random.chance(60),
            published: !serves || random.chance(80),
            serves,
            task: random.chance(15),
            hooks: if random.chance(50) { random.below(1 << HookKind::ALL.len()) } else { 0 },
            leads: random.chance(20),
        }
    }

    fn group(&self, name: &str) -> Group {
        let name: GroupName = name.parse().expect("a valid name");
        let revision = Digest::of(
            format!("{name} {} {} {} {} {} {}", self.config, self.launch, self.policy, self.reload, self.published, self.hooks)
                .as_bytes(),
        );
        let mut hooks = BTreeMap::new();
        if self.checked {
            hooks.insert(HookKind::HealthCheck, check());
        }
        for (bit, kind) in HookKind::ALL.into_iter().enumerate() {
            if self.hooks & (1 << bit) != 0 && kind != HookKind::HealthCheck {
                hooks.insert(kind, check());
            }
        }
        let labels = if self.placed { BTreeMap::new() } else { BTreeMap::from([("role".to_owned(), "elsewhere".to_owned())]) };
        Group {
            revision,
            placement: labels,
            service: self.serves.then(|| self.service()),
            config: serde_json::json!({ "value": self.config }),
            config_default: serde_json::json!({}),
            config_ring: serde_json::json!({}),
            config_open: Vec::new(),
            mount: self.published.then(|| Mount { path: format!("/etc/{name}"), keep: 2 }),
            templates: Templates::Strict,
            files: Vec::new(),
            modules: Vec::new(),
            exports: BTreeMap::new(),
            binds: BTreeMap::new(),
            topology: if self.leads { Topology::Leader } else { Topology::Standalone },
            update: Update {
                strategy: Strategy::Rolling,
                max_unavailable: tagfall::model::Count::Members(1),
                canary: tagfall::model::Count::Members(1),
                min_healthy: Duration::from_secs(10),
                deadline: Duration::from_secs(300),
                on_failure: OnFailure::Rollback,
            },
            hooks,
            name,
        }
    }

    fn service(&self) -> Service {
        Service {
            exec: vec![format!("/bin/server-{}", self.launch)],
            user: None,
            env: BTreeMap::new(),
            working_dir: None,
            kind: if self.task { ServiceKind::Task } else { ServiceKind::Daemon },
            stop_signal: Signal::TERM,
            stop_timeout: Duration::from_millis(1000 + self.policy),
            reload: if self.reload { Reload::Signal(Signal::HUP) } else { Reload::Restart },
            backoff: Backoff {
                min: Duration::from_millis(100),
                max: Duration::from_secs(30),
                reset_after: Duration::from_secs(300),
            },
            limits: Limits::default(),
            ready: if self.checked { Ready::Health } else { Ready::Started },
            start_timeout: Duration::from_secs(60),
            watchdog: None,
            listen: Vec::new(),
            hardening: Hardening::Default,
            on_unhealthy: OnUnhealthy::Report,
            container: None,
            logs: tagfall::model::LogSettings::default(),
        }
    }
}

fn check() -> Hook {
    Hook {
        check: Check::Tcp { address: "127.0.0.1:1".to_owned() },
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(2),
        failures: 3,
        memory: 64 << 20,
        args: serde_json::json!({}),
        allow: Grants::default(),
        probes: tagfall::model::Probes::new(),
    }
}
