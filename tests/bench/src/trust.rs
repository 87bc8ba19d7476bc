//! What signatures cost: verifying one tag, and choosing among ten thousand of which a hundred are refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use common::{Repo, SshKey};
use semver::Version;
use tagfall::model::{Digest, MemberId, Moment, Now, ObjectId, Reason, Refusal, RemoteTag, TagName, Timestamp};
use tagfall::plan::{Action, Core, Event, Host, Listing, Outcome, Remembered};
use tagfall::release::Selection;
use tagfall::source::{list_local, read_signed};
use tagfall::trust::{Evidence, File, Files, Policy, Statement, Trust};

use crate::Failure;
use crate::clock::{ms_between, spent_ns};
use crate::table::{Row, Sample};

const ROUNDS: usize = 200;
const TAGS: usize = 10_000;
const REFUSED: usize = 100;
const VERIFIED_MS: f64 = 1.0;
const CHOSEN_MS: f64 = 50.0;
/// Keys in the list of allowed signers: a large team.
const KEYS: usize = 50;

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let mut rows = verifying()?;
    rows.extend(choosing()?);
    Ok(rows)
}

fn verifying() -> Result<Vec<Row>, Failure> {
    let dir = common::temp_dir();
    let repo = Repo::new(dir.path());
    repo.write("tagfall.toml", "format = 1\n").commit("one");
    let kinds: [(&str, &[&str]); 3] = [
        ("ed25519", &["-t", "ed25519"]),
        ("rsa 3072", &["-t", "rsa", "-b", "3072"]),
        ("ecdsa 256", &["-t", "ecdsa", "-b", "256"]),
    ];
    let mut rows = Vec::new();
    for (number, (name, arguments)) in kinds.iter().enumerate() {
        let key = SshKey::make(dir.path(), &format!("key{number}"), arguments);
        let tag = format!("v1.0.{number}");
        repo.sign_with(&key).tag_signed(&tag, "HEAD");
        rows.push(one(dir.path(), &repo, &tag, name, &key)?);
    }
    Ok(rows)
}

/// Reads a tag's objects and verifies them: what a supervisor does once it has them.
fn one(dir: &Path, repo: &Repo, tag: &str, name: &str, key: &SshKey) -> Result<Row, Failure> {
    let others = (0..KEYS - 1).map(|number| other(dir, number)).collect::<String>();
    let allowed = format!("{others}{}", key.allowed("signer@example.com", ""));
    let files = Files { allowed_signers: Some(File { name: "allowed", bytes: allowed.as_bytes() }), ..Files::default() };
    let trust = Trust::read(&files, Policy { threshold: 1, commit: false }).map_err(|errors| format!("{errors:?}"))?;
    let wanted = list_local(repo.clone_dir()).map_err(|refusal| refusal.message)?;
    let wanted = wanted.into_iter().find(|listed| listed.name.as_str() == tag).ok_or("the tag is not listed")?;
    let signed = read_signed(repo.clone_dir(), &wanted).map_err(|refusal| refusal.message)?;
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let begun = spent_ns();
        let statement = Statement { what: "the tag", bytes: &signed.bytes, made_s: signed.tagged_at_s };
        let evidence = Evidence { tag: statement, commit: None, cosigned: &[] };
        trust.judge(&evidence, Timestamp(signed.tagged_at_s * 1000)).map_err(|refusal| refusal.message)?;
        took.push(ms_between(begun, spent_ns()));
    }
    let took = Sample::new(took);
    let what = format!("one tag signed with {name}, {KEYS} keys allowed: verified");
    Ok(Row::new(what, "<= 1 ms", took.words("ms"), took.percentile(50) <= VERIFIED_MS))
}

fn other(dir: &Path, number: usize) -> String {
    let name = format!("other{number}");
    let made = dir.join(&name).exists();
    let key = if made { None } else { Some(SshKey::make(dir, &name, &["-t", "ed25519"])) };
    let public = std::fs::read_to_string(dir.join(format!("{name}.pub"))).unwrap_or_default();
    drop(key);
    format!("{name}@example.com {public}")
}

