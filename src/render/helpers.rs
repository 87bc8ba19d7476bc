//! Habitat's helpers, and the calls that watch a rendering.
//!
//! A helper prints what Habitat's prints, to the byte. In a strict template an argument that is missing has already
//! been reported by `check` when a helper sees it, so the helper then prints nothing and the search for more errors
//! goes on. To add a helper: a row in [`FILTERS`].

use std::sync::{Arc, Mutex, PoisonError};

use handlebars::{
    BlockContext, BlockParams, Context, Handlebars, Helper, HelperDef, HelperResult, Output, PathAndJson, RenderContext,
    RenderErrorReason, Renderable, ScopedJson,
};
use serde::Serialize as _;
use serde_json::{Value, json};

use super::engine::RenderError;

/// Work of one rendering, in bytes of text, a turn of a block counting as [`TURN_BYTES`]: a template always ends.
const WORK_MAX_BYTES: usize = 64 * 1024 * 1024;

/// What one turn of a block costs beside its text.
const TURN_BYTES: usize = 64;

/// Partials within partials.
const PARTIALS_MAX_DEPTH: usize = 16;

/// Errors of one rendering that are told; more would not be read.
const ERRORS_MAX: usize = 100;

/// The argument that tells a helper where it stands.
pub(super) const AT: &str = "tagfall:at";
/// Reports the names among its arguments that are missing.
pub(super) const CHECK: &str = "tagfall:check";
/// Resolves a name for a condition.
pub(super) const GET: &str = "tagfall:get";
/// Counts one turn of a block.
pub(super) const TICK: &str = "tagfall:tick";
/// Goes into a partial.
pub(super) const ENTER: &str = "tagfall:enter";
/// Comes out of it.
pub(super) const LEAVE: &str = "tagfall:leave";

/// Helpers whose arguments are asked about, not printed.
pub(super) const CONDITIONS: [&str; 9] = ["eq", "ne", "gt", "gte", "lt", "lte", "and", "or", "not"];

const BUILTINS: [&str; 8] = ["if", "unless", "each", "with", "raw", "log", "len", GET];

/// From arguments to text, or what is wrong with them.
type Run = fn(&[&Value]) -> Result<String, String>;

/// Habitat's helpers that turn arguments into text.
const FILTERS: [(&str, Run); 8] = [
    ("strConcat", |args| Ok(args.iter().filter(|arg| !arg.is_object()).map(|arg| unquoted(arg)).collect())),
    ("strJoin", join),
    ("strReplace", |args| Ok(string(args, 0)?.replace(string(args, 1)?, string(args, 2)?))),
    ("toJson", |args| serde_json::to_string_pretty(any(args)?).map_err(|error| error.to_string())),
    ("toLowercase", |args| Ok(string(args, 0)?.to_lowercase())),
    ("toToml", to_toml),
    ("toUppercase", |args| Ok(string(args, 0)?.to_uppercase())),
    ("toYaml", |args| serde_yaml_ng::to_string(any(args)?).map_err(|error| error.to_string())),
];

/// Whether a name is that of a helper that this module defines for templates.
pub(super) fn is_ours(name: &str) -> bool {
    name == "eachAlive" || name == "lookup" || FILTERS.iter().any(|(known, _)| *known == name)
}

/// Whether a name is that of one of the crate's own helpers, unchanged.
pub(super) fn is_builtin(name: &str) -> bool {
    BUILTINS.contains(&name) || CONDITIONS.contains(&name)
}

/// All names that a template may call.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let filters = FILTERS.iter().map(|(name, _)| *name);
    filters.chain(["eachAlive", "lookup"]).chain(BUILTINS.into_iter().filter(|name| *name != GET)).chain(CONDITIONS)
}

/// What a rendering has met so far. Shared with the helpers; the lock is there because the crate's helpers must be
/// `Sync`, nobody else ever holds it.
#[derive(Clone, Default)]
pub(super) struct Trace(Arc<Mutex<Met>>);

#[derive(Default)]
struct Met {
    strict: bool,
    work: usize,
    depth: usize,
    missing: Vec<RenderError>,
    wrong: Vec<RenderError>,
}

impl Trace {
    /// Forgets what was met, ahead of a rendering.
    pub(super) fn restart(&self, strict: bool) {
        self.with(|met| *met = Met { strict, ..Met::default() });
    }

    /// Names that were missing where something is printed, and everything else that went wrong.
    pub(super) fn take(&self) -> (Vec<RenderError>, Vec<RenderError>) {
        self.with(|met| (std::mem::take(&mut met.missing), std::mem::take(&mut met.wrong)))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Met) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn strict(&self) -> bool {
        self.with(|met| met.strict)
    }

    fn work(&self, bytes: usize) -> HelperResult {
        let work = self.with(|met| {
            met.work = met.work.saturating_add(bytes);
            met.work
        });
        if work > WORK_MAX_BYTES {
            return Err(failed(format!("the template asks for more than {WORK_MAX_BYTES} bytes of work")));
        }
        Ok(())
    }

    fn missing(&self, at: Option<&PathAndJson<'_>>, name: &str) {
        let message = format!("`{name}` is not set");
        self.with(|met| note(&mut met.missing, at, Some(name), message));
    }

