//! What operators say: written down, with who and when, before it is followed, so that it outlives this process.
//!
//! A new command is a variant of `api::Command`, an arm in `command`, and a field of the durable state where it lasts.

use std::time::Duration;

use super::answers::known_tag;
use super::clock::now;
use super::effects;
use super::narrate::Happened;
use super::turning::Turning;
use crate::api::{ApiError, Command, Failure, ReleaseVerb, ServiceVerb, wire};
use crate::model::{GroupName, Moment, Pin, Reason, Suspension, TagName, Timestamp, Word};
use crate::plan::Event;
use crate::release::Verdict;
use crate::store::State;

/// The wall clock may be set while a word with an end holds: looked at again after so long.
const HOLD_LOOK_MAX: Duration = Duration::from_secs(60);

/// What stands where nobody said why.
const NO_REASON: &str = "no reason given";

impl Turning {
    pub(super) async fn command(&mut self, command: Command, who: &str) -> Result<(), ApiError> {
        self.pace.loud = true;
        match command {
            Command::Poll => {
                self.core.observe(Event::LookNow, now());
                Ok(())
            }
            Command::Service { group, verb, reason, until } => self.service(group, verb, (who, reason, until)).await,
            Command::Release { tag, verb, reason, until } => {
                let reason = reason.unwrap_or_else(|| NO_REASON.to_owned());
                let word = Word { who: who.to_owned(), reason, since: now().wall, until };
                match verb {
                    ReleaseVerb::Pin => self.pin(tag, word).await,
                    ReleaseVerb::Unpin => self.unpin(&tag, &word).await,
                    ReleaseVerb::Reject => self.reject(tag, word).await,
                    ReleaseVerb::Accept => self.accept(&tag, &word).await,
                }
            }
        }
    }

    async fn service(
        &mut self,
        group: GroupName,
        verb: ServiceVerb,
        (who, reason, until): (&str, Option<String>, Option<Timestamp>),
    ) -> Result<(), ApiError> {
        if self.core.desired().groups.get(&group).is_none_or(|wanted| wanted.group.service.is_none()) {
            return Err(ApiError::new(Failure::Conflict, "NoService", format!("{group} runs no service here")));
        }
        let words = reason.unwrap_or_else(|| NO_REASON.to_owned());
        let message = format!("{} by {who}: {words}", verb.name());
        self.tell(Happened::new(wire::EventKind::Normal, Reason::StoppedByOperator, group.to_string(), message));
        match verb {
            ServiceVerb::Stop => self.suspend(&group, Some((who, words, until))).await,
            ServiceVerb::Start => self.suspend(&group, None).await,
            ServiceVerb::Restart => {
                self.core.observe(Event::RestartAsked(group), now());
                Ok(())
            }
        }
    }

    /// A pin of what is refused would only hold back what is not.
    async fn pin(&mut self, name: TagName, word: Word) -> Result<(), ApiError> {
        let tag = known_tag(&self.context, &self.core, &name)?;
        let source = &self.core.observed().source;
        if let Some(Verdict::Refused(refusal)) = source.verdicts.get(&(tag.name.clone(), tag.object)) {
            let words = format!("it cannot be pinned: {}", refusal.message);
            return Err(ApiError::new(Failure::Refused, format!("{:?}", refusal.reason), words));
        }
        let message = format!("pinned by {word}");
        let pin = Pin { tag, word };
        let kept = pin.clone();
        self.record(move |state| state.pin = Some(kept)).await?;
        self.tell(Happened::new(wire::EventKind::Normal, Reason::Pinned, name.to_string(), message));
        self.core.observe(Event::Pinned(Some(pin)), now());
        Ok(())
    }

    async fn unpin(&mut self, name: &TagName, word: &Word) -> Result<(), ApiError> {
        match &self.core.observed().source.pin {
            Some(pin) if pin.tag.name == *name => {}
            Some(pin) => {
                let words = format!("`{name}` is not pinned, `{}` is", pin.tag.name);
                return Err(ApiError::new(Failure::Conflict, "NotPinned", words));
            }
            None => return Err(ApiError::new(Failure::Conflict, "NotPinned", "no release is pinned")),
        }
        self.record(|state| state.pin = None).await?;
        self.tell(Happened::new(wire::EventKind::Normal, Reason::Pinned, name.to_string(), format!("pin taken back by {word}")));
        self.core.observe(Event::Pinned(None), now());
        Ok(())
    }

    async fn reject(&mut self, name: TagName, word: Word) -> Result<(), ApiError> {
        known_tag(&self.context, &self.core, &name)?;
        if self.core.observed().source.pin.as_ref().is_some_and(|pin| pin.tag.name == name) {
            let words = format!("`{name}` is pinned: `tagfall release unpin {name}` first");
            return Err(ApiError::new(Failure::Conflict, "Pinned", words));
        }
        let (tag, kept) = (name.clone(), word.clone());
        self.record(move |state| drop(state.rejected.insert(tag, kept))).await?;
        let message = format!("rejected by {word}");
        self.tell(Happened::new(wire::EventKind::Normal, Reason::RevisionRejected, name.to_string(), message));
        self.core.observe(Event::Rejected { tag: name, word: Some(word) }, now());
        Ok(())
    }

