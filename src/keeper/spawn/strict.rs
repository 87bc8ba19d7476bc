//! `hardening = "strict"`: what is done for one start, put together before the fork, and what of it this host does not allow.
//!
//! The child goes through it in this order: `shield` (what it sees), `fence` (what it may write), `filter` (what it may call).

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use super::landlock::{Fence, restrict};
use super::seccomp::program;
use super::shield::{Piece, Shield};
use crate::keeper::notify::sockets_dir;
use crate::keeper::rights::Rights;
use crate::model::{Launch, View};
use crate::sys::confine::{Instruction, seccomp};

/// All that a strict start needs.
pub(super) struct Strict {
    shield: Shield,
    filter: Vec<Instruction>,
    fenced: bool,
    /// It has a mount namespace that is shielded.
    shielded: bool,
    /// A service; a command beside it must be able to signal it.
    service: bool,
}

impl Strict {
    pub(super) fn new(
        launch: &Launch,
        (view, service): (Option<&View>, bool),
        shielded: bool,
        rights: &Rights,
        data_dir: &Path,
    ) -> Self {
        // Who works at the root or in a folder that all share says nothing about what it may write.
        let own = |directory: &&String| Path::new(directory.as_str()).components().count() > 2;
        let writable = [&launch.working_dir].into_iter().filter(own).cloned().collect();
        let mut shown = vec![sockets_dir(data_dir)];
        shown.extend(view.map(|view| PathBuf::from(&view.point)));
        shown.extend(launch.argv.first().map(PathBuf::from).filter(|program| program.is_absolute()));
        let shield = Shield { writable, shown, missing: rights.missing };
        Self { shield, filter: program(&[]), fenced: rights.landlock.is_ok(), shielded, service }
    }

    /// What this host does not allow, for the report.
    pub(super) fn not_enforced(&self, rights: &Rights) -> Option<String> {
        let mut lacks = Vec::new();
        if !self.shielded {
            let pieces: Vec<&str> = Piece::ALL.into_iter().map(Piece::words).collect();
            let why = rights.namespaces.as_ref().err().map_or("no mount namespace can be made", String::as_str);
            lacks.push(format!("{} ({why})", pieces.join(", ")));
        } else {
            let pieces: Vec<&str> = rights.missing.pieces().map(Piece::words).collect();
            if !pieces.is_empty() {
                lacks.push(format!("{} (the kernel refuses the mounts)", pieces.join(", ")));
            }
        }
        if let Err(why) = &rights.landlock {
            lacks.push(format!("what it may write, by Landlock ({why})"));
        }
        let lacks = lacks.join("; ");
        (!lacks.is_empty()).then(|| format!("of hardening `strict`, not enforced on this host: {lacks}"))
    }

    /// In the child, in its own mount namespace.
    pub(super) fn shield(&self) -> io::Result<()> {
        self.shield.raise()
    }

    /// In the child, with its user and its descriptors in place.
    pub(super) fn fence(&self, stdio: &[OwnedFd; 3]) -> io::Result<()> {
        if !self.fenced {
            return Ok(());
        }
        let has = |piece| self.shielded && !self.shield.missing.has(piece);
        let writable: Vec<&Path> = self.shield.writable.iter().map(Path::new).collect();
        restrict(&Fence {
            writable: &writable,
            private_tmp: has(Piece::Temporary),
            private_proc: has(Piece::Processes) && has(Piece::Settings),
            scope_signals: self.service,
            outputs: [stdio[1].as_fd(), stdio[2].as_fd()],
        })
    }

    /// In the child, as the last thing before it becomes the program.
    pub(super) fn filter(&self) -> io::Result<()> {
        seccomp(&self.filter)
    }
}
