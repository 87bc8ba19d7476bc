//! Dates as `allowed_signers` writes them: `YYYYMMDD`, `YYYYMMDDHHMM` or `YYYYMMDDHHMMSS`, with or without a `Z`.
//!
//! ssh-keygen reads a date without `Z` in the time zone of whoever runs it. Here every date is UTC: the same file must mean the same on
//! every host.

/// Seconds since 1970; `None` for what is no date.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let digits = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| digits.get(from..to).map_or(Some(0), |part| part.parse::<u64>().ok());
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
    if year < 1970
        || !(1..=12).contains(&month)
        || day < 1
        || day > days_of(year, month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let years: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let months: u64 = (1..month).map(|month| days_of(year, month)).sum();
    Some(((years + months + day - 1) * 24 + hour) * 3600 + minute * 60 + second)
}

const fn is_leap(year: u64) -> bool {
    (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
}

const fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_utc() {
        for (text, wanted) in [
            ("19700101", 0),
            ("20240229", 1_709_164_800),
            ("20260102030405", 1_767_323_045),
            ("202601020304Z", 1_767_323_040),
            ("20000301Z", 951_868_800),
        ] {
            assert_eq!(seconds(text), Some(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "2026",
            "20261301",
            "20260230",
            "20260101T00",
            "2026-01-01",
            "202601012460",
            "99999999999999",
            "19691231",
            "é0260101",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