    async fn accept(&mut self, name: &TagName, word: &Word) -> Result<(), ApiError> {
        if !self.core.observed().source.rejected.contains_key(name) {
            let words = format!(
                "`{name}` was not rejected by anybody, so there is nothing to take back; a tag that was moved, or that nobody who is \
                 trusted has signed, is not taken by anybody's word: push a new tag name"
            );
            return Err(ApiError::new(Failure::Conflict, "NotRejected", words));
        }
        let tag = name.clone();
        self.record(move |state| drop(state.rejected.remove(&tag))).await?;
        let message = format!("taken back in by {word}");
        self.tell(Happened::new(wire::EventKind::Normal, Reason::RevisionRejected, name.to_string(), message));
        self.core.observe(Event::Rejected { tag: name.clone(), word: None }, now());
        Ok(())
    }

    /// Ends words on releases whose time is over; says when the next one's will be.
    async fn end_words(&mut self) -> Option<Moment> {
        let at = now();
        let source = &self.core.observed().source;
        let over = |word: &Word| word.until.is_some_and(|until| until <= at.wall);
        let ended = Word { who: "the clock".to_owned(), reason: "its time is over".to_owned(), since: at.wall, until: None };
        let unpinned = source.pin.as_ref().filter(|pin| over(&pin.word)).map(|pin| pin.tag.name.clone());
        let accepted: Vec<TagName> = source.rejected.iter().filter(|(_, word)| over(word)).map(|(tag, _)| tag.clone()).collect();
        if let Some(name) = unpinned {
            if let Err(error) = self.unpin(&name, &ended).await {
                tracing::warn!(tag = %name, %error, "its pin goes on");
            }
        }
        for name in accepted {
            if let Err(error) = self.accept(&name, &ended).await {
                tracing::warn!(tag = %name, %error, "it stays rejected");
            }
        }
        let source = &self.core.observed().source;
        let words = source.pin.iter().map(|pin| &pin.word).chain(source.rejected.values());
        words.filter_map(|word| word.until).map(|until| at.moment.after(look_again(until, at.wall))).min()
    }

    /// Ends holds whose time is over; says when the next one's will be.
    pub(super) async fn end_holds(&mut self) -> Option<Moment> {
        let words = self.end_words().await;
        let at = now();
        let holds = self.core.suspended().iter().filter_map(|(group, hold)| Some((group.clone(), hold.until?)));
        let (over, left): (Vec<_>, Vec<_>) = holds.partition(|(_, until)| *until <= at.wall);
        for (group, _) in over {
            match self.suspend(&group, None).await {
                Ok(()) => {
                    let message = "the time of its stop is over: started again";
                    self.tell(Happened::new(wire::EventKind::Normal, Reason::Starting, group.to_string(), message));
                }
                Err(error) => tracing::warn!(%group, %error, "its stop goes on"),
            }
        }
        left.into_iter().map(|(_, until)| at.moment.after(look_again(until, at.wall))).chain(words).min()
    }

    /// Written down before it is followed: an operator's word outlives this process.
    async fn suspend(&mut self, group: &GroupName, hold: Option<(&str, String, Option<Timestamp>)>) -> Result<(), ApiError> {
        let revision = self.core.desired().groups.get(group).map(|wanted| wanted.group.revision);
        let suspension =
            hold.map(|(who, reason, until)| Suspension { who: who.to_owned(), reason, since: now().wall, until, revision });
        let (name, kept) = (group.clone(), suspension.clone());
        self.record(move |state| match kept {
            Some(hold) => drop(state.suspended.insert(name, hold)),
            None => drop(state.suspended.remove(&name)),
        })
        .await?;
        self.core.observe(Event::Suspended { group: group.clone(), suspension }, now());
        Ok(())
    }

    /// Changes the durable state; where it cannot be written, nothing was said.
    async fn record(&mut self, change: impl FnOnce(&mut State) + Send + 'static) -> Result<(), ApiError> {
        let context = self.context.clone();
        let recorded = tokio::task::spawn_blocking(move || context.remember(change)).await;
        let recorded = recorded.map_err(|error| error.to_string()).and_then(|done| done.map_err(|error| effects::chain(&error)));
        recorded.map_err(|error| ApiError::new(Failure::Internal, "NotRecorded", format!("{error}; nothing was changed")))?;
        self.pace.loud = true;
        Ok(())
    }
}

/// How long until a word ends, or until the wall clock is looked at again.
fn look_again(until: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis(until.0.saturating_sub(now.0)).min(HOLD_LOOK_MAX)
}
