//! Binds over the whole release: who is bound must be there and export what is needed, and strict binds may not form a
//! cycle, because none of its groups could ever start.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Bind, BindMode, GroupName};

use super::diagnostic::{At, Report, did_you_mean};
use super::group::Built;
use super::node::Node;
use super::release::View;

/// For so many unknown groups the nearest name is looked for: each search goes over all groups.
const SEARCHES_MAX: usize = 50;

/// Checks the binds of `whose`, in one ring's view of the release.
pub(crate) fn check<'a>(report: &mut Report, view: View<'a>, whose: impl Iterator<Item = &'a GroupName> + Clone) {
    let mut searches = 0;
    for name in whose.clone() {
        let Some(built) = view.get(name) else { continue };
        for (bind_name, bind) in &built.group.binds {
            one(report, view, built, bind_name, bind, &mut searches);
        }
    }
    cycles(report, view, whose);
}

/// Where a key of a bind stands.
fn place(built: &Built, path: &[&str]) -> At {
    let found = built.manifest.table().and_then(|table| table.lookup(path.iter().copied()));
    found.map_or(built.manifest.at, |node| node.at)
}

fn one(report: &mut Report, view: View<'_>, built: &Built, bind_name: &str, bind: &Bind, searches: &mut usize) {
    let at = place(built, &["binds", bind_name, "group"]);
    let target = &bind.group;
    if *target == built.group.name {
        report.error(at, format!("the bind `{bind_name}` names its own group, `{target}`"));
        return;
    }
    let Some(found) = view.get(target) else {
        if !view.is_known(target) {
            *searches += 1;
            let names: Vec<String> =
                if *searches <= SEARCHES_MAX { view.names().map(ToString::to_string).collect() } else { Vec::new() };
            let hint = did_you_mean(&target.to_string(), names.iter().map(String::as_str));
            report.error_with(at, format!("the bind `{bind_name}` names `{target}`, which is not a group of this release"), hint);
        }
        return;
    };
    if found.broken {
        return;
    }
    let needs = built.manifest.table().and_then(|table| table.lookup(["binds", bind_name, "needs"].into_iter()));
    for node in needs.and_then(Node::list).unwrap_or_default() {
        if let Some(need) = node.text().filter(|need| !found.group.exports.contains_key(*need)) {
            let hint = did_you_mean(need, found.group.exports.keys().map(String::as_str));
            report.error_with(node.at, format!("`{}` is not an export of `{target}`", need.escape_debug()), hint);
        }
    }
}

/// Strict binds of a group, by the name of their group.
fn strict<'a>(view: View<'a>, name: &GroupName) -> Vec<(&'a str, &'a GroupName)> {
    let Some(built) = view.get(name) else { return Vec::new() };
    let binds = built.group.binds.iter().filter(|(_, bind)| bind.mode == BindMode::Strict && bind.group != built.group.name);
    binds.map(|(name, bind)| (name.as_str(), &bind.group)).collect()
}

/// Walks the strict binds depth first, without recursion: chains may be as long as there are groups.
fn cycles<'a>(report: &mut Report, view: View<'a>, whose: impl Iterator<Item = &'a GroupName>) {
    let mut done: BTreeSet<&GroupName> = BTreeSet::new();
    for start in whose {
        if done.contains(start) {
            continue;
        }
        let mut path: Vec<(&GroupName, Vec<(&str, &GroupName)>)> = vec![(start, strict(view, start))];
        let mut on_path = BTreeMap::from([(start, 0)]);
        while let Some((name, left)) = path.last_mut() {
            let name: &GroupName = name;
            match left.pop() {
                None => {
                    done.insert(name);
                    on_path.remove(name);
                    path.pop();
                }
                Some((_, next)) if done.contains(next) => {}
                Some((_, next)) => match on_path.get(next) {
                    Some(from) => {
                        let members: Vec<&GroupName> = path.iter().skip(*from).map(|(name, _)| *name).collect();
                        tell(report, view, &members);
                    }
                    None => {
                        on_path.insert(next, path.len());
                        path.push((next, strict(view, next)));
                    }
                },
            }
        }
    }
}

/// Reports a cycle once, at the bind of its first group by name.
fn tell(report: &mut Report, view: View<'_>, members: &[&GroupName]) {
    let first = members.iter().enumerate().min_by_key(|(_, name)| **name).map_or(0, |(at, _)| at);
    let turned: Vec<&GroupName> = members.iter().cycle().skip(first).take(members.len() + 1).copied().collect();
    let (Some(owner), Some(next)) = (turned.first(), turned.get(1)) else { return };
    let Some(built) = view.get(owner) else { return };
    let bind = strict(view, owner).into_iter().find(|(_, target)| target == next);
    let at = bind.map_or(built.manifest.at, |(name, _)| place(built, &["binds", name, "group"]));
    let shown: Vec<String> = turned.iter().map(ToString::to_string).collect();
    let hint = Some("make one of these binds `mode = \"relaxed\"`".to_owned());
    report.error_with(at, format!("strict binds form a cycle, so none of these groups could start: {}", shown.join(" → ")), hint);
}
