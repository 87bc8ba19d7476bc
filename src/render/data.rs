//! Template data: what `sys`, `cfg`, `svc`, `bind`, `pkg`, `mount` and `release` are.
//!
//! Everything comes in as arguments. Until a census is handed in ([`data_in`]), a group has one member, this
//! supervisor's own, and every bind is empty: `{ first = null, leader = null, members = [] }`.
//! A new name goes into the function of its table below, and into the site's reference of template data.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::config::Config;
use crate::model::{Group, ObjectId, TagName, Topology};

/// What stands in `pkg.origin`, where Habitat has the origin of a package.
const ORIGIN: &str = "tagfall";

/// Facts of one supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// Version of the supervisor.
    pub version: String,
    /// Its stable id.
    pub member_id: String,
    /// Address that others reach it at.
    pub ip: String,
    /// Host name.
    pub hostname: String,
    /// Address of the ring's listener.
    pub gossip_ip: String,
    /// Port of the ring's listener.
    pub gossip_port: u16,
    /// Address of the API's listener.
    pub http_gateway_ip: String,
    /// Port of the API's listener.
    pub http_gateway_port: u16,
    /// Where its state lies; no slash at the end.
    pub data_dir: String,
    /// The ring's name: `svc.org`.
    pub ring: Option<String>,
    /// User that services run as where they name none.
    pub user: String,
    /// That user's group.
    pub user_group: String,
}

impl Host {
    fn sys(&self) -> Value {
        json!({
            "version": self.version,
            "member_id": self.member_id,
            "ip": self.ip,
            "hostname": self.hostname,
            "gossip_ip": self.gossip_ip,
            "gossip_port": self.gossip_port,
            "http_gateway_ip": self.http_gateway_ip,
            "http_gateway_port": self.http_gateway_port,
        })
    }
}

/// What the ring thinks of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Presence {
    /// It answers.
    #[default]
    Alive,
    /// It did not answer lately.
    Suspect,
    /// It is known to be gone.
    Confirmed,
    /// An operator sent it away for good.
    Departed,
}

/// Where a group's election stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Election {
    /// There is none: the group has no leader.
    #[default]
    None,
    /// Under way.
    Running,
    /// Too few members are there.
    NoQuorum,
    /// Decided.
    Finished,
}

/// One member of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its supervisor.
    pub host: Host,
    /// `pkg.*`: what it runs.
    pub pkg: Value,
    /// Its exports, by their names: an object.
    pub cfg: Value,
    /// What the ring thinks of it.
    pub presence: Presence,
    /// It leads the group.
    pub leader: bool,
    /// Another one leads.
    pub follower: bool,
    /// It goes first in the update that runs.
    pub update_leader: bool,
    /// It waits for its turn in that update.
    pub update_follower: bool,
    /// Its checks pass.
    pub healthy: bool,
}

impl Member {
    fn value(&self) -> Value {
        json!({
            "member_id": self.host.member_id,
            "sys": self.host.sys(),
            "ip": self.host.ip,
            "hostname": self.host.hostname,
            "pkg": self.pkg,
            "cfg": self.cfg,
            "alive": self.presence == Presence::Alive,
            "suspect": self.presence == Presence::Suspect,
            "confirmed": self.presence == Presence::Confirmed,
            "departed": self.presence == Presence::Departed,
            "leader": self.leader,
            "follower": self.follower,
            "update_leader": self.update_leader,
            "update_follower": self.update_follower,
            "healthy": self.healthy,
        })
    }
}

/// The members of a group that is bound.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BindView {
    /// In the order of their ids.
    pub members: Vec<Member>,
}

/// A group as this supervisor sees it in the ring.
#[derive(Debug, Clone, Copy)]
pub struct Census<'a> {
    /// All members, in the order of their ids.
    pub members: &'a [Member],
    /// Which of them is this supervisor's.
    pub me: usize,
    /// Where the election of a leader stands.
    pub election: Election,
    /// What is bound, by the bind's name; a declared bind that is not among them is empty.
    pub binds: &'a BTreeMap<String, BindView>,
}

/// The member that this supervisor is while it knows of no other: alive, healthy, and the leader where one is wanted.
pub fn alone(host: &Host, group: &Group, config: &Config, release: (&TagName, &ObjectId)) -> Member {
    Member {
        host: host.clone(),
        pkg: pkg(host, group, release),
        cfg: exports(group, config),
        presence: Presence::Alive,
        leader: group.topology == Topology::Leader,
        follower: false,
        update_leader: false,
        update_follower: false,
        healthy: true,
    }
}

