//! Other supervisors with the same program, each in a folder of its own: s6, runit, supervisord, where they are installed.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Failure;
use crate::program::Ear;
use crate::stage::me;

/// One at work.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) ear: Ear,
    process: Child,
    end: [&'static str; 2],
}

/// All that are installed here, and the names of those that are not.
pub(crate) fn start(dir: &Path) -> Result<(Vec<Peer>, Vec<&'static str>), Failure> {
    let (mut peers, mut missing) = (Vec::new(), Vec::new());
    for name in ["s6", "runit", "supervisord"] {
        match one(name, &dir.join(name)) {
            Ok(peer) => peers.push(peer),
            Err(error) => {
                crate::table::complain(&format!("{name}: {error}"));
                missing.push(name);
            }
        }
    }
    Ok((peers, missing))
}

fn one(name: &'static str, dir: &Path) -> Result<Peer, Failure> {
    std::fs::create_dir(dir)?;
    let ear = Ear::new(&dir.join("fifo"))?;
    let mut command = match name {
        "s6" => Command::new("s6-supervise"),
        "runit" => Command::new("runsv"),
        _ => Command::new("supervisord"),
    };
    if name == "supervisord" {
        let text = format!(
            "[supervisord]\nnodaemon=true\nlogfile={0}/log\npidfile={0}/pid\nchildlogdir={0}\nuser=root\n\
             [program:bench]\ncommand={1} service {0}/fifo\nautorestart=true\nstartsecs=0\n",
            dir.display(),
            me()?
        );
        std::fs::write(dir.join("supervisord.conf"), text)?;
        command.arg("--configuration").arg(dir.join("supervisord.conf"));
    } else {
        // No shell in between: this binary knows itself by the name `run`.
        std::os::unix::fs::symlink(me()?, dir.join("run"))?;
        if name == "s6" {
            // Without word that it was ready, s6 waits a second before it starts a service again.
            std::fs::write(dir.join("notification-fd"), "3\n")?;
        }
        command.arg(dir);
    }
    let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    // s6 is told to bring its service down and leave by HUP; the others by TERM.
    let end = if name == "s6" { ["-HUP", "-TERM"] } else { ["-TERM", "-TERM"] };
    Ok(Peer { name, ear, process, end })
}

impl Peer {
    /// Ends it, and its service.
    pub(crate) fn end(mut self, service: u32) {
        for (signal, pid) in [(self.end[0], self.process.id()), (self.end[1], service)] {
            drop(Command::new("kill").args([signal, &pid.to_string()]).status());
        }
        drop(self.process.wait());
    }
}
