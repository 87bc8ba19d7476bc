//! What people ask for and write beside Git, over the supervisor's death.

use common::{LONG, SHORT, Supervisor, holds_for, wait_for, wait_until};

use crate::host::{Host, QUIET, WEB, is_alive, supervisor_pid};

impl Host {
    /// Kills the supervisor and waits for the next one.
    fn kill_supervisor(&self) {
        let old = self.supervisor_pid();
        Supervisor::signal(old, "KILL");
        wait_for("the next supervisor answers", LONG, || {
            let pid = supervisor_pid(&self.supervisor.status()?)?;
            if pid == old { Err("still the old one".to_owned()) } else { Ok(()) }
        });
    }

    fn state(&self) -> String {
        crate::host::text(&self.web()["service"]["state"])
    }
}

#[test]
fn a_stop_is_remembered_over_a_killed_supervisor() {
    let host = Host::start();
    let pid = host.pid();
    let said = host.supervisor.client(&["service", "stop", "web", "--reason", "maintenance"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    wait_until("it is stopped", LONG, || !is_alive(pid));
    host.kill_supervisor();
    let message = host.said("StoppedByOperator");
    assert!(message.contains("maintenance"), "{message}");
    holds_for("it stays stopped", QUIET, || host.starts().len() == 1);
    assert_eq!(host.state(), "stopped");

    let said = host.supervisor.client(&["service", "start", "web"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    host.wait_applied("v1.0.0", 2);
    assert_eq!(host.state(), "running");
}

#[test]
fn a_layer_of_the_users_is_applied_and_a_broken_one_is_named_and_left_out() {
    let host = Host::start();
    let pid = host.pid();
    let layer = host.path("data/user/web.default.toml");
    let shows = |wanted: &str| {
        wait_for(&format!("`{wanted}` is published"), LONG, || {
            let [now, _] = host.files();
            if now == format!("version = {wanted}\n") { Ok(()) } else { Err(format!("{now}\n{}", host.supervisor.log())) }
        });
    };
    std::fs::write(&layer, "version = \"mine\"\n").unwrap();
    shows("mine");
    wait_until("the service was told", SHORT, || host.told() == "version = mine");

    std::fs::write(&layer, "version = [\n").unwrap();
    shows("v1.0.0");
    let notices = wait_for("the broken layer is named", SHORT, || {
        let notices = host.web()["notices"].to_string();
        if notices.contains("web.default.toml") { Ok(notices) } else { Err(notices) }
    });
    assert!(notices.contains("left out"), "{notices}");

    // A key that the release does not have, and one of another type: the rest of the layer counts.
    std::fs::write(&layer, "nothing = 1\n").unwrap();
    wait_for("the unknown key is named", SHORT, || {
        let notices = host.web()["notices"].to_string();
        if notices.contains("nothing") { Ok(()) } else { Err(notices) }
    });
    host.kill_supervisor();
    host.supervisor.wait_ready("v1.0.0");
    assert!(host.web()["notices"].to_string().contains("nothing"), "a new supervisor reads the layer again");
    std::fs::write(&layer, "version = \"again\"\n").unwrap();
    shows("again");
    host.kill_supervisor();
    host.supervisor.wait_ready("v1.0.0");
    shows("again");
    std::fs::remove_file(&layer).unwrap();
    shows("v1.0.0");
    assert_eq!((host.pid(), host.starts().len()), (pid, 1), "files are told, nothing is restarted");
}

#[test]
fn a_layer_that_stands_before_the_first_release_belongs_to_its_first_trial() {
    let mut host = Host::bare(|settings| settings);
    wait_until("there is a place for layers", LONG, || host.path("data/user").is_dir());
    // While nobody watches.
    host.stop();
    std::fs::write(host.path("data/user/web.default.toml"), "[free]\nword = \"mine\"\n").unwrap();
    host.start_again();
    host.write("v1.0.0");
    let group = host.group("v1.0.0").replacen("[placement]", "config_open = [\"free\"]\n[placement]", 1);
    host.repo.write(WEB, &group.replacen("[config]\n", "[config]\nfree = {}\n", 1));
    host.repo.write("groups/web/config/c.conf.hbs", "{{cfg.free.word}}\n");
    host.repo.release("v1.0.0");
    host.supervisor.wait_ready("v1.0.0");
    assert_eq!(std::fs::read_to_string(host.mount().join("c.conf")).unwrap(), "mine\n");
    assert_eq!(host.events("InvalidConfiguration").unwrap(), Vec::<String>::new(), "{}", host.supervisor.log());
}

#[test]
fn an_accepted_release_that_settings_no_longer_allow_runs_on_and_is_named() {
    let mut host = Host::start();
    let allowed = host.settings.clone();
    host.stop();
    host.settings = allowed.replacen("poll = \"1s\"", "poll = \"1s\"\nlimits = { objects = 2 }", 1);
    host.start_again();
    let message = host.said("LimitExceeded");
    assert!(message.contains("v1.0.0"), "{message}");
    // It asks nobody all the time: a lasting refusal costs nothing.
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", host.supervisor_pid())).unwrap();
        let fields: Vec<u64> = stat.rsplit(')').next().unwrap().split(' ').filter_map(|word| word.parse().ok()).collect();
        fields[10] + fields[11]
    };
    let before = ticks();
    holds_for("it is up", QUIET, || host.supervisor.status().is_ok());
    let used = ticks() - before;
    assert!(used < 30, "{used} ticks of the processor in {QUIET:?}");
    host.stop();
    host.settings = allowed;
    host.start_again();
    host.repo.write(WEB, &host.group("v1.0.0"));
    host.wait_applied("v1.0.0", 2);
}
