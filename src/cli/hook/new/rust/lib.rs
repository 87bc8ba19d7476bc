//! The hook `@HOOK@`: what it is handed, and when, stands at its macro in `tagfall-hooks/src/hooks.rs`.

use tagfall_hooks::prelude::*;

/// `args` in group.toml: a field for each.
#[derive(Deserialize)]
struct Args {}

tagfall_hooks::@FUNCTION@!(@FUNCTION@);

fn @FUNCTION@(call: &Call<Args>@PARAMETERS@) -> Result<@RESULT@> {
    log::info(format!(@SAID@));
    // What cannot be done is an error: Err(Error::new("not-yet", "one sentence")), or `?`.
    Ok(@ANSWER@)
}
