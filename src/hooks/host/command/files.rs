//! Calls of preview 1 that are about files: standard input and outputs, granted folders, and what lies below them.
//!
//! A folder is a path here, not a descriptor: each name below it is asked for anew, and the supervisor opens it beneath the granted
//! folder. Reading and writing happen on what it handed over, away from the thread that all calls share.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;

use rustix::fs::FileType;
use wasmtime::{Caller, Linker};

use super::memory::{Done, Errno, gather, number, parts, scatter, text, wanted, write};
use super::{OUTPUT_MAX_BYTES, WASI};
use crate::hooks::host::guest::Guest;
use crate::hooks::wire::{Answer, Ask, Open};

/// Files and folders that a command may have open.
const OPEN_MAX: usize = 64;
/// Names of a folder that are shown.
const NAMES_MAX: usize = 4_096;
/// Where the granted folders begin.
const FIRST_FOLDER: usize = 3;
/// Reading, writing, looking, waiting; no seeking.
const STREAM_RIGHTS: u64 = 1 << 1 | 1 << 3 | 1 << 6 | 1 << 21 | 1 << 27;
/// Kinds of files, as preview 1 numbers them.
const CHARACTER_DEVICE: u8 = 2;
const FOLDER: u8 = 3;
const REGULAR: u8 = 4;
const OTHER: u8 = 0;

type Call<'a> = Caller<'a, Guest>;

/// What is open, by number.
#[derive(Default)]
pub(super) struct Table(Vec<Option<Entry>>);

#[derive(Clone)]
enum Entry {
    Input,
    Output(usize),
    Folder { path: String, granted: bool, names: Option<Arc<Vec<(String, u8)>>> },
    File { file: Arc<File>, append: bool },
}

impl Table {
    pub(super) fn new(folders: &[(String, bool)]) -> Self {
        let folder = |(path, _): &(String, bool)| Entry::Folder { path: path.clone(), granted: true, names: None };
        let fixed = [Entry::Input, Entry::Output(0), Entry::Output(1)];
        Self(fixed.into_iter().chain(folders.iter().map(folder)).map(Some).collect())
    }

    fn get(&self, fd: i32) -> Result<Entry, Errno> {
        usize::try_from(fd).ok().and_then(|at| self.0.get(at)?.clone()).ok_or(Errno::BADF)
    }

    fn slot(&mut self, fd: i32) -> Result<&mut Option<Entry>, Errno> {
        usize::try_from(fd).ok().and_then(|at| self.0.get_mut(at)).filter(|slot| slot.is_some()).ok_or(Errno::BADF)
    }

    fn insert(&mut self, entry: Entry) -> Result<u32, Errno> {
        let free = self.0.iter().position(Option::is_none).filter(|at| *at >= FIRST_FOLDER);
        let at = free.unwrap_or(self.0.len());
        if free.is_none() {
            if self.0.iter().flatten().count() >= OPEN_MAX + FIRST_FOLDER {
                return Err(Errno::MFILE);
            }
            self.0.push(None);
        }
        self.0[at] = Some(entry);
        u32::try_from(at).map_err(|_| Errno::MFILE)
    }
}

fn table<'a>(call: &'a mut Call<'_>) -> &'a mut Table {
    &mut call.data_mut().command.open
}

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    descriptors(linker)?;
    streams(linker)?;
    names(linker)?;
    refused(linker)
}

