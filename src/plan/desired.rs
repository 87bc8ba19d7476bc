//! What is wanted of this supervisor.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Digest, DigestBuilder, FirstTag, Group, GroupName, MemberId, Release, Suspension, TagName};
use crate::release::Selection;

/// What of the supervisor's own settings planning depends on.
#[derive(Debug, Clone)]
pub struct Host {
    /// This supervisor.
    pub member_id: MemberId,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Absolute path of the data folder.
    pub data_dir: String,
    /// Digest over all facts that templates may show; a change renders everything anew.
    pub facts: Digest,
    /// Which tags count.
    pub selection: Selection,
    /// Between two looks at the remote.
    pub poll: Duration,
    /// Whether tags must be signed.
    pub verify: bool,
    /// How old the newest signed statement may be, where somebody signs a heartbeat.
    pub max_age: Option<Duration>,
}

impl Host {
    /// The version that a tag's name carries.
    pub fn version_of(&self, tag: &TagName) -> Option<semver::Version> {
        version_of(&self.selection, tag)
    }
}

/// The version that a tag's name carries behind the prefix.
pub(super) fn version_of(selection: &Selection, tag: &TagName) -> Option<semver::Version> {
    semver::Version::parse(tag.as_str().strip_prefix(&selection.prefix)?).ok()
}

/// What other members say. A supervisor alone has an empty one.
#[derive(Debug, Clone, Default)]
pub struct Census {}

/// The config layers above a release, for one group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layers {
    /// Digest of their values; `None` where there are none.
    pub digest: Option<Digest>,
    /// Layers that were left out, and why.
    pub errors: Vec<String>,
}

/// What one group is to be on this supervisor.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Its declaration.
    pub group: Arc<Group>,
    /// The first tag with this revision.
    pub first: FirstTag,
    /// Digest over all that rendering depends on.
    pub inputs: Digest,
    /// Where in an interval what recurs falls, as a share of 2³²: even over members and groups.
    pub phase: u32,
    /// Layers that were left out, and why.
    pub layer_errors: Vec<String>,
    /// An operator's hold.
    pub suspended: Option<Suspension>,
}

/// All that is wanted of this supervisor.
#[derive(Debug, Clone)]
pub struct Desired {
    /// Its own settings.
    pub host: Host,
    /// The release driven towards.
    pub release: Option<Arc<Release>>,
    /// The first tag of every group's revision.
    pub first_tags: BTreeMap<GroupName, FirstTag>,
    /// The groups that are placed here.
    pub groups: BTreeMap<GroupName, Arc<Wanted>>,
}

impl Desired {
    /// Nothing wanted yet.
    pub fn new(host: Host) -> Self {
        Self { host, release: None, first_tags: BTreeMap::new(), groups: BTreeMap::new() }
    }

    /// Whether a group is for this supervisor.
    pub fn is_placed(&self, group: &Group) -> bool {
        group.placement.iter().all(|(key, value)| self.host.labels.get(key) == Some(value))
    }

    /// Works out what is wanted anew, from a release and what stands above it.
    pub fn set(
        &mut self,
        release: Option<Arc<Release>>,
        first_tags: &BTreeMap<GroupName, FirstTag>,
        layers: &BTreeMap<GroupName, Layers>,
        suspended: &BTreeMap<GroupName, Suspension>,
    ) {
        let none = Layers::default();
        let mut groups = BTreeMap::new();
        for (name, group) in release.iter().flat_map(|release| &release.groups) {
            if !self.is_placed(group) {
                continue;
            }
            let release = release.as_ref().map(|r| (r.tag.clone(), r.commit));
            let Some((tag, commit)) = release else { continue };
            let first = match first_tags.get(name) {
                Some(first) if first.revision == group.revision => first.clone(),
                Some(_) | None => FirstTag { revision: group.revision, tag, commit },
            };
            let layers = layers.get(name).unwrap_or(&none);
            let suspended =
                suspended.get(name).filter(|hold| hold.revision.is_none_or(|revision| revision == group.revision)).cloned();
            let inputs = self.inputs(group, &first, layers);
            let (group, layer_errors) = (group.clone(), layers.errors.clone());
            let wanted = Wanted { group, first, inputs, phase: self.phase(name), layer_errors, suspended };
            groups.insert(name.clone(), Arc::new(wanted));
        }
        self.release = release;
        self.first_tags.clone_from(first_tags);
        self.groups = groups;
    }

    fn phase(&self, name: &GroupName) -> u32 {
        let digest = DigestBuilder::new("phase")
            .field(self.host.member_id.as_str().as_bytes())
            .field(name.to_string().as_bytes())
            .finish();
        let bytes = digest.as_bytes();
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn inputs(&self, group: &Group, first: &FirstTag, layers: &Layers) -> Digest {
        DigestBuilder::new("inputs")
            .field(group.revision.as_bytes())
            .field(first.tag.as_str().as_bytes())
            .field(first.commit.as_bytes())
            .field(layers.digest.as_ref().map_or(&[][..], |digest| digest.as_bytes()))
            .field(self.host.facts.as_bytes())
            .finish()
    }
}

/// The first tags after a release is accepted: those of revisions that it leaves alone stay; groups that it does not have go.
pub fn first_tags(before: &BTreeMap<GroupName, FirstTag>, release: &Release) -> BTreeMap<GroupName, FirstTag> {
    let first = |(name, group): (&GroupName, &Arc<Group>)| {
        let known = before.get(name).filter(|first| first.revision == group.revision).cloned();
        let new = || FirstTag { revision: group.revision, tag: release.tag.clone(), commit: release.commit };
        (name.clone(), known.unwrap_or_else(new))
    };
    release.groups.iter().map(first).collect()
}