/// The data of a group's templates where this supervisor is its only member. `release` is the first tag accepted with
/// the group's revision, and its commit.
pub fn data(host: &Host, group: &Group, config: &Config, release: (&TagName, &ObjectId)) -> Value {
    let me = [alone(host, group, config, release)];
    let election = match group.topology {
        Topology::Leader => Election::Finished,
        Topology::Standalone => Election::None,
    };
    data_in(host, group, config, release, &Census { members: &me, me: 0, election, binds: &BTreeMap::new() })
}

/// The data of a group's templates, with what the ring knows.
pub fn data_in(host: &Host, group: &Group, config: &Config, release: (&TagName, &ObjectId), census: &Census<'_>) -> Value {
    let mut mount = Map::new();
    if let Some(point) = &group.mount {
        mount.insert("path".to_owned(), json!(point.path));
    }
    json!({
        "sys": host.sys(),
        "cfg": config.values,
        "svc": svc(host, group, census),
        "bind": binds(group, census),
        "pkg": pkg(host, group, release),
        "mount": mount,
        "release": { "tag": release.0.as_str(), "commit": release.1.to_string() },
    })
}

fn svc(host: &Host, group: &Group, census: &Census<'_>) -> Value {
    let members = census.members;
    json!({
        "service": group.name.service(),
        "group": group.name.group(),
        "org": host.ring,
        "me": members.get(census.me).map(Member::value),
        "leader": leader(members).map(Member::value),
        "first": first(members).map(Member::value),
        "members": members.iter().map(Member::value).collect::<Vec<_>>(),
        "update_leader": members.iter().find(|member| member.update_leader).map(Member::value),
        "election_is_running": census.election == Election::Running,
        "election_is_no_quorum": census.election == Election::NoQuorum,
        "election_is_finished": census.election == Election::Finished,
    })
}

fn leader(members: &[Member]) -> Option<&Member> {
    members.iter().find(|member| member.leader)
}

/// The leader, else the first that is alive, else the first at all.
fn first(members: &[Member]) -> Option<&Member> {
    let alive = || members.iter().find(|member| member.presence == Presence::Alive);
    leader(members).or_else(alive).or_else(|| members.first())
}

fn binds(group: &Group, census: &Census<'_>) -> Value {
    let nobody = BindView::default();
    let view = |name: &String| {
        let members = &census.binds.get(name).unwrap_or(&nobody).members;
        json!({
            "first": first(members).map(Member::value),
            "leader": leader(members).map(Member::value),
            "members": members.iter().map(Member::value).collect::<Vec<_>>(),
        })
    };
    group.binds.keys().map(|name| (name.clone(), view(name))).collect::<Map<_, _>>().into()
}

/// What Habitat tells of a package, told of a group: the tag is its version, the commit its release.
fn pkg(host: &Host, group: &Group, release: (&TagName, &ObjectId)) -> Value {
    let (tag, commit) = (release.0.as_str(), release.1.short());
    let name = group.name.service();
    let var = format!("{}/var/{}", host.data_dir, group.name);
    let config = group.mount.as_ref().map_or_else(|| format!("{var}/config"), |mount| mount.path.clone());
    let user = group.service.as_ref().and_then(|service| service.user.clone());
    let user_group = user.clone().unwrap_or_else(|| host.user_group.clone());
    json!({
        "ident": format!("{ORIGIN}/{name}/{tag}/{commit}"),
        "origin": ORIGIN,
        "name": name,
        "version": tag,
        "release": commit,
        "path": config,
        "svc_path": var,
        "svc_config_path": config,
        "svc_data_path": var,
        "svc_var_path": var,
        "svc_files_path": format!("{var}/files"),
        "svc_static_path": format!("{var}/static"),
        "svc_pid_file": format!("{var}/PID"),
        "svc_run": format!("{var}/run"),
        "svc_user": user.unwrap_or_else(|| host.user.clone()),
        "svc_group": user_group,
    })
}

/// The exported values, by the names that consumers use; one that is not set is not exported.
fn exports(group: &Group, config: &Config) -> Value {
    let find = |path: &str| path.split('.').try_fold(&config.values, |value, name| value.get(name)).cloned();
    let exported = group.exports.iter().filter_map(|(name, path)| Some((name.clone(), find(path)?)));
    exported.collect::<Map<_, _>>().into()
}
