//! `tagfall demo`: a repository, a clone and a supervisor in one folder, a show of what a tag causes, and the lines to try next.
//!
//! | file | question |
//! | --- | --- |
//! | `folder.rs` | where everything lies, and how it goes away |
//! | `content.rs`, `repository.rs` | what is followed: its files, its commits and tags |
//! | `stage.rs` | the supervisor that runs, and what is heard of it |
//! | `show.rs` | the steps, in order |
//! | `page.rs` | how they look |
//!
//! Everything goes through what any user has: files, Git, the API. A new step is a function in `show.rs`.

mod content;
mod folder;
mod page;
mod repository;
mod show;
mod stage;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::folder::Folder;
use self::page::Page;
use self::stage::Stage;
use super::keys::Keys;
use super::{CliError, Context, Exit};

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Needs neither root nor a network. Ctrl-C ends it and leaves nothing behind.\n\n\
    Examples:\n  tagfall demo\n  tagfall demo --once                     only the show, for CI: exit code 0 when all of it went well\n  \
    tagfall demo --dir ./demo --keep        to look around afterwards")]
pub(super) struct Args {
    /// Where to make it [default: a new temporary folder]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(super) dir: Option<PathBuf>,
    /// Leave the folder there at the end
    #[arg(long)]
    pub(super) keep: bool,
    /// End after the show, instead of following what you push
    #[arg(long)]
    pub(super) once: bool,
    /// Become the supervisor of the demo with this process id, and end with it
    #[arg(long, value_name = "PID", hide = true, requires = "dir")]
    pub(super) supervise_for: Option<i32>,
}

pub(super) fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    if let (Some(pid), Some(dir)) = (args.supervise_for, &args.dir) {
        return Err(supervise_for(pid, dir));
    }
    crate::sys::git::isolate();
    let page = Page::new(context.out);
    context.wait(async {
        // Before anything is made, so that no signal can end this without the clearing up.
        let mut signals = Signals::listen()?;
        let folder = Folder::make(args.dir.as_deref())?;
        let (shown, ended) = perform(&folder, &page, args.once, &mut signals).await;
        let root = folder.root().display();
        let (gone, end) = match &ended {
            Err(_) => (Ok(()), format!("{root} is left: a process may still use it")),
            Ok(()) if args.keep => (Ok(()), format!("ended; everything is left in {root}")),
            Ok(()) => (folder.remove(), "ended; nothing is left of it".to_owned()),
        };
        if gone.is_ok() {
            page.aside(&end);
        }
        // The first failure is the one to tell.
        shown.and(ended).and(gone)?;
        Ok(Exit::Done)
    })
}

/// The show, and the end of what it started: how each went.
async fn perform(
    folder: &Folder,
    page: &Page,
    once: bool,
    signals: &mut Signals,
) -> (Result<(), CliError>, Result<(), CliError>) {
    let (mut stage, script) = match begin(folder) {
        Ok(begun) => begun,
        Err(error) => return (Err(error), Ok(())),
    };
    let shown = tokio::select! {
        biased;
        () = signals.next() => if once {
            Err(CliError::failed("finish the show", "it was interrupted"))
        } else {
            Ok(())
        },
        shown = show::run(&mut stage, &script, folder, page, once) => shown,
    };
    match &shown {
        // Whoever read along has gone.
        Err(error) if error.exit() == Exit::Done => {}
        Err(_) => page.aside(&stage.last_words()),
        Ok(()) => page.aside("\nending: the service is stopped, then the supervisor"),
    }
    let ended = stage.end(signals).await;
    (shown, ended)
}

fn begin(folder: &Folder) -> Result<(Stage, Script), CliError> {
    let program = std::env::current_exe().map_err(|error| CliError::failed("find this program", error))?;
    let (web_port, api_port) = stage::free_ports()?;
    let content = content::Content { program: program.clone(), etc: folder.etc(), port: web_port };
    let keys = Keys::make(&folder.keys(), repository::EMAIL)?;
    let repository = repository::Repository::make(&folder.bare(), &folder.clone_dir(), keys)?;
    let stage = Stage::start(&program, folder, &repository.allowed_signers(), (web_port, api_port))?;
    Ok((stage, Script { content, repository, program }))
}

/// What the show works with.
struct Script {
    content: content::Content,
    repository: repository::Repository,
    program: PathBuf,
}

/// Becomes the supervisor, which the kernel tells to end when the demo has ended in whatever way.
fn supervise_for(demo: i32, dir: &Path) -> CliError {
    let armed = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    if let Err(error) = armed {
        return CliError::could_not_run("be told when the demo ends", error);
    }
    // It may have ended before.
    if rustix::process::getppid().map(Pid::as_raw_nonzero).is_none_or(|parent| parent.get() != demo) {
        return CliError::usage(format!("process {demo} did not start this one"), "`tagfall demo` starts it");
    }
    let mut supervise = std::process::Command::new("/proc/self/exe");
    let error = supervise.arg0("tagfall").arg("supervise").arg("--config").arg(folder::settings(dir)).exec();
    CliError::could_not_run("become the supervisor", error)
}

/// The signals that end the demo.
struct Signals([Signal; 3]);

impl Signals {
    fn listen() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(|error| CliError::could_not_run("listen for signals", error));
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(listen);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
