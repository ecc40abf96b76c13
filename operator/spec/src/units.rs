//! Units as people write them: `500ms`, `1m30s`, `500/s`.

use std::fmt::Write as _;
use std::time::Duration;

/// Longest duration taken: a year. Keeps every sum of a few of them far from overflow.
pub const MAX_DURATION: Duration = Duration::from_hours(365 * 24);

/// Longest text that can be a duration or a rate.
const MAX_TEXT: usize = 40;

/// Largest unit first, as they must be written.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)];

/// Reads `500ms`, `20s`, `1m30s`, `1.5s`; zero needs no unit. The error says what would be right.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "`{}` is not a duration: write a number and a unit, as in `500ms`, `20s` or `1m30s`",
            clip(text)
        )
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() || text.len() > MAX_TEXT {
        return Err(wrong());
    }
    let mut micros = 0u64;
    let mut rest = text;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        if unit.is_empty() && !number.is_empty() {
            return Err(format!(
                "`{}` has no unit: write `{}ms` or `{}s`",
                clip(text),
                clip(text),
                clip(text)
            ));
        }
        let place = UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(wrong)?;
        if place < next_unit {
            return Err(wrong());
        }
        next_unit = place + 1;
        let part = scaled(number, UNITS[place].1).ok_or_else(wrong)?;
        micros = micros.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    let duration = Duration::from_micros(micros);
    if duration > MAX_DURATION {
        return Err(format!("`{}` is too long: a year is the most", clip(text)));
    }
    Ok(duration)
}

/// `number` (digits, at most one dot, at most six places) times `unit`, exactly; else `None`.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || fraction.len() > 6 || number.ends_with('.') {
        return None;
    }
    let mut total = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    if !fraction.is_empty() {
        let parts = fraction.parse::<u64>().ok()?.checked_mul(unit)?;
        let divisor = 10u64.pow(fraction.len() as u32);
        if !parts.is_multiple_of(divisor) {
            return None;
        }
        total = total.checked_add(parts / divisor)?;
    }
    Some(total)
}

/// Reads a plain number of milliseconds, `73.5`, as files of measurements have it.
pub fn parse_milliseconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{}` is not a number of milliseconds, such as `73.5`", clip(text));
    let micros = Some(text).filter(|text| text.len() <= MAX_TEXT).and_then(|text| scaled(text, 1_000));
    micros.map(Duration::from_micros).filter(|time| *time <= MAX_DURATION).ok_or_else(wrong)
}

/// The shortest text that [`parse_duration`] reads back as the same value (whole microseconds).
pub fn format_duration(duration: Duration) -> String {
    let mut micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    if micros == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, unit) in UNITS {
        let mut count = (micros / unit).to_string();
        micros %= unit;
        if name == "ms" && micros > 0 {
            let fraction = format!("{micros:03}");
            count.push('.');
            count.push_str(fraction.trim_end_matches('0'));
            micros = 0;
        }
        if count != "0" {
            write!(text, "{count}{name}").expect("writing to a String succeeds");
        }
    }
    text
}

/// Reads a whole number a second: `500/s`, `500`, `30/m` (if it divides).
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{}` is not a rate: write a whole number a second, as in `500/s`", clip(text));
    let (number, per) = text.split_once('/').unwrap_or((text, "s"));
    let number: u64 = number.trim().parse().map_err(|_| wrong())?;
    match per.trim() {
        "s" => Ok(number),
        "m" | "min" if number.is_multiple_of(60) => Ok(number / 60),
        _ => Err(wrong()),
    }
}

/// A share of all packets, in millionths; written `2%` or `0.05%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    pub const ALL: Self = Self(1_000_000);

    pub fn millionths(share: u32) -> Self {
        Self(share.min(Self::ALL.0))
    }

    pub fn as_millionths(self) -> u32 {
        self.0
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, parts) = (self.0 / 10_000, self.0 % 10_000);
        let parts = format!("{parts:04}");
        let parts = parts.trim_end_matches('0');
        if parts.is_empty() { write!(f, "{whole}%") } else { write!(f, "{whole}.{parts}%") }
    }
}

/// Reads `2%`, `0.05%`; zero needs no sign. The error says what would be right.
pub fn parse_share(text: &str) -> Result<Share, String> {
    let wrong = || format!("`{}` is not a share: write `2%` or `0.05%`, at most `100%`", clip(text));
    if text == "0" {
        return Ok(Share::default());
    }
    let number = text.strip_suffix('%').filter(|number| number.len() <= MAX_TEXT).ok_or_else(wrong)?;
    let millionths = scaled(number, 10_000).ok_or_else(wrong)?;
    u32::try_from(millionths).ok().filter(|share| *share <= Share::ALL.0).map(Share).ok_or_else(wrong)
}

impl serde::Serialize for Share {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Share {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_share(&text).map_err(serde::de::Error::custom)
    }
}

/// Largest first, as [`format_bits`] tries them.
const BIT_UNITS: [(&str, u64); 4] =
    [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];

/// Reads bits a second: `10mbit`, `1.5gbit`, `500kbit`.
pub fn parse_bits(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("`{}` is not a rate of bits: write `10mbit`, `500kbit` or `1gbit` (a second)", clip(text));
    if text.len() > MAX_TEXT {
        return Err(wrong());
    }
    let lower = text.to_ascii_lowercase();
    let (number, unit) = BIT_UNITS
        .iter()
        .find_map(|(name, unit)| lower.strip_suffix(name).map(|number| (number, *unit)))
        .ok_or_else(wrong)?;
    scaled(number, unit).ok_or_else(wrong)
}

/// The text that [`parse_bits`] reads back as the same value.
pub fn format_bits(bits: u64) -> String {
    let fits = BIT_UNITS.iter().find(|(_, unit)| bits >= *unit && bits.is_multiple_of(*unit));
    let (name, unit) = fits.unwrap_or(&("bit", 1));
    format!("{}{name}", bits / unit)
}

/// An optional rate of bits as its human text.
pub mod serde_bits_option {
    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::ref_option, reason = "serde hands fields over so")]
    pub fn serialize<S: Serializer>(value: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_str(&super::format_bits(*value)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse_bits(&text).map_err(serde::de::Error::custom)).transpose()
    }
}

/// What a message repeats of a value: never a whole hostile file.
pub(crate) fn clip(text: &str) -> String {
    const SHOWN: usize = 60;
    if text.chars().count() <= SHOWN {
        return text.escape_debug().to_string();
    }
    let head: String = text.chars().take(SHOWN).collect();
    format!("{}...", head.escape_debug())
}

/// A [`Duration`] as its human text.
pub mod serde_duration {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_duration(*value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_duration(&text).map_err(serde::de::Error::custom)
    }
}

/// An optional [`Duration`] as its human text.
pub mod serde_duration_option {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    #[allow(clippy::ref_option)] // the shape serde calls
    pub fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_str(&super::format_duration(*value)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse_duration(&text).map_err(serde::de::Error::custom)).transpose()
    }
}
