//! Text and data in, text or errors out: parsing, strictness, bounds.
//!
//! Knows nothing of groups. The templates of one publication are registered together, since each may include another
//! by its published name.

use std::collections::BTreeMap;
use std::io;

use handlebars::{Context, Handlebars, RenderErrorReason, Template};
use serde_json::Value;

use super::helpers::{self, Trace};
use super::instrument::instrument;
use super::syntax::{self, Prepared};
use crate::model::Templates;

/// Bytes of one rendered file.
pub const OUTPUT_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Why a template could not be rendered: where, and what is missing or wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct RenderError {
    /// The template's path, or the key that holds it.
    pub file: String,
    /// From 1; 0 where the error is not at a place of the text.
    pub line: usize,
    /// From 1; 0 where it is not known.
    pub column: usize,
    /// The dotted name, where one is missing.
    pub name: Option<String>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl RenderError {
    /// An error of a whole file.
    pub(super) fn whole(file: &str, message: String) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, name: None, message }
    }
}

/// Renders one template that stands alone. Of several errors the first is told.
pub fn render_text(file: &str, template: &str, data: &Value, mode: Templates) -> Result<String, RenderError> {
    let engine = Engine::of_one(file, template).map_err(first)?;
    let context = Context::from(data.clone());
    engine.render(file, file, &context, mode).map(|done| done.text).map_err(first)
}

/// The names that a template would print and the data does not have: errors of a strict template, warnings of a
/// lenient one.
pub fn missing_names(file: &str, template: &str, data: &Value) -> Vec<RenderError> {
    let rendered = Engine::of_one(file, template)
        .and_then(|engine| engine.render(file, file, &Context::from(data.clone()), Templates::Lenient));
    rendered.map(|done| done.missing).unwrap_or_default()
}

/// Whether a text is a template: its syntax, and that the helpers it calls exist. Says nothing of names.
pub fn check_template(file: &str, text: &str) -> Result<(), RenderError> {
    Engine::of_one(file, text).map(|_| ()).map_err(first)
}

fn first(errors: Vec<RenderError>) -> RenderError {
    let first = errors.into_iter().next();
    first.unwrap_or_else(|| RenderError::whole("", "the template could not be rendered".to_owned()))
}

/// What a rendering gave.
pub(super) struct Rendered {
    pub(super) text: String,
    /// Names that printed nothing, in a lenient template.
    pub(super) missing: Vec<RenderError>,
}

/// Parsed templates that may include one another.
pub(super) struct Engine {
    registry: Handlebars<'static>,
    trace: Trace,
    /// For each template, what errors call it and what was changed in its text.
    sources: BTreeMap<String, (String, Prepared)>,
}

impl Engine {
    /// No template yet.
    pub(super) fn new() -> Self {
        let trace = Trace::default();
        let mut registry = Handlebars::new();
        registry.register_escape_fn(handlebars::no_escape);
        helpers::register(&mut registry, &trace);
        Self { registry, trace, sources: BTreeMap::new() }
    }

    fn of_one(file: &str, text: &str) -> Result<Self, Vec<RenderError>> {
        let mut engine = Self::new();
        engine.add(file, file, text)?;
        Ok(engine)
    }

    /// Parses a template. `name` is what others include it by, `file` what errors call it.
    pub(super) fn add(&mut self, name: &str, file: &str, text: &str) -> Result<(), Vec<RenderError>> {
        let error = |line, column, message| RenderError { file: file.to_owned(), line, column, name: None, message };
        let prepared = syntax::prepare(text).map_err(|deep| vec![error(deep.line, deep.column, deep.message)])?;
        let mut template = Template::compile(&prepared.text).map_err(|failed| {
            let (line, column) = failed.pos().unwrap_or((0, 0));
            vec![error(line, prepared.column(line, column), failed.reason().to_string())]
        })?;
        let unknown = instrument(&mut template, file, &|line, column| prepared.column(line, column));
        if !unknown.is_empty() {
            let errors = unknown.into_iter().map(|call| error(call.line, call.column, no_helper(&call.name)));
            return Err(errors.collect());
        }
        template.name = Some(name.to_owned());
        self.registry.register_template(name, template);
        self.sources.insert(name.to_owned(), (file.to_owned(), prepared));
        Ok(())
    }

    /// Renders a template that was added; all its errors are told.
    pub(super) fn render(&self, name: &str, file: &str, data: &Context, mode: Templates) -> Result<Rendered, Vec<RenderError>> {
        let strict = mode == Templates::Strict;
        self.trace.restart(strict);
        let mut out = Bounded { bytes: Vec::new() };
        let done = self.registry.render_with_context_to_write(name, data, &mut out);
        let (missing, mut errors) = self.trace.take();
        if strict {
            errors.extend(missing.iter().cloned());
        }
        if let Err(failed) = done {
            let error = self.translate(file, &failed);
            let place = (&error.file, error.line, error.column);
            if !errors.iter().any(|told| (&told.file, told.line, told.column) == place) {
                errors.push(error);
            }
        }
        if !errors.is_empty() {
            errors.sort_by(|one, two| (&one.file, one.line, one.column).cmp(&(&two.file, two.line, two.column)));
            return Err(errors);
        }
        let text = String::from_utf8(out.bytes)
            .map_err(|_| vec![RenderError::whole(file, "the rendered text is not UTF-8".to_owned())])?;
        Ok(Rendered { text, missing })
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the crate's own words do for all other reasons")]
    fn translate(&self, file: &str, failed: &handlebars::RenderError) -> RenderError {
        let message = match failed.reason() {
            RenderErrorReason::Other(message) => message.clone(),
            RenderErrorReason::IOError(cause) => cause.to_string(),
            RenderErrorReason::PartialNotFound(name) => {
                format!("there is no template `{name}` to include; `config/{name}.hbs` would be one")
            }
            RenderErrorReason::CannotIncludeSelf => "the template includes itself".to_owned(),
            RenderErrorReason::InvalidJsonIndex(key) => format!("a list has no key `{key}`, only numbers"),
            other => other.to_string(),
        };
        let line = failed.line_no.unwrap_or(0);
        let column = failed.column_no.unwrap_or(0);
        let source = failed.template_name.as_ref().and_then(|name| self.sources.get(name));
        let (file, column) = source.map_or((file, column), |(file, prepared)| (file, prepared.column(line, column)));
        RenderError { file: file.to_owned(), line, column, name: None, message }
    }
}

fn no_helper(name: &str) -> String {
    let near = helpers::names().map(|known| (strsim::jaro_winkler(name, known), known)).filter(|(score, _)| *score > 0.8);
    match near.max_by(|one, two| one.0.total_cmp(&two.0)) {
        Some((_, known)) => format!("there is no helper `{name}`; did you mean `{known}`?"),
        None => format!("there is no helper `{name}`"),
    }
}

/// Takes at most [`OUTPUT_MAX_BYTES`].
struct Bounded {
    bytes: Vec<u8>,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(bytes.len()) > OUTPUT_MAX_BYTES {
            return Err(io::Error::other(format!("the rendered text is longer than {OUTPUT_MAX_BYTES} bytes")));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
