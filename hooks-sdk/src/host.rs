//! Tagfall, as far as a module can see it: the imports of `wit/0.1.0/imports.wit`.
//!
//! Outside of a module there is no Tagfall: so that a hook's own tests run anywhere, everything that may fail does so with the
//! code `outside`, and the rest answers as little as it can.

#[cfg(target_arch = "wasm32")]
pub(crate) use crate::generated::bindings::tagfall::hooks::{census, clock, config, exec, files, log, probe};

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use outside::{census, clock, config, exec, files, log, probe};

#[cfg(not(target_arch = "wasm32"))]
mod outside {
    const CODE: &str = "outside";
    const MESSAGE: &str = "only Tagfall can answer this: try the module with `tagfall hook run`";

    pub(crate) mod log {
        pub(crate) use crate::generated::bindings::tagfall::hooks::log::Level;

        #[expect(clippy::print_stderr, reason = "a test shows what its hook logs")]
        pub(crate) fn log(level: Level, message: &str, fields: &[(String, String)]) {
            let fields: String = fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
            eprintln!("{level:?}: {message}{fields}");
        }
    }

    pub(crate) mod config {
        pub(crate) fn snapshot_json() -> String {
            "{}".to_owned()
        }

        pub(crate) fn get(_pointer: &str) -> Option<String> {
            None
        }
    }

    pub(crate) mod census {
        pub(crate) use crate::generated::bindings::tagfall::hooks::census::Member;

        pub(crate) fn me() -> Member {
            Member {
                id: String::new(),
                group: String::new(),
                address: String::new(),
                alive: true,
                healthy: false,
                leader: false,
                suitability: 0,
                extra: Vec::new(),
            }
        }

        pub(crate) fn members(_group: &str) -> Vec<Member> {
            Vec::new()
        }
    }

    pub(crate) mod probe {
        pub(crate) use crate::generated::bindings::tagfall::hooks::probe::{ProbeError, Request, Response};

        fn none<T>() -> Result<T, ProbeError> {
            Err(ProbeError { code: super::CODE.to_owned(), message: super::MESSAGE.to_owned() })
        }

        pub(crate) fn http(_request: &Request) -> Result<Response, ProbeError> {
            none()
        }

        pub(crate) fn tcp(_host: &str, _port: u16, _send: &[u8], _until: u32, _ms: u32) -> Result<Vec<u8>, ProbeError> {
            none()
        }

        pub(crate) fn unix(_path: &str, _send: &[u8], _until: u32, _ms: u32) -> Result<Vec<u8>, ProbeError> {
            none()
        }
    }

    pub(crate) mod exec {
        use crate::generated::bindings::tagfall::hooks::exec::{ExecError, Exit};

        pub(crate) fn run(_name: &str, _ms: u32) -> Result<Exit, ExecError> {
            Err(ExecError { code: super::CODE.to_owned(), message: super::MESSAGE.to_owned() })
        }
    }

    pub(crate) mod files {
        use crate::generated::bindings::tagfall::hooks::files::FileError;

        fn none<T>() -> Result<T, FileError> {
            Err(FileError { code: super::CODE.to_owned(), message: super::MESSAGE.to_owned() })
        }

        pub(crate) fn read(_path: &str) -> Result<Vec<u8>, FileError> {
            none()
        }

        pub(crate) fn list_dir(_path: &str) -> Result<Vec<String>, FileError> {
            none()
        }

        pub(crate) fn write(_path: &str, _data: &[u8]) -> Result<(), FileError> {
            none()
        }

        pub(crate) fn remove(_path: &str) -> Result<(), FileError> {
            none()
        }
    }

    pub(crate) mod clock {
        pub(crate) fn now_unix_ms() -> u64 {
            let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        }

        pub(crate) fn monotonic_ns() -> u64 {
            0
        }

        pub(crate) fn sleep_ms(_ms: u32) {}
    }
}
