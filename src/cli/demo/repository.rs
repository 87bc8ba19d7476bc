//! The demo's repository and its clone, made with the Git library: the demo itself needs no `git`, and no `ssh-keygen` to sign.

use std::fs;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid, RepositoryInitOptions, Signature};

use super::CliError;
use crate::cli::keys::Keys;
use crate::cli::text::now;

const BRANCH: &str = "refs/heads/main";
/// The author of the demo's own commits, and of the newcomer's.
const NAME: &str = "Tagfall demo";
pub(super) const EMAIL: &str = "demo@localhost";

/// Settings of the clone: commits and tags work whatever the newcomer's own Git is set to.
const SETTINGS: [(&str, &str); 7] = [
    ("user.name", NAME),
    ("user.email", EMAIL),
    ("commit.gpgsign", "false"),
    ("tag.gpgsign", "false"),
    ("tag.forcesignannotated", "false"),
    ("branch.main.remote", "origin"),
    ("branch.main.merge", BRANCH),
];

/// The clone in which the demo and the newcomer work.
pub(super) struct Repository {
    clone: git2::Repository,
    keys: Keys,
}

impl Repository {
    /// Makes the bare repository, and a clone of it without commits.
    pub(super) fn make(bare: &Path, clone: &Path, keys: Keys) -> Result<Self, CliError> {
        let made = || {
            init(bare, true)?;
            let clone = init(clone, false)?;
            clone.remote("origin", &bare.to_string_lossy())?;
            let mut config = clone.config()?;
            SETTINGS.iter().try_for_each(|(name, value)| config.set_str(name, value))?;
            keys.settings().iter().try_for_each(|(name, value)| config.set_str(name, value))?;
            Ok(clone)
        };
        made()
            .map(|clone| Self { clone, keys })
            .map_err(|error: git2::Error| CliError::failed(format!("make the repository `{}`", bare.display()), error))
    }

    /// Writes files, commits them, and makes a signed tag of the commit: one release.
    pub(super) fn release(&self, tag: &str, words: &str, files: &[(&str, String)]) -> Result<(), CliError> {
        self.commit(words, files)?;
        self.tag(tag, words, true)
    }

    /// Makes a tag of the last commit, as `git tag` makes it.
    pub(super) fn tag(&self, tag: &str, words: &str, signed: bool) -> Result<(), CliError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| CliError::failed(format!("make the tag `{tag}`"), error);
        let object = || -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
            let commit = self.clone.head()?.peel_to_commit()?.id();
            let seconds = now().0 / 1000;
            let mut object =
                format!("object {commit}\ntype commit\ntag {tag}\ntagger {NAME} <{EMAIL}> {seconds} +0000\n\n{words}\n");
            if signed {
                let armour = self.keys.sign(object.as_bytes())?;
                object.push_str(&armour);
            }
            Ok(object)
        };
        let object = object().map_err(failed)?;
        let written = || {
            let id = self.clone.odb()?.write(ObjectType::Tag, object.as_bytes())?;
            self.clone.reference(&format!("refs/tags/{tag}"), id, false, words)
        };
        written().map(|_| ()).map_err(|error| failed(error.into()))
    }

    /// The file that trusts the demo's key.
    pub(super) fn allowed_signers(&self) -> PathBuf {
        self.keys.allowed_signers()
    }

    /// Writes files and commits them.
    pub(super) fn commit(&self, words: &str, files: &[(&str, String)]) -> Result<Oid, CliError> {
        let root = self.clone.workdir().unwrap_or(self.clone.path());
        for (path, text) in files {
            let path = root.join(path);
            let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
            written.map_err(|error| CliError::failed(format!("write `{}`", path.display()), error))?;
        }
        let committed = || {
            let mut index = self.clone.index()?;
            files.iter().try_for_each(|(path, _)| index.add_path(Path::new(path)))?;
            index.write()?;
            let tree = self.clone.find_tree(index.write_tree()?)?;
            let author = Signature::now(NAME, EMAIL)?;
            let parent = self.clone.head().ok().map(|head| head.peel_to_commit()).transpose()?;
            self.clone.commit(Some("HEAD"), &author, &author, words, &tree, &parent.iter().collect::<Vec<_>>())
        };
        committed().map_err(|error: git2::Error| CliError::failed("commit in the clone", error))
    }

    /// Pushes the branch, and a tag where one is named.
    pub(super) fn push(&self, tag: Option<&str>) -> Result<(), CliError> {
        let pushed = || {
            let mut refs = vec![BRANCH.to_owned()];
            refs.extend(tag.map(|tag| format!("refs/tags/{tag}")));
            self.clone.find_remote("origin")?.push(&refs, None)
        };
        pushed().map_err(|error| CliError::failed("push to the demo's repository", error))
    }
}

fn init(path: &Path, bare: bool) -> Result<git2::Repository, git2::Error> {
    let mut options = RepositoryInitOptions::new();
    // Templates of the host would bring hooks along.
    options.bare(bare).initial_head("main").external_template(false).no_reinit(true);
    git2::Repository::init_opts(path, &options)
}
