//! The only unsafe code: thin, documented calls into the kernel.
//!
//! Each function is safe to call from outside: what it needs to be sound, it checks or takes as an argument. It decides
//! nothing and logs nothing. To add a call: the smallest possible function, with the reason why it is sound.

/// What a call gave back, which tells an error by a negative number.
fn check<T: Default + PartialOrd>(result: T) -> std::io::Result<T> {
    if result < T::default() { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

pub mod fork;
pub mod mounts;
pub mod process;
pub mod turns;

/// Fences that a process puts around itself for good: Landlock and seccomp.
pub mod confine {
    use std::io;
    use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

    use super::check;

    /// The kernel's version of Landlock.
    pub fn landlock_abi() -> io::Result<u32> {
        let none = std::ptr::null::<u64>();
        #[expect(unsafe_code, reason = "asks for a number; no memory is handed over")]
        let abi = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, 1u32) })?;
        Ok(u32::try_from(abi).unwrap_or(0))
    }

    /// An empty list of rules: what of `files` and `net` is not allowed by one is denied. `net` needs the fourth version,
    /// `scoped` the sixth.
    pub fn landlock_ruleset(files: u64, net: u64, scoped: u64) -> io::Result<OwnedFd> {
        let attributes = [files, net, scoped];
        let size = size_of::<u64>() * if scoped != 0 { 3 } else { 1 + usize::from(net != 0) };
        #[expect(unsafe_code, reason = "the attributes live until the call returns; the descriptor is new")]
        unsafe {
            let fd = check(libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size, 0u32))?;
            Ok(OwnedFd::from_raw_fd(libc::c_int::try_from(fd).map_err(io::Error::other)?))
        }
    }

    /// Allows `access` to a file, or to all below a folder.
    pub fn landlock_allow(ruleset: BorrowedFd<'_>, place: BorrowedFd<'_>, access: u64) -> io::Result<()> {
        #[repr(C, packed)]
        struct Below {
            access: u64,
            place: i32,
        }
        let rule = Below { access, place: place.as_raw_fd() };
        let (fd, pointer) = (ruleset.as_raw_fd(), &raw const rule);
        #[expect(unsafe_code, reason = "the rule lives until the call returns and is laid out as the kernel has it")]
        check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, fd, 1u32, pointer, 0u32) }).map(drop)
    }

    /// From now on the rules hold, for this thread and all that comes from it.
    pub fn landlock_restrict(ruleset: BorrowedFd<'_>) -> io::Result<()> {
        #[expect(unsafe_code, reason = "takes no memory; the process can only lose by it")]
        check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0u32) }).map(drop)
    }

    /// One instruction of a filter of system calls, laid out as the kernel has it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[repr(C)]
    pub struct Instruction {
        /// What to do.
        pub code: u16,
        /// So many instructions are skipped where a comparison holds.
        pub if_true: u8,
        /// And so many where it does not.
        pub if_false: u8,
        /// Its number.
        pub value: u32,
    }

    /// Installs a filter; the kernel checks it and refuses one that it cannot follow.
    pub fn seccomp(filter: &[Instruction]) -> io::Result<()> {
        let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
        let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast::<libc::sock_filter>().cast_mut() };
        let (mode, pointer) = (libc::SECCOMP_SET_MODE_FILTER, &raw const program);
        #[expect(unsafe_code, reason = "the kernel copies the program, which lives until the call returns and is not written")]
        check(unsafe { libc::syscall(libc::SYS_seccomp, mode, 0u32, pointer) }).map(drop)
    }
}

pub mod wasm {
    //! Compiled modules, which are native code: whoever hands one over vouches for it.

    use std::fs::File;
    use std::os::fd::AsRawFd as _;

    use wasmtime::component::Component;
    use wasmtime::{Engine, Module, Result};

    /// Maps a compiled component. The file must be what this engine has written, unchanged, and stay so.
    ///
    /// # Errors
    /// Where it cannot be mapped, or is for another engine.
    pub fn component(engine: &Engine, file: &File) -> Result<Component> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        #[expect(unsafe_code, reason = "native code out of a file")]
        // SAFETY: the supervisor has compared the file's digest with the one it wrote down when its own child had compiled
        // it, and hands over the very file; nobody else may write in its folder.
        unsafe {
            Component::deserialize_file(engine, path)
        }
    }

    /// The same of a core module.
    ///
    /// # Errors
    /// As with [`component`].
    pub fn module(engine: &Engine, file: File) -> Result<Module> {
        #[expect(unsafe_code, reason = "native code out of a file")]
        // SAFETY: as with a component.
        unsafe {
            Module::deserialize_open_file(engine, file)
        }
    }
}

