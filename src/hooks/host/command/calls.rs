//! Calls of preview 1 that are not about files: arguments, environment, time, chance, waiting, the end.

use std::time::{Duration, SystemTime};

use wasmtime::{Caller, Linker};

use super::memory::{Done, Errno, number, read, write};
use super::{Exited, WASI};
use crate::hooks::host::guest::Guest;

/// Bytes of chance of one call.
const RANDOM_MAX_BYTES: i32 = 64 << 10;
/// Things that one call may wait for.
const SUBSCRIPTIONS_MAX: i32 = 1_024;
const SUBSCRIPTION_BYTES: usize = 48;
const EVENT_BYTES: usize = 32;
const CLOCK_REALTIME: i32 = 0;
const CLOCK_MONOTONIC: i32 = 1;

type Call<'a> = Caller<'a, Guest>;

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(WASI, "args_sizes_get", |mut call: Call<'_>, count: i32, bytes: i32| {
        let strings = call.data().command.arguments.clone();
        number(sizes(&mut call, &strings, count, bytes))
    })?;
    linker.func_wrap(WASI, "args_get", |mut call: Call<'_>, table: i32, bytes: i32| {
        let strings = call.data().command.arguments.clone();
        number(strings_out(&mut call, &strings, table, bytes))
    })?;
    linker.func_wrap(WASI, "environ_sizes_get", |mut call: Call<'_>, count: i32, bytes: i32| {
        let strings = environment(&call);
        number(sizes(&mut call, &strings, count, bytes))
    })?;
    linker.func_wrap(WASI, "environ_get", |mut call: Call<'_>, table: i32, bytes: i32| {
        let strings = environment(&call);
        number(strings_out(&mut call, &strings, table, bytes))
    })?;
    linker.func_wrap(WASI, "clock_res_get", |mut call: Call<'_>, _: i32, out: i32| {
        number(write(&mut call, out, &1_u64.to_le_bytes()))
    })?;
    linker.func_wrap(WASI, "clock_time_get", |mut call: Call<'_>, clock: i32, _: i64, out: i32| {
        let time = now(&call, clock);
        number(time.and_then(|time| write(&mut call, out, &time.to_le_bytes())))
    })?;
    linker.func_wrap(WASI, "random_get", |mut call: Call<'_>, out: i32, length: i32| number(random(&mut call, out, length)))?;
    linker.func_wrap(WASI, "sched_yield", |_: Call<'_>| 0)?;
    linker.func_wrap(WASI, "proc_exit", |_: Call<'_>, code: i32| -> wasmtime::Result<()> {
        Err(wasmtime::Error::new(Exited(code)))
    })?;
    linker.func_wrap(WASI, "proc_raise", |_: Call<'_>, _: i32| Errno::NOTSUP.0)?;
    linker.func_wrap_async(WASI, "poll_oneoff", |mut call: Call<'_>, (wanted, events, count, out): (i32, i32, i32, i32)| {
        Box::new(async move { number(poll(&mut call, wanted, events, count, out).await) })
    })?;
    linker.func_wrap(WASI, "sock_accept", |_: Call<'_>, _: i32, _: i32, _: i32| Errno::NOTSUP.0)?;
    let recv = |_: Call<'_>, _: i32, _: i32, _: i32, _: i32, _: i32, _: i32| Errno::NOTSUP.0;
    linker.func_wrap(WASI, "sock_recv", recv)?;
    linker.func_wrap(WASI, "sock_send", |_: Call<'_>, _: i32, _: i32, _: i32, _: i32, _: i32| Errno::NOTSUP.0)?;
    linker.func_wrap(WASI, "sock_shutdown", |_: Call<'_>, _: i32, _: i32| Errno::NOTSUP.0)?;
    Ok(())
}

fn environment(call: &Call<'_>) -> Vec<String> {
    call.data().call.env.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn sizes(call: &mut Call<'_>, strings: &[String], count: i32, bytes: i32) -> Done {
    let size = |number: usize| u32::try_from(number).map_err(|_| Errno::INVAL);
    let sum = strings.iter().map(|text| text.len() + 1).sum();
    write(call, count, &size(strings.len())?.to_le_bytes())?;
    write(call, bytes, &size(sum)?.to_le_bytes())
}

fn strings_out(call: &mut Call<'_>, strings: &[String], mut table: i32, mut bytes: i32) -> Done {
    for text in strings {
        write(call, table, &bytes.to_le_bytes())?;
        write(call, bytes, text.as_bytes())?;
        let length = i32::try_from(text.len()).map_err(|_| Errno::INVAL)?;
        write(call, bytes.wrapping_add(length), &[0])?;
        table = table.wrapping_add(4);
        bytes = bytes.wrapping_add(length + 1);
    }
    Ok(())
}

/// Nanoseconds of a clock.
fn now(call: &Call<'_>, clock: i32) -> Result<u64, Errno> {
    let time = match clock {
        CLOCK_REALTIME => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
        CLOCK_MONOTONIC => call.data().begun.elapsed(),
        _ => return Err(Errno::INVAL),
    };
    Ok(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

fn random(call: &mut Call<'_>, out: i32, length: i32) -> Done {
    if !(0..=RANDOM_MAX_BYTES).contains(&length) {
        return Err(Errno::INVAL);
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut filled = 0;
    while filled < bytes.len() {
        let got = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty());
        filled += got.map_err(|error| Errno::from(std::io::Error::from(error)))?;
    }
    write(call, out, &bytes)
}

/// Waits for the nearest of several times; files are always ready.
async fn poll(call: &mut Call<'_>, wanted: i32, events: i32, count: i32, out: i32) -> Done {
    if !(1..=SUBSCRIPTIONS_MAX).contains(&count) {
        return Err(Errno::INVAL);
    }
    let table = read(call, wanted, count * i32::try_from(SUBSCRIPTION_BYTES).unwrap_or(0))?;
    let long = |row: &[u8], at: usize| u64::from_le_bytes(row[at..at + 8].try_into().unwrap_or_default());
    // When each is due, from now on; a file at once.
    let mut due = Vec::new();
    for row in table.chunks_exact(SUBSCRIPTION_BYTES) {
        let wait = match row[8] {
            0 => {
                let clock = i32::from_le_bytes([row[16], row[17], row[18], row[19]]);
                let at = long(row, 24);
                let is_absolute = row[40] & 1 == 1;
                Duration::from_nanos(if is_absolute { at.saturating_sub(now(call, clock)?) } else { at })
            }
            1 | 2 => Duration::ZERO,
            _ => return Err(Errno::INVAL),
        };
        due.push((wait, row[8], long(row, 0)));
    }
    let nearest = due.iter().map(|(wait, ..)| *wait).min().unwrap_or_default();
    if !nearest.is_zero() {
        tokio::time::sleep(nearest).await;
    }
    let mut happened: u32 = 0;
    let mut at = events;
    for (_, kind, name) in due.iter().filter(|(wait, ..)| *wait <= nearest) {
        let mut event = [0; EVENT_BYTES];
        event[..8].copy_from_slice(&name.to_le_bytes());
        event[10] = *kind;
        write(call, at, &event)?;
        at = at.wrapping_add(i32::try_from(EVENT_BYTES).unwrap_or(0));
        happened += 1;
    }
    write(call, out, &happened.to_le_bytes())
}