/// What a descriptor is.
fn descriptors(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker
        .func_wrap(WASI, "fd_close", |mut call: Call<'_>, fd: i32| number(table(&mut call).slot(fd).map(|slot| *slot = None)))?;
    linker.func_wrap(WASI, "fd_fdstat_get", |mut call: Call<'_>, fd: i32, out: i32| {
        let found = table(&mut call).get(fd);
        number(found.and_then(|entry| write(&mut call, out, &fdstat(&entry))))
    })?;
    linker.func_wrap(WASI, "fd_fdstat_set_flags", |mut call: Call<'_>, fd: i32, flags: i32| {
        let set = |slot: &mut Option<Entry>| {
            if let Some(Entry::File { append, .. }) = slot {
                *append = flags & 1 == 1;
            }
        };
        number(table(&mut call).slot(fd).map(set))
    })?;
    linker.func_wrap(WASI, "fd_fdstat_set_rights", |_: Call<'_>, _: i32, _: i64, _: i64| 0)?;
    linker.func_wrap(WASI, "fd_filestat_get", |mut call: Call<'_>, fd: i32, out: i32| {
        let found = table(&mut call).get(fd).and_then(|entry| match entry {
            Entry::File { file, .. } => stat(&file),
            Entry::Folder { .. } => Ok(bare_stat(FOLDER)),
            Entry::Input | Entry::Output(_) => Ok(bare_stat(CHARACTER_DEVICE)),
        });
        number(found.and_then(|bytes| write(&mut call, out, &bytes)))
    })?;
    linker.func_wrap(WASI, "fd_prestat_get", |mut call: Call<'_>, fd: i32, out: i32| {
        let found = granted(&mut call, fd).and_then(|path| u32::try_from(path.len()).map_err(|_| Errno::INVAL));
        number(found.and_then(|length| {
            let mut bytes = [0; 8];
            bytes[4..].copy_from_slice(&length.to_le_bytes());
            write(&mut call, out, &bytes)
        }))
    })?;
    linker.func_wrap(WASI, "fd_prestat_dir_name", |mut call: Call<'_>, fd: i32, out: i32, length: i32| {
        let found = granted(&mut call, fd);
        number(found.and_then(|path| {
            if path.len() != usize::try_from(length).unwrap_or(0) {
                return Err(Errno::INVAL);
            }
            write(&mut call, out, path.as_bytes())
        }))
    })?;
    linker.func_wrap(WASI, "fd_renumber", |mut call: Call<'_>, from: i32, to: i32| {
        let table = table(&mut call);
        let moved = table.slot(to).map(|_| ()).and_then(|()| table.slot(from)).map(Option::take);
        number(moved.and_then(|entry| table.slot(to).map(|slot| *slot = entry)))
    })?;
    Ok(())
}

/// A granted folder's path.
fn granted(call: &mut Call<'_>, fd: i32) -> Result<String, Errno> {
    match table(call).get(fd)? {
        Entry::Folder { path, granted: true, .. } => Ok(path),
        Entry::Folder { .. } | Entry::File { .. } | Entry::Input | Entry::Output(_) => Err(Errno::BADF),
    }
}

fn fdstat(entry: &Entry) -> [u8; 24] {
    let mut out = [0; 24];
    let (kind, append) = match entry {
        Entry::Input | Entry::Output(_) => (CHARACTER_DEVICE, false),
        Entry::Folder { .. } => (FOLDER, false),
        Entry::File { append, .. } => (REGULAR, *append),
    };
    out[0] = kind;
    out[2] = u8::from(append);
    // All rights: which hold is the supervisor's to say, when something is asked for.
    let rights = if matches!(entry, Entry::Input | Entry::Output(_)) { STREAM_RIGHTS } else { 0x1fff_ffff };
    out[8..16].copy_from_slice(&rights.to_le_bytes());
    out[16..24].copy_from_slice(&rights.to_le_bytes());
    out
}

fn bare_stat(kind: u8) -> [u8; 64] {
    let mut out = [0; 64];
    out[16] = kind;
    out[24..32].copy_from_slice(&1_u64.to_le_bytes());
    out
}

fn stat(file: &File) -> Result<[u8; 64], Errno> {
    let found = file.metadata()?;
    let kind = if found.is_dir() {
        FOLDER
    } else if found.is_file() {
        REGULAR
    } else {
        OTHER
    };
    let mut out = bare_stat(kind);
    let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns).max(0).cast_unsigned();
    let times =
        [ns(found.atime(), found.atime_nsec()), ns(found.mtime(), found.mtime_nsec()), ns(found.ctime(), found.ctime_nsec())];
    out[8..16].copy_from_slice(&found.ino().to_le_bytes());
    out[32..40].copy_from_slice(&found.len().to_le_bytes());
    for (at, time) in times.iter().enumerate() {
        out[40 + at * 8..48 + at * 8].copy_from_slice(&time.to_le_bytes());
    }
    Ok(out)
}

