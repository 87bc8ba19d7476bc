//! The files of the demo's configuration repository. Text only: no repository, no process.

use std::path::PathBuf;

/// Where the greeting is said, the file that the newcomer edits.
pub(super) const HELLO: &str = "groups/hello/group.toml";
/// The greeting of the first release.
pub(super) const GREETING: &str = "Hello";
/// The greeting of the second.
pub(super) const SECOND_GREETING: &str = "Hello from a tag";
/// The key that a reload needs, and how somebody in a hurry writes it.
pub(super) const RELOAD_KEY: &str = "reload_signal";
/// The mistake of the broken release.
pub(super) const BROKEN_KEY: &str = "reload_singal";

const HELLO_TEMPLATE: &str = "# Rendered from {{release.tag}} by a template: groups/hello/config/hello.toml.hbs
listen = \"127.0.0.1:{{cfg.port}}\"
greeting = {{toJson cfg.greeting}}
";

const MOTD_TEMPLATE: &str = "Published from {{release.tag}} on {{sys.hostname}}: {{cfg.words}}\n";

/// What the files depend on.
#[derive(Debug)]
pub(super) struct Content {
    /// This program.
    pub(super) program: PathBuf,
    /// Below which files are published.
    pub(super) etc: PathBuf,
    /// Where the service listens.
    pub(super) port: u16,
}

impl Content {
    /// The whole first release.
    pub(super) fn files(&self) -> Vec<(&'static str, String)> {
        vec![
            ("tagfall.toml", "format = 1\n".to_owned()),
            (HELLO, self.hello(GREETING, RELOAD_KEY)),
            ("groups/hello/config/hello.toml.hbs", HELLO_TEMPLATE.to_owned()),
            ("groups/motd/group.toml", self.motd()),
            ("groups/motd/config/motd.hbs", MOTD_TEMPLATE.to_owned()),
        ]
    }

    /// `group.toml` of the web server.
    pub(super) fn hello(&self, greeting: &str, reload_key: &str) -> String {
        let (program, mount) = (quoted(&self.program.to_string_lossy()), quoted(&self.etc.join("hello").to_string_lossy()));
        format!(
            "# A web server that says a greeting. Its file is rendered, and it is told by SIGHUP when the file has changed.
format = 1

[placement]
labels = {{}}                        # on every supervisor

[service]
exec = [{program}, \"demo-web\", \"{{{{mount.path}}}}/hello.toml\"]
{reload_key} = \"SIGHUP\"

[config]                           # cfg.* of the templates
greeting = {greeting}
port = {port}

[mount]                            # where config/ is published
path = {mount}

[hooks.health-check]
module = \"builtin:http\"
interval = \"1s\"
timeout = \"1s\"
args = {{ url = \"http://127.0.0.1:{{{{cfg.port}}}}/healthz\" }}
",
            greeting = quoted(greeting),
            port = self.port,
        )
    }

    fn motd(&self) -> String {
        format!(
            "# A group without a service: it only publishes.
format = 1

[placement]
labels = {{}}

[config]
words = \"push a tag and watch\"

[mount]
path = {}
",
            quoted(&self.etc.join("motd").to_string_lossy())
        )
    }
}

/// A string as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_in_a_path_or_a_greeting_is_read_back() {
        let content = Content { program: "/opt/a \"b\"/tagfall".into(), etc: "/tmp/it's\\here/etc".into(), port: 8080 };
        let group: toml::Table = content.hello("Say \"hi\"\\ ü", RELOAD_KEY).parse().unwrap();
        assert_eq!(group["service"]["exec"][0].as_str(), Some("/opt/a \"b\"/tagfall"));
        assert_eq!(group["mount"]["path"].as_str(), Some("/tmp/it's\\here/etc/hello"));
        assert_eq!(group["config"]["greeting"].as_str(), Some("Say \"hi\"\\ ü"));
        content.motd().parse::<toml::Table>().unwrap();
    }
}
