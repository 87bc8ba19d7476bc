//! From the tags of a remote to the one that runs.

use std::collections::BTreeMap;

use semver::{BuildMetadata, Comparator, Op, Prerelease, Version, VersionReq};

use super::refuse;
use crate::model::{ObjectId, Pin, Reason, Refusal, RemoteTag, TagName, Word};

/// Tags below this name sign other tags: `cosign/TAG/NAME`.
pub const COSIGN_PREFIX: &str = "cosign/";
/// So many of them are looked at for one tag, the first by name.
pub const COSIGNATURES_MAX: usize = 16;

/// How many misnamed tags are told of: the newest ones, so that a repository full of them makes no flood of events.
const MISNAMED_MAX: usize = 16;

/// Which tags of the remote are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// What stands before the version in a tag's name: `v`, or `web/v`.
    pub prefix: String,
    /// Versions in question; `None` = all.
    pub range: Option<VersionReq>,
    /// Whether pre-releases count.
    pub prerelease: bool,
    /// A tag that is no release, and is moved whenever somebody signs anew that all is well.
    pub heartbeat: Option<TagName>,
}

/// A tag whose name is a version in question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The version in its name.
    pub version: Version,
    /// The tag as listed.
    pub tag: RemoteTag,
    /// Tags that say by their names that they sign it as well.
    pub cosigned: Vec<RemoteTag>,
}

/// What was found out about one tag object under one name; it never changes, because neither does the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It passed every check.
    Accepted,
    /// It failed one.
    Refused(Refusal),
}

/// What is to happen next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This one is accepted and the highest: it runs.
    Run(RemoteTag),
    /// This one stands highest and was not looked at yet: fetch and check it, then choose again.
    Examine(RemoteTag),
    /// No tag can run.
    Nothing,
}

/// A tag that was passed over, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedTag {
    /// The tag.
    pub tag: RemoteTag,
    /// Why.
    pub refusal: Refusal,
}

/// The tags in question, highest version first.
pub fn candidates(refs: &[RemoteTag], selection: &Selection) -> Vec<Candidate> {
    let cosigned = cosignatures(refs);
    let mut found: Vec<Candidate> = refs
        .iter()
        .filter_map(|tag| {
            let version = version_of(&tag.name, selection)?;
            let cosigned = || cosigned.get(tag.name.as_str()).cloned().unwrap_or_default();
            (version.build.is_empty() && selected(&version, selection)).then(|| Candidate {
                version,
                tag: tag.clone(),
                cosigned: cosigned(),
            })
        })
        .collect();
    found.sort_unstable_by(|a, b| b.version.cmp(&a.version));
    found
}

/// Tags that sign others, by the name of the other.
pub fn cosignatures(refs: &[RemoteTag]) -> BTreeMap<&str, Vec<RemoteTag>> {
    let mut found: BTreeMap<&str, Vec<RemoteTag>> = BTreeMap::new();
    for tag in refs {
        let parts = tag.name.as_str().strip_prefix(COSIGN_PREFIX).and_then(|rest| rest.rsplit_once('/'));
        if let Some((other, _)) = parts {
            found.entry(other).or_default().push(tag.clone());
        }
    }
    for list in found.values_mut() {
        list.sort_unstable();
        list.truncate(COSIGNATURES_MAX);
    }
    found
}

/// Whether a name is that of a version, in range or not: such names are remembered with what they named first.
pub fn is_version(name: &TagName, selection: &Selection) -> bool {
    version_of(name, selection).is_some()
}

/// Tags that would be in question but for build metadata, which has no order and is refused; newest first, a few at most.
pub fn misnamed(refs: &[RemoteTag], selection: &Selection) -> Vec<RefusedTag> {
    let mut found: Vec<(Version, &RemoteTag)> = refs
        .iter()
        .filter_map(|tag| {
            let version = version_of(&tag.name, selection)?;
            (!version.build.is_empty() && selected(&version, selection)).then_some((version, tag))
        })
        .collect();
    found.sort_unstable_by(|a, b| b.0.cmp(&a.0));
    found.truncate(MISNAMED_MAX);
    let refused = |(version, tag): (Version, &RemoteTag)| RefusedTag {
        tag: tag.clone(),
        refusal: refuse(
            Reason::TagNameMismatch,
            format!(
                "tag `{}` is passed over: the build metadata `+{}` gives it no place among versions; tag it again without",
                tag.name, version.build
            ),
        ),
    };
    found.into_iter().map(refused).collect()
}

