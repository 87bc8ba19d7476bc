//! TOML as written → its meaning for this supervisor, with every diagnostic.
