//! Values of a closed list of names, tied to their meaning: the walker, the reader and the schema use the same table.
//! A new choice is one line in the macro call below.

use crate::model::{BindMode, Hardening, LogFormat, OnFailure, OnUnhealthy, Ready, ServiceKind, Strategy, Templates, Topology};

use super::settings::VerifyMode;

/// A type whose values are written as names.
pub(crate) trait Choice: Sized + Copy + 'static {
    /// The names, in the order in which they are documented.
    const NAMES: &'static [&'static str];

    /// What a name means.
    fn of(name: &str) -> Option<Self>;
}

macro_rules! choices {
    ($($type:ident { $($name:literal => $variant:ident),+ $(,)? })+) => {
        $(impl Choice for $type {
            const NAMES: &'static [&'static str] = &[$($name),+];

            fn of(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }
        })+
    };
}

choices! {
    ServiceKind { "daemon" => Daemon, "task" => Task }
    Ready { "notify" => Notify, "fd" => Fd, "health" => Health, "started" => Started }
    Hardening { "none" => None, "default" => Default, "strict" => Strict }
    OnUnhealthy { "report" => Report, "restart" => Restart }
    BindMode { "strict" => Strict, "relaxed" => Relaxed }
    Topology { "standalone" => Standalone, "leader" => Leader }
    Strategy { "at-once" => AtOnce, "rolling" => Rolling, "canary" => Canary, "manual" => Manual }
    OnFailure { "rollback" => Rollback, "halt" => Halt }
    Templates { "strict" => Strict, "lenient" => Lenient }
    LogFormat { "text" => Text, "json" => Json }
    VerifyMode { "required" => Required, "off" => Off }
}
