//! Config layers with their origin, template data, Handlebars, the content of publications.
