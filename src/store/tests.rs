//! The state on a real disk, damaged in every way first.

use std::fs;

use super::slot::with_version;
use super::*;
use crate::model::{FirstTag, ObjectId, Pin, Reason, Refusal, RemoteTag, Suspension, TagName, Timestamp, Word};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn accepted(tag: &str) -> Accepted {
    let id = ObjectId::from_bytes([7; 20]);
    Accepted {
        tag: TagName::new(tag),
        tag_object: id,
        commit: id,
        signers: vec!["ops@example.com".to_owned()],
        accepted_at: Timestamp(1_000),
        applied_at: None,
    }
}

fn refused(tag: &str, reason: Reason, since: u64) -> Refused {
    let refusal = Refusal { reason, message: format!("since {since}") };
    Refused { tag: TagName::new(tag), tag_object: ObjectId::from_bytes([1; 20]), refusal, since: Timestamp(since) }
}

/// A folder with two generations: `first` and then `second` was accepted. Which file is the newer one is returned.
fn two_generations() -> (tempfile::TempDir, State, PathBuf) {
    let dir = folder();
    let Opened { store, mut state, notes, .. } = Store::open(dir.path()).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    state.accept(accepted("first"));
    assert!(store.save(&state).unwrap());
    state.accept(accepted("second"));
    assert!(store.save(&state).unwrap());
    let newer = dir.path().join("state/state.a");
    (dir, state, newer)
}

fn tag(state: &State) -> &str {
    state.accepted.as_ref().map_or("none", |accepted| accepted.tag.as_str())
}

#[test]
fn a_damaged_generation_is_named_moved_aside_and_the_one_before_it_used() {
    let (dir, before, newer) = two_generations();
    let whole = fs::read(&newer).unwrap();
    let older = fs::read(newer.with_file_name("state.b")).unwrap();
    let flipped = (0..whole.len()).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes
    });
    let cut = (0..whole.len()).step_by(37).map(|at| whole[..at].to_vec());
    let zeroed = [vec![0; whole.len()], [&whole[..100], &vec![0; whole.len() - 100]].concat(), [&whole[..], b"x"].concat()];
    for (turn, bad) in flipped.chain(cut).chain(zeroed).enumerate() {
        fs::write(&newer, &bad).unwrap();
        fs::write(newer.with_file_name("state.b"), &older).unwrap();
        let Opened { store, mut state, notes, .. } = Store::open(dir.path()).unwrap();
        assert_eq!((tag(&state), &state.member_id), ("first", &before.member_id), "damage {turn}");
        assert!(matches!(&notes[..], [note] if note.contains("state.a") && note.contains(".broken-")), "{notes:?}");
        assert!(!newer.exists());
        // And on from there.
        state.floor = Some(turn.to_string());
        store.save(&state).unwrap();
        drop(store);
        let Opened { state: again, notes, .. } = Store::open(dir.path()).unwrap();
        assert_eq!((again, notes), (state, Vec::new()), "damage {turn}");
    }
    let names = fs::read_dir(dir.path().join("state")).unwrap();
    let aside = names.filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().contains("broken")).count();
    assert_eq!(aside, 4, "what is moved aside is bounded");
}

#[test]
fn with_nothing_whole_left_it_begins_anew_and_says_so() {
    let (dir, before, newer) = two_generations();
    fs::write(&newer, "").unwrap();
    fs::write(newer.with_file_name("state.b"), vec![0; 500]).unwrap();
    let Opened { store, state, notes, .. } = Store::open(dir.path()).unwrap();
    assert_ne!(state.member_id, before.member_id);
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(notes[2].contains("begins anew"), "{notes:?}");
    drop(store);
    let again = Store::open(dir.path()).unwrap();
    assert_eq!((again.state.member_id, again.notes), (state.member_id, Vec::new()));
}

#[test]
fn a_later_format_is_refused_and_left_untouched() {
    let (dir, _, newer) = two_generations();
    let later = with_version(2, 9, b"whatever a later version writes");
    fs::write(&newer, &later).unwrap();
    fs::write(newer.with_file_name("state.b"), "broken").unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 2, known: 1, .. }), "{error}");
    assert_eq!(fs::read(&newer).unwrap(), later);
    assert_eq!(fs::read(newer.with_file_name("state.b")).unwrap(), b"broken");
}

#[test]
fn fields_of_another_version_are_no_error() {
    let dir = folder();
    fs::create_dir(dir.path().join("state")).unwrap();
    let text = br#"{"member_id": "00112233445566778899aabbccddeeff", "of_tomorrow": [1]}"#;
    fs::write(dir.path().join("state/state.b"), with_version(1, 5, text)).unwrap();
    let Opened { state, notes, .. } = Store::open(dir.path()).unwrap();
    assert_eq!((state, notes), (State::new(MemberId::new("00112233445566778899aabbccddeeff")), Vec::new()));
}

#[test]
fn a_second_supervisor_in_one_data_folder_is_refused() {
    let dir = folder();
    let first = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { holder: Some(pid), .. } if pid == std::process::id()), "{error}");
    drop(first);
    Store::open(dir.path()).unwrap();
}

#[test]
fn a_save_that_fails_changes_nothing() {
    let (dir, state, _) = two_generations();
    let Opened { store, state: mut next, .. } = Store::open(dir.path()).unwrap();
    let obstacle = dir.path().join("state/state.tmp");
    fs::create_dir(&obstacle).unwrap();
    next.accept(accepted("third"));
    store.save(&next).unwrap_err();
    drop(store);
    fs::remove_dir(&obstacle).unwrap();
    let Opened { store, state: found, notes, .. } = Store::open(dir.path()).unwrap();
    assert_eq!((&found, notes), (&state, Vec::new()));
    assert!(store.save(&next).unwrap());
    assert!(!store.save(&next).unwrap(), "nothing new is not written");
}

