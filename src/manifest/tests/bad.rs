//! What people get wrong in `group.toml`, and the words that they are told: one row per mistake.

use super::{HEAD, REDIS, line, tree};
use crate::manifest::parse_release;

/// `groups/web/group.toml` after its two lines `format` and `placement`, and all that is found in it.
const AFTER_HEAD: &[(&str, &[&str])] = &[
    ("restart_max = 3\n", &["3:1 unknown key `restart_max`"]),
    ("plcement = 1\n", &["3:1 unknown key `plcement` (did you mean `placement`?)"]),
    ("templates = \"lax\"\n", &["3:13 `templates` must be `strict` or `lenient`, not `lax`"]),
    ("templates = \"lenint\"\n", &["3:13 `templates` must be `strict` or `lenient`, not `lenint` (did you mean `lenient`?)"]),
    ("service = \"redis\"\n", &["3:11 `service` must be a table, not `\"redis\"`"]),
    ("config = 3\n", &["3:10 `config` must be a table, not an integer"]),
    ("config_open = \"db\"\n", &["3:15 `config_open` must be a list, not `\"db\"` (write a list: [\"…\", \"…\"])"]),
    ("config_open = [\"db\"]\n", &["3:16 `config_open` names `db`, which is not in [config]"]),
    ("config_open = [\"port\"]\n[config]\nport = 1\n", &["3:16 `config_open` names `port`, which is an integer, not a table"]),
    (
        "config_open = [\"a..b\"]\n",
        &["3:16 each item of `config_open` must be a dotted path into [config], such as `db.port`, not `a..b`"],
    ),
    ("port = \n", &["3:8 invalid TOML: string values must be quoted, expected literal string"]),
    ("a = 1\na = 2\n", &["3:1 unknown key `a`", "4:1 invalid TOML: duplicate key"]),
    ("[mount\npath = \"/etc/x\"\n", &["3:7 invalid TOML: unclosed table, expected `]`"]),
    (
        "x-a = \"unclosed\nx-b = 99999999999999999999\nx-c = }\n",
        &[
            "3:16 invalid TOML: invalid basic string, expected `\"`",
            "4:7 the integer `99999999999999999999` does not fit into 64 bits",
            "5:7 invalid TOML: missing inline table opening, expected `{`",
        ],
    ),
    ("x-n = 9223372036854775808\n", &["3:7 the integer `9223372036854775808` does not fit into 64 bits"]),
    ("[service]\n", &["3:1 [service] has neither `exec` nor `container` (exec = [\"/usr/bin/program\", \"--argument\"])"]),
    (
        "[service]\nexec = [\"/bin/app\"]\nrestart_max = 3\n",
        &["5:1 unknown key `restart_max` in [service] (did you mean `backoff`?)"],
    ),
    ("[service]\nexec = [\"/bin/app\"]\nenviroment = {}\n", &["5:1 unknown key `enviroment` in [service] (did you mean `env`?)"]),
    (
        "[service]\nexec = [\"/bin/app\"]\nstop_timout = \"8s\"\n",
        &["5:1 unknown key `stop_timout` in [service] (did you mean `stop_timeout`?)"],
    ),
    ("[service]\nexec = []\n", &["4:8 `exec` in [service] must be a list that is not empty"]),
    (
        "[service]\nexec = \"/bin/app --flag\"\n",
        &["4:8 `exec` in [service] must be a list that is not empty, not `\"/bin/app --flag\"` (write a list: [\"…\", \"…\"])"],
    ),
    (
        "[service]\nexec = [\"/bin/app\", 8080]\n",
        &["4:21 each item of `exec` in [service] must be a string that is not empty and has no NUL, not an integer"],
    ),
    (
        "[service]\nexec = [\"./app\"]\n",
        &["4:9 the program `./app` must be an absolute path, or a name that is looked up in PATH"],
    ),
    (
        "[service]\nexec = [\"\", \"x\"]\n",
        &["4:9 each item of `exec` in [service] must be a string that is not empty and has no NUL, not ``"],
    ),
    (
        "[service]\nexec = [\"/bin/app\\u0000\"]\n",
        &["4:9 each item of `exec` in [service] must be a string that is not empty and has no NUL, not `/bin/app\\0`"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\n[service.container]\nimage = \"x\"\n",
        &[
            "5:1 `exec` and `container` cannot both stand in [service] (leave one of them out; a container's arguments are `command` in [service.container])",
        ],
    ),
    ("[service.container]\ncommand = []\n", &["3:1 `image` is missing in [service.container] (The image's reference.)"]),
    (
        "[service.container]\nimage = \"x\"\nports = [\"8080\"]\n",
        &["5:10 each item of `ports` in [service.container] must be `HOST:CONTAINER`, such as `8080:80`, not `8080`"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nkind = \"deamon\"\n",
        &["5:8 `kind` in [service] must be `daemon` or `task`, not `deamon` (did you mean `daemon`?)"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nhardening = \"paranoid\"\n",
        &["5:13 `hardening` in [service] must be `none`, `default` or `strict`, not `paranoid`"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nstop_signal = \"SIGTREM\"\n",
        &["5:15 `stop_signal` in [service] must be a signal's name such as `SIGTERM`, not `SIGTREM` (did you mean `SIGTERM`?)"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nstop_signal = \"term\"\n",
        &["5:15 `stop_signal` in [service] must be a signal's name such as `SIGTERM`, not `term` (did you mean `SIGTERM`?)"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nstop_signal = \"restart\"\n",
        &["5:15 `stop_signal` in [service] must be a signal's name such as `SIGTERM`, not `restart`"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nreload_signal = \"restrat\"\n",
        &[
            "5:17 `reload_signal` in [service] must be `restart`, or a signal's name such as `SIGHUP`, not `restrat` (did you mean `restart`?)",
        ],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nstop_timeout = 8\n",
        &["5:16 `stop_timeout` in [service] must be a duration from `1ms` to `1d`, such as \"30s\", not an integer"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nstop_timeout = \"8 s\"\n",
        &[
            "5:16 `stop_timeout` in [service] must be a duration from `1ms` to `1d`, such as \"30s\", not `8 s` (units are ms, s, m, h and d; write 1500ms for one and a half seconds)",
        ],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nstop_timeout = \"1.5s\"\n",
        &[
            "5:16 `stop_timeout` in [service] must be a duration from `1ms` to `1d`, such as \"30s\", not `1.5s` (units are ms, s, m, h and d; write 1500ms for one and a half seconds)",
        ],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nstart_timeout = \"2d\"\n",
        &["5:17 `start_timeout` in [service] must be a duration from `1ms` to `1d`, such as \"30s\", not `2d`"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nstart_timeout = \"0s\"\n",
        &["5:17 `start_timeout` in [service] must be a duration from `1ms` to `1d`, such as \"30s\", not `0s`"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nbackoff = { min = \"10s\", max = \"1s\" }\n",
        &["5:19 `min` (10s) must be at most `max` (1s) in [service.backoff]"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nbackoff = { min = \"1m\" }\n",
        &["5:19 `min` (1m) must be at most `max` (30s) in [service.backoff]"],
    ),
    (
        "[mount\npath = \"/etc/x\"\n[update]\nspeed = 1\n",
        &["3:7 invalid TOML: unclosed table, expected `]`", "6:1 unknown key `speed` in [update]"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nbackoff = { mni = \"1m\" }\n",
        &["5:13 unknown key `mni` in [service.backoff] (did you mean `min`?)"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nlimits = { memory = 512 }\n",
        &["5:21 `memory` in [service.limits] must be a size from `1MiB` to `1024TiB`, such as \"512MiB\", not an integer"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nlimits = { memory = \"512mb\", pids = 0, open_files = \"4096\", cpu = -1.0 }\n",
        &[
            "5:21 `memory` in [service.limits] must be a size from `1MiB` to `1024TiB`, such as \"512MiB\", not `512mb` (units are B, KiB, MiB, GiB, TiB, KB, MB and GB)",
            "5:37 `pids` in [service.limits] must be an integer from 1 to 4194304, not 0",
            "5:53 `open_files` in [service.limits] must be an integer from 8 to 1048576, not `\"4096\"` (write 4096 without quotes)",
            "5:67 `cpu` in [service.limits] must be a number from 0.01 to 4096, not -1",
        ],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nlogs = { max_size = \"1KiB\", files = 0, format = \"xml\", forward = \"syslog:dev/log\" }\n",
        &[
            "5:21 `max_size` in [service.logs] must be a size from `128KiB` to `1TiB`, such as \"512MiB\", not `1KiB`",
            "5:37 `files` in [service.logs] must be an integer from 1 to 100, not 0",
            "5:49 `format` in [service.logs] must be `text` or `json`, not `xml`",
            "5:66 `forward` in [service.logs] must be `none`, `journald` or `syslog`, or one of these with the path of its socket: `syslog:/dev/log`, not `syslog:dev/log`",
        ],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nlogs = { keep = 2 }\n",
        &["5:10 unknown key `keep` in [service.logs] (did you mean `files`?)"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nlimits = { cpus = 2 }\n",
        &["5:12 unknown key `cpus` in [service.limits] (did you mean `cpu`?)"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nready = \"health\"\n",
        &[
            "5:9 `ready` in [service] is `health`, and there is no health check (add [hooks.health-check], or choose `started`, `notify` or `fd`)",
        ],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nlisten = [\"0.0.0.0:8080\"]\n",
        &[
            "5:11 each item of `listen` in [service] must be `tcp://IP:PORT`, `udp://IP:PORT` or `unix:///PATH`, not `0.0.0.0:8080`",
        ],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nlisten = [\"tcp://0.0.0.0:80\", \"tcp://0.0.0.0:80\"]\n",
        &["5:31 `tcp://0.0.0.0:80` stands twice in `listen`"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nenv = { \"A-B\" = \"1\", PORT = 8080 }\n",
        &[
            "5:9 the key `A-B` in `env` in [service] must be a variable's name of letters, digits and `_`",
            "5:29 `PORT` of `env` in [service] must be a string without NUL, not an integer",
        ],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nenv = { TAGFALL_GROUP = \"x\" }\n",
        &["5:9 `TAGFALL_GROUP` in `env` is set by the supervisor and cannot be set here"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nuser = \"../root\"\n",
        &["5:8 `user` in [service] must be a name of letters, digits, `_`, `-` and `.`, at most 63 bytes long, not `../root`"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\nworking_dir = \"var/app\"\n",
        &["5:15 `working_dir` in [service] must be an absolute path without `//`, `.` and `..`, or a template, not `var/app`"],
    ),
    (
        "[service]\nexec = [\"/bin/app\"]\non_unhealthy = \"reboot\"\n",
        &["5:16 `on_unhealthy` in [service] must be `report` or `restart`, not `reboot` (did you mean `report`?)"],
    ),
    ("[mount]\n", &["3:1 `path` is missing in [mount] (A folder of the group's own; it shows one whole publication.)"]),
    ("[mount]\npath = \"etc/x\"\n", &["4:8 `path` in [mount] must be an absolute path, not `etc/x`"]),
    (
        "[mount]\npath = \"/etc\"\n",
        &["4:8 `path` in [mount] must be a folder of the group's own, below those that the whole system shares, not `/etc`"],
    ),
    (
        "[mount]\npath = \"/etc/x/../y\"\n",
        &["4:8 `path` in [mount] must be a path without `//`, `.`, `..` and without `/` at its end, not `/etc/x/../y`"],
    ),
    ("[mount]\npath = \"/proc/self\"\n", &["4:8 `path` in [mount] must be a path outside of `/proc`, not `/proc/self`"]),
    (
        "[mount]\npath = \"/run/tagfall/x\"\n",
        &["4:8 `path` in [mount] must be a path outside of `/run/tagfall`, not `/run/tagfall/x`"],
    ),
    (
        "[mount]\npath = \"/var/lib\"\n",
        &["4:8 `path` in [mount] must be a folder of the group's own, below those that the whole system shares, not `/var/lib`"],
    ),
    (
        "[mount]\npath = \"/etc/{{cfg.name}}\"\n",
        &["4:8 `path` in [mount] must be a path as it stands, without templates, not `/etc/{{cfg.name}}`"],
    ),
    ("[mount]\npath = \"/etc/x\"\nkeep = 0\n", &["5:8 `keep` in [mount] must be an integer from 1 to 1000, not 0"]),
    (
        "[config]\nport = 1\n[exports]\nport = \"prot\"\n",
        &["6:8 the export's path `prot` is not in [config] (did you mean `port`?)"],
    ),
    (
        "[config.db]\nport = 1\n[exports]\nport = \"db.prot\"\nhost = 1\n\"a b\" = \"db.port\"\n",
        &[
            "6:8 the export's path `db.prot` is not in [config] (did you mean `db.port`?)",
            "7:8 `host` of `exports` must be a dotted path into [config], such as `db.port`, not an integer",
            "8:1 the key `a b` in `exports` must be a name of letters, digits, `_` and `-` that begins with a letter",
        ],
    ),
    (
        "[binds]\ndb = { group = \"redi.default\" }\n",
        &["4:16 the bind `db` names `redi.default`, which is not a group of this release (did you mean `redis.default`?)"],
    ),
    ("[binds]\ndb = { group = \"web\" }\n", &["4:16 the bind `db` names its own group, `web.default`"]),
    (
        "[binds]\ndb = { group = \"redis\", needs = [\"prot\"] }\n",
        &["4:34 `prot` is not an export of `redis.default` (did you mean `port`?)"],
    ),
    (
        "[binds]\ndb = { group = \"a/b\" }\n",
        &["4:16 `group` in a bind must be a group's name, such as `redis.default`, not `a/b`"],
    ),
    ("[binds]\ndb = { needs = [] }\n", &["4:6 `group` is missing in a bind (The group that is needed.)"]),
    ("[binds]\ndb = \"redis\"\n", &["4:6 `db` of `binds` must be a table, not `\"redis\"`"]),
    (
        "[binds]\ndb = { group = \"redis\", mode = \"strikt\" }\n",
        &["4:32 `mode` in a bind must be `strict` or `relaxed`, not `strikt` (did you mean `strict`?)"],
    ),
    ("[topology]\nkind = \"follower\"\n", &["4:8 `kind` in [topology] must be `standalone` or `leader`, not `follower`"]),
    (
        "[update]\nstrategy = \"roling\"\n",
        &[
            "4:12 `strategy` in [update] must be `at-once`, `rolling`, `canary` or `manual`, not `roling` (did you mean `rolling`?)",
        ],
    ),
    (
        "[update]\nmax_unavailable = 0\ncanary = \"0%\"\n",
        &[
            "4:19 `max_unavailable` in [update] must be a number from 1 such as 2, or a share such as \"25%\", not 0",
            "5:10 `canary` in [update] must be a number from 1 such as 2, or a share such as \"25%\", not `\"0%\"`",
        ],
    ),
    (
        "[update]\nmax_unavailable = \"25\"\n",
        &["4:19 `max_unavailable` in [update] must be a number from 1 such as 2, or a share such as \"25%\", not `\"25\"`"],
    ),
    ("[update]\nmin_healthy = \"10m\"\n", &["4:15 `min_healthy` (10m) must be shorter than `deadline` (5m) in [update]"]),
    (
        "[update]\ndeadline = \"5 minutes\"\n",
        &[
            "4:12 `deadline` in [update] must be a duration from `1s` to `30d`, such as \"30s\", not `5 minutes` (units are ms, s, m, h and d; write 1500ms for one and a half seconds)",
        ],
    ),
    ("[update]\non_failure = true\n", &["4:14 `on_failure` in [update] must be `rollback` or `halt`, not a boolean"]),
    (
        "[hooks.heath-check]\nmodule = \"builtin:tcp\"\n",
        &["3:8 unknown key `heath-check` in [hooks] (did you mean `health-check`?)"],
    ),
    (
        "[hooks.health-check]\ninterval = \"1s\"\n",
        &["3:1 `module` is missing in [hooks.health-check] (A `.wasm` file below `hooks/`, or a built-in check.)"],
    ),
    (
        "[hooks.health-check]\nmodule = \"hooks/helth.wasm\"\n",
        &[
            "4:10 the module `hooks/helth.wasm` of [hooks.health-check] is not a `.wasm` file below `groups/web/hooks` (did you mean `hooks/health.wasm`?)",
        ],
    ),
    (
        "[hooks.health-check]\nmodule = \"../health.wasm\"\n",
        &["4:10 the module `../health.wasm` of [hooks.health-check] is not a `.wasm` file below `groups/web/hooks`"],
    ),
    (
        "[hooks.health-check]\nmodule = \"builtin:htp\"\n",
        &[
            "4:10 there is no built-in check `builtin:htp`; there are `builtin:http`, `builtin:tcp`, `builtin:file` and `builtin:exec` (did you mean `builtin:http`?)",
        ],
    ),
    (
        "[hooks.health-check]\nmodule = \"builtin:http\"\n",
        &["3:1 `url` is missing in the arguments of `builtin:http` (What is asked for.)"],
    ),
    (
        "[hooks.health-check]\nmodule = \"builtin:http\"\nargs = { url = \"https://x/\" }\n",
        &["5:16 `url` in the arguments of `builtin:http` must be an `http://` URL, or a template, not `https://x/`"],
    ),
    (
        "[hooks.health-check]\nmodule = \"builtin:http\"\nargs = { url = \"http://x/\", stauts = 200 }\n",
        &["5:29 unknown key `stauts` in the arguments of `builtin:http` (did you mean `status`?)"],
    ),
    (
        "[hooks.health-check]\nmodule = \"builtin:http\"\nargs = { url = \"http://x/\", status = 99 }\n",
        &["5:38 `status` in the arguments of `builtin:http` must be an integer from 100 to 599, not 99"],
    ),
    (
        "[hooks.health-check]\nmodule = \"builtin:tcp\"\nargs = { address = \"localhost\" }\n",
        &["5:20 `address` in the arguments of `builtin:tcp` must be `HOST:PORT`, or a template, not `localhost`"],
    ),
    (
        "[hooks.health-check]\nmodule = \"builtin:file\"\nargs = { path = \"var/x\", max_age = \"x\" }\n",
        &[
            "5:17 `path` in the arguments of `builtin:file` must be an absolute path without `//`, `.` and `..`, or a template, not `var/x`",
            "5:36 `max_age` in the arguments of `builtin:file` must be a duration from `1ms` to `365d`, such as \"30s\", not `x` (units are ms, s, m, h and d; write 1500ms for one and a half seconds)",
        ],
    ),
    (
        "[hooks.health-check]\nmodule = \"builtin:exec\"\nargs = { command = \"pinx\" }\nallow = { exec = { ping = [\"/bin/ping\"] } }\n",
        &["5:20 `pinx` is not a command of this hook's `allow.exec` (did you mean `ping`?)"],
    ),
    (
        "[hooks.health-check]\nmodule = \"builtin:exec\"\nargs = { command = \"ping\" }\n",
        &["5:20 `ping` is not a command of this hook's `allow.exec` (allow = { exec = { ping = [\"/path/of/program\"] } })"],
    ),
    (
        "[hooks.health-check]\nmodule = \"hooks/health.wasm\"\ninterval = \"1s\"\ntimeout = \"2s\"\n",
        &["6:11 `timeout` (2s) must be at most `interval` (1s) in [hooks.health-check]"],
    ),
    (
        "[hooks.health-check]\nmodule = \"hooks/health.wasm\"\nfailures = 0\nmemory = \"1KiB\"\n",
        &[
            "5:12 `failures` in [hooks.health-check] must be an integer from 1 to 1000, not 0",
            "6:10 `memory` in [hooks.health-check] must be a size from `64KiB` to `4GiB`, such as \"512MiB\", not `1KiB`",
        ],
    ),
    ("[hooks.init]\nmodule = \"hooks/health.wasm\"\ninterval = \"1s\"\n", &["5:1 unknown key `interval` in [hooks.init]"]),
    (
        "[hooks.init]\nmodule = \"builtin:tcp\"\nargs = { address = \"a:1\" }\n",
        &["4:10 `builtin:tcp` is a health check and cannot be the module of [hooks.init]"],
    ),
    (
        "[hooks.init]\nmodule = \"hooks/health.wasm\"\nargs = { limit = nan }\n",
        &["5:18 `nan` and `inf` cannot be handed to templates or hooks"],
    ),
    (
        "[hooks.init]\nmodule = \"hooks/health.wasm\"\nallow = { net = [\"x\"], read = [\"tmp\"], write = [\"/a/\"], env = [\"A B\"], exec = { m = [] }, file = [] }\n",
        &[
            "5:18 each item of `net` in a hook's `allow` must be `HOST:PORT`, `unix:/PATH`, or a template, not `x`",
            "5:32 each item of `read` in a hook's `allow` must be an absolute path without `//`, `.` and `..`, or a template, not `tmp`",
            "5:49 each item of `write` in a hook's `allow` must be an absolute path without `//`, `.` and `..`, or a template, not `/a/`",
            "5:64 each item of `env` in a hook's `allow` must be a variable's name of letters, digits and `_`, not `A B`",
            "5:85 `m` of `exec` in a hook's `allow` must be a list that is not empty",
            "5:91 unknown key `file` in a hook's `allow`",
        ],
    ),
    (
        "[hooks.init]\nmodule = \"hooks/health.wasm\"\n[hooks.init.probes]\na = {}\nb = { url = \"https://x/\", sent = \"x\" }\nc = { url = \"http://x/\", address = \"x:1\" }\nd = { url = \"http://x/\", until = 1 }\ne = { address = \"x\", until = -1 }\n\"f f\" = { address = \"unix:/x\" }\ng = \"http://x/\"\n",
        &[
            "6:5 the probe `a` has neither `url` nor `address` (url = \"http://127.0.0.1:8080/healthz\")",
            "7:13 `url` in a probe must be an `http://` URL, or a template, not `https://x/`",
            "7:27 unknown key `sent` in a probe (did you mean `send`?)",
            "8:36 `url` and `address` cannot both stand in the probe `c`",
            "9:34 `until` of the probe `d` goes with `address`, not with `url`",
            "10:17 `address` in a probe must be `HOST:PORT`, `unix:/PATH`, or a template, not `x`",
            "10:30 `until` in a probe must be an integer from 0 to 65536, not -1",
            "11:1 the key `f f` in `probes` in [hooks.init] must be a name of letters, digits, `_` and `-` that begins with a letter",
            "12:5 `g` of `probes` in [hooks.init] must be a table, not `\"http://x/\"`",
        ],
    ),
    (
        "[hooks.health-check]\nmodule = \"builtin:tcp\"\nargs = { address = \"x:1\" }\nprobes = { a = { address = \"x:1\" } }\n",
        &["6:10 `probes` in [hooks.health-check] are for modules (a built-in check asks by itself)"],
    ),
];

/// The whole file.
const WHOLE: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "1:1 [placement] is missing (Where the group runs; empty labels mean every supervisor.)",
            "1:1 `format` is missing (The version of this file's format: 1.)",
        ],
    ),
    ("format = 2\nplacement = { labels = {} }\n", &["1:10 `format` must be 1, not 2"]),
    ("format = \"1\"\n[placement]\n", &["1:10 `format` must be 1, not `\"1\"` (write 1 without quotes)"]),
    (
        "[placement]\nlables = {}\n",
        &[
            "1:1 `format` is missing (The version of this file's format: 1.)",
            "2:1 unknown key `lables` in [placement] (did you mean `labels`?)",
        ],
    ),
    (
        "[placement]\nlabels = { role = 3, \"\" = \"x\" }\n",
        &[
            "1:1 `format` is missing (The version of this file's format: 1.)",
            "2:19 `role` of `labels` in [placement] must be a label of 1 to 253 bytes without control characters, not an integer",
            "2:22 the key `` in `labels` in [placement] must be a label of 1 to 253 bytes without control characters",
        ],
    ),
    ("\u{feff}format = 1\nx = 1\n[placement]\nlabels = {}\n", &["2:1 unknown key `x`"]),
];

fn found(text: &str) -> Vec<String> {
    let files = [("groups/web/group.toml", text), ("groups/redis/group.toml", REDIS), ("groups/web/hooks/health.wasm", "x")];
    let found = parse_release(&tree(files), None).err().unwrap_or_default();
    assert!(found.iter().all(|found| found.file == "groups/web/group.toml"), "{found:?}");
    found.iter().map(line).collect()
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let rows = AFTER_HEAD.iter().map(|(text, wanted)| (format!("{HEAD}{text}"), wanted));
    let rows = rows.chain(WHOLE.iter().map(|(text, wanted)| ((*text).to_owned(), wanted)));
    let wrong: Vec<String> = rows
        .filter(|(text, wanted)| found(text) != **wanted)
        .map(|(text, wanted)| format!("{text}\nfound  {:#?}\nwanted {wanted:#?}", found(&text)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