/// The pure heart: a listing comes in, the best tags are refused one after the other, the next is chosen; then nothing new.
fn choosing() -> Result<Vec<Row>, Failure> {
    let tags: Vec<RemoteTag> = (0..TAGS).map(tag).collect();
    let (mut first, mut changed, mut same) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS / 10 {
        let mut core = Core::new(host(), Remembered::default());
        let begun = spent_ns();
        listed(&mut core, Outcome::Listed(Ok(tags.clone().into())))?;
        for _ in 0..REFUSED {
            refuse_next(&mut core)?;
        }
        first.push(ms_between(begun, spent_ns()));
        let chosen = next(&core).ok_or("nothing is chosen")?;
        if version(&chosen) != Version::new(1, 0, (TAGS - REFUSED - 1) as u64) {
            return Err(format!("`{}` is chosen", chosen.name).into());
        }
        core.observe(Event::LookNow, now());
        let begun = spent_ns();
        listed(&mut core, Outcome::Unchanged)?;
        same.push(ms_between(begun, spent_ns()));
        core.observe(Event::LookNow, now());
        let more: Vec<RemoteTag> = tags.iter().cloned().chain([tag(TAGS)]).collect();
        let begun = spent_ns();
        listed(&mut core, Outcome::Listed(Ok(Listing { tags: more, moved: BTreeMap::new() })))?;
        changed.push(ms_between(begun, spent_ns()));
    }
    let (first, changed, same) = (Sample::new(first), Sample::new(changed), Sample::new(same));
    let what = format!("{TAGS} tags, the {REFUSED} highest refused: which is next");
    Ok(vec![
        Row::new(what.clone(), "<= 50 ms", first.words("ms"), first.percentile(50) <= CHOSEN_MS),
        Row::told(format!("{what}, with the next poll, one tag more"), changed.words("ms")),
        Row::told(format!("{what}, with the next poll, nothing new"), same.words("ms")),
    ])
}

fn listed(core: &mut Core, outcome: Outcome) -> Result<(), Failure> {
    answer(core, outcome)?;
    drop(core.plan(now()));
    Ok(())
}

/// Plans, begins what is asked for of the source, and answers it.
fn answer(core: &mut Core, outcome: Outcome) -> Result<(), Failure> {
    let plan = core.plan(now());
    let wanted = plan.actions.into_iter().find(|(_, action)| matches!(action, Action::List | Action::Examine { .. }));
    let (key, action) = wanted.ok_or("nothing is asked of the source")?;
    let attempt = core.begin(&key, &action);
    core.observe(Event::Done { key, attempt, outcome }, now());
    Ok(())
}

fn next(core: &Core) -> Option<RemoteTag> {
    let examined = |action: Action| if let Action::Examine { tag, .. } = action { Some(tag) } else { None };
    core.plan(now()).actions.into_iter().find_map(|(_, action)| examined(action))
}

fn refuse_next(core: &mut Core) -> Result<(), Failure> {
    let plan = core.plan(now());
    let asked = plan.actions.into_iter().find_map(|(key, action)| {
        let tag = if let Action::Examine { tag, .. } = &action { tag.clone() } else { return None };
        Some((key, tag, action))
    });
    let (key, tag, action) = asked.ok_or("no tag is examined")?;
    let attempt = core.begin(&key, &action);
    let refusal = Refusal { reason: Reason::SignerNotTrusted, message: "a stranger".to_owned() };
    core.observe(Event::Done { key, attempt, outcome: Outcome::Examined { tag, result: Err(refusal) } }, now());
    Ok(())
}

fn now() -> Now {
    Now { moment: Moment(1_000_000), wall: Timestamp(1_800_000_000_000) }
}

fn tag(number: usize) -> RemoteTag {
    let mut object = [7; 20];
    object[..8].copy_from_slice(&(number as u64).to_le_bytes());
    RemoteTag { name: TagName::new(format!("v1.0.{number}")), object: ObjectId::from_bytes(object) }
}

fn version(tag: &RemoteTag) -> Version {
    Version::parse(tag.name.as_str().trim_start_matches('v')).unwrap_or(Version::new(0, 0, 0))
}

fn host() -> Host {
    Host {
        member_id: MemberId::new("bench"),
        labels: BTreeMap::new(),
        data_dir: "/data".to_owned(),
        facts: Digest::of(b"facts"),
        selection: Selection { prefix: "v".to_owned(), range: None, prerelease: false, heartbeat: None },
        poll: Duration::from_secs(30),
        verify: true,
        max_age: None,
    }
}
