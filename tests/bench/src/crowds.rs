//! Other supervisors with many services each, in the way that each of them has for many: s6-svscan, runsvdir, one
//! supervisord, and the user's systemd where one can run.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Failure;
use crate::clock::pause;
use crate::program::Ear;
use crate::stage::small_service;

/// By when a systemd must be there to take orders.
const SYSTEMD_POLLS: u32 = 300;
const SYSTEMD_POLL: Duration = Duration::from_millis(10);

/// The names of all.
pub(crate) const NAMES: [&str; 4] = ["s6", "runit", "supervisord", "systemd --user"];

/// One at work.
pub(crate) struct Crowd {
    pub(crate) ear: Ear,
    process: Child,
    /// How its end is asked for.
    end: &'static str,
}

/// Starts a supervisor with so many services.
pub(crate) fn start(name: &str, dir: &Path, services: usize) -> Result<Crowd, Failure> {
    std::fs::create_dir(dir)?;
    let ear = Ear::new(&dir.join("ear"))?;
    let (mut command, end) = match name {
        "s6" => (s6(dir, services)?, "-TERM"),
        "runit" => (runit(dir, services)?, "-HUP"),
        "supervisord" => (supervisord(dir, services)?, "-TERM"),
        _ => (systemd(dir, services)?, "-TERM"),
    };
    let log = std::fs::File::create(dir.join("log"))?;
    let said = log.try_clone()?;
    let process = command.stdin(Stdio::null()).stdout(said).stderr(log).spawn()?;
    let mut crowd = Crowd { ear, process, end };
    if name.starts_with("systemd") {
        order_systemd(dir, services, &mut crowd.process)?;
    }
    Ok(crowd)
}

/// Folders of services whose program knows itself by the name `run`, so that there is no shell in between.
fn folders(dir: &Path, services: usize, with: impl Fn(&Path) -> std::io::Result<()>) -> Result<PathBuf, Failure> {
    let all = dir.join("services");
    for number in 0..services {
        let folder = all.join(format!("bench{number}"));
        std::fs::create_dir_all(&folder)?;
        symlink(small_service()?, folder.join("run"))?;
        symlink(dir.join("ear"), folder.join("fifo"))?;
        with(&folder)?;
    }
    Ok(all)
}

fn s6(dir: &Path, services: usize) -> Result<Command, Failure> {
    // Without word that it was ready, s6 waits a second before it starts a service again.
    let all = folders(dir, services, |folder| std::fs::write(folder.join("notification-fd"), "3\n"))?;
    let mut command = Command::new("s6-svscan");
    command.arg("-c").arg((services + 10).to_string()).arg(all);
    Ok(command)
}

fn runit(dir: &Path, services: usize) -> Result<Command, Failure> {
    let mut command = Command::new("runsvdir");
    command.arg(folders(dir, services, |_| Ok(()))?);
    Ok(command)
}

fn supervisord(dir: &Path, services: usize) -> Result<Command, Failure> {
    let text = format!(
        "[supervisord]\nnodaemon=true\nlogfile={0}/log.d\npidfile={0}/pid\nchildlogdir={0}\nuser=root\nminfds={2}\n\
         [program:bench]\ncommand={1} serve {0}/ear\nnumprocs={services}\nprocess_name=bench%(process_num)05d\n\
         autorestart=true\nstartsecs=0\nstdout_logfile=NONE\nstderr_logfile=NONE\n",
        dir.display(),
        small_service()?,
        services * 4 + 100
    );
    std::fs::write(dir.join("supervisord.conf"), text)?;
    let mut command = Command::new("supervisord");
    command.arg("--configuration").arg(dir.join("supervisord.conf"));
    Ok(command)
}

fn systemd(dir: &Path, services: usize) -> Result<Command, Failure> {
    let units = dir.join("systemd/user");
    std::fs::create_dir_all(&units)?;
    let service = format!(
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart={} serve {}/ear\nRestart=always\nRestartSec=0\n",
        small_service()?,
        dir.display()
    );
    std::fs::write(units.join("bench@.service"), service)?;
    let wants: Vec<String> = (0..services).map(|number| format!("bench@{number}.service")).collect();
    std::fs::write(units.join("bench.target"), format!("[Unit]\nWants={}\n", wants.join(" ")))?;
    let mut command = Command::new("/lib/systemd/systemd");
    command.arg("--user").env("XDG_RUNTIME_DIR", dir).env("XDG_CONFIG_HOME", dir).env("SYSTEMD_LOG_TARGET", "console");
    Ok(command)
}

fn order_systemd(dir: &Path, services: usize, process: &mut Child) -> Result<(), Failure> {
    for _ in 0..SYSTEMD_POLLS {
        if let Some(status) = process.try_wait()? {
            return Err(
                format!("it ends at once ({status}): it needs a host that systemd runs, and a cgroup of version 2").into()
            );
        }
        if dir.join("systemd/private").exists() {
            let mut order = Command::new("systemctl");
            order.args(["--user", "--no-block", "start", "bench.target"]).env("XDG_RUNTIME_DIR", dir);
            let ordered = order.stdin(Stdio::null()).status()?.success();
            return if ordered { Ok(()) } else { Err(format!("it does not start {services} services").into()) };
        }
        pause(SYSTEMD_POLL);
    }
    Err("it takes no orders".into())
}

impl Crowd {
    /// Asks for its end, which is not waited for.
    pub(crate) fn tell_to_end(&self) {
        let mut kill = Command::new("kill");
        drop(kill.args([self.end, &self.process.id().to_string()]).stderr(Stdio::null()).status());
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.tell_to_end();
        drop(self.process.wait());
    }
}
