//! Stories of trust: signatures that cease to hold, operators' words, tags that wait for a second signature.

use super::*;

fn word(reason: &str) -> Word {
    Word { who: "root (uid 0)".to_owned(), reason: reason.to_owned(), since: Timestamp(0), until: None }
}

fn untrusted() -> Refusal {
    Refusal { reason: Reason::SignerNotTrusted, message: "by a stranger".to_owned() }
}

/// A supervisor that verifies, converged on `v1.1.0`.
fn verifying() -> Story {
    let mut story = Story::with_host(Host { verify: true, ..host() });
    story.event(Event::KeeperReady).turn().listed(&[tag(1)]).turn().accepted(1, &group(SERVICE)).staged(1).switched(1);
    story.report(ServiceState::Running, 1, Some(1)).answer("run", Outcome::Asked).turn();
    story.answer("mark-applied", Outcome::Applied { tag: tag(1) }).turn();
    story.told.clear();
    story
}

fn conditions(story: &Story) -> Vec<String> {
    let plan = story.core.plan(story.now());
    let overview = explain(&story.core, &plan, &Overview::default(), story.now());
    let told = overview.conditions.iter().filter(|condition| condition.kind != ConditionKind::Ready);
    told.map(|condition| format!("{:?} {:?} {:?}", condition.kind, condition.status, condition.reason)).collect()
}

