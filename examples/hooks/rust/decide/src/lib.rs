//! What comes next: whether changed files need a restart, and who would lead best. Two hooks in one module, which needs no grant.

use tagfall_hooks::prelude::*;

#[derive(Deserialize)]
struct Args {
    /// Files that nginx reads only when it starts.
    #[serde(default)]
    restart_for: Vec<String>,
}

tagfall_hooks::reconfigure!(reconfigure);

fn reconfigure(call: &Call<Args>, changed: &[String]) -> Result<Outcome> {
    match changed.iter().find(|name| call.args.restart_for.contains(name)) {
        Some(name) => Ok(Outcome::restart().because(format!("`{name}` is only read at a start"))),
        None => Ok(Outcome::signal("SIGHUP")),
    }
}

tagfall_hooks::suitability!(rank);

/// The `priority` of the configuration, doubled for who leads already: leaders that change cost more than they bring.
fn rank(_: &Call) -> Result<u64> {
    let priority: u64 = config::find("/cfg/priority")?.unwrap_or(1);
    Ok(if census::me().leader { priority.saturating_mul(2) } else { priority })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_are_named_cost_a_restart() {
        let call = Call::new(Args { restart_for: vec!["modules.conf".to_owned()] });
        let changed = |name: &str| reconfigure(&call, &[name.to_owned()]).map(|outcome| outcome.action);
        assert_eq!(changed("nginx.conf"), Ok(tagfall_hooks::Action::Signal("SIGHUP".to_owned())));
        assert_eq!(changed("modules.conf"), Ok(tagfall_hooks::Action::Restart));
    }
}
