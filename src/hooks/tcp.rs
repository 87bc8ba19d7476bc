//! `builtin:tcp`: whether something accepts a connection.

use tokio::net::TcpStream;

use super::{critical, in_words, ok};
use crate::model::CheckResult;

pub(super) async fn check(address: &str) -> CheckResult {
    match TcpStream::connect(address).await {
        Ok(_) => ok(format!("connected to {address}")),
        Err(error) => critical(format!("could not connect to {address}: {}", in_words(&error))),
    }
}
