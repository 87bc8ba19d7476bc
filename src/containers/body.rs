//! What a container is made of: from a spec to the engine's JSON. Pure.

use serde_json::{Map, Value, json};

use super::labels;
use crate::model::{Digest, GroupName, Hardening, Limits, ServiceSpec};

/// Bytes of a container's name that tell two supervisors on one engine apart.
const OWNER_CHARS: usize = 12;

/// The engine keeps so much of the output itself; all of it goes to the log files as it comes.
const ENGINE_LOG: (&str, &str) = ("1m", "2");

/// Billionths of a core.
const NANO: f64 = 1e9;

/// The name of a group's container. There can be one of a name only: never two copies.
pub(super) fn name(data_dir: &str, group: &GroupName) -> String {
    let owner: String = Digest::of(data_dir.as_bytes()).to_string().chars().take(OWNER_CHARS).collect();
    format!("tagfall-{owner}-{group}")
}

/// The body of a creation; `None` where the spec is none of a container.
pub(super) fn of(spec: &ServiceSpec, data_dir: &str, incarnation: u64, restarts: u64) -> Option<Value> {
    let launch = &spec.launch;
    let container = launch.container.as_ref()?;
    let own = [format!("TAGFALL_GROUP={}", spec.group), format!("TAGFALL_RELEASE={}", spec.release)];
    let env: Vec<String> = launch.env.iter().map(|(name, value)| format!("{name}={value}")).chain(own).collect();
    let (exposed, bound) = ports(&container.ports);
    let mut host = json!({
        "RestartPolicy": { "Name": "no" },
        "PortBindings": bound,
        "LogConfig": { "Type": "json-file", "Config": { "max-size": ENGINE_LOG.0, "max-file": ENGINE_LOG.1 } },
    });
    if let (Some(view), Some(target)) = (&spec.view, &container.mount_path) {
        let source = format!("{}/files", view.source);
        host["Mounts"] = json!([{ "Type": "bind", "Source": source, "Target": target, "ReadOnly": true }]);
    }
    limit(&mut host, &launch.limits);
    harden(&mut host, launch.hardening.unwrap_or(Hardening::Default));
    let mut body = json!({
        "Image": container.image,
        "Env": env,
        "Labels": labels::of(spec, data_dir, incarnation, restarts),
        "ExposedPorts": exposed,
        "Tty": false,
        "HostConfig": host,
    });
    if !launch.argv.is_empty() {
        body["Cmd"] = json!(launch.argv);
    }
    if let Some(user) = &launch.user {
        body["User"] = json!(user);
    }
    if !launch.working_dir.is_empty() {
        body["WorkingDir"] = json!(launch.working_dir);
    }
    Some(body)
}

fn limit(host: &mut Value, limits: &Limits) {
    if let Some(bytes) = limits.memory {
        host["Memory"] = json!(bytes);
        // The same with swap: none of it.
        host["MemorySwap"] = json!(bytes);
    }
    if let Some(pids) = limits.pids {
        host["PidsLimit"] = json!(pids);
    }
    if let Some(files) = limits.open_files {
        host["Ulimits"] = json!([{ "Name": "nofile", "Soft": files, "Hard": files }]);
    }
    if let Some(cores) = limits.cpu {
        #[expect(clippy::cast_possible_truncation, reason = "at most 4096 cores")]
        let nano = (cores * NANO) as i64;
        host["NanoCpus"] = json!(nano);
    }
}

/// On top of what the engine does of itself (namespaces, its own seccomp filter and capabilities).
fn harden(host: &mut Value, hardening: Hardening) {
    match hardening {
        Hardening::None => {}
        Hardening::Default => host["SecurityOpt"] = json!(["no-new-privileges:true"]),
        Hardening::Strict => {
            host["SecurityOpt"] = json!(["no-new-privileges:true"]);
            host["CapDrop"] = json!(["ALL"]);
            host["ReadonlyRootfs"] = json!(true);
            host["Tmpfs"] = json!({ "/tmp": "" });
        }
    }
}

/// `[IP:]HOST:CONTAINER[/PROTOCOL]` each, as the engine wants it: what is exposed, and where it is bound.
fn ports(declared: &[String]) -> (Value, Value) {
    let (mut exposed, mut bound) = (Map::new(), Map::new());
    for text in declared {
        let (plain, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
        let Some((host, inner)) = plain.rsplit_once(':') else { continue };
        let (address, port) = host.rsplit_once(':').unwrap_or(("", host));
        let address = address.trim_start_matches('[').trim_end_matches(']');
        let key = format!("{inner}/{protocol}");
        exposed.insert(key.clone(), json!({}));
        let place = json!({ "HostIp": address, "HostPort": port });
        if let Value::Array(places) = bound.entry(key).or_insert_with(|| json!([])) {
            places.push(place);
        }
    }
    (Value::Object(exposed), Value::Object(bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_bound_where_they_are_declared() {
        let declared = ["8080:80", "127.0.0.1:8081:80/tcp", "[::1]:53:53/udp"].map(str::to_owned);
        let (exposed, bound) = ports(&declared);
        assert_eq!(exposed, json!({ "80/tcp": {}, "53/udp": {} }));
        let http = json!([{ "HostIp": "", "HostPort": "8080" }, { "HostIp": "127.0.0.1", "HostPort": "8081" }]);
        assert_eq!(bound, json!({ "80/tcp": http, "53/udp": [{ "HostIp": "::1", "HostPort": "53" }] }));
    }

    #[test]
    fn limits_that_are_not_set_are_not_sent() {
        let mut host = json!({});
        limit(&mut host, &Limits::default());
        assert_eq!(host, json!({}));
        limit(&mut host, &Limits { memory: Some(1 << 20), pids: Some(7), open_files: Some(64), cpu: Some(1.5) });
        assert_eq!((&host["Memory"], &host["MemorySwap"]), (&json!(1 << 20), &json!(1 << 20)));
        assert_eq!((&host["PidsLimit"], &host["NanoCpus"]), (&json!(7), &json!(1_500_000_000)));
    }

    #[test]
    fn strict_takes_more_away_than_default() {
        let of = |hardening| {
            let mut host = json!({});
            harden(&mut host, hardening);
            host
        };
        assert_eq!(of(Hardening::None), json!({}));
        assert_eq!(of(Hardening::Default)["CapDrop"], Value::Null);
        assert_eq!(of(Hardening::Strict)["CapDrop"], json!(["ALL"]));
        assert_eq!(of(Hardening::Strict)["ReadonlyRootfs"], true);
    }
}
