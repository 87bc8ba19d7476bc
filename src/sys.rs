//! The only unsafe code: thin, documented calls into the kernel.

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