/// What bounds the choice beside the verdicts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules<'a> {
    /// Nothing below is chosen.
    pub floor: Option<&'a Version>,
    /// An operator's word that this one is to run, whatever its version; nothing else is chosen then.
    pub pin: Option<&'a Pin>,
    /// Names that are not chosen until an operator takes them back in.
    pub rejected: Option<&'a BTreeMap<TagName, Word>>,
}

/// From the highest down, the first tag that is accepted or not yet judged, and what was passed over on the way.
///
/// Nothing below the floor is chosen, but what an operator has pinned. Of the tags below it only the highest is told of, and
/// only where it would run. A verdict that may pass with time ([`is_lasting`] is false) belongs into `verdicts` for one round only.
pub fn choose(
    candidates: &[Candidate],
    verdicts: &BTreeMap<(TagName, ObjectId), Verdict>,
    rules: Rules<'_>,
) -> (Choice, Vec<RefusedTag>) {
    if let Some(pin) = rules.pin {
        return pinned(pin, candidates, verdicts);
    }
    let mut passed_over = Vec::new();
    for candidate in candidates {
        let tag = &candidate.tag;
        let verdict = verdicts.get(&(tag.name.clone(), tag.object));
        if let Some(refusal) = refusal(tag, verdict, rules.rejected) {
            passed_over.push(RefusedTag { tag: tag.clone(), refusal });
            continue;
        }
        if let Some(floor) = rules.floor.filter(|floor| candidate.version < **floor) {
            let message = format!(
                "tag `{}` is below {floor}, which ran here with success; pin it with `tagfall release pin` to go back",
                tag.name
            );
            passed_over.push(RefusedTag { tag: tag.clone(), refusal: refuse(Reason::DowngradeRefused, message) });
            return (Choice::Nothing, passed_over);
        }
        return (chosen(tag, verdict), passed_over);
    }
    (Choice::Nothing, passed_over)
}

fn chosen(tag: &RemoteTag, verdict: Option<&Verdict>) -> Choice {
    match verdict {
        Some(Verdict::Accepted) => Choice::Run(tag.clone()),
        Some(Verdict::Refused(_)) | None => Choice::Examine(tag.clone()),
    }
}

fn refusal(tag: &RemoteTag, verdict: Option<&Verdict>, rejected: Option<&BTreeMap<TagName, Word>>) -> Option<Refusal> {
    if let Some(Verdict::Refused(refusal)) = verdict {
        return Some(refusal.clone());
    }
    let word = rejected?.get(&tag.name)?;
    let message = format!("tag `{}` was rejected by {word}; `tagfall release accept {}` takes it back in", tag.name, tag.name);
    Some(refuse(Reason::RevisionRejected, message))
}

/// With a pin there is nothing to choose; it is told where the remote names something else by the pinned name.
fn pinned(pin: &Pin, candidates: &[Candidate], verdicts: &BTreeMap<(TagName, ObjectId), Verdict>) -> (Choice, Vec<RefusedTag>) {
    let refused = |tag: &RemoteTag| match verdicts.get(&(tag.name.clone(), tag.object)) {
        Some(Verdict::Refused(refusal)) => Some(RefusedTag { tag: tag.clone(), refusal: refusal.clone() }),
        Some(Verdict::Accepted) | None => None,
    };
    let moved = candidates.iter().map(|candidate| &candidate.tag).filter(|tag| tag.name == pin.tag.name && **tag != pin.tag);
    let mut passed_over: Vec<RefusedTag> = moved.filter_map(refused).collect();
    if let Some(refused) = refused(&pin.tag) {
        passed_over.push(refused);
        return (Choice::Nothing, passed_over);
    }
    let verdict = verdicts.get(&(pin.tag.name.clone(), pin.tag.object));
    (chosen(&pin.tag, verdict), passed_over)
}

/// Whether a refusal speaks of the tag's own content, which never changes, and not of a remote or a disk that may recover.
pub const fn is_lasting(reason: Reason) -> bool {
    !matches!(reason, Reason::GitOperationFailed | Reason::AuthenticationFailed)
}

