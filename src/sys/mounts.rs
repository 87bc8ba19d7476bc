//! Mounts and their namespaces.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::check;

/// Gives this process a mount namespace of its own, a copy of the one it is in.
pub fn unshare_mounts() -> io::Result<()> {
    #[expect(unsafe_code, reason = "takes no pointer; nothing but the view of mounts changes")]
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }).map(drop)
}

/// The user namespace that owns another namespace (ioctl_ns(2)).
pub fn owner_of_namespace(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "the descriptor is valid for the call, which takes no argument")]
    let owner = check(unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_USERNS) })?;
    #[expect(unsafe_code, reason = "the kernel has just made this descriptor, and nobody else has it")]
    Ok(unsafe { OwnedFd::from_raw_fd(owner) })
}

/// Makes all of a detached mount read-only.
pub fn mount_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    set_mount(mount, libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, &attributes)
}

/// Makes a detached mount read-only, and private: what happens to it, or on it, happens nowhere else.
pub fn mount_apart(mount: BorrowedFd<'_>) -> io::Result<()> {
    let (attr_set, propagation) = (libc::MOUNT_ATTR_RDONLY, libc::MS_PRIVATE);
    let attributes = libc::mount_attr { attr_set, attr_clr: 0, propagation, userns_fd: 0 };
    set_mount(mount, libc::AT_EMPTY_PATH, &attributes)
}

/// Makes an attached mount writable again; not what is mounted below it.
pub fn mount_writable(mount: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: 0, attr_clr: libc::MOUNT_ATTR_RDONLY, propagation: 0, userns_fd: 0 };
    set_mount(mount, libc::AT_EMPTY_PATH, &attributes)
}

fn set_mount(mount: BorrowedFd<'_>, flags: c_int, attributes: &libc::mount_attr) -> io::Result<()> {
    let (pointer, size) = (std::ptr::from_ref(attributes), size_of::<libc::mount_attr>());
    #[expect(unsafe_code, reason = "the path is an empty string and the attributes live until the call returns")]
    let result = unsafe { libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), c"".as_ptr(), flags, pointer, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
