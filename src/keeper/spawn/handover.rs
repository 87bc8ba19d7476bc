//! Descriptors that a process gets beside its input and output, and the variables that name them.
//!
//! They are put into place by the child as the last thing before it becomes the program: from then on, the numbers below
//! them are no longer what they were. To hand over something else: append it to the list, after the sockets.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use crate::sys::fork::OneThread;
use crate::sys::process::{Image, place_fd};

/// Number of the first descriptor that is handed over, as systemd has it.
pub(in crate::keeper) const FIRST_HANDED_FD: usize = 3;

/// Variable with the number of the descriptor on which a newline says that the service is ready.
pub(in crate::keeper) const READY_FD_ENV: &str = "TAGFALL_READY_FD";

/// What is handed over.
#[derive(Default)]
pub(in crate::keeper) struct Handed {
    pub(in crate::keeper) fds: Vec<OwnedFd>,
    /// The first of them are listening sockets, so that it must be told that they are meant for it.
    pub(in crate::keeper) listening: bool,
}

impl Handed {
    /// The first number that none of them is put at.
    pub(super) fn beyond(&self) -> i32 {
        i32::try_from(FIRST_HANDED_FD + self.fds.len()).unwrap_or(i32::MAX)
    }

    /// Moves a descriptor to a number that none of these will take.
    pub(super) fn out_of_the_way(&self, fd: OwnedFd) -> io::Result<OwnedFd> {
        if self.fds.is_empty() { Ok(fd) } else { Ok(rustix::io::fcntl_dupfd_cloexec(&fd, self.beyond())?) }
    }

    /// Moves all of them, so that none is overwritten by another one that is put into place before it.
    pub(super) fn settle(mut self) -> io::Result<Self> {
        let beyond = self.beyond();
        for fd in &mut self.fds {
            *fd = rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), beyond)?;
        }
        Ok(self)
    }

    /// Puts them where they are expected. In the child.
    pub(super) fn place(&self, child: &OneThread) -> io::Result<()> {
        for (number, fd) in (FIRST_HANDED_FD..).zip(&self.fds) {
            place_fd(child, fd.as_fd(), i32::try_from(number).unwrap_or(i32::MAX))?;
        }
        Ok(())
    }

    /// Becomes the program, which is told its own number where it gets sockets. In the child.
    pub(super) fn exec(&self, image: &Image) -> io::Error {
        if !self.listening {
            return image.exec();
        }
        match CString::new(format!("LISTEN_PID={}", std::process::id())) {
            Ok(variable) => image.with(variable).exec(),
            Err(_) => io::ErrorKind::InvalidInput.into(),
        }
    }
}
