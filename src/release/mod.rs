//! Which tag runs: candidates, verdicts, choice; and what a tag, commit or tree object must look like to be taken.
//!
//! Pure: it is handed what a remote listed, what was already judged, and the raw bytes of objects. It knows nothing of
//! repositories, packs or remotes. A new rule about *which* tag belongs into `choose.rs`; a new rule about *how an
//! object is written* into `object/`, as a [`Refusal`] with the reason that the status shows.

mod choose;
pub mod object;

pub use choose::{
    COSIGN_PREFIX, COSIGNATURES_MAX, Candidate, Choice, RefusedTag, Rules, Selection, Verdict, candidates, choose, cosignatures,
    is_lasting, is_of_trust, is_version, misnamed,
};

use crate::model::{Reason, Refusal};

/// A refusal in one line.
fn refuse(reason: Reason, message: impl Into<String>) -> Refusal {
    Refusal { reason, message: message.into() }
}
