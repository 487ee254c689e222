//! Sizes as people write them: `50000000`, `50MB`, `4GiB`, `25%`.
//!
//! `options.rs` parses sizes with it, and messages print them with it.

use std::{fmt, str::FromStr};

/// What the operator asked for: bytes, or a share of the machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// That many bytes.
    Bytes(u64),
    /// That many hundredths of the machine's memory, 1 to 100.
    Percent(u64),
}

/// Why a size was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a size; write bytes (50000000), a unit (50MB, 4GiB, 1.5G) or a share of memory (25%)"
)]
pub struct SizeError {
    text: String,
}

impl Size {
    /// The size in bytes where there are `memory_bytes` of memory, which only a share asks for.
    #[must_use]
    pub fn to_bytes(self, memory_bytes: impl FnOnce() -> u64) -> u64 {
        match self {
            Size::Bytes(bytes) => bytes,
            Size::Percent(percent) => memory_bytes() / 100 * percent,
        }
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError { text: text.to_owned() };
        let trimmed = text.trim();
        let digits =
            trimmed.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let number = number.replace('_', "");
        let unit = unit.trim().to_ascii_lowercase();
        if unit == "%" {
            let percent = number.parse().map_err(|_| error())?;
            return if (1..=100).contains(&percent) { Ok(Size::Percent(percent)) } else { Err(error()) };
        }
        let factor: u64 = match unit.as_str() {
            "" | "b" => 1,
            "k" | "kb" => 1_000,
            "m" | "mb" => 1_000_000,
            "g" | "gb" => 1_000_000_000,
            "t" | "tb" => 1_000_000_000_000,
            "kib" | "ki" => 1 << 10,
            "mib" | "mi" => 1 << 20,
            "gib" | "gi" => 1 << 30,
            "tib" | "ti" => 1 << 40,
            _ => return Err(error()),
        };
        // Whole part and decimals apart, so that no size is rounded by a floating-point number.
        let (whole, decimals) = number.split_once('.').unwrap_or((&number, ""));
        if decimals.len() > 9 || (whole.is_empty() && decimals.is_empty()) {
            return Err(error());
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| error())? };
        let fraction = if decimals.is_empty() { 0 } else { decimals.parse::<u64>().map_err(|_| error())? };
        let scale = 10_u64.pow(u32::try_from(decimals.len()).map_err(|_| error())?);
        let fraction = u128::from(fraction) * u128::from(factor) / u128::from(scale);
        let bytes =
            whole.checked_mul(factor).and_then(|bytes| bytes.checked_add(u64::try_from(fraction).ok()?));
        bytes.map(Size::Bytes).ok_or_else(error)
    }
}

/// Shows a number of bytes as people read it: `1.5 GiB`, exact below 1 KiB.
#[derive(Clone, Copy, Debug)]
pub struct Human(pub u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Human(bytes) = *self;
        let (unit, factor) = match bytes {
            0..1_024 => return write!(f, "{bytes} bytes"),
            1_024..1_048_576 => ("KiB", 1_u64 << 10),
            1_048_576..1_073_741_824 => ("MiB", 1 << 20),
            1_073_741_824..1_099_511_627_776 => ("GiB", 1 << 30),
            _ => ("TiB", 1 << 40),
        };
        write!(f, "{}.{} {unit}", bytes / factor, bytes % factor * 10 / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("50000000", 50_000_000),
            ("50MB", 50_000_000),
            ("50_000_000 B", 50_000_000),
            ("4GiB", 4 << 30),
            ("1.5g", 1_500_000_000),
            (".5 MiB", 512 << 10),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size::Bytes(bytes)), "{text}");
        }
        assert_eq!("25%".parse::<Size>().unwrap().to_bytes(|| 1_000), 250);
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "MB", "-1", "1.2.3", "0%", "101%", "5 parsecs", "99999999999TiB", "1e9", "."] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_are_shown_with_a_unit() {
        assert_eq!(Human(1_023).to_string(), "1023 bytes");
        assert_eq!(Human(50_000_000).to_string(), "47.6 MiB");
        assert_eq!(Human(3 << 30).to_string(), "3.0 GiB");
    }
}