/// Whether a refusal is about signatures: another trust may judge otherwise.
pub const fn is_of_trust(reason: Reason) -> bool {
    matches!(reason, Reason::InvalidTagSignature | Reason::SignerNotTrusted | Reason::ThresholdNotMet)
}

fn version_of(name: &TagName, selection: &Selection) -> Option<Version> {
    Version::parse(name.as_str().strip_prefix(&selection.prefix)?).ok()
}

fn selected(version: &Version, selection: &Selection) -> bool {
    if !version.pre.is_empty() && !selection.prerelease {
        return false;
    }
    selection.range.as_ref().is_none_or(|range| range.comparators.iter().all(|bound| within(bound, version)))
}

/// Whether a version lies within one bound, pre-releases included.
///
/// `semver` itself lets a pre-release match only a bound that names one of the same version. Here `1.3.0-rc.1` lies
/// wherever 1.3.0 lies, except at a bound that names 1.3.0 itself: `<1.3.0` leaves its pre-releases out (they are
/// what comes *with* 1.3.0), `<=1.3.0` takes them in, `>=1.3.0` waits for the release.
fn within(bound: &Comparator, version: &Version) -> bool {
    if version.pre.is_empty() {
        return bound.matches(version);
    }
    let names_it = bound.major == version.major && bound.minor == Some(version.minor) && bound.patch == Some(version.patch);
    if names_it && bound.pre.is_empty() {
        return bound.op == Op::LessEq;
    }
    if names_it {
        return bound.matches(version);
    }
    let release = Version { pre: Prerelease::EMPTY, build: BuildMetadata::EMPTY, ..version.clone() };
    bound.matches(&release)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(prefix: &str, range: &str, prerelease: bool) -> Selection {
        let range = (!range.is_empty()).then(|| VersionReq::parse(range).unwrap());
        Selection { prefix: prefix.to_owned(), range, prerelease, heartbeat: None }
    }

    fn tags(names: &[&str]) -> Vec<RemoteTag> {
        let tag = |(at, name): (usize, &&str)| RemoteTag {
            name: TagName::new(*name),
            object: ObjectId::from_bytes([u8::try_from(at).unwrap(); 20]),
        };
        names.iter().enumerate().map(tag).collect()
    }

    fn names(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|candidate| candidate.tag.name.as_str()).collect()
    }

    #[test]
    fn names_that_are_no_version_are_no_candidates() {
        let refs =
            tags(&["v1", "v1.2", "1.2.3", "v1.2.3.4", "vv1.2.3", "v01.2.3", "v1.2.3 ", "v-1.0.0", "v", "", "latest", "v1.2.3+b"]);
        assert_eq!(names(&candidates(&refs, &selection("v", "", true))), Vec::<&str>::new());
    }

    #[test]
    fn order_is_by_version_and_not_by_name() {
        let refs = tags(&["v1.9.0", "v1.10.0", "v1.10.0-rc.2", "v1.10.0-rc.10", "v0.1.0"]);
        let order = ["v1.10.0", "v1.10.0-rc.10", "v1.10.0-rc.2", "v1.9.0", "v0.1.0"];
        assert_eq!(names(&candidates(&refs, &selection("v", "", true))), order);
        assert_eq!(names(&candidates(&refs, &selection("v", "", false))), ["v1.10.0", "v1.9.0", "v0.1.0"]);
    }

    #[test]
    fn a_prefix_selects_one_component() {
        let refs = tags(&["v9.0.0", "web/v1.0.0", "db/v2.0.0"]);
        assert_eq!(names(&candidates(&refs, &selection("web/v", "", false))), ["web/v1.0.0"]);
        assert_eq!(names(&candidates(&tags(&["1.0.0"]), &selection("", "", false))), ["1.0.0"]);
    }

    #[test]
    fn ranges_include_prereleases_where_asked() {
        let cases = [
            (">=1.0.0, <2.0.0", "1.3.0-rc.1", true),
            (">=1.0.0, <2.0.0", "2.0.0-rc.1", false),
            (">=1.0.0, <2.0.0", "1.0.0-rc.1", false),
            ("<=2.0.0", "2.0.0-rc.1", true),
            (">1.0.0", "1.0.0-rc.1", false),
            (">1.0.0", "1.0.1-rc.1", true),
            ("^1.2", "1.2.0-rc.1", true),
            ("^1.2.0", "1.2.0-rc.1", false),
            ("~1.3", "1.3.0-rc.1", true),
            ("~1.3", "1.4.0-rc.1", false),
            ("1.3.*", "1.3.7-a", true),
            ("=1.3.0", "1.3.0-rc.1", false),
            ("=1.3.0-rc.1", "1.3.0-rc.1", true),
            (">=1.3.0-rc.2", "1.3.0-rc.1", false),
            (">=1.3.0-rc.2", "1.3.0-rc.3", true),
            (">=1.3.0-rc.2", "1.4.0-alpha", true),
            ("*", "9.0.0-x", true),
        ];
        for (range, version, wanted) in cases {
            let refs = tags(&[&format!("v{version}")]);
            let found = candidates(&refs, &selection("v", range, true)).len() == 1;
            assert_eq!(found, wanted, "{version} within {range}");
            assert!(candidates(&refs, &selection("v", range, false)).is_empty(), "{version} is no release");
        }
    }

    #[test]
    fn build_metadata_is_told_of() {
        let refs = tags(&["v1.0.0+a", "v1.0.0", "v2.0.0+b", "v9.0.0+c"]);
        let told = misnamed(&refs, &selection("v", "<3", false));
        assert_eq!(told.iter().map(|t| t.tag.name.as_str()).collect::<Vec<_>>(), ["v2.0.0+b", "v1.0.0+a"]);
        assert_eq!(told[0].refusal.reason, Reason::TagNameMismatch);
    }

    fn judge(found: &[Candidate], judged: &[(&str, Option<Reason>)]) -> BTreeMap<(TagName, ObjectId), Verdict> {
        let of = |name: &str| found.iter().find(|c| c.tag.name.as_str() == name).unwrap();
        let verdict = |reason: Option<Reason>| reason.map_or(Verdict::Accepted, |r| Verdict::Refused(refuse(r, "no")));
        judged.iter().map(|(name, reason)| ((TagName::new(*name), of(name).tag.object), verdict(*reason))).collect()
    }

    fn told(choice: (Choice, Vec<RefusedTag>)) -> (String, Vec<(String, Reason)>) {
        let chosen = match choice.0 {
            Choice::Run(tag) => format!("run {}", tag.name),
            Choice::Examine(tag) => format!("examine {}", tag.name),
            Choice::Nothing => "nothing".to_owned(),
        };
        (chosen, choice.1.into_iter().map(|r| (r.tag.name.to_string(), r.refusal.reason)).collect())
    }

    fn floor(floor: &Version) -> Rules<'_> {
        Rules { floor: Some(floor), ..Rules::default() }
    }

    fn word() -> Word {
        Word { who: "root (uid 0)".to_owned(), reason: "it leaks".to_owned(), since: crate::model::Timestamp(0), until: None }
    }

    #[test]
    fn what_an_operator_rejected_is_passed_over() {
        let found = candidates(&tags(&["v1.0.0", "v2.0.0"]), &selection("v", "", false));
        let rejected = BTreeMap::from([(TagName::new("v2.0.0"), word())]);
        let rules = Rules { rejected: Some(&rejected), ..Rules::default() };
        let (chosen, refused) = choose(&found, &BTreeMap::new(), rules);
        assert_eq!(chosen, Choice::Examine(found[1].tag.clone()));
        assert_eq!(refused[0].refusal.reason, Reason::RevisionRejected);
        assert!(refused[0].refusal.message.contains("root (uid 0): it leaks"), "{refused:?}");
    }

    #[test]
    fn a_pin_holds_against_floor_and_newer_tags_but_not_against_a_refusal() {
        let found = candidates(&tags(&["v1.0.0", "v2.0.0"]), &selection("v", "", false));
        let low = Pin { tag: found[1].tag.clone(), word: word() };
        let two = Version::new(2, 0, 0);
        let rules = Rules { floor: Some(&two), pin: Some(&low), rejected: None };
        assert_eq!(choose(&found, &BTreeMap::new(), rules).0, Choice::Examine(low.tag.clone()));
        let verdicts = judge(&found, &[("v1.0.0", None), ("v2.0.0", None)]);
        assert_eq!(choose(&found, &verdicts, rules).0, Choice::Run(low.tag.clone()));
        let verdicts = judge(&found, &[("v1.0.0", Some(Reason::SignerNotTrusted)), ("v2.0.0", None)]);
        let (chosen, refused) = told(choose(&found, &verdicts, rules));
        assert_eq!((chosen.as_str(), refused), ("nothing", vec![("v1.0.0".to_owned(), Reason::SignerNotTrusted)]));
    }

    #[test]
    fn tags_that_sign_others_are_found_by_their_names() {
        let names =
            ["web/v1.0.0", "cosign/web/v1.0.0/bob", "cosign/web/v1.0.0/alice", "cosign/web/v1.0.1/bob", "cosign/x", "v1.0.0"];
        let found = candidates(&tags(&names), &selection("web/v", "", false));
        let of: Vec<&str> = found[0].cosigned.iter().map(|tag| tag.name.as_str()).collect();
        assert_eq!((found.len(), of), (1, vec!["cosign/web/v1.0.0/alice", "cosign/web/v1.0.0/bob"]));
        let many: Vec<String> =
            (0..COSIGNATURES_MAX + 5).map(|n| format!("cosign/v1.0.0/{n}")).chain(["v1.0.0".to_owned()]).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(candidates(&tags(&many), &selection("v", "", false))[0].cosigned.len(), COSIGNATURES_MAX);
    }

    #[test]
    fn a_bad_tag_never_stops_the_others() {
        let found = candidates(&tags(&["v1.0.0", "v2.0.0", "v3.0.0"]), &selection("v", "", false));
        assert_eq!(told(choose(&found, &judge(&found, &[]), Rules::default())).0, "examine v3.0.0");
        let verdicts = judge(&found, &[("v3.0.0", Some(Reason::UnsafePath)), ("v1.0.0", None)]);
        let (chosen, refused) = told(choose(&found, &verdicts, Rules::default()));
        assert_eq!((chosen.as_str(), refused), ("examine v2.0.0", vec![("v3.0.0".to_owned(), Reason::UnsafePath)]));
        let verdicts = judge(&found, &[("v3.0.0", Some(Reason::UnsafePath)), ("v2.0.0", None)]);
        assert_eq!(told(choose(&found, &verdicts, Rules::default())).0, "run v2.0.0");
    }

    #[test]
    fn a_verdict_is_of_one_object() {
        let found = candidates(&tags(&["v1.0.0"]), &selection("v", "", false));
        let moved = BTreeMap::from([((TagName::new("v1.0.0"), ObjectId::from_bytes([9; 20])), Verdict::Accepted)]);
        assert_eq!(told(choose(&found, &moved, Rules::default())).0, "examine v1.0.0");
    }

    #[test]
    fn nothing_runs_below_the_floor() {
        let found = candidates(&tags(&["v1.0.0", "v1.1.0", "v0.9.0"]), &selection("v", "", false));
        let verdicts = judge(&found, &[("v1.1.0", None), ("v1.0.0", None), ("v0.9.0", None)]);
        assert_eq!(told(choose(&found, &verdicts, floor(&Version::new(1, 1, 0)))).0, "run v1.1.0");
        let (chosen, refused) = told(choose(&found, &verdicts, floor(&Version::new(1, 2, 0))));
        assert_eq!((chosen.as_str(), refused), ("nothing", vec![("v1.1.0".to_owned(), Reason::DowngradeRefused)]));
        let bad = judge(&found, &[("v1.1.0", Some(Reason::InvalidConfiguration)), ("v1.0.0", None)]);
        let (chosen, refused) = told(choose(&found, &bad, floor(&Version::new(1, 1, 0))));
        assert_eq!(chosen, "nothing");
        assert_eq!(refused.len(), 2, "the bad one and the one below the floor: {refused:?}");
    }

    #[test]
    fn an_empty_remote_runs_nothing() {
        assert_eq!(choose(&[], &BTreeMap::new(), Rules::default()), (Choice::Nothing, Vec::new()));
    }
}
