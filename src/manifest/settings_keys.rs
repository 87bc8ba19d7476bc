//! The keys of the supervisor's own file. A new key is a line here and a `fields.get` in `settings`.

use crate::model::CAPABILITIES;

use super::choice::Choice;
use super::group_keys::HOST_LOGS;
use super::settings::VerifyMode;
use super::shape::{Key, Kind, Shape, Text};

const PATH: Kind = Kind::Text(Text::Path);
const ANY_COUNT: Kind = Kind::Integer { min: 1, max: 1_000_000_000 };

pub(crate) static SETTINGS: Shape = Shape {
    name: "",
    keys: &[
        Key::new("name", Kind::Text(Text::Name), "This supervisor's name; default: the host name."),
        Key::new(
            "labels",
            Kind::Map { keys: Text::Label, of: &Kind::Text(Text::Label) },
            "What groups' placement is matched with.",
        ),
        Key::new("data_dir", PATH, "Where everything that must last is kept. Default: /var/lib/tagfall as root.").also(&["data"]),
        Key::new(
            "mount_roots",
            Kind::List { of: &PATH, min: 0 },
            "Folders below which groups may publish; left out: anywhere that is not the system's own.",
        ),
        Key::new(
            "hook_roots",
            Kind::List { of: &PATH, min: 0 },
            "Folders below which hooks may write what they are granted, where the supervisor has a user of its own; left out: none.",
        ),
        Key::new(
            "user",
            Kind::Text(Text::Name),
            "Whom the supervisor runs as when root starts it; `root` opts out. Default: `tagfall`, else user id 60963.",
        ),
        Key::new("keeper", Kind::Table(&KEEPER), "What the keeper does for the supervisor at most."),
        Key::new("source", Kind::Table(&SOURCE), "The configuration repository.").required(),
        Key::new("ring", Kind::Table(&RING), "The peers. Left out: nothing listens for any."),
        Key::new("api", Kind::Table(&API), "Where this supervisor is asked."),
        Key::new("logs", Kind::Table(&HOST_LOGS), "How lines of services are kept whose group.toml does not say so.")
            .also(&["log", "logging"]),
    ],
};

static KEEPER: Shape = Shape {
    name: "[keeper]",
    keys: &[
        Key::new(
            "users",
            Kind::List { of: &Kind::Text(Text::Name), min: 0 },
            "Users that services may run as; left out: all, root too.",
        )
        .also(&["user"]),
        Key::new(
            "capabilities",
            Kind::List { of: &Kind::Choice(&CAPABILITIES), min: 0 },
            "What a service with hardening `none` has at most; left out: what its user has.",
        )
        .also(&["caps"]),
    ],
};

static SOURCE: Shape = Shape {
    name: "[source]",
    keys: &[
        Key::new("url", Kind::Text(Text::Remote), "A path, a URL, or user@host:path.").required().also(&[
            "repo",
            "repository",
            "remote",
        ]),
        Key::new("tag_prefix", Kind::Text(Text::TagPrefix), "What stands before the version in a tag's name.")
            .default("v")
            .also(&["prefix"]),
        Key::new("semver", Kind::Text(Text::VersionRange), "The versions that are taken.")
            .default("*")
            .also(&["range", "version"]),
        Key::new("prerelease", Kind::Bool, "Whether pre-releases are taken.")
            .default("false")
            .also(&["prereleases", "pre_release"]),
        Key::new("poll", Kind::Duration { min: "1s", max: "7d" }, "How often a remote is asked.")
            .default("30s")
            .also(&["interval"]),
        Key::new("verify", Kind::Table(&VERIFY), "Whose signatures a tag needs."),
        Key::new("limits", Kind::Table(&LIMITS), "What a release may cost at most."),
        Key::new("credentials", Kind::Table(&CREDENTIALS), "What this supervisor shows to the remote.").also(&["auth"]),
    ],
};

