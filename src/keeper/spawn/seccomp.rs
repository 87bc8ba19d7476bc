//! Which system calls a process shut in by `hardening = "strict"` may not make: the groups that `systemd-analyze security`
//! counts, as a program for the kernel's filter.
//!
//! Pure: it makes a list of instructions; the child installs it. Denied calls fail with EPERM, as those of a process without
//! rights do; ones that programs know how to go without fail with ENOSYS. To deny another call: its number in the list it
//! belongs to, with a reason where the list's does not say it.

use libc::c_long;

use crate::sys::confine::Instruction;

/// Calls of other architectures on the same kernel, and of x32, are none of the numbers below.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// From this number on, x86_64 takes calls as those of x32.
const X32: u32 = 0x4000_0000;

/// Never of use to a service without capabilities.
const DENIED: &[c_long] = &[
    // Clocks.
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    // Looking into other processes and the kernel.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    libc::SYS_bpf,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
    libc::SYS_pidfd_getfd,
    // Keys of the kernel.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    // Modules, another kernel, the end of this one.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    // Of privileged programs only.
    libc::SYS_acct,
    libc::SYS_fanotify_init,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
];

/// Raw input and output, and what is obsolete, where there is such a thing.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[c_long] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_kexec_file_load,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
    libc::SYS_lookup_dcookie,
];
#[cfg(target_arch = "aarch64")]
const DENIED_HERE: &[c_long] = &[libc::SYS_lookup_dcookie];

