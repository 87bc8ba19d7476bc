//! Puts watching calls between the elements of a parsed template, so that rendering reports what it misses, where.
//!
//! The elements themselves stay as they were parsed, with two exceptions: helpers of ours get their place as an extra
//! argument, and what a condition asks for goes through `get`, for which "not there" is an answer. What is put in
//! never prints. To watch a new kind of element, add an arm to `Watch::element`.

#![expect(clippy::wildcard_enum_match_arm, reason = "the crate's enums are open: what it adds is left as it was parsed")]

use handlebars::Template;
use handlebars::template::{DecoratorTemplate, HelperTemplate, Parameter, Subexpression, TemplateElement, TemplateMapping};
use serde_json::{Value, json};

use super::helpers::{AT, CHECK, CONDITIONS, ENTER, GET, LEAVE, TICK, is_builtin, is_ours};

/// A helper that a template calls and nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UnknownHelper {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) name: String,
}

/// Puts the watching calls into `template`, and names the helpers that do not exist. `column` turns a place of the
/// parsed text into one of the written text.
pub(super) fn instrument(template: &mut Template, file: &str, column: &dyn Fn(usize, usize) -> usize) -> Vec<UnknownHelper> {
    let mut watch = Watch { file, column, unknown: Vec::new(), calls: Calls::parse() };
    watch.template(template, (1, 1));
    watch.unknown.sort();
    watch.unknown
}

/// One parsed call of each shape that is put in; the crate has no other door to make one.
struct Calls {
    expression: Option<HelperTemplate>,
    mapping: Option<TemplateMapping>,
}

impl Calls {
    fn parse() -> Self {
        let parsed = Template::compile("{{call 0}}").ok();
        let mapping = parsed.as_ref().and_then(|template| template.mapping.first().cloned());
        let expression = parsed.and_then(|template| template.elements.into_iter().next()).and_then(|element| match element {
            TemplateElement::Expression(call) => Some(*call),
            _ => None,
        });
        Self { expression, mapping }
    }
}

struct Watch<'a> {
    file: &'a str,
    column: &'a dyn Fn(usize, usize) -> usize,
    unknown: Vec<UnknownHelper>,
    calls: Calls,
}

type Place = (usize, usize);