/// Reading and writing.
fn streams(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap_async(WASI, "fd_read", |mut call: Call<'_>, (fd, table, count, out): (i32, i32, i32, i32)| {
        Box::new(async move { number(read_some(&mut call, fd, table, count, out, None).await) })
    })?;
    linker.func_wrap_async(WASI, "fd_pread", |mut call: Call<'_>, (fd, table, count, at, out): (i32, i32, i32, i64, i32)| {
        Box::new(async move { number(read_some(&mut call, fd, table, count, out, Some(at.cast_unsigned())).await) })
    })?;
    linker.func_wrap_async(WASI, "fd_write", |mut call: Call<'_>, (fd, table, count, out): (i32, i32, i32, i32)| {
        Box::new(async move { number(write_some(&mut call, fd, table, count, out, None).await) })
    })?;
    linker.func_wrap_async(WASI, "fd_pwrite", |mut call: Call<'_>, (fd, table, count, at, out): (i32, i32, i32, i64, i32)| {
        Box::new(async move { number(write_some(&mut call, fd, table, count, out, Some(at.cast_unsigned())).await) })
    })?;
    linker.func_wrap(WASI, "fd_seek", |mut call: Call<'_>, fd: i32, by: i64, whence: i32, out: i32| {
        number(seek(&mut call, fd, by, whence, out))
    })?;
    linker.func_wrap(WASI, "fd_tell", |mut call: Call<'_>, fd: i32, out: i32| number(seek(&mut call, fd, 0, 1, out)))?;
    linker.func_wrap_async(WASI, "fd_filestat_set_size", |mut call: Call<'_>, (fd, size): (i32, i64)| {
        Box::new(async move {
            let file = file(&mut call, fd);
            number(match file {
                Ok(file) => aside(move || Ok(file.set_len(size.cast_unsigned())?)).await,
                Err(error) => Err(error),
            })
        })
    })?;
    // What a call has written is looked at by others after the call: nothing is gained by waiting for the disk.
    for name in ["fd_sync", "fd_datasync"] {
        linker.func_wrap(WASI, name, |mut call: Call<'_>, fd: i32| number(table(&mut call).get(fd).map(drop)))?;
    }
    linker.func_wrap(WASI, "fd_advise", |_: Call<'_>, _: i32, _: i64, _: i64, _: i32| 0)?;
    Ok(())
}

fn file(call: &mut Call<'_>, fd: i32) -> Result<Arc<File>, Errno> {
    match table(call).get(fd)? {
        Entry::File { file, .. } => Ok(file),
        Entry::Folder { .. } => Err(Errno::ISDIR),
        Entry::Input | Entry::Output(_) => Err(Errno::SPIPE),
    }
}

/// Away from the thread that all calls share.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, Errno> + Send + 'static) -> Result<T, Errno> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Errno::IO))
}

async fn read_some(call: &mut Call<'_>, fd: i32, table_at: i32, count: i32, out: i32, at: Option<u64>) -> Done {
    let parts = parts(call, table_at, count)?;
    let room = wanted(&parts);
    let bytes = match table(call).get(fd)? {
        Entry::Input => {
            let state = &mut call.data_mut().command;
            let end = state.input.len().min(state.read.saturating_add(room));
            let bytes = state.input[state.read..end].to_vec();
            state.read = end;
            bytes
        }
        Entry::File { file, .. } => {
            aside(move || {
                let mut bytes = vec![0; room];
                let got = match at {
                    Some(at) => file.read_at(&mut bytes, at)?,
                    None => (&*file).read(&mut bytes)?,
                };
                bytes.truncate(got);
                Ok(bytes)
            })
            .await?
        }
        Entry::Folder { .. } => return Err(Errno::ISDIR),
        Entry::Output(_) => return Err(Errno::BADF),
    };
    scatter(call, &parts, &bytes, out)
}

async fn write_some(call: &mut Call<'_>, fd: i32, table_at: i32, count: i32, out: i32, at: Option<u64>) -> Done {
    let bytes = gather(call, table_at, count)?;
    let length = match table(call).get(fd)? {
        Entry::Output(number) => {
            let kept = &mut call.data_mut().command.outputs[number];
            kept.extend_from_slice(&bytes);
            // The end is what counts, and all that is kept.
            let surplus = kept.len().saturating_sub(OUTPUT_MAX_BYTES);
            kept.drain(..surplus);
            bytes.len()
        }
        Entry::File { file, append } => {
            aside(move || {
                Ok(match at {
                    Some(at) => file.write_at(&bytes, at)?,
                    None => {
                        if append {
                            (&*file).seek(SeekFrom::End(0))?;
                        }
                        (&*file).write(&bytes)?
                    }
                })
            })
            .await?
        }
        Entry::Folder { .. } => return Err(Errno::ISDIR),
        Entry::Input => return Err(Errno::BADF),
    };
    write(call, out, &u32::try_from(length).map_err(|_| Errno::INVAL)?.to_le_bytes())
}

