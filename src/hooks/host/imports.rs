//! What components may call: `log`, `config`, `census`, `exec`, `files`, `clock` of `wit/`. Grants are the supervisor's to
//! judge; here is only what needs none, and the line to ask over.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use super::bindings::tagfall::hooks::{census, clock, config, exec, files, log, types};
use super::guest::Guest;
use crate::hooks::wire::{Answer, Ask, BODY_MAX_BYTES, Code, Level, Open};
use crate::model::HookMember;

/// Names that are listed of a folder.
const NAMES_MAX: usize = 4_096;

impl types::Host for Guest {}

impl log::Host for Guest {
    fn log(&mut self, level: log::Level, message: String, fields: Vec<(String, String)>) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Trace => Level::Trace,
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        self.say(level, message, fields);
        Ok(())
    }
}

impl config::Host for Guest {
    fn snapshot_json(&mut self) -> wasmtime::Result<String> {
        Ok(self.call.config_json.clone())
    }

    fn get(&mut self, pointer: String) -> wasmtime::Result<Option<String>> {
        let json = &self.call.config_json;
        let tree = self.snapshot.get_or_insert_with(|| serde_json::from_str(json).unwrap_or_default());
        Ok(tree.pointer(&pointer).map(ToString::to_string))
    }
}

impl census::Host for Guest {
    fn me(&mut self) -> wasmtime::Result<census::Member> {
        let me = self.call.members.iter().find(|member| member.is_me).cloned();
        Ok(member(me.unwrap_or_else(|| HookMember { group: self.call.group.clone(), alive: true, ..HookMember::default() })))
    }

    fn members(&mut self, group: String) -> wasmtime::Result<Vec<census::Member>> {
        let of_group = self.call.members.iter().filter(|member| member.group == group);
        Ok(of_group.cloned().map(member).collect())
    }
}

fn member(known: HookMember) -> census::Member {
    let HookMember { id, group, address, alive, healthy, leader, suitability, is_me: _ } = known;
    census::Member { id, group, address, alive, healthy, leader, suitability, extra: Vec::new() }
}

impl clock::Host for Guest {
    fn now_unix_ms(&mut self) -> wasmtime::Result<u64> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic_ns(&mut self) -> wasmtime::Result<u64> {
        Ok(u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    async fn sleep_ms(&mut self, ms: u32) -> wasmtime::Result<()> {
        tokio::time::sleep(Duration::from_millis(u64::from(ms))).await;
        Ok(())
    }
}

impl exec::Host for Guest {
    async fn run(&mut self, name: String, timeout_ms: u32) -> wasmtime::Result<Result<exec::Exit, exec::ExecError>> {
        let error = |code: Code, message: String| Err(exec::ExecError { code: code.word().to_owned(), message });
        let timeout_ms = u32::try_from(self.left(timeout_ms).as_millis()).unwrap_or(u32::MAX);
        Ok(match self.line.ask(Ask::Exec { name, timeout_ms }).await.0 {
            Answer::Exit { code, signal, output } => Ok(exec::Exit { status: exec::ExitStatus { code, signal }, output }),
            Answer::Refused { code, message } => error(code, message),
            Answer::Done | Answer::Probe { .. } => error(Code::Other, "the supervisor answered another question".to_owned()),
        })
    }
}

impl files::Host for Guest {
    async fn read(&mut self, path: String) -> wasmtime::Result<Result<Vec<u8>, files::FileError>> {
        let how = Open { read: true, ..Open::default() };
        let opened = self.open(path, how).await;
        Ok(match opened {
            Ok(file) => aside(move || read(file)).await,
            Err(error) => Err(error),
        })
    }

    async fn list_dir(&mut self, path: String) -> wasmtime::Result<Result<Vec<String>, files::FileError>> {
        let how = Open { read: true, folder: true, ..Open::default() };
        let opened = self.open(path, how).await;
        Ok(match opened {
            Ok(folder) => aside(move || list(folder)).await,
            Err(error) => Err(error),
        })
    }

    async fn write(&mut self, path: String, data: Vec<u8>) -> wasmtime::Result<Result<(), files::FileError>> {
        if data.len() > BODY_MAX_BYTES {
            return Ok(Err(file_error(Code::TooLarge, format!("{} bytes are more than {BODY_MAX_BYTES}", data.len()))));
        }
        Ok(self.done(Ask::Write { path, data }).await)
    }

    async fn remove(&mut self, path: String) -> wasmtime::Result<Result<(), files::FileError>> {
        Ok(self.done(Ask::Remove { path, folder: false }).await)
    }
}

impl Guest {
    async fn open(&mut self, path: String, how: Open) -> Result<OwnedFd, files::FileError> {
        match self.line.ask(Ask::Open { path, how }).await {
            (Answer::Done, Some(opened)) => Ok(opened),
            (Answer::Refused { code, message }, _) => Err(file_error(code, message)),
            (Answer::Done | Answer::Exit { .. } | Answer::Probe { .. }, _) => {
                Err(file_error(Code::Other, "nothing was opened".to_owned()))
            }
        }
    }

    async fn done(&mut self, ask: Ask) -> Result<(), files::FileError> {
        match self.line.ask(ask).await.0 {
            Answer::Done => Ok(()),
            Answer::Refused { code, message } => Err(file_error(code, message)),
            Answer::Exit { .. } | Answer::Probe { .. } => {
                Err(file_error(Code::Other, "the supervisor answered another question".to_owned()))
            }
        }
    }
}

fn file_error(code: Code, message: String) -> files::FileError {
    files::FileError { code: code.word().to_owned(), message }
}

/// Away from the thread that all calls share: a file may lie on a disk that does not answer.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, files::FileError> + Send + 'static,
) -> Result<T, files::FileError> {
    let broke_off = |error: tokio::task::JoinError| Err(file_error(Code::Other, error.to_string()));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(broke_off)
}

fn in_words(error: &std::io::Error) -> files::FileError {
    file_error(Code::Other, error.to_string())
}

fn read(file: OwnedFd) -> Result<Vec<u8>, files::FileError> {
    let mut content = Vec::new();
    std::fs::File::from(file).take(BODY_MAX_BYTES as u64 + 1).read_to_end(&mut content).map_err(|error| in_words(&error))?;
    if content.len() > BODY_MAX_BYTES {
        return Err(file_error(Code::TooLarge, format!("it is longer than {BODY_MAX_BYTES} bytes")));
    }
    Ok(content)
}

fn list(folder: OwnedFd) -> Result<Vec<String>, files::FileError> {
    // Not opened a second time, which this process may not.
    let entries = rustix::fs::Dir::new(folder).map_err(|error| in_words(&error.into()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| in_words(&error.into()))?;
        let name = entry.file_name().to_string_lossy();
        if name == "." || name == ".." {
            continue;
        }
        let end = if entry.file_type() == rustix::fs::FileType::Directory { "/" } else { "" };
        names.push(format!("{name}{end}"));
        if names.len() > NAMES_MAX {
            return Err(file_error(Code::TooLarge, format!("it holds more than {NAMES_MAX} names")));
        }
    }
    names.sort_unstable();
    Ok(names)
}
