//! The demo's repository and its clone, made with the Git library: the demo itself needs no `git`.

use std::fs;
use std::path::Path;

use git2::{ObjectType, Oid, RepositoryInitOptions, Signature};

use super::CliError;

const BRANCH: &str = "refs/heads/main";
/// The author of the demo's own commits, and of the newcomer's.
const NAME: &str = "Tagfall demo";
const EMAIL: &str = "demo@localhost";

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
}

impl Repository {
    /// Makes the bare repository, and a clone of it without commits.
    pub(super) fn make(bare: &Path, clone: &Path) -> Result<Self, CliError> {
        let made = || {
            init(bare, true)?;
            let clone = init(clone, false)?;
            clone.remote("origin", &bare.to_string_lossy())?;
            let mut config = clone.config()?;
            SETTINGS.iter().try_for_each(|(name, value)| config.set_str(name, value))?;
            Ok(Self { clone })
        };
        made().map_err(|error: git2::Error| CliError::failed(format!("make the repository `{}`", bare.display()), error))
    }

    /// Writes files, commits them, tags the commit and pushes both: one release.
    pub(super) fn release(&self, tag: &str, words: &str, files: &[(&str, String)]) -> Result<(), CliError> {
        let commit = self.commit(words, files)?;
        let tagged = || {
            let target = self.clone.find_object(commit, Some(ObjectType::Commit))?;
            self.clone.tag(tag, &target, &Signature::now(NAME, EMAIL)?, words, false)
        };
        tagged().map_err(|error| CliError::failed(format!("make the tag `{tag}`"), error))?;
        Ok(())
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