fn seek(call: &mut Call<'_>, fd: i32, by: i64, whence: i32, out: i32) -> Done {
    let file = file(call, fd)?;
    let to = match whence {
        0 => SeekFrom::Start(by.cast_unsigned()),
        1 => SeekFrom::Current(by),
        2 => SeekFrom::End(by),
        _ => return Err(Errno::INVAL),
    };
    let at = (&*file).seek(to)?;
    write(call, out, &at.to_le_bytes())
}

/// Names below folders.
fn names(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    type PathOpen = (i32, i32, i32, i32, i32, i64, i64, i32, i32);
    linker.func_wrap_async(
        WASI,
        "path_open",
        |mut call: Call<'_>, (fd, look, path, length, how, rights, _, flags, out): PathOpen| {
            Box::new(async move { number(path_open(&mut call, (fd, path, length), look, how, rights, flags, out).await) })
        },
    )?;
    linker.func_wrap_async(
        WASI,
        "path_filestat_get",
        |mut call: Call<'_>, (fd, look, path, length, out): (i32, i32, i32, i32, i32)| {
            Box::new(async move { number(path_stat(&mut call, (fd, path, length), look, out).await) })
        },
    )?;
    linker.func_wrap_async(
        WASI,
        "fd_readdir",
        |mut call: Call<'_>, (fd, out, room, cookie, used): (i32, i32, i32, i64, i32)| {
            Box::new(async move { number(readdir(&mut call, fd, (out, room), cookie, used).await) })
        },
    )?;
    for (name, folder) in [("path_unlink_file", false), ("path_remove_directory", true)] {
        linker.func_wrap_async(WASI, name, move |mut call: Call<'_>, (fd, path, length): (i32, i32, i32)| {
            Box::new(async move {
                let path = below(&mut call, fd, path, length);
                number(match path {
                    Ok(path) => done(&mut call, Ask::Remove { path, folder }).await,
                    Err(error) => Err(error),
                })
            })
        })?;
    }
    linker.func_wrap_async(WASI, "path_create_directory", |mut call: Call<'_>, (fd, path, length): (i32, i32, i32)| {
        Box::new(async move {
            let path = below(&mut call, fd, path, length);
            number(match path {
                Ok(path) => done(&mut call, Ask::MakeFolder { path }).await,
                Err(error) => Err(error),
            })
        })
    })?;
    type Rename = (i32, i32, i32, i32, i32, i32);
    linker.func_wrap_async(WASI, "path_rename", |mut call: Call<'_>, (fd, from, length, to_fd, to, to_length): Rename| {
        Box::new(async move {
            let both = below(&mut call, fd, from, length)
                .and_then(|from| below(&mut call, to_fd, to, to_length).map(|to| Ask::Rename { from, to }));
            number(match both {
                Ok(ask) => done(&mut call, ask).await,
                Err(error) => Err(error),
            })
        })
    })?;
    Ok(())
}

