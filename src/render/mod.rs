//! Config layers with their origin, template data, Handlebars, the content of publications.
//!
//! Pure: text and values in, text or errors out. It reads no file, asks no clock and knows no host; the bytes of a
//! group's `config/` come through a closure, the facts of the host as a [`Host`].
//!
//! Which Habitat: the bytes are those of Habitat 2, which renders with the `handlebars` crate, version 6 (tags that
//! stand alone on a line take that line with them, `~` trims what is left). What only Habitat 1 could read is read
//! as well where it does not contradict that: `list[0]` means `list.[0]`.
//!
//! How it works: a template is parsed by the crate, then small watching calls are put between its elements
//! (`instrument`). They alone know of strictness and bounds, so the rendering itself stays the crate's own.
//!
//! To add a helper: one line in `helpers::FILTERS`, one function beside it, one row in `tests.rs`.

mod config;
mod content;
mod data;
mod engine;
mod helpers;
mod hook;
mod instrument;
mod syntax;

#[cfg(test)]
mod tests;

pub use config::{Config, Layer, LayerError, Origin, effective};
pub use content::{Launched, RenderedFile, content_digest, render_files, render_launch, render_value};
pub use data::{BindView, Census, Election, Host, Member, Presence, alone, data, data_in};
pub use engine::{OUTPUT_MAX_BYTES, RenderError, check_template, missing_names, render_text};
pub use hook::{RenderedHook, render_hook, snapshot};