    fn wrong(&self, at: Option<&PathAndJson<'_>>, message: String) {
        self.with(|met| note(&mut met.wrong, at, None, message));
    }
}

/// Adds an error once; a loop meets the same one many times.
fn note(errors: &mut Vec<RenderError>, at: Option<&PathAndJson<'_>>, name: Option<&str>, message: String) {
    let Some([Value::String(file), line, column]) = at.and_then(|at| at.value().as_array()).map(Vec::as_slice) else { return };
    let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
    let error =
        RenderError { file: file.clone(), line: number(line), column: number(column), name: name.map(str::to_owned), message };
    if errors.len() < ERRORS_MAX && !errors.contains(&error) {
        errors.push(error);
    }
}

fn failed(message: String) -> handlebars::RenderError {
    RenderErrorReason::Other(message).into()
}

/// Registers all helpers of this module.
pub(super) fn register(registry: &mut Handlebars<'_>, trace: &Trace) {
    for (name, run) in FILTERS {
        registry.register_helper(name, Box::new(Filter { name, run, trace: trace.clone() }));
    }
    registry.register_helper("eachAlive", Box::new(EachAlive));
    registry.register_helper("lookup", Box::new(Lookup(trace.clone())));
    registry.register_helper(GET, Box::new(Get));
    registry.register_helper(CHECK, Box::new(Check(trace.clone())));
    registry.register_helper(TICK, Box::new(Step(trace.clone(), |met, weight| met.work = met.work.saturating_add(weight))));
    registry.register_helper(ENTER, Box::new(Step(trace.clone(), |met, _| met.depth += 1)));
    registry.register_helper(LEAVE, Box::new(Step(trace.clone(), |met, _| met.depth = met.depth.saturating_sub(1))));
}

fn any<'a>(args: &[&'a Value]) -> Result<&'a Value, String> {
    args.first().copied().ok_or_else(|| "it needs an argument".to_owned())
}

fn string<'a>(args: &[&'a Value], nth: usize) -> Result<&'a str, String> {
    match args.get(nth) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("argument {} must be a string, and is `{other}`", nth + 1)),
        None => Err(format!("argument {} is not there", nth + 1)),
    }
}

/// As JSON, with every double quote taken away: Habitat's way, also for quotes within a string.
fn unquoted(value: &Value) -> String {
    value.to_string().replace('"', "")
}

fn join(args: &[&Value]) -> Result<String, String> {
    let Some(Value::Array(list)) = args.first() else {
        return Err("argument 1 must be a list".to_owned());
    };
    let parts: Vec<String> = list.iter().filter(|part| !part.is_object()).map(unquoted).collect();
    Ok(parts.join(string(args, 1)?))
}

fn to_toml(args: &[&Value]) -> Result<String, String> {
    let value = any(args)?;
    if value.is_object() {
        return toml::to_string(value).map_err(|error| error.to_string());
    }
    let mut text = String::new();
    value.serialize(toml::ser::ValueSerializer::new(&mut text)).map_err(|error| error.to_string())?;
    Ok(text)
}

struct Filter {
    name: &'static str,
    run: Run,
    trace: Trace,
}

impl HelperDef for Filter {
    fn call<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        if self.trace.strict() && h.params().iter().any(PathAndJson::is_value_missing) {
            return Ok(());
        }
        let args: Vec<&Value> = h.params().iter().map(PathAndJson::value).collect();
        match (self.run)(&args) {
            Ok(text) => {
                self.trace.work(text.len())?;
                out.write(&text)?;
            }
            Err(message) => {
                let message = format!("`{}`: {message}", self.name);
                let at = h.hash_get(AT);
                if at.is_none() {
                    return Err(failed(message));
                }
                self.trace.wrong(at, message);
            }
        }
        Ok(())
    }
}

/// `lookup`: an element of a list or table. As an argument it may miss, where it prints it may not.
struct Lookup(Trace);

