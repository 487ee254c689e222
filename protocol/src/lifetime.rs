//! Times as people write them: `90s`, `10m`, `1h30m`, `7d`.

use core::{fmt, time::Duration};

/// Reads how long something lives, as [`length`], and longer than no time at all.
///
/// # Errors
/// [`NoLifetime`] for anything else.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use plasmon_protocol::lifetime;
///
/// assert_eq!(lifetime::parse("1h30m"), Ok(Duration::from_secs(5_400)));
/// assert!(lifetime::parse("soon").is_err());
/// ```
pub fn parse(text: &str) -> Result<Duration, NoLifetime> {
    length(text).filter(|it| !it.is_zero()).ok_or(NoLifetime)
}

/// Reads a length of time: numbers with ms, s, m, h, d or w; seconds where none of them is said.
#[must_use]
pub fn length(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let (mut length_s, mut left) = (0.0, text.trim());
    while !left.is_empty() {
        let unit_at = left.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, rest) = left.split_at(unit_at);
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit_s = match &rest[..end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => return None,
        };
        let number = number.trim().parse::<f64>().ok().filter(|number| *number >= 0.0)?;
        length_s += number * unit_s;
        left = rest[end..].trim_start();
    }
    Duration::try_from_secs_f64(length_s).ok().filter(|_| !text.trim().is_empty())
}

/// A text is no time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLifetime;

impl fmt::Display for NoLifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write a time above zero, such as 90s, 10m, 1h30m or 7d")
    }
}

impl core::error::Error for NoLifetime {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read_with_a_unit_and_nonsense_is_refused() {
        assert_eq!(parse("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("1.5h"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse("7d"), Ok(Duration::from_secs(604_800)));
        for text in ["", "0", "0s", "-1", "NaN", "inf", "1e400d", "5x", "m", "h 1", "soon", "1é"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_of_time_are_read_with_their_units() {
        let s = |seconds| Ok(Duration::from_secs(seconds));
        let read =
            [("90s", 90), ("10m", 600), ("1h30m", 5_400), ("2d 1 min", 172_860), ("1w", 604_800), ("7", 7)];
        for (text, seconds) in read {
            assert_eq!(parse(text), s(seconds), "{text}");
        }
        assert_eq!(parse("1.5h 250ms"), Ok(Duration::from_millis(5_400_250)));
        for text in ["0", "0s", "10x", "1h-5m", "h", "1h30", "10 m s", "1e400d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
