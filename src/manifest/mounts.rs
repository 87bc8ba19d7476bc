//! Mount paths over the whole release: no two groups that may meet on one host may publish at, or below, one another's
//! path. Sorted paths and shared labels keep the work near linear: ten thousand groups are ordinary.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::model::{Group, GroupName, is_below_or_same};

use super::diagnostic::{At, Report};
use super::group::Built;

/// Sets of at most so many groups are compared pair by pair.
const PAIRWISE_MAX: usize = 8;

type Pair<'a> = (&'a Built, &'a Built);

/// Mount path → the groups that publish there.
type Paths<'a> = BTreeMap<&'a str, Vec<&'a Built>>;

/// Checks all groups against each other.
pub(crate) fn check(report: &mut Report, groups: &BTreeMap<GroupName, Built>) {
    let paths = by_path(groups.values());
    let mut told = BTreeSet::new();
    for (path, here) in &paths {
        let above = ancestors(path).filter_map(|path| paths.get(path)).flatten().copied();
        let mut cluster: Vec<&Built> = above.collect();
        if cluster.is_empty() && here.len() == 1 {
            continue;
        }
        cluster.extend(here);
        let mut pairs = Vec::new();
        meetings(&cluster, &mut BTreeSet::new(), &mut pairs);
        for pair in pairs {
            tell(report, pair, &mut told);
        }
    }
}

/// Checks the groups that one ring changes against each other and the rest.
pub(crate) fn check_ring(report: &mut Report, changed: &BTreeMap<GroupName, Built>, paths: &Paths<'_>) {
    let own = by_path(changed.values());
    let mut told = BTreeSet::new();
    for built in changed.values() {
        let Some(mount) = &built.group.mount else { continue };
        let rest = related(paths, &mount.path).filter(|other| !changed.contains_key(&other.group.name));
        let near: Vec<&Built> = related(&own, &mount.path).chain(rest).collect();
        for other in near.into_iter().filter(|other| other.group.name != built.group.name) {
            if may_meet(&built.group, &other.group) && !told.contains(&built.group.name) {
                tell(report, (built, other), &mut told);
            }
        }
    }
}

/// Groups by their mount path.
pub(crate) fn by_path<'a>(groups: impl Iterator<Item = &'a Built>) -> Paths<'a> {
    let mut paths = Paths::new();
    for built in groups {
        if let Some(mount) = &built.group.mount {
            paths.entry(&mount.path).or_default().push(built);
        }
    }
    paths
}

fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').skip(1).map(|(end, _)| &path[..end])
}

/// Groups at the path, above it and below it.
fn related<'a>(paths: &'a Paths<'a>, path: &'a str) -> impl Iterator<Item = &'a Built> {
    let here_and_above = ancestors(path).chain([path]).filter_map(|path| paths.get(path));
    let first_below = format!("{path}/");
    let range: (Bound<&str>, Bound<&str>) = (Bound::Included(first_below.as_str()), Bound::Unbounded);
    let below = paths.range::<str, _>(range).take_while(|(other, _)| is_below_or_same(other, path));
    let below: Vec<&Vec<&Built>> = below.map(|(_, groups)| groups).collect();
    here_and_above.chain(below).flatten().copied()
}

/// Whether one supervisor's labels could match both: not where they want different values of one label.
fn may_meet(a: &Group, b: &Group) -> bool {
    a.placement.iter().all(|(key, value)| b.placement.get(key).is_none_or(|other| other == value))
}

/// Pairs that may meet. Large sets are split by the label that most of them have: groups with different values of it
/// need no comparison.
fn meetings<'a>(groups: &[&'a Built], used: &mut BTreeSet<&'a str>, pairs: &mut Vec<Pair<'a>>) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    if groups.len() > PAIRWISE_MAX {
        let keys = groups.iter().flat_map(|built| built.group.placement.keys());
        keys.filter(|key| !used.contains(key.as_str())).for_each(|key| *counts.entry(key).or_default() += 1);
    }
    let Some((key, _)) = counts.into_iter().max_by_key(|(_, count)| *count) else {
        return pairwise(groups, pairs);
    };
    let mut without = Vec::new();
    let mut by_value: BTreeMap<&str, Vec<&'a Built>> = BTreeMap::new();
    for built in groups {
        match built.group.placement.get(key) {
            Some(value) => by_value.entry(value).or_default().push(built),
            None => without.push(*built),
        }
    }
    used.insert(key);
    for with in by_value.into_values() {
        let together: Vec<&Built> = without.iter().copied().chain(with).collect();
        meetings(&together, used, pairs);
    }
    used.remove(key);
}

/// Each group with the first other that it may meet: one conflict per group says enough.
fn pairwise<'a>(groups: &[&'a Built], pairs: &mut Vec<Pair<'a>>) {
    for one in groups {
        let met = groups.iter().find(|other| !std::ptr::eq(**other, *one) && may_meet(&one.group, &other.group));
        pairs.extend(met.map(|other| (*one, *other)));
    }
}

fn tell(report: &mut Report, (a, b): Pair<'_>, told: &mut BTreeSet<GroupName>) {
    for (one, other) in [(a, b), (b, a)] {
        let (Some(mount), Some(others)) = (&one.group.mount, &other.group.mount) else { continue };
        if !related_paths(&mount.path, &others.path) || !told.insert(one.group.name.clone()) {
            continue;
        }
        let (name, other_name) = (&one.group.name, &other.group.name);
        let relation = match mount.path.len().cmp(&others.path.len()) {
            std::cmp::Ordering::Less => format!("lies above `{}`, the mount path of", others.path),
            std::cmp::Ordering::Equal => "is also the mount path of".to_owned(),
            std::cmp::Ordering::Greater => format!("lies below `{}`, the mount path of", others.path),
        };
        let message = format!("`{}`, the mount path of `{name}`, {relation} `{other_name}`", mount.path);
        let hint = Some("give each its own folder, or labels with different values of one key".to_owned());
        report.error_with(place(one), message, hint);
    }
}

fn related_paths(a: &str, b: &str) -> bool {
    is_below_or_same(a, b) || is_below_or_same(b, a)
}

fn place(built: &Built) -> At {
    let path = built.manifest.table().and_then(|table| table.lookup(["mount", "path"].into_iter()));
    path.map_or(built.manifest.at, |node| node.at)
}
