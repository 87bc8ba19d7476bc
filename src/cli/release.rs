//! `tagfall release`

use std::path::PathBuf;

use super::client::encoded;
use super::service::ahead;
use super::supervise::SettingsArgs;
use super::text::{BAD, Cell, DIM, GOOD, NAME, Out, PLAIN, WARN, cell, columns, commit, in_brackets, now, second, word};
use super::{CliError, Context, Exit, Form, read};
use crate::api::wire::{Release, ReleaseRequest, ReleaseState, Status, Verification};
use crate::daemon::trust::{Loaded, TrustPaths};
use crate::model::{RemoteTag, TagName, Timestamp};
use crate::release::cosignatures;
use crate::{daemon, source};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// List every tag that this supervisor knows of, and where each stands
    List(List),
    /// Show one tag: its ids, its signers, and why it runs or does not
    Show(Show),
    /// Verify who signed a tag, here or where a supervisor is
    Verify(Box<Verify>),
    /// Run this tag, whatever its version, and take no other
    Pin(Word),
    /// Let the highest tag run again
    Unpin(Unpin),
    /// Do not run this tag
    Reject(Word),
    /// Take a rejected tag back in
    Accept(Word),
}

#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "With `--repo` it needs no supervisor: it reads the repository there and the trust files that the supervisor's file \
    names, or those given here. Without, the supervisor is asked, which fetches the tag where it has to. Exit codes: 0 enough people who \
    are trusted have signed · 4 they have not.\n\n\
    Examples:\n  tagfall release verify v1.4.0\n  tagfall release verify v1.4.0 --repo .\n  \
    tagfall release verify v1.4.0 --repo . --allowed-signers ./allowed_signers --threshold 2"
)]
pub(super) struct Verify {
    /// The tag
    #[arg(value_name = "TAG")]
    tag: String,
    /// Verify the tag of the repository there, without a supervisor
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    repo: Option<PathBuf>,
    /// Trusted SSH keys [default: as the supervisor's file says]
    #[arg(long, value_name = "PATH", requires = "repo", value_hint = clap::ValueHint::FilePath)]
    allowed_signers: Option<PathBuf>,
    /// Trusted OpenPGP keys [default: as the supervisor's file says]
    #[arg(long, value_name = "PATH", requires = "repo", value_hint = clap::ValueHint::FilePath)]
    openpgp_keyring: Option<PathBuf>,
    /// Keys that count for nothing [default: as the supervisor's file says]
    #[arg(long, value_name = "PATH", requires = "repo", value_hint = clap::ValueHint::FilePath)]
    revoked_keys: Option<PathBuf>,
    /// So many different people [default: as the supervisor's file says]
    #[arg(long, value_name = "COUNT", requires = "repo", value_parser = clap::value_parser!(u32).range(1..=100))]
    threshold: Option<u32>,
    /// The commit must be signed as well
    #[arg(long, requires = "repo")]
    commit: bool,
    #[command(flatten)]
    place: SettingsArgs,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
#[command(after_long_help = "It is recorded with who and when, and shown in the status, over restarts of everything.\n\n\
    Examples:\n  tagfall release pin v1.3.2 --reason 'v1.4.0 leaks memory' --until 12h\n  \
    tagfall release reject v1.4.0 --reason 'leaks memory'\n  tagfall release accept v1.4.0 --reason 'it was the kernel'")]
pub(super) struct Word {
    /// The tag
    #[arg(value_name = "TAG")]
    tag: String,
    /// Why: kept with who and when
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// It ends by itself then: a duration from now, or a time (RFC 3339)
    #[arg(long, value_name = "WHEN", value_parser = ahead)]
    until: Option<Timestamp>,
}

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  tagfall release unpin --reason 'v1.4.1 is out'")]
pub(super) struct Unpin {
    /// The tag [default: the one that is pinned]
    #[arg(value_name = "TAG")]
    tag: Option<String>,
    /// Why: kept with who and when
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  tagfall release list")]
pub(super) struct List {
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  tagfall release show v1.4.0")]
pub(super) struct Show {
    /// The tag
    #[arg(value_name = "TAG")]
    tag: String,
    #[command(flatten)]
    form: Form,
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<Exit, CliError> {
    match verb {
        Verb::List(args) => {
            context.show("/v1/releases", args.form, |releases: &Vec<Release>| list(releases, now()))?;
        }
        Verb::Show(args) => {
            context.show(&format!("/v1/releases/{}", encoded(&args.tag)), args.form, one)?;
        }
        Verb::Verify(args) => return verify(*args, context),
        Verb::Pin(word) => say("pin", word, context)?,
        Verb::Reject(word) => say("reject", word, context)?,
        Verb::Accept(word) => say("accept", word, context)?,
        Verb::Unpin(Unpin { tag, reason }) => {
            let tag = match tag {
                Some(tag) => tag,
                None => pinned(context)?,
            };
            say("unpin", Word { tag, reason, until: None }, context)?;
        }
    }
    Ok(Exit::Done)
}

fn say(verb: &str, word: Word, context: &Context) -> Result<(), CliError> {
    let Word { tag, reason, until } = word;
    let client = context.client()?;
    let body = ReleaseRequest { reason, until };
    context.wait(client.post(&format!("/v1/releases/{}/{verb}", encoded(&tag)), &body))?;
    let lasts = until.map(|until| format!(" until {}", second(until))).unwrap_or_default();
    context.out.talk(&format!("{tag}: {verb} taken over{lasts}; `tagfall status` shows how it goes\n"));
    Ok(())
}

fn pinned(context: &Context) -> Result<String, CliError> {
    let status: Status = read(&context.wait(context.client()?.get("/v1/status"))?)?;
    let none = || CliError::usage("no release is pinned", "`tagfall status` shows what runs, and why");
    status.pinned.map(|pinned| pinned.tag.to_string()).ok_or_else(none)
}

fn verify(args: Verify, context: &Context) -> Result<Exit, CliError> {
    let Some(repo) = args.repo.clone() else {
        let path = format!("/v1/releases/{}/verify", encoded(&args.tag));
        let found = context.show(&path, args.form, verified)?;
        return refused_or_done(&found);
    };
    let found = verify_offline(&args, &repo)?;
    if args.form.is_json() {
        let mut bytes = serde_json::to_vec(&found).map_err(|error| CliError::could_not_run("write the answer", error))?;
        bytes.push(b'\n');
        context.out.bytes(&bytes)?;
    } else {
        context.out.text(&verified(&found))?;
    }
    refused_or_done(&found)
}

fn refused_or_done(found: &Verification) -> Result<Exit, CliError> {
    match &found.reason {
        None => Ok(Exit::Done),
        Some(reason) => Err(CliError::Refused { reason: word(reason), message: found.message.clone() }),
    }
}

fn verified(found: &Verification) -> String {
    if !found.verified {
        return String::new();
    }
    let id = found.commit.as_ref().map(commit).unwrap_or_default();
    format!("{GOOD}{}{GOOD:#} (commit {id}) is signed by {}\n", found.tag, found.signers.join(", "))
}

fn verify_offline(args: &Verify, repo: &std::path::Path) -> Result<Verification, CliError> {
    let settings = args.place.read_beside(repo)?;
    let mut paths = TrustPaths::of_section(&settings.source.verify);
    if args.openpgp_keyring.is_some() && args.allowed_signers.is_none() && !args.place.is_given() {
        paths.allowed_signers = None;
    }
    paths.allowed_signers = args.allowed_signers.clone().or(paths.allowed_signers);
    paths.openpgp_keyring = args.openpgp_keyring.clone().or(paths.openpgp_keyring);
    paths.revoked_keys = args.revoked_keys.clone().or(paths.revoked_keys);
    paths.policy.threshold = args.threshold.unwrap_or(paths.policy.threshold);
    paths.policy.commit |= args.commit;
    let at = now();
    let trust = Loaded::read(paths, at);
    if let Some(error) = trust.error() {
        return Err(CliError::could_not_run("verify anything", super::repository::Words(error)));
    }
    let unread = |refusal: crate::model::Refusal| {
        CliError::could_not_run(format!("read the tags of `{}`", repo.display()), super::repository::Words(refusal.message))
    };
    let refs = source::list_local(repo).map_err(unread)?;
    let name = args.tag.strip_prefix("refs/tags/").unwrap_or(&args.tag);
    let Some(tag) = refs.iter().find(|tag| tag.name.as_str() == name) else {
        let message = format!("`{}` has no tag `{name}`", repo.display());
        return Err(CliError::usage(message, "`git tag --list` shows those that there are"));
    };
    let statements = others(repo, tag, &refs, &trust, at);
    let judged = source::read_signed(repo, tag).and_then(|signed| {
        let commit = signed.commit;
        trust.judge(&signed, &statements, at).map(|signers| (commit, signers))
    });
    Ok(match judged {
        Ok((commit, signers)) => daemon::verification(tag, Some(commit), Ok(signers)),
        Err(refusal) => daemon::verification(tag, None, Err(refusal)),
    })
}

/// What others say of a tag, as far as it counts.
fn others(repo: &std::path::Path, tag: &RemoteTag, refs: &[RemoteTag], trust: &Loaded, at: Timestamp) -> Vec<Vec<u8>> {
    let listed = cosignatures(refs);
    let cosigned: &[RemoteTag] = listed.get(tag.name.as_str()).map_or(&[], |list| list);
    let counts = |name: &TagName, bytes: &[u8]| trust.check_cosignature(tag.object, name, bytes, at).is_ok();
    let read = |other: &RemoteTag| source::read_local_tag(repo, other).ok().filter(|bytes| counts(&other.name, bytes));
    cosigned.iter().filter_map(read).collect()
}

fn style(state: ReleaseState) -> anstyle::Style {
    match state {
        ReleaseState::Running => GOOD,
        ReleaseState::Accepted => WARN,
        ReleaseState::Refused | ReleaseState::Rejected => BAD,
        ReleaseState::Superseded => DIM,
    }
}

fn list(releases: &[Release], now: Timestamp) -> String {
    if releases.is_empty() {
        return "no tag is known yet\n".to_owned();
    }
    let row = |release: &Release| {
        let id = release.commit.as_ref().map_or_else(|| "-".to_owned(), commit);
        let why = match &release.reason {
            Some(reason) => format!("{}: {}", word(reason), release.message),
            None => release.message.clone(),
        };
        let words = format!("{why}{}", in_brackets(release.since, now));
        let state = Cell(word(&release.state), style(release.state));
        vec![Cell(release.tag.to_string(), NAME), state, Cell(id, DIM), cell(words.trim_start())]
    };
    columns(&releases.iter().map(row).collect::<Vec<_>>(), Out::width())
}

fn one(release: &Release) -> String {
    let signers = if release.signers.is_empty() { "none checked".to_owned() } else { release.signers.join(", ") };
    let mut rows = vec![
        ("tag", release.tag.to_string(), NAME),
        ("state", format!("{}, since {}", word(&release.state), second(release.since)), style(release.state)),
        ("tag object", release.tag_object.to_string(), PLAIN),
        ("commit", release.commit.map_or_else(|| "not known".to_owned(), |id| id.to_string()), PLAIN),
        ("signers", signers, PLAIN),
    ];
    if let Some(reason) = &release.reason {
        rows.push(("reason", format!("{}: {}", word(reason), release.message), PLAIN));
    }
    let rows: Vec<_> = rows.into_iter().map(|(key, value, style)| vec![Cell(key.to_owned(), DIM), Cell(value, style)]).collect();
    columns(&rows, Out::width())
}