impl Watch<'_> {
    fn template(&mut self, template: &mut Template, parent: Place) {
        let places = std::mem::take(&mut template.mapping);
        let elements = std::mem::take(&mut template.elements);
        for (nth, mut element) in elements.into_iter().enumerate() {
            let mapping = places.get(nth).cloned();
            let place = mapping.as_ref().map_or(parent, |at| (at.0, (self.column)(at.0, at.1)));
            let before = self.before(&element, place);
            let after = matches!(element, TemplateElement::PartialExpression(_) | TemplateElement::PartialBlock(_));
            self.element(&mut element, place);
            if let Some(call) = before {
                self.push(template, TemplateElement::Expression(Box::new(call)), mapping.clone());
            }
            self.push(template, element, mapping.clone());
            if after && let Some(call) = self.call(LEAVE, Vec::new(), place) {
                self.push(template, TemplateElement::Expression(Box::new(call)), mapping);
            }
        }
    }

    fn push(&self, template: &mut Template, element: TemplateElement, mapping: Option<TemplateMapping>) {
        template.elements.push(element);
        if let Some(mapping) = mapping.or_else(|| self.calls.mapping.clone()) {
            template.mapping.push(mapping);
        }
    }

    fn call(&self, name: &str, params: Vec<Parameter>, place: Place) -> Option<HelperTemplate> {
        let mut call = self.calls.expression.clone()?;
        call.name = Parameter::Name(name.to_owned());
        call.params = params;
        call.hash = std::iter::once((AT.to_owned(), Parameter::Literal(self.at(place)))).collect();
        Some(call)
    }

    fn at(&self, place: Place) -> Value {
        json!([self.file, place.0, place.1])
    }

    /// What is called ahead of an element: a check of the names it prints, or the guard of a partial.
    fn before(&self, element: &TemplateElement, place: Place) -> Option<HelperTemplate> {
        match element {
            TemplateElement::Expression(call) | TemplateElement::HtmlExpression(call) => {
                let mut names = Vec::new();
                if name_only(call) {
                    if !call.name.as_name().is_some_and(is_known) {
                        printed(&call.name, &mut names);
                    }
                } else if !call.name.as_name().is_some_and(|name| CONDITIONS.contains(&name)) {
                    call.params.iter().for_each(|param| printed(param, &mut names));
                }
                if names.is_empty() {
                    return None;
                }
                let params = names.into_iter().map(|name| Parameter::Literal(Value::String(name))).collect();
                self.call(CHECK, params, place)
            }
            TemplateElement::PartialExpression(_) | TemplateElement::PartialBlock(_) => self.call(ENTER, Vec::new(), place),
            _ => None,
        }
    }

    fn element(&mut self, element: &mut TemplateElement, place: Place) {
        match element {
            TemplateElement::Expression(call) | TemplateElement::HtmlExpression(call) => self.expression(call, place),
            TemplateElement::HelperBlock(block) => self.block(block, place),
            TemplateElement::DecoratorExpression(part)
            | TemplateElement::DecoratorBlock(part)
            | TemplateElement::PartialExpression(part)
            | TemplateElement::PartialBlock(part) => self.part(part, place),
            _ => {}
        }
    }

    fn expression(&mut self, call: &mut HelperTemplate, place: Place) {
        if name_only(call) {
            return;
        }
        self.helper_name(call, place);
        let condition = call.name.as_name().is_some_and(|name| CONDITIONS.contains(&name));
        for param in &mut call.params {
            self.param(param, condition, place);
        }
    }

    fn block(&mut self, block: &mut HelperTemplate, place: Place) {
        self.helper_name(block, place);
        for param in &mut block.params {
            self.param(param, true, place);
        }
        for body in block.template.iter_mut().chain(block.inverse.iter_mut()) {
            self.body(body, place);
        }
    }

    /// The inside of a block: counted each time it is rendered.
    fn body(&mut self, body: &mut Template, place: Place) {
        let text: usize = body
            .elements
            .iter()
            .map(|element| match element {
                TemplateElement::RawString(text) => text.len(),
                _ => 0,
            })
            .sum();
        self.template(body, place);
        let tick = self.call(TICK, vec![Parameter::Literal(json!(text))], place);
        if let (Some(tick), Some(mapping)) = (tick, self.calls.mapping.clone()) {
            body.elements.insert(0, TemplateElement::Expression(Box::new(tick)));
            body.mapping.insert(0, mapping);
        }
    }

    fn part(&mut self, part: &mut DecoratorTemplate, place: Place) {
        for param in part.params.iter_mut().chain(part.hash.values_mut()) {
            if let Parameter::Subexpression(inner) = param {
                self.subexpression(inner, true, place);
            }
        }
        if let Some(body) = &mut part.template {
            self.body(body, place);
        }
    }

    /// An argument. In a condition, a name goes through `get`.
    fn param(&mut self, param: &mut Parameter, condition: bool, place: Place) {
        match param {
            Parameter::Path(_) if condition => {
                let Some(name) = param.as_name().map(str::to_owned) else { return };
                if let Some(mut call) = self.call(GET, vec![Parameter::Literal(Value::String(name))], place) {
                    call.hash.clear();
                    let inner = Subexpression::new(call.name, call.params, call.hash);
                    *param = Parameter::Subexpression(inner);
                }
            }
            Parameter::Subexpression(inner) => self.subexpression(inner, condition, place),
            _ => {}
        }
    }

    fn subexpression(&mut self, inner: &mut Subexpression, condition: bool, place: Place) {
        if let TemplateElement::Expression(call) = inner.element.as_mut() {
            let asks = condition || call.name.as_name().is_some_and(|name| CONDITIONS.contains(&name));
            self.helper_name(call, place);
            if asks {
                call.hash.remove(AT);
            }
            for param in &mut call.params {
                self.param(param, asks, place);
            }
        }
    }

    /// Gives helpers of ours their place, and notes one that nobody knows.
    fn helper_name(&mut self, call: &mut HelperTemplate, place: Place) {
        let Some(name) = call.name.as_name() else { return };
        if is_ours(name) {
            call.hash.insert(AT.to_owned(), Parameter::Literal(self.at(place)));
        } else if !is_builtin(name) {
            self.unknown.push(UnknownHelper { name: name.to_owned(), line: place.0, column: place.1 });
        }
    }
}

fn is_known(name: &str) -> bool {
    is_ours(name) || is_builtin(name)
}

fn name_only(call: &HelperTemplate) -> bool {
    !call.block && call.params.is_empty() && call.hash.is_empty()
}

/// The names whose values are printed through this argument.
fn printed(param: &Parameter, names: &mut Vec<String>) {
    match param {
        Parameter::Path(_) => names.extend(param.as_name().map(str::to_owned)),
        Parameter::Subexpression(inner) => {
            let asks = matches!(inner.as_element(), TemplateElement::Expression(call)
                if call.name.as_name().is_some_and(|name| CONDITIONS.contains(&name)));
            if !asks {
                inner.params().into_iter().flatten().for_each(|param| printed(param, names));
            }
        }
        _ => {}
    }
}
