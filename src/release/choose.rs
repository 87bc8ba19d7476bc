//! From the tags of a remote to the one that runs.

use std::collections::BTreeMap;

use semver::{BuildMetadata, Comparator, Op, Prerelease, Version, VersionReq};

use super::refuse;
use crate::model::{ObjectId, Reason, Refusal, RemoteTag, TagName};

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
}

/// A tag whose name is a version in question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The version in its name.
    pub version: Version,
    /// The tag as listed.
    pub tag: RemoteTag,
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
    let mut found: Vec<Candidate> = refs
        .iter()
        .filter_map(|tag| {
            let version = version_of(&tag.name, selection)?;
            (version.build.is_empty() && selected(&version, selection)).then(|| Candidate { version, tag: tag.clone() })
        })
        .collect();
    found.sort_unstable_by(|a, b| b.version.cmp(&a.version));
    found
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

/// From the highest down, the first tag that is accepted or not yet judged, and what was passed over on the way.
///
/// Nothing below `floor` is chosen. Of the tags below it only the highest is told of, and only where it would run.
/// A verdict that may pass with time ([`is_lasting`] is false) belongs into `verdicts` for one round only.
pub fn choose(
    candidates: &[Candidate],
    verdicts: &BTreeMap<(TagName, ObjectId), Verdict>,
    floor: Option<&Version>,
) -> (Choice, Vec<RefusedTag>) {
    let mut passed_over = Vec::new();
    for candidate in candidates {
        let tag = &candidate.tag;
        let verdict = verdicts.get(&(tag.name.clone(), tag.object));
        if let Some(Verdict::Refused(refusal)) = verdict {
            passed_over.push(RefusedTag { tag: tag.clone(), refusal: refusal.clone() });
            continue;
        }
        if let Some(floor) = floor.filter(|floor| candidate.version < **floor) {
            let message = format!(
                "tag `{}` is below {floor}, which ran here with success; pin it with `tagfall release pin` to go back",
                tag.name
            );
            passed_over.push(RefusedTag { tag: tag.clone(), refusal: refuse(Reason::DowngradeRefused, message) });
            return (Choice::Nothing, passed_over);
        }
        let choice = match verdict {
            Some(Verdict::Accepted) => Choice::Run(tag.clone()),
            Some(Verdict::Refused(_)) | None => Choice::Examine(tag.clone()),
        };
        return (choice, passed_over);
    }
    (Choice::Nothing, passed_over)
}

/// Whether a refusal speaks of the tag's own content, which never changes, and not of a remote or a disk that may recover.
pub const fn is_lasting(reason: Reason) -> bool {
    !matches!(reason, Reason::GitOperationFailed | Reason::AuthenticationFailed | Reason::HookHostAway)
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
        Selection { prefix: prefix.to_owned(), range, prerelease }
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

    #[test]
    fn a_bad_tag_never_stops_the_others() {
        let found = candidates(&tags(&["v1.0.0", "v2.0.0", "v3.0.0"]), &selection("v", "", false));
        assert_eq!(told(choose(&found, &judge(&found, &[]), None)).0, "examine v3.0.0");
        let verdicts = judge(&found, &[("v3.0.0", Some(Reason::UnsafePath)), ("v1.0.0", None)]);
        let (chosen, refused) = told(choose(&found, &verdicts, None));
        assert_eq!((chosen.as_str(), refused), ("examine v2.0.0", vec![("v3.0.0".to_owned(), Reason::UnsafePath)]));
        let verdicts = judge(&found, &[("v3.0.0", Some(Reason::UnsafePath)), ("v2.0.0", None)]);
        assert_eq!(told(choose(&found, &verdicts, None)).0, "run v2.0.0");
    }

    #[test]
    fn a_verdict_is_of_one_object() {
        let found = candidates(&tags(&["v1.0.0"]), &selection("v", "", false));
        let moved = BTreeMap::from([((TagName::new("v1.0.0"), ObjectId::from_bytes([9; 20])), Verdict::Accepted)]);
        assert_eq!(told(choose(&found, &moved, None)).0, "examine v1.0.0");
    }

    #[test]
    fn nothing_runs_below_the_floor() {
        let found = candidates(&tags(&["v1.0.0", "v1.1.0", "v0.9.0"]), &selection("v", "", false));
        let verdicts = judge(&found, &[("v1.1.0", None), ("v1.0.0", None), ("v0.9.0", None)]);
        assert_eq!(told(choose(&found, &verdicts, Some(&Version::new(1, 1, 0)))).0, "run v1.1.0");
        let (chosen, refused) = told(choose(&found, &verdicts, Some(&Version::new(1, 2, 0))));
        assert_eq!((chosen.as_str(), refused), ("nothing", vec![("v1.1.0".to_owned(), Reason::DowngradeRefused)]));
        let bad = judge(&found, &[("v1.1.0", Some(Reason::InvalidConfiguration)), ("v1.0.0", None)]);
        let (chosen, refused) = told(choose(&found, &bad, Some(&Version::new(1, 1, 0))));
        assert_eq!(chosen, "nothing");
        assert_eq!(refused.len(), 2, "the bad one and the one below the floor: {refused:?}");
    }

    #[test]
    fn an_empty_remote_runs_nothing() {
        assert_eq!(choose(&[], &BTreeMap::new(), None), (Choice::Nothing, Vec::new()));
    }
}
