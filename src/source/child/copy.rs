//! From a repository on this host, and within the store: packs made of exactly the objects that are wanted.
//!
//! libgit2's own local transport knows no depth and copies the objects of every ref; here the trees are compared, and
//! only what the store lacks is packed and indexed again, which computes every id anew.

use std::cell::Cell;
use std::io::Write;
use std::path::Path;

use git2::{Indexer, Odb, Repository};

use super::{Answer, Request, met, walk};
use crate::model::{ObjectId, Reason, Refusal, RemoteTag, TagName};
use crate::source::refuse;
use crate::source::store::open_objects;
use crate::source::walk::{Fault, Objects, oid, over_large};

/// Mode of pack files.
const PACK_MODE: u32 = 0o600;

/// Copies what the store lacks of a tag; gives bytes and objects.
pub(super) fn fetch(request: &Request, from: &Path, tag: &RemoteTag, fresh: bool) -> Result<(u64, u64), Refusal> {
    let source = open_objects(&[from]).map_err(|error| unreadable(request, &error))?;
    let store = open_objects(&[&request.store.join("objects")]).map_err(|error| unreadable(request, &error))?;
    let known = |id: ObjectId| !fresh && store.exists(oid(id));
    let objects = Objects { odb: &source, limits: &request.limits, contents: false };
    let wanted = objects.closure(tag, &known).map_err(|fault| match fault {
        Fault::Missing(id) => {
            let message = format!("`{}` does not have object {id}, which tag `{}` needs", request.origin.shown(), tag.name);
            refuse(Reason::GitOperationFailed, message)
        }
        other @ (Fault::Refused(_) | Fault::Unreadable(_)) => other.into_refusal(),
    })?;
    pack(request, source, &wanted)
}

/// Packs everything that the kept tags need into one new pack.
pub(super) fn sweep(request: &Request, keep: &[ObjectId]) -> Result<Answer, Refusal> {
    let stored = request.store.join("objects");
    let store = open_objects(&[&stored]).map_err(|error| unreadable(request, &error))?;
    let mut wanted = std::collections::BTreeSet::new();
    let mut tags = Vec::new();
    for id in keep {
        let objects = Objects { odb: &store, limits: &request.limits, contents: false };
        let tag = named(&store, *id).map_err(|error| unreadable(request, &error))?;
        wanted.extend(objects.closure(&tag, &|_| false).map_err(Fault::into_refusal)?);
        tags.push(tag);
    }
    let wanted: Vec<ObjectId> = wanted.into_iter().collect();
    pack(request, store, &wanted)?;
    let packed = open_objects(&[&request.folder.join("objects")]).map_err(|error| unreadable(request, &error))?;
    for tag in &tags {
        walk(&packed, request, tag).map_err(Fault::into_refusal)?;
    }
    Ok(Answer::Swept)
}

/// The tag object under the name that it gives itself: it was checked against its ref when it was taken.
fn named(odb: &Odb<'_>, id: ObjectId) -> Result<RemoteTag, git2::Error> {
    let object = odb.read(oid(id))?;
    let lines = object.data().split(|byte| *byte == b'\n');
    let name = lines.filter_map(|line| line.strip_prefix(b"tag ")).next().unwrap_or_default();
    Ok(RemoteTag { name: TagName::new(String::from_utf8_lossy(name)), object: id })
}

fn pack(request: &Request, from: Odb<'_>, wanted: &[ObjectId]) -> Result<(u64, u64), Refusal> {
    if wanted.is_empty() {
        return Ok((0, 0));
    }
    let failed = |error: git2::Error| unreadable(request, &error);
    let repository = Repository::from_odb(from).map_err(failed)?;
    let mut builder = repository.packbuilder().map_err(failed)?;
    builder.set_threads(1);
    for id in wanted {
        builder.insert_object(oid(*id), None).map_err(failed)?;
    }
    let folder = request.folder.join("objects/pack");
    let over = Cell::new(None);
    let mut indexer = Indexer::new(None, &folder, PACK_MODE, false).map_err(failed)?;
    let mut bytes = 0_u64;
    let mut broken = None;
    indexer.progress(|progress| {
        let refusal = met(&progress, &request.limits);
        let go_on = refusal.is_none();
        over.set(refusal);
        go_on
    });
    let packed = builder.foreach(|chunk| {
        bytes += chunk.len() as u64;
        if bytes > request.limits.pack_bytes {
            return false;
        }
        match indexer.write_all(chunk) {
            Ok(()) => true,
            Err(error) => {
                broken = Some(error);
                false
            }
        }
    });
    if bytes > request.limits.pack_bytes {
        let bound = request.limits.pack_bytes;
        let message =
            format!("the new objects need more than {bound} bytes (`source.limits.pack_bytes`); nothing of them was kept");
        return Err(refuse(Reason::LimitExceeded, message));
    }
    if let Some(refusal) = over.take() {
        return Err(refusal);
    }
    if let Some(error) = broken {
        return Err(super::in_folder(request, &error));
    }
    packed.map_err(failed)?;
    indexer.commit().map_err(failed)?;
    Ok((bytes, wanted.len() as u64))
}

fn unreadable(request: &Request, error: &git2::Error) -> Refusal {
    if let Some(refusal) = over_large(error) {
        return refusal;
    }
    let message = format!("objects of `{}` cannot be copied: {}; it is tried again", request.origin.shown(), error.message());
    refuse(Reason::GitOperationFailed, message)
}
