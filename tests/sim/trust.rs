//! What bears on trust: signers that come and go, tags that are moved, operators who pin and reject.

use std::collections::BTreeMap;

use tagfall::model::{ObjectId, Pin, Reason, Refusal, RemoteTag, Word};
use tagfall::plan::{Action, Event, Listing, Outcome};

use crate::world::World;

/// People who sign.
pub(crate) const SIGNERS: u64 = 3;

impl World {
    /// Somebody's key is taken out of the trust, or put back.
    pub(crate) fn change_trust(&mut self) {
        let signer = self.random.below(SIGNERS);
        if !self.distrusted.remove(&signer) {
            self.distrusted.insert(signer);
        }
        let without = self.distrusted.clone();
        self.say(format_args!("trust: without {without:?}"));
        self.totals.trust += 1;
        self.tell_trust();
    }

    /// Everybody is trusted, nothing is pinned or rejected.
    pub(crate) fn forgive(&mut self) {
        self.say(format_args!("operator: all is forgiven"));
        self.distrusted.clear();
        self.tell_trust();
        self.host.record.pin = None;
        self.deliver(Event::Pinned(None));
        for tag in std::mem::take(&mut self.host.record.rejected).into_keys() {
            self.deliver(Event::Rejected { tag, word: None });
        }
        self.deliver(Event::LookNow);
    }

    fn tell_trust(&mut self) {
        if self.core.is_some() {
            self.deliver(Event::TrustChanged { error: None });
        }
    }

    /// A tag's name is made to name something else.
    pub(crate) fn move_tag(&mut self) {
        if self.tags.is_empty() {
            return;
        }
        let at = self.random.below(self.tags.len() as u64) as usize;
        let object = ObjectId::from_bytes([u8::try_from(200 + self.random.below(50)).unwrap_or(200); 20]);
        let name = self.tags[at].tag.name.clone();
        self.say(format_args!("{name} is moved"));
        self.tags[at].tag.object = object;
        self.totals.moved += 1;
        if self.random.chance(80) {
            self.deliver(Event::LookNow);
        }
    }

    /// An operator pins or rejects a tag, or takes it back. Written down first, as the daemon does.
    pub(crate) fn speak(&mut self) {
        if self.tags.is_empty() || self.core.is_none() {
            return;
        }
        let at = self.random.below(self.tags.len() as u64) as usize;
        let tag = self.tags[at].tag.clone();
        let word = Word { who: "sim".to_owned(), reason: "because".to_owned(), since: self.now().wall, until: None };
        self.totals.words += 1;
        match self.random.below(4) {
            0 => {
                let object = self.host.seen.get(&tag.name).copied().unwrap_or(tag.object);
                let pin = Pin { tag: RemoteTag { object, ..tag }, word };
                self.say(format_args!("operator: pin {}", pin.tag.name));
                self.host.record.pin = Some(pin.clone());
                self.deliver(Event::Pinned(Some(pin)));
            }
            1 => {
                self.host.record.pin = None;
                self.deliver(Event::Pinned(None));
            }
            2 => {
                self.say(format_args!("operator: reject {}", tag.name));
                self.host.record.rejected.insert(tag.name.clone(), word.clone());
                self.deliver(Event::Rejected { tag: tag.name, word: Some(word) });
            }
            _ => {
                self.host.record.rejected.remove(&tag.name);
                self.deliver(Event::Rejected { tag: tag.name, word: None });
            }
        }
    }

    /// What the remote lists. Every name is noted with what it names before the supervisor hears of it.
    pub(crate) fn list(&mut self) -> Outcome {
        let tags: Vec<RemoteTag> = self.tags.iter().map(|tag| tag.tag.clone()).collect();
        let mut moved = BTreeMap::new();
        for tag in &tags {
            let first = *self.host.seen.entry(tag.name.clone()).or_insert(tag.object);
            if first != tag.object {
                moved.insert(tag.name.clone(), first);
            }
        }
        Outcome::Listed(Ok(Listing { tags, moved }))
    }

    /// Who signed a tag, by the trust of now.
    pub(crate) fn judge(&self, tag: &RemoteTag) -> Result<Vec<String>, Refusal> {
        let signer = self.tags.iter().find(|known| known.tag.name == tag.name).map_or(0, |tag| tag.version % SIGNERS);
        if self.distrusted.contains(&signer) {
            return Err(Refusal { reason: Reason::SignerNotTrusted, message: format!("{signer} is not trusted") });
        }
        Ok(vec![signer.to_string()])
    }

    /// An action is asked for: what may not be asked for is a bug.
    pub(crate) fn check_asked(&self, action: &Action) {
        let Action::Accept { release, .. } = action else { return };
        let tag = RemoteTag { name: release.tag.clone(), object: release.tag_object };
        let Some(core) = &self.core else { return };
        let source = &core.observed().source;
        assert!(!source.rejected.contains_key(&tag.name) || source.pin.is_some(), "a rejected tag is accepted");
        assert!(source.pin.as_ref().is_none_or(|pin| pin.tag == tag), "another tag than the pinned one is accepted");
        assert_eq!(self.host.seen.get(&tag.name), Some(&tag.object), "a moved tag is accepted");
        if self.told_distrusted == self.distrusted {
            assert!(self.judge(&tag).is_ok(), "a tag of somebody who is not trusted is accepted");
        }
    }
}
