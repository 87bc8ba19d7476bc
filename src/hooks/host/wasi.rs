//! WASI 0.2 for components, with nothing behind it: no folders, no sockets, no arguments but the hook's name, of the environment
//! what `allow.env` names. Time, chance and output are there, since most languages begin with them.
//!
//! Calls that are not here are linked to traps, so that a module that merely imports them can be run. To serve another: a line in
//! the function of its package.

use std::time::{Duration, Instant, SystemTime};

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentType, Lift, Linker, Lower, Resource, ResourceType, Val};
use wasmtime::{Engine, StoreContextMut};

use super::command::Exited;
use super::guest::Guest;
use crate::hooks::wire::Level;

/// Bytes of chance of one call.
const RANDOM_MAX_BYTES: u64 = 64 << 10;
/// Bytes that an output takes at once.
const WRITE_MAX_BYTES: u64 = 64 << 10;
/// What is kept of a line that has not ended.
const LINE_MAX_BYTES: usize = 4 << 10;
/// Times that a call may wait for, counted over all of it.
const TIMERS_MAX: usize = 10_000;
/// What things of WASI are called by number.
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// What a call knows of WASI.
#[derive(Default)]
pub(super) struct Wasi {
    /// When something that is waited for is there; things that are always ready have none.
    timers: Vec<Instant>,
    /// Lines that have not ended.
    lines: [Vec<u8>; 2],
}

struct IoError;
struct Input;
struct Output;
struct Pollable;
struct Descriptor;
struct Terminal;
struct Network;

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    Failed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

type Store<'a> = StoreContextMut<'a, Guest>;

type Linked = wasmtime::Result<()>;

/// An interface's name with its version.
type At<'a> = dyn Fn(&str) -> String + 'a;