/// What hides its arguments in memory or does other calls' work unseen; programs fall back to the plain calls.
const MISSING: &[c_long] =
    &[libc::SYS_clone3, libc::SYS_openat2, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Flags of clone and unshare that make a namespace.
const NEW_NAMESPACES: u32 = 0x7E02_0000 | 0x80;

/// Set-user-id and set-group-id.
const SET_ID: u32 = 0o6000;

/// Kinds of sockets that may be made: local, IPv4, IPv6, and asking the kernel about the network.
const FAMILIES: [u32; 4] = [1, 2, 10, 16];

/// Scheduling that may be asked for: the usual, batch, idle. Others can take a core away from everybody.
const SCHEDULING: [u32; 3] = [0, 3, 5];

/// Puts characters into a terminal as if they were typed; and the console's own.
const TERMINAL_TRICKS: [u32; 2] = [0x5412, 0x541C];

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_FROM: u16 = 0x35;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7FFF_0000;
const FAIL: u32 = 0x0005_0000;

/// Offsets in what the kernel shows of a call.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

fn argument(at: u32) -> u32 {
    // The lower half; all of these arguments are ints.
    16 + 8 * at + if cfg!(target_endian = "big") { 4 } else { 0 }
}

fn fail(errno: i32) -> u32 {
    FAIL | errno.unsigned_abs()
}

/// A program under construction: every piece falls through to the next one unless it returns.
struct Program(Vec<Instruction>);

impl Program {
    fn push(&mut self, code: u16, value: u32, if_true: u8, if_false: u8) {
        self.0.push(Instruction { code, if_true, if_false, value });
    }

    fn give(&mut self, what: u32) {
        self.push(RETURN, what, 0, 0);
    }

    /// A call that always fails.
    fn deny(&mut self, call: c_long, errno: i32) {
        self.push(JUMP_EQUAL, number(call), 0, 1);
        self.give(fail(errno));
    }

    /// A call whose argument must be one of these.
    fn only(&mut self, call: c_long, at: u32, mask: u32, allowed: &[u32], errno: i32) {
        let rows = u8::try_from(allowed.len()).unwrap_or(u8::MAX);
        self.push(JUMP_EQUAL, number(call), 0, rows + 4);
        self.push(LOAD, argument(at), 0, 0);
        self.push(AND, mask, 0, 0);
        for (row, value) in (0..rows).zip(allowed) {
            self.push(JUMP_EQUAL, *value, rows - row, 0);
        }
        self.give(fail(errno));
        self.give(ALLOW);
    }

    /// A call whose argument must be none of these.
    fn never(&mut self, call: c_long, at: u32, refused: &[u32]) {
        let rows = u8::try_from(refused.len()).unwrap_or(u8::MAX);
        self.push(JUMP_EQUAL, number(call), 0, rows + 3);
        self.push(LOAD, argument(at), 0, 0);
        for (row, value) in (0..rows).zip(refused) {
            self.push(JUMP_EQUAL, *value, rows - row, 0);
        }
        self.give(ALLOW);
        self.give(fail(libc::EPERM));
    }

    /// A call that opens a file, which may not make one with a set-id bit.
    fn creates(&mut self, call: c_long, flags: u32, mode: u32) {
        let creating = (libc::O_CREAT | libc::O_TMPFILE & !libc::O_DIRECTORY).unsigned_abs();
        self.push(JUMP_EQUAL, number(call), 0, 8);
        self.push(LOAD, argument(flags), 0, 0);
        self.push(AND, creating, 0, 0);
        self.push(JUMP_EQUAL, 0, 4, 0);
        self.push(LOAD, argument(mode), 0, 0);
        self.push(AND, SET_ID, 0, 0);
        self.push(JUMP_EQUAL, 0, 1, 0);
        self.give(fail(libc::EPERM));
        self.give(ALLOW);
    }
}

fn number(call: c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// The filter; `kept` are calls that may be made all the same.
pub(in crate::keeper) fn program(kept: &[c_long]) -> Vec<Instruction> {
    let mut program = Program(Vec::new());
    program.push(LOAD, ARCH, 0, 0);
    program.push(JUMP_EQUAL, ARCHITECTURE, 1, 0);
    program.give(fail(libc::ENOSYS));
    program.push(LOAD, NUMBER, 0, 0);
    program.push(JUMP_FROM, X32, 0, 1);
    program.give(fail(libc::ENOSYS));
    for call in DENIED.iter().chain(DENIED_HERE) {
        program.deny(*call, libc::EPERM);
    }
    for call in MISSING.iter().filter(|call| !kept.contains(call)) {
        program.deny(*call, libc::ENOSYS);
    }
    program.only(libc::SYS_clone, 0, NEW_NAMESPACES & !0x80, &[0], libc::EPERM);
    program.only(libc::SYS_unshare, 0, NEW_NAMESPACES, &[0], libc::EPERM);
    program.only(libc::SYS_socket, 0, u32::MAX, &FAMILIES, libc::EAFNOSUPPORT);
    program.only(libc::SYS_personality, 0, u32::MAX, &[0, u32::MAX], libc::EPERM);
    program.only(libc::SYS_sched_setscheduler, 1, !0x4000_0000, &SCHEDULING, libc::EPERM);
    program.never(libc::SYS_ioctl, 1, &TERMINAL_TRICKS);
    program.only(libc::SYS_fchmod, 1, SET_ID, &[0], libc::EPERM);
    program.only(libc::SYS_fchmodat, 2, SET_ID, &[0], libc::EPERM);
    program.only(FCHMODAT2, 2, SET_ID, &[0], libc::EPERM);
    program.only(libc::SYS_mknodat, 2, SET_ID, &[0], libc::EPERM);
    program.creates(libc::SYS_openat, 2, 3);
    #[cfg(target_arch = "x86_64")]
    {
        program.only(libc::SYS_chmod, 1, SET_ID, &[0], libc::EPERM);
        program.only(libc::SYS_creat, 1, SET_ID, &[0], libc::EPERM);
        program.only(libc::SYS_mknod, 1, SET_ID, &[0], libc::EPERM);
        program.creates(libc::SYS_open, 1, 2);
    }
    program.give(ALLOW);
    program.0
}

/// The same number everywhere.
const FCHMODAT2: c_long = 452;

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn run(arch: u32, call: u32, arguments: [u32; 6]) -> u32 {
        let program = program(&[]);
        let (mut at, mut value) = (0, 0);
        loop {
            let Instruction { code, if_true, if_false, value: k } = program[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { if_true } else { if_false });
            match code {
                LOAD if k == NUMBER => value = call,
                LOAD if k == ARCH => value = arch,
                LOAD => value = arguments[usize::try_from((k - 16) / 8).unwrap()],
                AND => value &= k,
                JUMP_EQUAL => at += jump(value == k),
                JUMP_FROM => at += jump(value >= k),
                RETURN => return k,
                other => panic!("{other}"),
            }
        }
    }

    fn call(number: c_long, arguments: [u32; 6]) -> u32 {
        run(ARCHITECTURE, u32::try_from(number).unwrap(), arguments)
    }

    #[test]
    fn what_a_service_lives_on_is_allowed() {
        for number in [libc::SYS_read, libc::SYS_execve, libc::SYS_futex, libc::SYS_sendmsg, libc::SYS_setrlimit, libc::SYS_kill]
        {
            assert_eq!(call(number, [0; 6]), ALLOW, "{number}");
        }
        // A thread, a process, files.
        assert_eq!(call(libc::SYS_clone, [0x003D_0F00, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call(libc::SYS_clone, [17, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call(libc::SYS_unshare, [0x400, 0, 0, 0, 0, 0]), ALLOW);
        for family in FAMILIES {
            assert_eq!(call(libc::SYS_socket, [family, 1, 0, 0, 0, 0]), ALLOW);
        }
        assert_eq!(call(libc::SYS_ioctl, [0, 0x5401, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call(libc::SYS_fchmodat, [0, 0, 0o755, 0, 0, 0]), ALLOW);
        // Without O_CREAT, the mode is whatever was left in the register.
        assert_eq!(call(libc::SYS_openat, [0, 0, 0, 0o4755, 0, 0]), ALLOW);
        assert_eq!(call(libc::SYS_openat, [0, 0, libc::O_DIRECTORY.unsigned_abs(), 0o4755, 0, 0]), ALLOW);
        assert_eq!(call(libc::SYS_openat, [0, 0, libc::O_CREAT.unsigned_abs(), 0o644, 0, 0]), ALLOW);
    }

    #[test]
    fn what_it_may_not_do_fails() {
        for number in DENIED.iter().chain(DENIED_HERE) {
            assert_eq!(call(*number, [0; 6]), fail(libc::EPERM), "{number}");
        }
        for number in MISSING {
            assert_eq!(call(*number, [0; 6]), fail(libc::ENOSYS), "{number}");
        }
        // A user namespace, a mount namespace, a time namespace.
        assert_eq!(call(libc::SYS_clone, [0x1000_0011, 0, 0, 0, 0, 0]), fail(libc::EPERM));
        assert_eq!(call(libc::SYS_unshare, [0x0002_0000, 0, 0, 0, 0, 0]), fail(libc::EPERM));
        assert_eq!(call(libc::SYS_unshare, [0x80, 0, 0, 0, 0, 0]), fail(libc::EPERM));
        assert_eq!(call(libc::SYS_socket, [17, 3, 0, 0, 0, 0]), fail(libc::EAFNOSUPPORT));
        assert_eq!(call(libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0]), fail(libc::EPERM));
        assert_eq!(call(libc::SYS_sched_setscheduler, [0, 1, 0, 0, 0, 0]), fail(libc::EPERM));
        assert_eq!(call(libc::SYS_personality, [0x0004_0000, 0, 0, 0, 0, 0]), fail(libc::EPERM));
        assert_eq!(call(libc::SYS_fchmodat, [0, 0, 0o4755, 0, 0, 0]), fail(libc::EPERM));
        assert_eq!(call(libc::SYS_openat, [0, 0, libc::O_CREAT.unsigned_abs(), 0o2755, 0, 0]), fail(libc::EPERM));
        assert_eq!(call(libc::SYS_openat, [0, 0, libc::O_TMPFILE.unsigned_abs(), 0o4755, 0, 0]), fail(libc::EPERM));
    }

    #[test]
    fn another_way_into_the_kernel_is_no_way_around() {
        assert_eq!(run(0x4000_0003, 21, [0; 6]), fail(libc::ENOSYS));
        assert_eq!(run(ARCHITECTURE, X32 | 165, [0; 6]), fail(libc::ENOSYS));
    }

    #[test]
    fn the_kernel_takes_it() {
        // Its own limit.
        assert!(program(&[]).len() <= 4096);
    }
}
