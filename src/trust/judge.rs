//! Whether what was signed is enough: by whom, how many, and the commit too.

use std::collections::BTreeSet;

use super::armour::{self, Kind, Signed};
use super::{Times, Trust, openpgp, refuse, ssh};
use crate::model::{Reason, Refusal, Timestamp};

/// One signed object.
#[derive(Debug, Clone, Copy)]
pub struct Statement<'a> {
    /// What messages call it, such as "tag `v1.0.0`".
    pub what: &'a str,
    /// The raw bytes of the object.
    pub bytes: &'a [u8],
    /// When it was made, in seconds since 1970, by its own word.
    pub made_s: u64,
}

/// All that speaks for a tag.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The tag object.
    pub tag: Statement<'a>,
    /// The commit that it points at; looked at only where the policy asks for it.
    pub commit: Option<Statement<'a>>,
    /// Tag objects that point at this tag object, and whose names say that they are of it.
    pub cosigned: &'a [Statement<'a>],
}

impl Trust {
    /// Who signed, by the names in the trust files, the first of each person's; sorted.
    ///
    /// # Errors
    /// `InvalidTagSignature`, `SignerNotTrusted` or `ThresholdNotMet`, with what is wrong.
    pub fn judge(&self, evidence: &Evidence<'_>, now: Timestamp) -> Result<Vec<String>, Refusal> {
        self.judge_by(evidence, now, self.policy.threshold)
    }

    /// The same, as if one person were enough: whether it is worth asking what others say.
    ///
    /// # Errors
    /// `InvalidTagSignature` or `SignerNotTrusted`, with what is wrong.
    pub fn judge_alone(&self, evidence: &Evidence<'_>, now: Timestamp) -> Result<Vec<String>, Refusal> {
        self.judge_by(evidence, now, 1)
    }

    fn judge_by(&self, evidence: &Evidence<'_>, now: Timestamp, threshold: u32) -> Result<Vec<String>, Refusal> {
        let mut people = BTreeSet::from([self.signer(&evidence.tag, now)?]);
        let mut failed = Vec::new();
        for statement in evidence.cosigned {
            match self.signer(statement, now) {
                Ok(person) => drop(people.insert(person)),
                Err(refusal) => failed.push(refusal.message),
            }
        }
        let names = self.names(&people);
        if people.len() < threshold as usize {
            let what = evidence.tag.what;
            let mut message = format!(
                "{what} is signed by {} of {} people ({}); others add theirs by `git tag -s cosign/TAG/NAME TAG`",
                people.len(),
                threshold,
                names.join(", ")
            );
            for words in failed {
                message.push_str("; ");
                message.push_str(&words);
            }
            return Err(refuse(Reason::ThresholdNotMet, message));
        }
        if self.policy.commit {
            let missing = || refuse(Reason::InvalidTagSignature, format!("the commit of {} is not there", evidence.tag.what));
            let commit = evidence.commit.ok_or_else(missing)?;
            let signed = armour::of_commit(commit.bytes, commit.what)?;
            self.verified(&signed, &commit, now)?;
        }
        Ok(names)
    }

    /// The name of whoever signed one tag object, however many people are asked for.
    ///
    /// # Errors
    /// As [`Trust::judge`].
    pub fn signed_by(&self, statement: &Statement<'_>, now: Timestamp) -> Result<String, Refusal> {
        let person = self.signer(statement, now)?;
        Ok(self.names(&BTreeSet::from([person])).pop().unwrap_or_default())
    }

    fn signer(&self, statement: &Statement<'_>, now: Timestamp) -> Result<usize, Refusal> {
        let signed = armour::of_tag(statement.bytes, statement.what)?;
        self.verified(&signed, statement, now)
    }

    /// The first name of each person.
    fn names(&self, people: &BTreeSet<usize>) -> Vec<String> {
        let all = self.signers.iter().map(|signer| &signer.principals).chain(self.certificates.iter().map(|key| &key.names));
        let all: Vec<&Vec<String>> = all.collect();
        let mut names: Vec<String> = people.iter().filter_map(|person| all.get(*person)?.first().cloned()).collect();
        names.sort();
        names
    }

    /// The person whose valid signature it is.
    fn verified(&self, signed: &Signed<'_>, statement: &Statement<'_>, now: Timestamp) -> Result<usize, Refusal> {
        let times = Times { now_s: now.0 / 1000, claimed_s: statement.made_s };
        match signed.kind {
            Kind::Ssh => self.verified_ssh(signed, statement.what, times),
            Kind::OpenPgp => self.verified_openpgp(signed, statement.what, times),
        }
    }

    fn verified_ssh(&self, signed: &Signed<'_>, what: &str, times: Times) -> Result<usize, Refusal> {
        let untrusted = |message: String| refuse(Reason::SignerNotTrusted, message);
        let claim = ssh::read(&signed.armour, what)?;
        let key = &claim.fingerprint;
        if self.revoked.has_ssh(key) {
            return Err(untrusted(format!("{what} is signed by the key {key}, which is revoked")));
        }
        let lines = self.signers.iter().enumerate().filter(|(_, signer)| signer.key == *claim.key());
        let mut refused = None;
        for (at, signer) in lines {
            let name = signer.principals.first().map(String::as_str).unwrap_or_default();
            let fit = if signer.signs_git() {
                signer.window.check_both(times)
            } else {
                Err("may not sign tags (its `namespaces` leave out `git`)".to_owned())
            };
            match fit {
                Ok(()) => return claim.verify(&signed.payload, what).map(|()| self.people[at]),
                Err(why) => refused = Some(format!("{what} is signed by {name}, whose key {why} ({})", signer.place)),
            }
        }
        let stranger = || format!("{what} is signed by the key {key}, which {} does not name", self.listed_in);
        Err(untrusted(refused.unwrap_or_else(stranger)))
    }

    fn verified_openpgp(&self, signed: &Signed<'_>, what: &str, times: Times) -> Result<usize, Refusal> {
        let untrusted = |message: String| refuse(Reason::SignerNotTrusted, message);
        let claim = openpgp::read_signature(&signed.armour, what)?;
        let Some((at, certificate, key)) = claim.find(&self.certificates) else {
            let issuer = claim.issuer();
            return Err(untrusted(format!(
                "{what} is signed by the OpenPGP key {issuer}, which {} does not name",
                self.listed_in
            )));
        };
        let revoked = [certificate.fingerprint.as_str(), key.fingerprint()].into_iter().find(|key| self.revoked.has_openpgp(key));
        if let Some(revoked) = revoked {
            return Err(untrusted(format!("{what} is signed by the OpenPGP key {revoked}, which is revoked")));
        }
        let name = certificate.names.first().map(String::as_str).unwrap_or_default();
        if let Some(why) = key.unfit() {
            return Err(untrusted(format!("{what} is signed by {name}, and that does not count: {why} ({})", certificate.place)));
        }
        // When an OpenPGP signature was made, it says itself.
        let times = Times { claimed_s: claim.made_s, ..times };
        key.window()
            .check_both(times)
            .map_err(|why| untrusted(format!("{what} is signed by {name}, whose key {why} ({})", certificate.place)))?;
        claim.verify(&key, &signed.payload, times.now_s, what)?;
        Ok(self.people[self.signers.len() + at])
    }
}
