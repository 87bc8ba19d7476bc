//! `check` of a repository with two thousand groups.

use std::process::{Command, Stdio};

use crate::Failure;
use crate::clock::{ms_between, now_ns};
use crate::stage::tagfall;
use crate::table::{Row, Sample};

const GROUPS: u32 = 2_000;
const ROUNDS: u32 = 15;
const WANTED_MS: f64 = 1_000.0;

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let dir = common::temp_dir();
    for number in 0..GROUPS {
        let folder = dir.path().join(format!("groups/web{number}"));
        std::fs::create_dir_all(folder.join("config"))?;
        std::fs::write(folder.join("group.toml"), manifest(number))?;
        std::fs::write(folder.join("config/app.conf.hbs"), "port = {{cfg.port}}\nname = {{cfg.name}}\nin {{svc.service}}\n")?;
    }
    let mut parsed = Vec::new();
    for _ in 0..ROUNDS {
        let begun = now_ns();
        let tree = tagfall::source::read_folder(dir.path()).map_err(|refusal| refusal.message)?;
        let release = tagfall::manifest::parse_release(&tree.files, None).map_err(|found| format!("{found:?}"))?;
        parsed.push(ms_between(begun, now_ns()));
        if release.groups.len() != GROUPS as usize {
            return Err(format!("{} groups were read of {GROUPS}", release.groups.len()).into());
        }
    }
    let mut commands = Vec::new();
    for _ in 0..ROUNDS {
        let begun = now_ns();
        let output = Command::new(tagfall()?).arg("check").arg(dir.path()).stdin(Stdio::null()).output()?;
        commands.push(ms_between(begun, now_ns()));
        if !output.status.success() {
            let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
            return Err(said.chars().take(1_000).collect::<String>().into());
        }
    }
    let commands = Sample::new(commands);
    Ok(vec![
        Row::new(
            format!("`tagfall check` of a folder with {GROUPS} groups"),
            "<= 1000 ms",
            commands.words("ms"),
            commands.percentile(99) <= WANTED_MS,
        ),
        Row::told("of it, reading the folder and all manifests", Sample::new(parsed).words("ms")),
    ])
}

fn manifest(number: u32) -> String {
    format!(
        "format = 1\n[placement]\nlabels = {{ role = \"web\" }}\n[service]\nexec = [\"/usr/bin/server\", \"--port\", \
         \"{{{{cfg.port}}}}\"]\nuser = \"www\"\nreload_signal = \"SIGHUP\"\n[service.env]\nMODE = \"production\"\n\
         [config]\nport = {port}\nname = \"web{number}\"\n[mount]\npath = \"/etc/bench/web{number}\"\n\
         [exports]\nport = \"port\"\n[hooks.health-check]\nmodule = \"builtin:http\"\ninterval = \"10s\"\n\
         args = {{ url = \"http://127.0.0.1:{{{{cfg.port}}}}/\" }}\n",
        port = 10_000 + number
    )
}
