//! What would change if a folder were a release: without a supervisor, from what its data folder remembers.
//!
//! Reads only. The services' own state is the keeper's: here each is taken to run as the last accepted release has it, and
//! one that no release had is started.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::api::wire::{PlanStep, PlanView};
use crate::cli::repository::{self, Reading, Unread};
use crate::cli::supervise::{SettingsArgs, environment};
use crate::cli::{CliError, Out, error::Problems};
use crate::daemon::stage::{self, Place, Rendered};
use crate::daemon::{Runs, data_dir, gather_layers, group_steps, host_facts};
use crate::manifest::{Diagnostic, Settings, Severity};
use crate::model::{ConfigFile, Group, GroupName, ObjectId, TagName};
use crate::publish;
use crate::render::Host;
use crate::source::{self, Tree};
use crate::store::{State, Store};

/// The host as it would be asked.
struct Here {
    settings: Settings,
    data_dir: std::path::PathBuf,
    ring: Option<String>,
    host: Host,
    env: BTreeMap<String, String>,
    state: Option<State>,
}

/// One side: a tree and its groups that are placed here.
struct Side {
    tree: Tree,
    groups: BTreeMap<GroupName, Arc<Group>>,
}

/// Compares.
pub(super) fn plan(dir: &Path, place: &SettingsArgs, out: Out) -> Result<PlanView, CliError> {
    let here = Here::look(place.read_beside(dir)?);
    let tree = match repository::read(dir, None) {
        Ok(tree) => tree,
        Err(Unread::Failed(error)) => return Err(error),
        Err(Unread::Refused(found)) => return Err(refused(dir, vec![*found])),
    };
    let all = repository::folders(&tree.files).len();
    let new = here.side(dir, tree)?;
    let old = here.before(out);
    let from = here.state.as_ref().and_then(|state| state.accepted.as_ref()).map(|accepted| accepted.tag.clone());
    let elsewhere = all - new.groups.len();
    if elsewhere > 0 && here.settings.labels.is_empty() {
        out.talk(&format!("not for a host without labels: {elsewhere} of {all} groups; `--config` or `--set` gives it some\n"));
    }
    let mut steps = here.removals(&new, old.as_ref());
    let mut errors = Vec::new();
    for (name, group) in &new.groups {
        let (layers, left_out) = gather_layers(&here.env, &here.data_dir, name);
        left_out.iter().for_each(|words| out.talk(&format!("{name}: {words}\n")));
        match here.render(&new.tree, group, &layers) {
            Ok(rendered) => {
                rendered.notices.iter().for_each(|words| out.talk(&format!("{name}: {words}\n")));
                let shown = publish::shown_in(&here.data_dir, name);
                let runs = old.as_ref().and_then(|old| here.runs(old, name));
                steps.extend(group_steps(name, group, Ok(rendered), shown, runs));
            }
            Err(found) => errors.extend(found.into_iter().map(|words| format!("{name}: {words}"))),
        }
    }
    if !errors.is_empty() {
        let step = format!("plan: the folder `{}` would be refused", dir.display());
        return Err(CliError::could_not_run(step, repository::Words(errors.join("\n"))));
    }
    Ok(PlanView { from, to: None, steps })
}

fn refused(dir: &Path, found: Vec<Diagnostic>) -> CliError {
    let errors = found.into_iter().filter(|found| found.severity == Severity::Error).collect();
    Problems::new(errors).could_not_run(&format!("plan: the folder `{}` would be refused", dir.display()))
}

impl Here {
    fn look(settings: Settings) -> Self {
        let data_dir = data_dir(&settings);
        let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
        let state = Store::peek(&data_dir);
        let nobody = "0".repeat(32);
        let member = state.as_ref().map_or(nobody.as_str(), |state| state.member_id.as_str());
        let host = host_facts(&settings, &data_dir, member, rustix::process::geteuid().as_raw());
        let ring = settings.ring.as_ref().map(|ring| ring.name.clone());
        Self { data_dir, ring, host, env: environment(), state, settings }
    }

    /// The groups of a tree that are for this host.
    fn side(&self, dir: &Path, tree: Tree) -> Result<Side, CliError> {
        let reading = Reading::of(&tree.files, self.ring.as_deref());
        if reading.has_errors() {
            return Err(refused(dir, reading.found));
        }
        if let Some(needed) = reading.too_old() {
            let message = format!("the folder `{}` needs Tagfall {needed}", dir.display());
            return Err(CliError::usage(message, "plan it with a newer `tagfall`"));
        }
        let mut groups = reading.groups;
        let labels = &self.settings.labels;
        groups.retain(|_, group| group.placement.iter().all(|(key, value)| labels.get(key) == Some(value)));
        Ok(Side { tree, groups })
    }

    /// What the last accepted release has here.
    fn before(&self, out: Out) -> Option<Side> {
        let accepted = self.state.as_ref()?.accepted.as_ref()?;
        let store = self.data_dir.join("git");
        let read = source::read_repository(&store, &accepted.commit.to_string());
        let side =
            read.map_err(|refusal| refusal.message).and_then(|tree| self.side(&store, tree).map_err(|error| error.to_string()));
        side.inspect_err(|words| {
            let tag = &accepted.tag;
            out.talk(&format!("what {tag} has here cannot be read ({words}): every service counts as not started yet\n"));
        })
        .ok()
    }

    /// What templates show of the release: where the revision is known, what they show already.
    fn release(&self, tree: &Tree, group: &Group) -> (TagName, ObjectId) {
        let first = self.state.as_ref().and_then(|state| state.first_tags.get(&group.name));
        let same = first.filter(|first| first.revision == group.revision);
        same.map_or_else(|| repository::release(tree), |first| (first.tag.clone(), first.commit))
    }

    fn render(&self, tree: &Tree, group: &Group, layers: &[crate::render::Layer]) -> Result<Rendered, Vec<String>> {
        let (tag, commit) = self.release(tree, group);
        let place = Place { host: &self.host, data_dir: &self.data_dir, layers, release: (&tag, &commit) };
        let mut read = |file: &ConfigFile| tree.read_blob(file.blob).map_err(|error| error.to_string());
        stage::render(&place, group, &mut read)
    }

    /// A service as the last accepted release has it.
    fn runs(&self, old: &Side, name: &GroupName) -> Option<Runs> {
        let group = old.groups.get(name)?;
        let (layers, _) = gather_layers(&self.env, &self.data_dir, name);
        let launch = self.render(&old.tree, group, &layers).ok()?.launch?;
        Some(Runs { launch: launch.digest(), revision: group.revision })
    }

    /// Groups that are here and are not wanted any more.
    fn removals(&self, new: &Side, old: Option<&Side>) -> Vec<PlanStep> {
        let mut here: BTreeSet<&GroupName> = old.iter().flat_map(|old| old.groups.keys()).collect();
        here.extend(self.state.iter().flat_map(|state| state.published.keys()));
        let gone = here.into_iter().filter(|name| !new.groups.contains_key(*name));
        let step = |name: &GroupName| PlanStep {
            group: name.clone(),
            action: "remove".to_owned(),
            message: "not placed here by this release: stopped, its files taken away".to_owned(),
        };
        gone.map(step).collect()
    }
}
