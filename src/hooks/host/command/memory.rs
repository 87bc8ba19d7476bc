//! A command's memory, and the numbers that WASI answers with.

use wasmtime::{Caller, Extern, Memory};

use crate::hooks::host::guest::Guest;
use crate::hooks::wire::Code;

/// An error of preview 1, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Errno(pub(super) i32);

impl Errno {
    pub(super) const ACCES: Self = Self(2);
    pub(super) const BADF: Self = Self(8);
    pub(super) const EXIST: Self = Self(20);
    pub(super) const FAULT: Self = Self(21);
    pub(super) const FBIG: Self = Self(22);
    pub(super) const INVAL: Self = Self(28);
    pub(super) const IO: Self = Self(29);
    pub(super) const ISDIR: Self = Self(31);
    pub(super) const MFILE: Self = Self(33);
    pub(super) const NOENT: Self = Self(44);
    pub(super) const NOTDIR: Self = Self(54);
    pub(super) const NOTEMPTY: Self = Self(55);
    pub(super) const NOTSUP: Self = Self(58);
    pub(super) const SPIPE: Self = Self(70);
    pub(super) const NOTCAPABLE: Self = Self(76);

    pub(super) const fn of(code: Code) -> Self {
        match code {
            Code::Denied => Self::ACCES,
            Code::NotFound => Self::NOENT,
            Code::Exists => Self::EXIST,
            Code::NotFolder => Self::NOTDIR,
            Code::IsFolder => Self::ISDIR,
            Code::NotEmpty => Self::NOTEMPTY,
            Code::TooLarge => Self::FBIG,
            Code::Invalid => Self::INVAL,
            Code::Timeout | Code::ConnectionRefused | Code::Dns | Code::Tls | Code::Other => Self::IO,
        }
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EISDIR) => Self::ISDIR,
            Some(libc::EBADF) => Self::BADF,
            Some(libc::EINVAL) => Self::INVAL,
            Some(libc::EFBIG | libc::ENOSPC) => Self::FBIG,
            _ => Self::IO,
        }
    }
}

/// What a call gives back: nothing, or why not.
pub(super) type Done = Result<(), Errno>;

/// As the guest sees it.
pub(super) fn number(done: Done) -> i32 {
    done.map_or_else(|error| error.0, |()| 0)
}

/// Bytes that one call reads or writes at most; guests ask again for the rest.
const PART_MAX_BYTES: usize = 256 << 10;
/// Parts of a scattered read or write.
const PARTS_MAX: usize = 1_024;

fn memory(caller: &mut Caller<'_, Guest>) -> Result<Memory, Errno> {
    caller.get_export("memory").and_then(Extern::into_memory).ok_or(Errno::FAULT)
}

fn at(pointer: i32) -> usize {
    pointer.cast_unsigned() as usize
}

pub(super) fn write(caller: &mut Caller<'_, Guest>, pointer: i32, bytes: &[u8]) -> Done {
    memory(caller)?.write(caller, at(pointer), bytes).map_err(|_| Errno::FAULT)
}

pub(super) fn read(caller: &mut Caller<'_, Guest>, pointer: i32, length: i32) -> Result<Vec<u8>, Errno> {
    let memory = memory(caller)?;
    let range = at(pointer)..at(pointer).checked_add(at(length)).ok_or(Errno::FAULT)?;
    memory.data(&*caller).get(range).map(<[u8]>::to_vec).ok_or(Errno::FAULT)
}

/// A text of at most 4096 bytes.
pub(super) fn text(caller: &mut Caller<'_, Guest>, pointer: i32, length: i32) -> Result<String, Errno> {
    if at(length) > 4_096 {
        return Err(Errno::INVAL);
    }
    String::from_utf8(read(caller, pointer, length)?).map_err(|_| Errno::INVAL)
}

/// Pointers and lengths of a scattered read or write.
pub(super) fn parts(caller: &mut Caller<'_, Guest>, pointer: i32, count: i32) -> Result<Vec<(i32, i32)>, Errno> {
    if at(count) > PARTS_MAX {
        return Err(Errno::INVAL);
    }
    let table = read(caller, pointer, count.wrapping_mul(8))?;
    let word = |bytes: &[u8]| i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    Ok(table.chunks_exact(8).map(|pair| (word(&pair[..4]), word(&pair[4..]))).collect())
}

/// What a scattered write hands over, as far as one call takes it.
pub(super) fn gather(caller: &mut Caller<'_, Guest>, pointer: i32, count: i32) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    for (pointer, length) in parts(caller, pointer, count)? {
        let room = PART_MAX_BYTES - bytes.len();
        let taken = at(length).min(room);
        bytes.extend(read(caller, pointer, i32::try_from(taken).unwrap_or(0))?);
        if taken < at(length) {
            break;
        }
    }
    Ok(bytes)
}

/// How many bytes a scattered read wants, as far as one call gives them.
pub(super) fn wanted(parts: &[(i32, i32)]) -> usize {
    parts.iter().fold(0_usize, |sum, (_, length)| sum.saturating_add(at(*length))).min(PART_MAX_BYTES)
}

/// Puts what was read where it is wanted, and its length at `count`.
pub(super) fn scatter(caller: &mut Caller<'_, Guest>, parts: &[(i32, i32)], mut bytes: &[u8], count: i32) -> Done {
    let length = u32::try_from(bytes.len()).map_err(|_| Errno::INVAL)?;
    for (pointer, room) in parts {
        let (now, rest) = bytes.split_at(bytes.len().min(at(*room)));
        write(caller, *pointer, now)?;
        bytes = rest;
    }
    write(caller, count, &length.to_le_bytes())
}
