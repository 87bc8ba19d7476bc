//! Brings the database to the release's schema before the service starts, by a command that `allow.exec` has.

use std::time::Duration;

use tagfall_hooks::prelude::*;

tagfall_hooks::init!(migrate);

fn migrate(call: &Call) -> Result<()> {
    let exit = exec::run("migrate")?;
    log::write(tagfall_hooks::Level::Info, exit.text().trim_end(), &[("release", &call.release)]);
    // A database that is being started is worth another try.
    exit.successful().map_err(|error| error.retry_after(Duration::from_secs(5)))?;
    Ok(())
}