/// Killed between any two calls of a save, a temporary file may be there, whole or not; it means nothing.
#[test]
fn a_temporary_file_means_nothing() {
    let (dir, state, newer) = two_generations();
    for content in [&b""[..], b"torn", &with_version(1, 99, b"{}")] {
        fs::write(newer.with_file_name("state.tmp"), content).unwrap();
        let opened = Store::open(dir.path()).unwrap();
        assert_eq!((opened.state, opened.notes), (state.clone(), Vec::new()));
    }
}

#[test]
fn a_member_id_is_made_once() {
    let (one, two) = (folder(), folder());
    let first = Store::open(one.path()).unwrap().state.member_id;
    let text = first.as_str();
    assert!(text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{text}");
    assert_eq!(Store::open(one.path()).unwrap().state.member_id, first);
    assert_ne!(Store::open(two.path()).unwrap().state.member_id, first);
}

#[test]
fn all_that_is_remembered_comes_back() {
    let dir = folder();
    let Opened { store, mut state, .. } = Store::open(dir.path()).unwrap();
    let (group, revision) = ("web".parse::<crate::model::GroupName>().unwrap(), Digest::of(b"r"));
    state.accept(accepted("v1"));
    state.floor = Some("1.0.0".to_owned());
    let word = Word { who: "root".to_owned(), reason: "x".to_owned(), since: Timestamp(1), until: None };
    state.rejected.insert(TagName::new("v1"), word.clone());
    state.pin = Some(Pin { tag: RemoteTag { name: TagName::new("v2"), object: ObjectId::from_bytes([3; 20]) }, word });
    state.refuse(refused("v2", Reason::TagMoved, 5));
    let commit = ObjectId::from_bytes([4; 20]);
    state.first_tags.insert(group.clone(), FirstTag { revision, tag: TagName::new("v1"), commit });
    let suspended =
        Suspension { who: "uid 0".to_owned(), reason: String::new(), since: Timestamp(1), until: None, revision: Some(revision) };
    state.suspended.insert(group.clone(), suspended);
    state.published.insert(group, PublishedAt { mount_path: "/etc/web".to_owned() });
    store.save(&state).unwrap();
    drop(store);
    assert_eq!(Store::open(dir.path()).unwrap().state, state);
}

#[test]
fn lists_are_bounded_and_keep_the_newest() {
    let mut state = State::new(MemberId::new("0"));
    for number in 0..200 {
        state.refuse(refused(&format!("v{number}"), Reason::TagMoved, number));
        state.accept(accepted(&format!("v{number}")));
    }
    assert_eq!((state.refused.len(), state.history.len()), (64, 100));
    assert_eq!((state.refused[63].tag.as_str(), state.history[99].tag.as_str()), ("v199", "v198"));
    state.refuse(refused("v199", Reason::TagMoved, 999));
    assert_eq!((state.refused[63].since, state.refused[63].refusal.message.as_str()), (Timestamp(199), "since 999"));
    state.refuse(refused("v199", Reason::UnsafePath, 1000));
    assert_eq!((state.refused.len(), state.refused[63].since), (64, Timestamp(1000)));
}

fn event(message: &str) -> NewEvent<'_> {
    NewEvent { time: Timestamp(0), kind: "Normal", reason: Reason::Converged, object: "web.default", message }
}

#[test]
fn ids_of_events_rise_over_restarts_and_a_torn_line_is_dropped() {
    let dir = folder();
    let log = dir.path().join("state/events.log");
    let events = Events::open(dir.path()).unwrap();
    assert_eq!((events.append(event("one")).unwrap().id, events.append(event("two\nlines")).unwrap().id), (1, 2));
    drop(events);
    let whole = fs::read(&log).unwrap();
    for torn in [&b"{\"id\":3,\"ti"[..], b"x", b"\0\0\0"] {
        fs::write(&log, [&whole, torn].concat()).unwrap();
        let events = Events::open(dir.path()).unwrap();
        let third = events.append(event("three")).unwrap();
        assert_eq!((third.id, third.reason.as_str()), (3, "Converged"));
        assert_eq!(events.read_since(1).unwrap().iter().map(|event| event.id).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(events.read_since(1).unwrap()[0].message, "two\nlines");
    }
    // A damaged line in the middle costs that line.
    fs::write(&log, [b"garbage\n", &whole[..]].concat()).unwrap();
    assert_eq!(Events::open(dir.path()).unwrap().read_since(0).unwrap().len(), 2);
}

#[test]
fn the_log_of_events_is_bounded() {
    let dir = folder();
    let long = "é".repeat(5_000);
    let events = Events::open(dir.path()).unwrap();
    for _ in 0..1_000 {
        events.append(event(&long)).unwrap();
    }
    let size = |name: &str| fs::metadata(dir.path().join("state").join(name)).unwrap().len();
    assert!(size("events.log") <= 1024 * 1024 && size("events.log.1") <= 1024 * 1024);
    let kept = events.read_since(0).unwrap();
    let ids: Vec<u64> = kept.iter().map(|event| event.id).collect();
    assert_eq!(ids, ((1_001 - ids.len() as u64)..=1_000).collect::<Vec<_>>());
    assert!(ids.len() > 250 && kept[0].message.len() <= 4096, "{} of {} bytes", ids.len(), kept[0].message.len());
    drop(events);
    fs::remove_file(dir.path().join("state/events.log")).unwrap();
    let older = fs::read(dir.path().join("state/events.log.1")).unwrap();
    let in_older = older.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(Events::open(dir.path()).unwrap().last_id(), ids[in_older - 1], "ids go on from the older file alone");
}
