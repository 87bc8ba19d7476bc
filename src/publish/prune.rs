//! Which publications are on disk, in which order they were shown, and which may go.

use std::collections::BTreeMap;
use std::path::Path;

use super::record::Manifest;
use super::{PublishError, Publisher, TEMPORARY, names_in};
use crate::model::{GroupName, PublicationId};

/// Which publications were switched to anew, after newer ones existed: lines `SEQUENCE ID`. Lost or damaged, the order of
/// writing counts, and an old one may go a little earlier.
const ORDER: &str = "order";

/// Longest file of that kind that is read.
const ORDER_MAX_BYTES: u64 = 1024 * 1024;

impl Publisher {
    /// Publications on disk, newest first: by when each was written or last switched to anew.
    pub fn list(&self, group: &GroupName) -> Result<Vec<PublicationId>, PublishError> {
        let mut all = self.sequences(group)?;
        all.sort_by_key(|(sequence, id)| std::cmp::Reverse((*sequence, *id)));
        Ok(all.into_iter().map(|(_, id)| id).collect())
    }

    /// Removes each publication that `keep` newer ones have followed, but neither the current one nor one in use; says
    /// which. A group with nothing left loses its folder.
    pub fn prune(&self, group: &GroupName, keep: usize, in_use: &[PublicationId]) -> Result<Vec<PublicationId>, PublishError> {
        let current = self.current(group)?;
        let folder = self.group_dir(group);
        let old = self.list(group)?.into_iter().skip(keep);
        let mut removed = Vec::new();
        for id in old.filter(|id| Some(*id) != current && !in_use.contains(id)) {
            let place = folder.join(id.to_string());
            let failed = |error| PublishError::new("remove", &place, error);
            // First the name, so that half a publication is never found under it.
            let temporary = folder.join(format!("{TEMPORARY}old-{id}"));
            self.remove("remove", group, &temporary)?;
            self.disk.rename(&place, &temporary).map_err(failed)?;
            self.remove("remove", group, &temporary)?;
            removed.push(id);
        }
        if self.on_disk(group)?.is_empty() && folder.is_dir() {
            self.remove("remove", group, &folder)?;
        }
        Ok(removed)
    }

    /// Publications of a group, in no order.
    pub(super) fn on_disk(&self, group: &GroupName) -> Result<Vec<PublicationId>, PublishError> {
        let names = names_in(&self.group_dir(group))?;
        Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
    }

    pub(super) fn next_sequence(&self, group: &GroupName) -> Result<u64, PublishError> {
        Ok(self.sequences(group)?.iter().map(|(sequence, _)| sequence + 1).max().unwrap_or(1))
    }

    /// Remembers that one was switched to although newer ones exist. Best effort: on a full disk going back must work.
    pub(super) fn note_switch(&self, group: &GroupName, id: PublicationId) {
        let Ok(mut all) = self.sequences(group) else { return };
        all.sort_unstable();
        if all.last().is_none_or(|(_, newest)| *newest == id) {
            return;
        }
        let next = all.last().map_or(1, |(sequence, _)| sequence + 1);
        let mut order = read_order(&self.group_dir(group).join(ORDER));
        order.retain(|known, _| all.iter().any(|(_, there)| there == known));
        order.insert(id, next);
        let text: String = order.iter().map(|(id, sequence)| format!("{sequence} {id}\n")).collect();
        let folder = self.group_dir(group);
        let temporary = folder.join(format!("{TEMPORARY}{ORDER}"));
        let written = (|| {
            self.disk.unlink(&temporary)?;
            let root = super::disk::open_folder(&folder)?;
            let file = self.disk.create_beneath(std::os::fd::AsFd::as_fd(&root), &format!("{TEMPORARY}{ORDER}"))?;
            self.disk.write_all(&file, text.as_bytes())?;
            self.disk.rename(&temporary, &folder.join(ORDER))
        })();
        if written.is_err() {
            let _ = self.disk.unlink(&temporary);
        }
    }

    fn sequences(&self, group: &GroupName) -> Result<Vec<(u64, PublicationId)>, PublishError> {
        let order = read_order(&self.group_dir(group).join(ORDER));
        let written = |id| Manifest::read(&self.publication_dir(group, id)).map_or(0, |manifest| manifest.sequence);
        let ids = self.on_disk(group)?;
        Ok(ids.into_iter().map(|id| (written(id).max(order.get(&id).copied().unwrap_or(0)), id)).collect())
    }
}

fn read_order(path: &Path) -> BTreeMap<PublicationId, u64> {
    let fits = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() <= ORDER_MAX_BYTES);
    let text = if fits { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    let entry = |line: &str| {
        let (sequence, id) = line.split_once(' ')?;
        Some((id.parse().ok()?, sequence.parse().ok()?))
    };
    text.lines().filter_map(entry).collect()
}