#[test]
fn what_runs_is_judged_again_when_trust_changes_and_runs_on() {
    let mut story = verifying();
    assert_eq!(conditions(&story), ["SourceVerified True Verified"]);
    story.event(Event::TrustChanged { error: None }).turn();
    assert_eq!(conditions(&story), ["SourceVerified Unknown Fetching"]);
    story.answer("attest", Outcome::Attested { tag: tag(1), result: Err(untrusted()) }).turn();
    assert_eq!(conditions(&story), ["SourceVerified False SignerNotTrusted"]);
    // A newer tag of the same stranger is refused; one that verifies is taken.
    story.event(Event::LookNow).turn().listed(&[tag(1), tag(2)]).turn();
    story.answer("examine", Outcome::Examined { tag: tag(2), result: Err(untrusted()) }).turn();
    story.event(Event::LookNow).turn().listed(&[tag(1), tag(2), tag(3)]).turn().accepted(3, &group(SERVICE));
    insta::assert_snapshot!(story.told(), @r"
    do attest
    do list
    do examine v1.2.0
    wait Fetching: fetching and checking `v1.2.0`
    do list
    do examine v1.3.0
    wait Fetching: fetching and checking `v1.3.0`
    do accept v1.3.0
    wait Fetching: accepting `v1.3.0`
    do mark-applied v1.3.0
    ");
    assert_eq!(conditions(&story), ["SourceVerified True Verified"]);
}

#[test]
fn a_judgement_by_the_trust_of_before_says_nothing() {
    let mut story = verifying();
    story.event(Event::LookNow).turn().listed(&[tag(1), tag(2)]).turn();
    story.event(Event::TrustChanged { error: None }).turn();
    story.answer("attest", Outcome::Attested { tag: tag(1), result: Ok(vec!["a".to_owned()]) }).turn();
    let late = Outcome::Examined { tag: tag(2), result: Ok(release(2, &[group(SERVICE)])) };
    story.answer("examine", late).turn();
    insta::assert_snapshot!(story.told(), @r"
    do list
    do examine v1.2.0
    wait Fetching: fetching and checking `v1.2.0`
    do attest
    wait Fetching: fetching and checking `v1.2.0`
    wait Fetching: fetching and checking `v1.2.0`
    do examine v1.2.0
    wait Fetching: fetching and checking `v1.2.0`
    ");
}

#[test]
fn a_tag_that_was_refused_for_its_signer_is_looked_at_again_by_another_trust() {
    let mut story = verifying();
    story.event(Event::LookNow).turn().listed(&[tag(1), tag(2)]).turn();
    story.answer("examine", Outcome::Examined { tag: tag(2), result: Err(untrusted()) }).turn();
    story.event(Event::LookNow).turn().listed(&[tag(1), tag(2)]).turn();
    story.told.clear();
    story.event(Event::TrustChanged { error: None }).turn();
    insta::assert_snapshot!(story.told(), @r"
    do attest
    do examine v1.2.0
    wait Fetching: fetching and checking `v1.2.0`
    ");
}

#[test]
fn an_unfinished_release_that_ceases_to_verify_makes_way_for_the_one_before() {
    let mut story = verifying();
    story.event(Event::LookNow).turn().listed(&[tag(1), tag(2)]).turn();
    story.accepted(2, &group(&SERVICE.replace("port = 1", "port = 2")));
    story.event(Event::TrustChanged { error: None }).turn();
    story.told.clear();
    story.answer("attest", Outcome::Attested { tag: tag(2), result: Err(untrusted()) }).turn();
    let told = story.told();
    assert!(told.contains("do examine v1.1.0"), "{told}");
}

#[test]
fn after_a_restart_what_ran_is_read_and_runs_though_its_signer_is_trusted_no_more() {
    let accepted = Accepted { tag: tag(1), accepted_at: Timestamp(0), applied_at: Some(Timestamp(0)) };
    let remembered = Remembered { accepted: Some(accepted), floor: Some(semver::Version::new(1, 1, 0)), ..Remembered::default() };
    let mut story = Story::with_host(Host { verify: true, ..host() });
    story.core = Core::new(Host { verify: true, ..host() }, remembered);
    story.turn();
    story.answer("attest", Outcome::Attested { tag: tag(1), result: Err(untrusted()) }).turn();
    let release = release(1, &[group(SERVICE)]);
    story.answer("examine", Outcome::Examined { tag: tag(1), result: Ok(release) }).event(Event::KeeperReady).turn();
    story.listed(&[tag(1)]).turn();
    let told = story.told();
    assert!(told.contains("do examine v1.1.0") && told.contains("do stage"), "{told}");
    assert_eq!(conditions(&story).last().map(String::as_str), Some("SourceVerified False SignerNotTrusted"));
}

#[test]
fn a_pin_goes_below_the_floor_and_holds_newer_tags_back_until_it_is_taken_back() {
    let mut story = verifying();
    let pin = Pin { tag: tag(0), word: word("it leaks") };
    story.event(Event::Pinned(Some(pin))).turn();
    story.accepted(0, &group(SERVICE));
    story.answer("mark-applied", Outcome::Applied { tag: tag(0) }).turn();
    story.event(Event::LookNow).turn().listed(&[tag(0), tag(1), tag(2)]).turn();
    assert_eq!(conditions(&story), ["Suspended True Pinned", "SourceVerified True Verified"]);
    assert_eq!(story.core.observed().source.floor, Some(semver::Version::new(1, 1, 0)), "the floor stays");
    story.event(Event::Pinned(None)).turn();
    insta::assert_snapshot!(story.told(), @r"
    do examine v1.0.0
    wait Fetching: fetching and checking `v1.0.0`
    do accept v1.0.0
    wait Fetching: accepting `v1.0.0`
    do mark-applied v1.0.0
    do list
    do examine v1.2.0
    wait Fetching: fetching and checking `v1.2.0`
    ");
}

#[test]
fn a_rejected_tag_is_passed_over_until_it_is_taken_back_in() {
    let mut story = verifying();
    story.event(Event::Rejected { tag: tag(2).name, word: Some(word("it leaks")) });
    story.event(Event::LookNow).turn().listed(&[tag(1), tag(2)]).turn();
    let plan = story.core.plan(story.now());
    let refused = explain(&story.core, &plan, &Overview::default(), story.now()).refused;
    assert_eq!(refused.iter().map(|tag| tag.reason).collect::<Vec<_>>(), [Reason::RevisionRejected]);
    story.event(Event::Rejected { tag: tag(2).name, word: None }).turn();
    insta::assert_snapshot!(story.told(), @r"
    do list
    do examine v1.2.0
    wait Fetching: fetching and checking `v1.2.0`
    ");
}

#[test]
fn a_second_signature_is_noticed() {
    let mut story = verifying();
    story.event(Event::LookNow).turn().listed(&[tag(1), tag(2)]).turn();
    let short = Refusal { reason: Reason::ThresholdNotMet, message: "1 of 2".to_owned() };
    story.answer("examine", Outcome::Examined { tag: tag(2), result: Err(short) }).turn();
    let second = RemoteTag { name: TagName::new("cosign/v1.2.0/bob"), object: ObjectId::from_bytes([77; 20]) };
    story.event(Event::LookNow).turn().listed(&[tag(1), tag(2)]).turn();
    story.event(Event::LookNow).turn().listed(&[tag(1), tag(2), second]).turn();
    insta::assert_snapshot!(story.told(), @r"
    do list
    do examine v1.2.0
    wait Fetching: fetching and checking `v1.2.0`
    do list
    do list
    do examine v1.2.0
    wait Fetching: fetching and checking `v1.2.0`
    ");
}

#[test]
fn a_heartbeat_that_is_overdue_is_told_and_stops_nothing() {
    let mut story = verifying();
    let day = Duration::from_secs(24 * 3600);
    let host = Host { max_age: Some(day), verify: true, ..host() };
    let host = Host { selection: Selection { heartbeat: Some(TagName::new("heartbeat")), ..host.selection.clone() }, ..host };
    let accepted = Accepted { tag: tag(1), accepted_at: Timestamp(0), applied_at: Some(Timestamp(0)) };
    story.core = Core::new(host, Remembered { accepted: Some(accepted), ..Remembered::default() });
    story.open.clear();
    story.turn().answer("attest", Outcome::Attested { tag: tag(1), result: Ok(vec!["a".to_owned()]) });
    story.answer("examine", Outcome::Examined { tag: tag(1), result: Ok(release(1, &[group(SERVICE)])) }).turn();
    let beat = RemoteTag { name: TagName::new("heartbeat"), object: ObjectId::from_bytes([50; 20]) };
    let made_at = Timestamp(story.now_ms + 1);
    story.listed(&[tag(1), beat.clone()]).turn();
    let heard = |made_at| Outcome::Heard { tag: beat.clone(), result: Ok(Heartbeat { by: "ci".to_owned(), made_at }) };
    story.answer("read-heartbeat", heard(made_at)).turn();
    assert!(conditions(&story).contains(&"FreezeSuspected False FreezeSuspected".to_owned()), "{:?}", conditions(&story));
    story.now_ms += 24 * 3600 * SECOND + SECOND;
    assert!(conditions(&story).contains(&"FreezeSuspected True FreezeSuspected".to_owned()), "{:?}", conditions(&story));
    let told = story.turn().told();
    assert!(!told.contains("stop"), "{told}");
}

#[test]
fn a_tag_that_is_gone_from_the_remote_is_told_and_runs_on() {
    let mut story = verifying();
    story.event(Event::LookNow).turn().listed(&[]).turn();
    assert_eq!(conditions(&story)[0], "Stalled False DowngradeRefused");
    assert_eq!(story.told(), "do list");
}
