//! How large the release binary is.

use crate::Failure;
use crate::stage::tagfall;
use crate::table::Row;

const WANTED_MB: f64 = 25.0;

#[expect(clippy::cast_precision_loss, reason = "a file's size fits")]
pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let size = std::fs::metadata(tagfall()?)?.len() as f64 / 1e6;
    Ok(vec![Row::new("release binary", "<= 25 MB", format!("{size:.1} MB"), size <= WANTED_MB)])
}