pub mod git {
    //! libgit2's process-wide switches, which no repository or user configuration may set for us.

    use std::sync::Once;
    use std::time::Duration;

    use git2::ConfigLevel;

    /// Largest object that a chain of deltas may make, until somebody sets more: a delta of 16 KB can ask for 1 GiB.
    const DELTA_MAX_BYTES: u64 = 32 << 20;
    /// Objects of one pack, whatever its header says.
    const PACK_MAX_OBJECTS: usize = 2_000_000;
    /// One mapped window of a pack, and all of them together: the default of 1 GiB each would not fit a bounded process.
    const WINDOW_BYTES: usize = 16 << 20;
    const WINDOWS_BYTES: usize = 256 << 20;

    /// Cuts libgit2 off from the host: no system or user configuration, no caches, bounded packs. Once per process, before
    /// any other use of it and best before the second thread, because its first use also names the host's CA files in
    /// the environment (`SSL_CERT_FILE`).
    ///
    /// The owner of a repository is not compared with ours: Git does so because a foreign repository's configuration can
    /// name programs to run, and nothing of a repository's configuration is carried out here.
    pub fn isolate() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            git2::opts::enable_caching(false);
            git2::opts::strict_hash_verification(true);
            #[expect(
                unsafe_code,
                reason = "process-wide libgit2 options, set once before any other call of it; no pointer outlives its call"
            )]
            // SAFETY: `Once` admits one thread, and every user of git2 in this program calls this first.
            unsafe {
                for level in [ConfigLevel::System, ConfigLevel::Global, ConfigLevel::XDG, ConfigLevel::ProgramData] {
                    let _ = git2::opts::set_search_path(level, "");
                }
                let _ = git2::opts::set_verify_owner_validation(false);
                let _ = git2::opts::set_mwindow_size(WINDOW_BYTES);
                let _ = git2::opts::set_mwindow_mapped_limit(WINDOWS_BYTES);
                libgit2_sys::git_libgit2_opts(libgit2_sys::GIT_OPT_SET_PACK_MAX_OBJECTS as libc::c_int, PACK_MAX_OBJECTS);
            }
            allow_deltas(DELTA_MAX_BYTES);
        });
    }

    /// Lets deltas make objects of so many bytes, where that is more than they may anyway.
    pub fn allow_deltas(bytes: u64) {
        let bytes = usize::try_from(bytes.max(DELTA_MAX_BYTES)).unwrap_or(usize::MAX);
        #[expect(unsafe_code, reason = "a process-wide libgit2 option without a safe form")]
        // SAFETY: the option takes one `size_t` and stores it.
        unsafe {
            libgit2_sys::git_libgit2_opts(libgit2_sys::GIT_OPT_SET_PACK_MAX_OBJECT_SIZE as libc::c_int, bytes);
        }
    }

    /// How long a server may take to accept a connection, and between two of its bytes.
    pub fn set_timeouts(connect: Duration, silence: Duration) {
        let ms = |wait: Duration| libc::c_int::try_from(wait.as_millis()).unwrap_or(libc::c_int::MAX);
        #[expect(unsafe_code, reason = "process-wide libgit2 options without a safe form")]
        // SAFETY: called by a process with one thread, before it connects anywhere.
        unsafe {
            let _ = git2::opts::set_server_connect_timeout_in_milliseconds(ms(connect));
            let _ = git2::opts::set_server_timeout_in_milliseconds(ms(silence));
        }
    }

    /// Names the file of certificate authorities that servers are checked against, instead of the host's.
    ///
    /// # Errors
    /// Where OpenSSL cannot read it.
    pub fn set_ca_file(path: &std::path::Path) -> Result<(), git2::Error> {
        #[expect(unsafe_code, reason = "a process-wide libgit2 option without a safe form")]
        // SAFETY: called by a process with one thread, before it connects anywhere.
        unsafe {
            git2::opts::set_ssl_cert_file(path)
        }
    }
}

pub mod memory {
    //! What a process that rests all day need not hold.

    /// One heap for all threads: a process of few threads gains nothing by more, and each keeps what it once needed.
    /// Best called before the second thread.
    pub fn one_heap() {
        #[cfg(target_env = "gnu")]
        {
            #[expect(unsafe_code, reason = "glibc's allocator has no safe form of its switches")]
            // SAFETY: it takes two numbers, and changes only where later allocations come from.
            unsafe {
                libc::mallopt(libc::M_ARENA_MAX, 1);
            }
        }
    }