/// What no hook needs.
fn refused(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let no = Errno::NOTSUP.0;
    linker.func_wrap(WASI, "fd_allocate", move |_: Call<'_>, _: i32, _: i64, _: i64| no)?;
    linker.func_wrap(WASI, "fd_filestat_set_times", move |_: Call<'_>, _: i32, _: i64, _: i64, _: i32| no)?;
    let times = move |_: Call<'_>, _: i32, _: i32, _: i32, _: i32, _: i64, _: i64, _: i32| no;
    linker.func_wrap(WASI, "path_filestat_set_times", times)?;
    let link = move |_: Call<'_>, _: i32, _: i32, _: i32, _: i32, _: i32, _: i32, _: i32| no;
    linker.func_wrap(WASI, "path_link", link)?;
    linker.func_wrap(WASI, "path_symlink", move |_: Call<'_>, _: i32, _: i32, _: i32, _: i32, _: i32| no)?;
    let readlink = move |_: Call<'_>, _: i32, _: i32, _: i32, _: i32, _: i32, _: i32| no;
    linker.func_wrap(WASI, "path_readlink", readlink)?;
    Ok(())
}

/// The path of a name below an open folder.
fn below(call: &mut Call<'_>, fd: i32, path: i32, length: i32) -> Result<String, Errno> {
    let name = text(call, path, length)?;
    if name.starts_with('/') {
        return Err(Errno::NOTCAPABLE);
    }
    match table(call).get(fd)? {
        Entry::Folder { path, .. } => {
            Ok(if name.is_empty() || name == "." { path } else { format!("{}/{name}", path.trim_end_matches('/')) })
        }
        Entry::File { .. } | Entry::Input | Entry::Output(_) => Err(Errno::NOTDIR),
    }
}

async fn done(call: &mut Call<'_>, ask: Ask) -> Done {
    match call.data_mut().line.ask(ask).await.0 {
        Answer::Done => Ok(()),
        Answer::Refused { code, .. } => Err(Errno::of(code)),
        Answer::Exit { .. } | Answer::Probe { .. } => Err(Errno::IO),
    }
}

async fn opened(call: &mut Call<'_>, path: String, how: Open) -> Result<OwnedFd, Errno> {
    match call.data_mut().line.ask(Ask::Open { path, how }).await {
        (Answer::Done, Some(file)) => Ok(file),
        (Answer::Refused { code, .. }, _) => Err(Errno::of(code)),
        (Answer::Done | Answer::Exit { .. } | Answer::Probe { .. }, _) => Err(Errno::IO),
    }
}

async fn path_open(
    call: &mut Call<'_>,
    (fd, path, length): (i32, i32, i32),
    look: i32,
    how: i32,
    rights: i64,
    flags: i32,
    out: i32,
) -> Done {
    let path = below(call, fd, path, length)?;
    let writes = rights & (1 << 6) != 0;
    let how = Open {
        read: rights & (1 << 1) != 0 || !writes,
        // Guests ask for all rights that their folder has: only some make a writer.
        write: writes && how & 2 == 0,
        create: how & 1 != 0,
        folder: how & 2 != 0,
        exclusive: how & 4 != 0,
        truncate: how & 8 != 0,
        append: flags & 1 != 0,
        look: false,
        no_follow: look & 1 == 0,
    };
    let file = File::from(opened(call, path.clone(), how).await?);
    let entry = if file.metadata()?.is_dir() {
        Entry::Folder { path, granted: false, names: None }
    } else {
        Entry::File { file: Arc::new(file), append: how.append }
    };
    let fd = table(call).insert(entry)?;
    write(call, out, &fd.to_le_bytes())
}

async fn path_stat(call: &mut Call<'_>, (fd, path, length): (i32, i32, i32), look: i32, out: i32) -> Done {
    let path = below(call, fd, path, length)?;
    let how = Open { look: true, no_follow: look & 1 == 0, ..Open::default() };
    let found = stat(&File::from(opened(call, path, how).await?))?;
    write(call, out, &found)
}

async fn readdir(call: &mut Call<'_>, fd: i32, (out, room): (i32, i32), cookie: i64, used: i32) -> Done {
    let (path, known) = match table(call).get(fd)? {
        Entry::Folder { path, names, .. } => (path, names.filter(|_| cookie != 0)),
        Entry::File { .. } | Entry::Input | Entry::Output(_) => return Err(Errno::NOTDIR),
    };
    let names = match known {
        Some(names) => names,
        None => {
            let how = Open { read: true, folder: true, ..Open::default() };
            let folder = opened(call, path, how).await?;
            let listed = Arc::new(aside(move || list(folder)).await?);
            if let Some(Entry::Folder { names, .. }) = table(call).slot(fd)? {
                *names = Some(listed.clone());
            }
            listed
        }
    };
    let room = usize::try_from(room).map_err(|_| Errno::INVAL)?;
    let mut bytes = Vec::new();
    for (at, (name, kind)) in names.iter().enumerate().skip(usize::try_from(cookie).unwrap_or(usize::MAX)) {
        bytes.extend_from_slice(&(at as u64 + 1).to_le_bytes());
        bytes.extend_from_slice(&0_u64.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(name.len()).unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&u32::from(*kind).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        if bytes.len() >= room {
            break;
        }
    }
    // A last entry that is cut off tells the guest to ask for more.
    bytes.truncate(room);
    write(call, out, &bytes)?;
    write(call, used, &u32::try_from(bytes.len()).map_err(|_| Errno::INVAL)?.to_le_bytes())
}

fn list(folder: OwnedFd) -> Result<Vec<(String, u8)>, Errno> {
    // Not opened a second time, which this process may not.
    let entries = rustix::fs::Dir::new(folder).map_err(std::io::Error::from)?;
    let mut names = Vec::new();
    for entry in entries.take(NAMES_MAX) {
        let entry = entry.map_err(std::io::Error::from)?;
        let kind = match entry.file_type() {
            FileType::Directory => FOLDER,
            FileType::RegularFile => REGULAR,
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => OTHER,
        };
        names.push((entry.file_name().to_string_lossy().into_owned(), kind));
    }
    names.sort_unstable();
    Ok(names)
}