impl Lookup {
    fn find<'a>(h: &'a Helper<'_>) -> Result<Option<&'a Value>, handlebars::RenderError> {
        let [from, key, ..] = h.params().as_slice() else {
            return Err(failed("`lookup`: it needs a list or table and a key".to_owned()));
        };
        Ok(match from.value() {
            Value::Array(list) => key.value().as_u64().and_then(|nth| list.get(usize::try_from(nth).ok()?)),
            Value::Object(table) => key.value().as_str().and_then(|key| table.get(key)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        })
    }
}

impl HelperDef for Lookup {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, handlebars::RenderError> {
        if let Some(value) = Self::find(h)? {
            self.0.work(TURN_BYTES)?;
            return Ok(value.clone().into());
        }
        if !h.params().iter().take(2).any(PathAndJson::is_value_missing) {
            let from = h.param(0).and_then(|from| from.relative_path()).map_or("(…)", String::as_str);
            let key = h.param(1).map(|key| handlebars::JsonRender::render(key.value())).unwrap_or_default();
            self.0.missing(h.hash_get(AT), &format!("{}.{key}", dotted(from)));
        }
        Ok(if self.0.strict() { ScopedJson::Missing } else { Value::Null.into() })
    }
}

/// A path as a person would write it in TOML.
fn dotted(path: &str) -> String {
    path.replace(".[", ".").replace(']', "").replace("/", ".").replace("...", "../").replace("this.", "")
}

/// A name in a condition: whatever cannot be reached is not there.
struct Get;

impl HelperDef for Get {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        ctx: &'rc Context,
        rc: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, handlebars::RenderError> {
        let name = h.param(0).and_then(|name| name.value().as_str()).unwrap_or_default();
        Ok(rc.evaluate(ctx, name).unwrap_or(ScopedJson::Missing))
    }
}

struct Check(Trace);

impl HelperDef for Check {
    fn call<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        ctx: &'rc Context,
        rc: &mut RenderContext<'reg, 'rc>,
        _: &mut dyn Output,
    ) -> HelperResult {
        for name in h.params().iter().filter_map(|param| param.value().as_str()) {
            match rc.evaluate(ctx, name) {
                Ok(ScopedJson::Missing) | Err(_) => self.0.missing(h.hash_get(AT), &dotted(name)),
                Ok(value) => self.0.work(match value.as_json() {
                    Value::String(text) => text.len(),
                    list @ Value::Array(_) => handlebars::JsonRender::render(list).len(),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => 8,
                })?,
            }
        }
        Ok(())
    }
}

/// Counts, and ends the rendering beyond a bound.
struct Step(Trace, fn(&mut Met, usize));

impl HelperDef for Step {
    fn call<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
        _: &mut dyn Output,
    ) -> HelperResult {
        let text = h.param(0).and_then(|text| text.value().as_u64()).and_then(|text| usize::try_from(text).ok()).unwrap_or(0);
        let depth = self.0.with(|met| {
            (self.1)(met, text + TURN_BYTES);
            met.depth
        });
        if depth > PARTIALS_MAX_DEPTH {
            return Err(failed(format!("more than {PARTIALS_MAX_DEPTH} partials stand within one another")));
        }
        self.0.work(0)
    }
}

/// `eachAlive`: each member of a list that is alive. `@index` counts from 1, as in Habitat.
struct EachAlive;

fn is_alive(member: &Value) -> bool {
    member.get("alive").and_then(Value::as_bool).unwrap_or(false)
}

impl HelperDef for EachAlive {
    fn call<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        r: &'reg Handlebars<'reg>,
        ctx: &'rc Context,
        rc: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let of = h.param(0).ok_or(RenderErrorReason::ParamNotFoundForIndex("eachAlive", 0))?;
        let Some(body) = h.template() else { return Ok(()) };
        let items: Vec<(String, Value, &Value)> = match of.value() {
            Value::Array(list) if !list.is_empty() => {
                let alive = list.iter().enumerate().filter(|(_, member)| is_alive(member));
                alive.enumerate().map(|(nth, (at, member))| (at.to_string(), json!(nth + 1), member)).collect()
            }
            Value::Object(table) if !table.is_empty() => {
                let entries = table.iter().filter(|_| is_alive(of.value()));
                entries.map(|(key, value)| (key.clone(), json!(key), value)).collect()
            }
            Value::String(text) if !text.is_empty() => return Err(not_a_list()),
            Value::Bool(true) => return Err(not_a_list()),
            Value::Number(number) if number.as_f64().is_some_and(f64::is_normal) => return Err(not_a_list()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                return h.inverse().map_or(Ok(()), |body| body.render(r, ctx, rc, out));
            }
        };
        let label = if of.value().is_array() { "index" } else { "key" };
        let count = items.len();
        for (nth, (step, mark, item)) in items.into_iter().enumerate() {
            let mut block = BlockContext::new();
            let path = of.context_path();
            match path {
                Some(path) => *block.base_path_mut() = path.iter().cloned().chain([step]).collect(),
                None => block.set_base_value(item.clone()),
            }
            block.set_local_var("first", json!(nth == 0));
            if label == "index" {
                block.set_local_var("last", json!(nth + 1 == count));
            }
            block.set_local_var(label, mark.clone());
            block.set_block_params(block_params(h, path.is_some(), item, mark)?);
            rc.push_block(block);
            body.render(r, ctx, rc, out)?;
            rc.pop_block();
        }
        Ok(())
    }
}

fn not_a_list() -> handlebars::RenderError {
    failed("`eachAlive`: argument 1 must be a list of members".to_owned())
}

fn block_params<'rc>(
    h: &Helper<'rc>,
    by_path: bool,
    item: &Value,
    mark: Value,
) -> Result<BlockParams<'rc>, handlebars::RenderError> {
    let mut params = BlockParams::new();
    let (name, key) = match (h.block_param(), h.block_param_pair()) {
        (Some(name), _) => (name, None),
        (None, Some((name, key))) => (name, Some(key)),
        (None, None) => return Ok(params),
    };
    if by_path {
        params.add_path(name, Vec::new())?;
    } else {
        params.add_value(name, item.clone())?;
    }
    if let Some(key) = key {
        params.add_value(key, mark)?;
    }
    Ok(params)
}
