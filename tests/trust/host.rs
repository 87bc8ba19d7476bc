//! One supervisor that demands signatures, a repository, and the people around it.

use std::fs;
use std::path::PathBuf;

use common::{LONG, Repo, SHORT, SshKey, Supervisor, Tagfall, wait_for};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const WEB: &str = "groups/web/group.toml";

/// A host, its repository, and the keys of those who matter.
pub(crate) struct Host {
    pub(crate) supervisor: Supervisor,
    pub(crate) repo: Repo,
    pub(crate) settings: String,
    pub(crate) alice: SshKey,
    // Last, so that it goes when nothing uses it any more.
    pub(crate) dir: TempDir,
}

/// What must not change while something is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Untouched {
    pid: u64,
    restarts: u64,
    file: String,
    release: String,
}

/// What a host is started with.
#[derive(Default)]
pub(crate) struct Setup {
    /// More of `[source.verify]`.
    pub(crate) verify: String,
    /// A program that runs the supervisor.
    pub(crate) through: Vec<String>,
}

impl Host {
    /// One that runs `v1.0.0`, signed by Alice, whom it trusts.
    pub(crate) fn start() -> Self {
        Self::with(|_, _| Setup::default())
    }

    /// The same, prepared by a test before the supervisor starts: it is given the folder and Alice's key.
    pub(crate) fn with(prepare: impl FnOnce(&Repo, &std::path::Path) -> Setup) -> Self {
        let host = Self::bare(prepare);
        host.release("v1.0.0");
        host.supervisor.wait_ready("v1.0.0");
        host
    }

    /// One whose repository has no tag.
    pub(crate) fn bare(prepare: impl FnOnce(&Repo, &std::path::Path) -> Setup) -> Self {
        let dir = common::temp_dir();
        let repo = Repo::new(dir.path());
        let alice = SshKey::make(dir.path(), "alice", &["-t", "ed25519"]);
        repo.sign_with(&alice);
        fs::write(dir.path().join("allowed_signers"), alice.allowed("alice@example.com", "")).unwrap();
        let setup = prepare(&repo, dir.path());
        let plain = Supervisor::settings(dir.path(), &repo.bare().display().to_string(), "{}");
        let verify = format!("allowed_signers = \"{}\"\n{}", dir.path().join("allowed_signers").display(), setup.verify);
        let settings = plain.replace("mode = \"off\"\n", &verify);
        let through: Vec<&str> = setup.through.iter().map(String::as_str).collect();
        let supervisor = Supervisor::start_with(&tagfall(), dir.path(), &settings, &through);
        Self { supervisor, repo, settings, alice, dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a key of somebody's.
    pub(crate) fn key(&self, name: &str) -> SshKey {
        SshKey::make(self.dir.path(), name, &["-t", "ed25519"])
    }

    /// Writes whom the host trusts.
    pub(crate) fn trust(&self, lines: &[String]) {
        // As an editor does: a new file takes the place of the old one.
        let fresh = self.path("allowed_signers.new");
        fs::write(&fresh, lines.concat()).unwrap();
        fs::rename(fresh, self.path("allowed_signers")).unwrap();
    }

    pub(crate) fn trusts_alice(&self) -> String {
        self.alice.allowed("alice@example.com", "")
    }

    /// Commits a release that says its version in a file.
    pub(crate) fn write(&self, version: &str) {
        let text = format!(
            "format = 1\n[placement]\nlabels = {{}}\n[service]\nexec = [\"/bin/sleep\", \"1000000\"]\nreload_signal = \"SIGCONT\"\n\
             [config]\nversion = \"{version}\"\n[mount]\npath = \"{}\"\n",
            self.path("mnt/web").display()
        );
        self.repo.write(WEB, &text).write("groups/web/config/version.hbs", "{{cfg.version}}");
    }

    /// Commits, signs, tags and pushes a good release.
    pub(crate) fn release(&self, version: &str) {
        self.write(version);
        self.repo.release_signed(version);
    }

    /// Pushes every tag as it is, over what is there.
    pub(crate) fn push(&self) {
        self.repo.run(&["push", "--quiet", "--force", "--tags", "origin", "main"]);
    }

    pub(crate) fn web(&self) -> Value {
        wait_for("web in the status", SHORT, || {
            let status = self.supervisor.status()?;
            let found = status["groups"].as_array().into_iter().flatten().find(|group| group["name"] == "web.default").cloned();
            found.ok_or_else(|| format!("{status:#}"))
        })
    }

    pub(crate) fn untouched(&self) -> Untouched {
        let web = self.web();
        let status = self.supervisor.status().unwrap();
        Untouched {
            pid: web["service"]["pid"].as_u64().unwrap_or_else(|| panic!("no process: {web:#}")),
            restarts: web["service"]["restarts"].as_u64().unwrap_or_default(),
            file: fs::read_to_string(self.path("mnt/web/version")).unwrap(),
            release: text(&status["release"]["tag_object"]),
        }
    }

    /// Waits until a tag is shown as refused; its reason and message.
    pub(crate) fn refused(&self, tag: &str) -> (String, String) {
        wait_for(&format!("{tag} is refused"), LONG, || {
            let status = self.supervisor.status()?;
            let entry = status["refused"].as_array().into_iter().flatten().find(|entry| entry["tag"] == tag).cloned();
            let entry = entry.ok_or_else(|| format!("{status:#}\n{}", self.supervisor.log()))?;
            Ok((text(&entry["reason"]), text(&entry["message"])))
        })
    }

    /// Waits until a condition of the supervisor has a status and a reason; its message.
    pub(crate) fn condition(&self, kind: &str, truth: &str, reason: &str) -> String {
        wait_for(&format!("{kind} is {truth}, {reason}"), LONG, || {
            let status = self.supervisor.status()?;
            let all = status["conditions"].as_array().cloned().unwrap_or_default();
            let found = all.iter().find(|one| one["type"] == kind && one["status"] == truth && one["reason"] == reason);
            found.map(|one| text(&one["message"])).ok_or_else(|| format!("{status:#}\n{}", self.supervisor.log()))
        })
    }

    /// Waits for an event with a reason whose message holds `words`.
    pub(crate) fn event(&self, reason: &str, words: &str) -> Value {
        wait_for(&format!("an event {reason} with `{words}`"), LONG, || {
            let events = self.supervisor.client(&["events", "-o", "json"]);
            let values: Vec<Value> = serde_json::from_str(&events.stdout).map_err(|error| format!("{error}: {events:?}"))?;
            let found = values.iter().find(|event| event["reason"] == reason && text(&event["message"]).contains(words)).cloned();
            found.ok_or_else(|| format!("{values:#?}\n{}", self.supervisor.log()))
        })
    }

    /// Waits until it is converged on a tag, and shows its file.
    pub(crate) fn wait_applied(&self, version: &str) {
        self.supervisor.wait_ready(version);
        assert_eq!(fs::read_to_string(self.path("mnt/web/version")).unwrap(), version);
    }
}

pub(crate) fn tagfall() -> Tagfall {
    Tagfall::new(env!("CARGO_BIN_EXE_tagfall"))
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