/// Serves one version of WASI 0.2, as it is written behind the `@`: a linker takes the very version before any that would fit.
pub(super) fn link(linker: &mut Linker<Guest>, version: &str) -> Linked {
    let at = |name: &str| format!("{name}@{version}");
    io(linker, &at)?;
    cli(linker, &at)?;
    clocks(linker, &at)?;
    random(linker, &at)?;
    sockets(linker, &at)?;
    let mut preopens = linker.instance(&at("wasi:filesystem/preopens"))?;
    preopens.func_wrap("get-directories", |_: Store<'_>, ()| Ok((Vec::<(Resource<Descriptor>, String)>::new(),)))
}

/// Gives the resources that a component imports their types. An interface hands those of others on under the same name, and all
/// must be the same; of those without a type here nothing is ever made.
pub(super) fn resources(linker: &mut Linker<Guest>, engine: &Engine, component: &Component) -> Linked {
    for (name, item) in component.component_type().imports(engine) {
        let (true, ComponentItem::ComponentInstance(interface)) = (name.starts_with("wasi:"), item.ty) else { continue };
        for (resource, item) in interface.exports(engine) {
            if let (ComponentItem::Resource(_), Some(own)) = (item.ty, resource_type(resource)) {
                linker.instance(name)?.resource(resource, own, |_, _| Ok(()))?;
            }
        }
    }
    Ok(())
}

fn resource_type(name: &str) -> Option<ResourceType> {
    Some(match name {
        "error" => ResourceType::host::<IoError>(),
        "pollable" => ResourceType::host::<Pollable>(),
        "input-stream" => ResourceType::host::<Input>(),
        "output-stream" => ResourceType::host::<Output>(),
        "descriptor" => ResourceType::host::<Descriptor>(),
        "terminal-input" | "terminal-output" => ResourceType::host::<Terminal>(),
        "network" => ResourceType::host::<Network>(),
        _ => return None,
    })
}

fn io(linker: &mut Linker<Guest>, at: &At<'_>) -> Linked {
    let mut poll = linker.instance(&at("wasi:io/poll"))?;
    poll.func_wrap("[method]pollable.ready", |store: Store<'_>, (on,): (Resource<Pollable>,)| {
        Ok((due(&store, on.rep()) <= Instant::now(),))
    })?;
    poll.func_wrap_async("[method]pollable.block", |store: Store<'_>, (on,): (Resource<Pollable>,)| {
        let due = due(&store, on.rep());
        Box::new(async move {
            tokio::time::sleep_until(due.into()).await;
            Ok(())
        })
    })?;
    poll.func_wrap_async("poll", |store: Store<'_>, (on,): (Vec<Resource<Pollable>>,)| {
        let dues: Vec<Instant> = on.iter().map(|on| due(&store, on.rep())).collect();
        Box::new(async move {
            let Some(first) = dues.iter().min().copied() else { return Ok((Vec::new(),)) };
            tokio::time::sleep_until(first.into()).await;
            let now = Instant::now();
            let ready = dues.iter().zip(0_u32..).filter(|(due, _)| **due <= now).map(|(_, at)| at);
            Ok((ready.collect::<Vec<u32>>(),))
        })
    })?;
    let mut streams = linker.instance(&at("wasi:io/streams"))?;
    for name in ["[method]input-stream.read", "[method]input-stream.blocking-read"] {
        streams.func_wrap(name, |_: Store<'_>, _: (Resource<Input>, u64)| Ok((Err::<Vec<u8>, _>(StreamError::Closed),)))?;
    }
    streams.func_wrap("[method]input-stream.subscribe", |_: Store<'_>, _: (Resource<Input>,)| Ok((ready(),)))?;
    streams.func_wrap("[method]output-stream.subscribe", |_: Store<'_>, _: (Resource<Output>,)| Ok((ready(),)))?;
    streams.func_wrap("[method]output-stream.check-write", |_: Store<'_>, _: (Resource<Output>,)| {
        Ok((Ok::<u64, StreamError>(WRITE_MAX_BYTES),))
    })?;
    for name in ["[method]output-stream.write", "[method]output-stream.blocking-write-and-flush"] {
        streams.func_wrap(name, |mut store: Store<'_>, (to, bytes): (Resource<Output>, Vec<u8>)| {
            write(store.data_mut(), to.rep(), &bytes);
            Ok((Ok::<(), StreamError>(()),))
        })?;
    }
    for name in ["[method]output-stream.flush", "[method]output-stream.blocking-flush"] {
        streams.func_wrap(name, |_: Store<'_>, _: (Resource<Output>,)| Ok((Ok::<(), StreamError>(()),)))?;
    }
    Ok(())
}

/// Something that is always ready.
fn ready() -> Resource<Pollable> {
    Resource::new_own(0)
}

/// When what is called by a number is there: the past, for what is always ready.
fn due(store: &Store<'_>, rep: u32) -> Instant {
    let guest = store.data();
    let at = usize::try_from(rep).ok().and_then(|rep| rep.checked_sub(1));
    at.and_then(|at| guest.wasi.timers.get(at).copied()).unwrap_or(guest.begun)
}

fn timer(guest: &mut Guest, due: Option<Instant>) -> wasmtime::Result<Resource<Pollable>> {
    if guest.wasi.timers.len() >= TIMERS_MAX {
        return Err(wasmtime::Error::msg("it has waited for more times than a call may"));
    }
    // Longer than any call.
    let due = due.unwrap_or(guest.deadline + Duration::from_secs(1));
    guest.wasi.timers.push(due);
    Ok(Resource::new_own(u32::try_from(guest.wasi.timers.len()).unwrap_or(0)))
}

/// Whole lines become lines of the log.
fn write(guest: &mut Guest, to: u32, bytes: &[u8]) {
    let (at, level) = if to == STDERR { (1, Level::Warn) } else { (0, Level::Info) };
    let mut line = std::mem::take(&mut guest.wasi.lines[at]);
    for part in bytes.split_inclusive(|byte| *byte == b'\n') {
        let room = LINE_MAX_BYTES.saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        if part.ends_with(b"\n") {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            guest.say(level, text, Vec::new());
            line.clear();
        }
    }
    guest.wasi.lines[at] = line;
}

fn cli(linker: &mut Linker<Guest>, at: &At<'_>) -> Linked {
    let mut environment = linker.instance(&at("wasi:cli/environment"))?;
    environment.func_wrap("get-environment", |store: Store<'_>, ()| Ok((store.data().call.env.clone(),)))?;
    environment.func_wrap("get-arguments", |store: Store<'_>, ()| {
        Ok((vec!["hook".to_owned(), store.data().call.input.kind().name().to_owned()],))
    })?;
    environment.func_wrap("initial-cwd", |_: Store<'_>, ()| Ok((None::<String>,)))?;
    linker.instance(&at("wasi:cli/exit"))?.func_wrap("exit", |_: Store<'_>, (status,): (Result<(), ()>,)| {
        Err::<(), _>(wasmtime::Error::new(Exited(i32::from(status.is_err()))))
    })?;
    linker.instance(&at("wasi:cli/stdin"))?.func_wrap("get-stdin", |_: Store<'_>, ()| Ok((Resource::<Input>::new_own(0),)))?;
    for (name, function, rep) in [("stdout", "get-stdout", STDOUT), ("stderr", "get-stderr", STDERR)] {
        let mut instance = linker.instance(&at(&format!("wasi:cli/{name}")))?;
        instance.func_wrap(function, move |_: Store<'_>, ()| Ok((Resource::<Output>::new_own(rep),)))?;
    }
    for name in ["stdin", "stdout", "stderr"] {
        let mut instance = linker.instance(&at(&format!("wasi:cli/terminal-{name}")))?;
        instance.func_wrap(&format!("get-terminal-{name}"), |_: Store<'_>, ()| Ok((None::<Resource<Terminal>>,)))?;
    }
    Ok(())
}

fn clocks(linker: &mut Linker<Guest>, at: &At<'_>) -> Linked {
    let mut monotonic = linker.instance(&at("wasi:clocks/monotonic-clock"))?;
    let passed = |guest: &Guest| u64::try_from(guest.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    monotonic.func_wrap("now", move |store: Store<'_>, ()| Ok((passed(store.data()),)))?;
    monotonic.func_wrap("resolution", |_: Store<'_>, ()| Ok((1_u64,)))?;
    monotonic.func_wrap("subscribe-instant", |mut store: Store<'_>, (at,): (u64,)| {
        let due = store.data().begun.checked_add(Duration::from_nanos(at));
        Ok((timer(store.data_mut(), due)?,))
    })?;
    monotonic.func_wrap("subscribe-duration", |mut store: Store<'_>, (ns,): (u64,)| {
        Ok((timer(store.data_mut(), Instant::now().checked_add(Duration::from_nanos(ns)))?,))
    })?;
    let mut wall = linker.instance(&at("wasi:clocks/wall-clock"))?;
    wall.func_wrap("now", |_: Store<'_>, ()| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok((Datetime { seconds: since.as_secs(), nanoseconds: since.subsec_nanos() },))
    })?;
    wall.func_wrap("resolution", |_: Store<'_>, ()| Ok((Datetime { seconds: 0, nanoseconds: 1 },)))
}

fn random(linker: &mut Linker<Guest>, at: &At<'_>) -> Linked {
    let names =
        [("random", "get-random-bytes", "get-random-u64"), ("insecure", "get-insecure-random-bytes", "get-insecure-random-u64")];
    for (name, bytes, number) in names {
        let mut instance = linker.instance(&at(&format!("wasi:random/{name}")))?;
        instance.func_wrap(bytes, |_: Store<'_>, (length,): (u64,)| Ok((chance(length)?,)))?;
        instance.func_wrap(number, |_: Store<'_>, ()| Ok((random_number()?,)))?;
    }
    let mut seed = linker.instance(&at("wasi:random/insecure-seed"))?;
    seed.func_wrap("insecure-seed", |_: Store<'_>, ()| Ok(((random_number()?, random_number()?),)))
}

/// Whoever wants a socket or an address is told that it may have none.
fn sockets(linker: &mut Linker<Guest>, at: &At<'_>) -> Linked {
    let mut network = linker.instance(&at("wasi:sockets/instance-network"))?;
    network.func_wrap("instance-network", |_: Store<'_>, ()| Ok((Resource::<Network>::new_own(0),)))?;
    for (interface, function) in [
        ("tcp-create-socket", "create-tcp-socket"),
        ("udp-create-socket", "create-udp-socket"),
        ("ip-name-lookup", "resolve-addresses"),
    ] {
        linker.instance(&at(&format!("wasi:sockets/{interface}")))?.func_new(function, |_, _, _, results| {
            if let Some(result) = results.first_mut() {
                *result = Val::Result(Err(Some(Box::new(Val::Enum("access-denied".to_owned())))));
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn random_number() -> wasmtime::Result<u64> {
    let bytes = chance(8)?;
    Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn chance(length: u64) -> wasmtime::Result<Vec<u8>> {
    if length > RANDOM_MAX_BYTES {
        return Err(wasmtime::Error::msg(format!("{length} random bytes at once are more than {RANDOM_MAX_BYTES}")));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}