static VERIFY: Shape = Shape {
    name: "[source.verify]",
    keys: &[
        Key::new("mode", Kind::Choice(VerifyMode::NAMES), "`off` takes unsigned tags, and the status says so.")
            .default("required"),
        Key::new("allowed_signers", PATH, "Trusted keys, in OpenSSH's format.").default("/etc/tagfall/allowed_signers"),
        Key::new("threshold", Kind::Integer { min: 1, max: 100 }, "So many distinct signers.").default("1"),
    ],
};

static LIMITS: Shape = Shape {
    name: "[source.limits]",
    keys: &[
        Key::new("pack_bytes", Kind::Size { min: "64KiB", max: "1TiB" }, "Of what one fetch brings.").default("256MiB"),
        Key::new("file_bytes", Kind::Size { min: "1KiB", max: "16GiB" }, "Of one file.").default("32MiB"),
        Key::new("tree_bytes", Kind::Size { min: "1KiB", max: "1TiB" }, "Of all files of a release.").default("256MiB"),
        Key::new("objects", ANY_COUNT, "Objects that one fetch brings.").default("500000"),
        Key::new("files", ANY_COUNT, "Files of a release.").default("100000"),
        Key::new("tags", ANY_COUNT, "Tags that the remote lists.").default("100000"),
        Key::new("seconds", Kind::Integer { min: 1, max: 86_400 }, "Of one fetch.").default("120").also(&["timeout"]),
        Key::new("path_bytes", Kind::Integer { min: 16, max: 4095 }, "Of a file's path.").default("1024"),
        Key::new("path_depth", Kind::Integer { min: 4, max: 256 }, "Folders in one another.").default("32"),
    ],
};

static CREDENTIALS: Shape = Shape {
    name: "[source.credentials]",
    keys: &[
        Key::new("username", Kind::Text(Text::Line), "The user name that goes with the token or key.").also(&["user"]),
        Key::new("token_file", PATH, "A file that holds a token or password.").also(&["token", "password", "password_file"]),
        Key::new("ssh_key_file", PATH, "A private SSH key.").also(&["ssh_key", "key_file", "identity_file"]),
        Key::new("known_hosts_file", PATH, "Host keys that are trusted, in OpenSSH's format.").also(&["known_hosts"]),
        Key::new("ca_file", PATH, "Certificates that are trusted beside the system's.").also(&["ca", "cafile"]),
    ],
};

static RING: Shape = Shape {
    name: "[ring]",
    keys: &[
        Key::new("name", Kind::Text(Text::Name), "The ring's name; `rings/NAME.toml` are its overlays.").required(),
        Key::new("listen", Kind::Text(Text::Listen), "Where peers are heard.").default("0.0.0.0:9638"),
        Key::new("advertise", Kind::Text(Text::HostPort), "Where peers find this supervisor."),
        Key::new("peers", Kind::List { of: &Kind::Text(Text::HostPort), min: 0 }, "Who is asked first.").also(&["peer", "seeds"]),
        Key::new("key_file", PATH, "The ring's key.").also(&["key"]),
    ],
};

static API: Shape = Shape {
    name: "[api]",
    keys: &[
        Key::new("socket", PATH, "The CLI's door. Default: /run/tagfall/supervisor.sock as root."),
        Key::new("listen", Kind::Text(Text::Listen), "HTTP for reading on loopback; writing, and other addresses, need a token."),
        Key::new("token_file", PATH, "A file that holds the token.").also(&["token"]),
        Key::new("tls", Kind::Table(&TLS), "Certificates for `listen`."),
    ],
};

static TLS: Shape = Shape {
    name: "[api.tls]",
    keys: &[
        Key::new("cert", PATH, "The certificate chain, PEM.").required(),
        Key::new("key", PATH, "Its private key, PEM.").required(),
        Key::new("client_ca", PATH, "Clients must show a certificate of this authority."),
    ],
};
