//! Services that say themselves when they are ready, and ones that do not come to it.

use common::{LONG, wait_for};

use crate::host::Host;

/// A service that says so by a newline, where the script says when.
fn saying(host: &Host, script: &str) -> String {
    let starts = host.path("starts");
    format!(
        "[service]\nexec = [\"/bin/sh\", \"-c\", \"echo $$ >> {}; {script}; exec sleep 1000000\"]\nready = \"fd\"\nstart_timeout = \"1s\"\n",
        starts.display()
    )
}

#[test]
fn one_that_never_says_that_it_is_ready_is_started_again_and_named_until_a_release_mends_it() {
    let mut host = Host::start();
    std::fs::remove_file(host.path("starts")).unwrap();
    host.write("v1.1.0");
    host.repo.write(crate::host::WEB, &host.group_with(&saying(&host, ":"), "v1.1.0"));
    host.repo.release("v1.1.0");
    wait_for("the start that failed", LONG, || {
        let web = host.web();
        let named = web.to_string().contains("not ready within 1s");
        if named { Ok(()) } else { Err(format!("{web:#}")) }
    });
    wait_for("another start", LONG, || if host.starts().len() >= 2 { Ok(()) } else { Err(format!("{:?}", host.starts())) });
    assert_ne!(host.web()["service"]["state"], "running");
    host.write("v1.2.0");
    host.repo.write(crate::host::WEB, &host.group_with(&saying(&host, "eval echo \\\\>\\\\&$TAGFALL_READY_FD"), "v1.2.0"));
    host.repo.release("v1.2.0");
    host.supervisor.wait_ready("v1.2.0");
    assert_eq!(host.web()["service"]["state"], "running");
    host.stop();
}
