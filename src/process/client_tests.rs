//! The client against a keeper that is played by the test.

use std::os::fd::OwnedFd;

use super::*;
use crate::keeper::wire::{decode_request, encode_message};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn say(fd: &OwnedFd, message: &Message) {
    send(fd, &encode_message(message), SendFlags::NOSIGNAL).unwrap();
}

/// Reads one request; blocks, so it runs on a blocking thread.
async fn hear(fd: Arc<OwnedFd>) -> (u64, Request) {
    let read = move || {
        let mut buffer = vec![0; PACKET_MAX_BYTES];
        let (_, length) = recv(&*fd, buffer.as_mut_slice(), RecvFlags::empty()).unwrap();
        decode_request(&buffer[..length]).unwrap()
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

#[tokio::test]
async fn answers_find_their_request_and_late_ones_nobody() {
    let (ours, theirs) = pair();
    let theirs = Arc::new(theirs);
    let (keeper, _news) = Keeper::connect(ours).unwrap();
    let group: GroupName = "web".parse().unwrap();
    let asked = keeper.clone();
    let request = Request::Stop { group: group.clone() };
    let asking = tokio::spawn(async move { asked.request(request).await });
    let (attempt, request) = hear(Arc::clone(&theirs)).await;
    assert_eq!(request, Request::Stop { group });
    say(&theirs, &Message::Reply { attempt: attempt + 100, result: Ok(()) });
    say(&theirs, &Message::Reply { attempt, result: Err("no such service".to_owned()) });
    let error = asking.await.unwrap().unwrap_err();
    assert!(matches!(&error, ProcessError::Refused(why) if why == "no such service"), "{error:?}");
}

#[tokio::test]
async fn a_keeper_that_goes_away_ends_every_wait() {
    let (ours, theirs) = pair();
    let (keeper, mut news) = Keeper::connect(ours).unwrap();
    let asked = keeper.clone();
    let asking = tokio::spawn(async move { asked.request(Request::Finished).await });
    let theirs = Arc::new(theirs);
    hear(Arc::clone(&theirs)).await;
    drop(theirs);
    assert!(matches!(asking.await.unwrap(), Err(ProcessError::Lost)));
    assert_eq!(news.recv().await, Some(News::Lost));
    assert_eq!(news.recv().await, None);
    assert!(matches!(keeper.request(Request::Finished).await, Err(ProcessError::Lost)));
}

#[tokio::test]
async fn a_request_that_is_too_large_is_not_sent() {
    let (ours, _theirs) = pair();
    let (keeper, _news) = Keeper::connect(ours).unwrap();
    let command = Command { argv: vec!["x".repeat(PACKET_MAX_BYTES)], ..Command::default() };
    assert!(matches!(keeper.exec(command).await, Err(ProcessError::TooLarge { .. })));
}
