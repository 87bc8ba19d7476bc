//! The keeper, as the room that publishes sees it: hands with more rights than this process has.

use tokio::runtime::Handle;

use super::effects::chain;
use crate::keeper::wire::Request;
use crate::model::GroupName;
use crate::process::Keeper;
use crate::publish::Hands;

/// Asks the keeper, and waits for its answer: on a thread that may block, never on the loop's.
pub(super) struct KeepersHands {
    keeper: Keeper,
    runtime: Handle,
    /// The keeper may give files to other groups, since it is root.
    gives: bool,
}

impl std::fmt::Debug for KeepersHands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeepersHands").field("gives", &self.gives).finish_non_exhaustive()
    }
}

impl KeepersHands {
    /// To be made within the runtime whose loop reads the keeper's answers.
    pub(super) fn new(keeper: Keeper, gives: bool) -> Self {
        Self { keeper, runtime: Handle::current(), gives }
    }

    fn ask(&self, request: Request) -> Result<(), String> {
        self.runtime.block_on(self.keeper.request(request)).map_err(|error| chain(&error))
    }
}

impl Hands for KeepersHands {
    fn give_to_groups(&self) -> bool {
        self.gives
    }

    fn link(&self, group: &GroupName, mount: &str) -> Result<(), String> {
        self.ask(Request::Link { group: group.clone(), path: mount.to_owned() })
    }

    fn unlink(&self, group: &GroupName, mount: &str) -> Result<(), String> {
        self.ask(Request::Unlink { group: group.clone(), path: mount.to_owned() })
    }

    fn readers(&self, group: &GroupName, user: &str) -> Result<(), String> {
        self.ask(Request::Readers { group: group.clone(), user: user.to_owned() })
    }

    fn reclaim(&self, group: &GroupName) -> Result<(), String> {
        self.ask(Request::Reclaim { group: group.clone() })
    }
}

/// The hands that this process needs: none where it is root itself.
pub(super) fn needed(keeper: &Keeper, gives: bool) -> Option<Box<dyn Hands>> {
    let is_root = rustix::process::geteuid().is_root();
    (!is_root).then(|| Box::new(KeepersHands::new(keeper.clone(), gives)) as Box<dyn Hands>)
}

/// The user whose rights services have that name none: the keeper's, which is root where it gave this process another one.
pub(super) fn keepers_user(split: bool) -> u32 {
    if split { 0 } else { rustix::process::geteuid().as_raw() }
}