    /// Gives back what is not in use: free memory of the heap, and pages of the program that only starting up, or an update
    /// that is over, has run through or read. What is needed again comes back out of the page cache, 64 KiB at a time. It takes
    /// about a millisecond.
    pub fn give_back() {
        #[cfg(target_env = "gnu")]
        {
            #[expect(unsafe_code, reason = "glibc's allocator has no safe form of its calls")]
            // SAFETY: it touches only memory that is free; glibc locks its heap for it.
            unsafe {
                libc::malloc_trim(0);
            }
        }
        // Where it cannot be read, all stays as it is.
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        for (start, length) in unchanged(&maps) {
            #[expect(unsafe_code, reason = "it is given an address that no reference stands for")]
            // SAFETY: the range is a mapping of a file as the kernel just named it, without the right to write and without a
            // page that differs from the file: whoever runs or reads there next finds the same bytes.
            unsafe {
                libc::madvise(std::ptr::with_exposed_provenance_mut(start), length, libc::MADV_DONTNEED);
            }
        }
    }

    /// Where files are mapped to be run or read, with no page that differs from the file (as relocations leave them), by
    /// `/proc/self/smaps`: a line for each mapping, then a line for each of its figures, with its flags at the end.
    fn unchanged(smaps: &str) -> Vec<(usize, usize)> {
        let (mut found, mut mapping) = (Vec::new(), None);
        for line in smaps.lines() {
            let mut words = line.split_ascii_whitespace();
            match (words.next().and_then(|word| word.strip_suffix(':')), words.next()) {
                (None, _) => mapping = read_only_file(line),
                (Some("Anonymous" | "Swap"), Some("0")) => {}
                (Some("Anonymous" | "Swap"), _) => mapping = None,
                (Some("VmFlags"), _) => found.extend(mapping.take()),
                (Some(_), _) => {}
            }
        }
        found
    }

    /// Start and length of a mapping of a file that cannot be written to, by its line.
    fn read_only_file(line: &str) -> Option<(usize, usize)> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let is_one = matches!(words.next()?, "r-xp" | "r--p") && words.nth(2)? != "0";
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        is_one.then(|| (start, end.saturating_sub(start)))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn only_what_is_as_in_the_file_is_given_back() {
            let clean = "Rss: 8 kB\nAnonymous:        0 kB\nSwap:       0 kB\nSwapPss: 0 kB\nVmFlags: rd\n";
            let all = [
                ("1000-3000 r-xp 00001000 fe:00 42    /usr/bin/x y", clean, true),
                ("4000-5000 r--p 00001000 fe:00 42    /usr/bin/x", clean, true),
                ("6000-7000 r--p 00001000 fe:00 42    /usr/bin/x", "Anonymous:    4 kB\nSwap:    0 kB\nVmFlags: rd\n", false),
                ("6000-7000 r--p 00001000 fe:00 42    /usr/bin/x", "Anonymous:    0 kB\nSwap:    4 kB\nVmFlags: rd\n", false),
                ("7000-8000 rw-p 00001000 fe:00 42    /usr/bin/x", clean, false),
                ("8000-9000 rwxp 00001000 fe:00 42    /usr/bin/x", clean, false),
                ("9000-a000 r--s 00001000 fe:00 42    /usr/bin/x", clean, false),
                ("a000-b000 r-xp 00000000 00:00 0     [vdso]", clean, false),
                ("b000-c000 r--p 00000000 00:00 0     ", clean, false),
                ("c000-d000 r--p 00001000 fe:00 42    /usr/bin/cut-off", "Anonymous:    0 kB\n", false),
            ];
            let text: String = all.iter().map(|(line, figures, _)| format!("{line}\n{figures}")).collect();
            let wanted: Vec<_> = all.iter().filter(|(_, _, is)| *is).filter_map(|(line, _, _)| read_only_file(line)).collect();
            assert_eq!(unchanged(&text), wanted);
            assert_eq!(wanted, [(0x1000, 0x2000), (0x4000, 0x1000)]);
            assert!(unchanged("").is_empty() && unchanged("rubbish\nVmFlags: rd").is_empty());
        }

        #[test]
        fn a_process_goes_on_after_it_gave_back() {
            let text = "what stays".repeat(1000);
            give_back();
            assert_eq!(text.len(), 10_000);
        }
    }
}
