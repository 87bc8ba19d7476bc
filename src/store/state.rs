//! What a supervisor remembers over restarts.

use std::collections::BTreeMap;

use crate::model::{Digest, FirstTag, GroupName, MemberId, ObjectId, OwedHooks, Refusal, Suspension, TagName, Timestamp};

/// So many refused tags are remembered, the newest.
const REFUSED_MAX: usize = 64;
/// So many accepted releases are remembered, the newest.
const HISTORY_MAX: usize = 100;

/// The state document. Fields may be added, each with a default; none may change its meaning.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct State {
    /// Made once per data folder.
    pub member_id: MemberId,
    /// The release that this supervisor drives towards.
    #[serde(default)]
    pub accepted: Option<Accepted>,
    /// The highest version whose rollout succeeded here.
    #[serde(default)]
    pub floor: Option<String>,
    /// The object that each tag name had when it was first seen.
    #[serde(default)]
    pub pins: BTreeMap<TagName, ObjectId>,
    /// Tags that were not taken, oldest first.
    #[serde(default)]
    pub refused: Vec<Refused>,
    /// Digest of the rules by which they were judged: program, settings.
    #[serde(default)]
    pub judged_by: Option<Digest>,
    /// Releases accepted so far, oldest first, without the present one.
    #[serde(default)]
    pub history: Vec<Accepted>,
    /// The first tag accepted with the revision that each group has now.
    #[serde(default)]
    pub first_tags: BTreeMap<GroupName, FirstTag>,
    /// Groups held back by an operator.
    #[serde(default)]
    pub suspended: BTreeMap<GroupName, Suspension>,
    /// What must not be forgotten of each group's hooks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hooks: BTreeMap<GroupName, OwedHooks>,
    /// The kernel's boot in which the processes are that this speaks of.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
    /// Where each group was published, so that the links of one that has vanished can be taken away.
    #[serde(default)]
    pub published: BTreeMap<GroupName, PublishedAt>,
}

/// A release as it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Accepted {
    /// Short name of the tag.
    pub tag: TagName,
    /// Id of the tag object.
    pub tag_object: ObjectId,
    /// Id of the commit.
    pub commit: ObjectId,
    /// Who signed.
    #[serde(default)]
    pub signers: Vec<String>,
    /// When it passed all checks.
    pub accepted_at: Timestamp,
    /// When this supervisor had converged on it.
    #[serde(default)]
    pub applied_at: Option<Timestamp>,
}

/// A tag that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refused {
    /// Short name of the tag.
    pub tag: TagName,
    /// What it pointed at.
    pub tag_object: ObjectId,
    /// Why.
    pub refusal: Refusal,
    /// Since when.
    pub since: Timestamp,
}

/// Where a group is published.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PublishedAt {
    /// The link on the host.
    pub mount_path: String,
}

impl State {
    /// The state of a supervisor that has seen nothing yet.
    pub fn new(member_id: MemberId) -> Self {
        Self {
            member_id,
            accepted: None,
            floor: None,
            pins: BTreeMap::new(),
            refused: Vec::new(),
            judged_by: None,
            history: Vec::new(),
            first_tags: BTreeMap::new(),
            suspended: BTreeMap::new(),
            hooks: BTreeMap::new(),
            boot_id: String::new(),
            published: BTreeMap::new(),
        }
    }

    /// Remembers a refused tag; one that is known keeps its `since` and gets the newer words.
    pub fn refuse(&mut self, refused: Refused) {
        let same = |known: &&mut Refused| known.tag == refused.tag && known.tag_object == refused.tag_object;
        match self.refused.iter_mut().find(same) {
            Some(known) if known.refusal.reason == refused.refusal.reason => known.refusal = refused.refusal,
            Some(known) => *known = refused,
            None => self.refused.push(refused),
        }
        keep_newest(&mut self.refused, REFUSED_MAX);
    }

    /// Changes what is owed to a group's hooks, and says what that is then.
    pub fn owe(&mut self, group: GroupName, change: impl FnOnce(&mut OwedHooks)) -> OwedHooks {
        let mut owed = self.hooks.remove(&group).unwrap_or_default();
        change(&mut owed);
        if owed != OwedHooks::default() {
            self.hooks.insert(group, owed.clone());
        }
        owed
    }

    /// Another boot: the processes that were are gone.
    pub fn booted(&mut self, boot_id: &str) {
        if self.boot_id != boot_id {
            self.processes_ended();
            boot_id.clone_into(&mut self.boot_id);
        }
    }

    /// Every process has ended, and the numbers of the next mean others.
    pub fn processes_ended(&mut self) {
        self.hooks.values_mut().for_each(OwedHooks::outlived);
        self.hooks.retain(|_, owed| *owed != OwedHooks::default());
    }

    /// Makes a release the accepted one, and the one before part of the history.
    pub fn accept(&mut self, release: Accepted) {
        self.history.extend(self.accepted.replace(release));
        keep_newest(&mut self.history, HISTORY_MAX);
    }

    /// Itself, with its lists within their bounds.
    pub(super) fn bounded(&self) -> std::borrow::Cow<'_, Self> {
        if self.refused.len() <= REFUSED_MAX && self.history.len() <= HISTORY_MAX {
            return std::borrow::Cow::Borrowed(self);
        }
        let mut state = self.clone();
        keep_newest(&mut state.refused, REFUSED_MAX);
        keep_newest(&mut state.history, HISTORY_MAX);
        std::borrow::Cow::Owned(state)
    }
}

fn keep_newest<T>(list: &mut Vec<T>, max: usize) {
    list.drain(..list.len().saturating_sub(max));
}
