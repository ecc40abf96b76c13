//! Human units on the command line.

use std::str::FromStr;

/// A duration such as `500ms`, `20s` or `1m30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration(pub std::time::Duration);

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        netsplit_spec::parse_duration(text).map(Self)
    }
}

/// A rate such as `500/s`, in events a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        netsplit_spec::parse_rate(text).map(Self)
    }
}

/// Bits a second, such as `10mbit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits(pub u64);

impl FromStr for Bits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        netsplit_spec::parse_bits(text).map(Self)
    }
}

/// A share such as `2%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(pub netsplit_spec::Share);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        netsplit_spec::parse_share(text).map(Self)
    }
}
