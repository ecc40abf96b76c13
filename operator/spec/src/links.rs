//! The quality of links as a user writes it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{self, Share};
use crate::wan;

/// What a packet meets on a link, as far as it is given. Where it is absent, the base of the testnet holds, and below it
/// nothing happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Links {
    /// One way.
    #[serde(with = "units::serde_duration_option", skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
    /// Largest deviation from `latency`.
    #[serde(with = "units::serde_duration_option", skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Duration>,
    /// Packets that are lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<Share>,
    /// Bits a second.
    #[serde(with = "units::serde_bits_option", skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Packets that come twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Share>,
    /// Packets that skip the latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Share>,
    /// Packets in which a bit is flipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Share>,
}

impl Links {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for Links {
    /// `latency 80ms, loss 2%`, in the units that are read back; `as they are` when nothing is given.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let duration =
            |name, value: Option<Duration>| Some(format!("{name} {}", units::format_duration(value?)));
        let share = |name, value: Option<Share>| Some(format!("{name} {}", value?));
        let parts = [
            duration("latency", self.latency),
            duration("jitter", self.jitter),
            share("loss", self.loss),
            self.rate.map(|rate| format!("rate {}", units::format_bits(rate))),
            share("duplicate", self.duplicate),
            share("reorder", self.reorder),
            share("corrupt", self.corrupt),
        ];
        let given: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(if given.is_empty() { "as they are" } else { "" })?;
        f.write_str(&given.join(", "))
    }
}

/// What every link of a testnet does without a fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BaseLinks {
    /// The name of a [pack](crate::wan): how long a link takes follows from the regions of its ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<String>,
    /// The same from a user's own figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<Matrix>,
    /// Of every link, as far as its row says nothing else.
    #[serde(flatten)]
    pub links: Links,
}

impl BaseLinks {
    /// The rows of the pack or of the matrix; none if links do not depend on regions.
    pub fn rows(&self) -> Vec<MatrixRow> {
        match (&self.regions, &self.matrix) {
            (Some(name), _) => wan::rows(name).unwrap_or_default(),
            (None, Some(Matrix::Rows(rows))) => rows.clone(),
            (None, Some(Matrix::File(_)) | None) => Vec::new(),
        }
    }
}

/// Links by region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Matrix {
    /// A file that is still to be read; no valid testnet has one.
    File(String),
    Rows(Vec<MatrixRow>),
}

/// Links from the nodes of one region to those of another one, or to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MatrixRow {
    pub from: String,
    pub to: String,
    #[serde(flatten)]
    pub links: Links,
}

/// A change of every link from one set of nodes to another, both ways unless `one_way`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkChange {
    pub from: Vec<String>,
    pub to: Vec<String>,
    /// Only packets from `from` to `to` meet it.
    #[serde(default)]
    pub one_way: bool,
    #[serde(flatten)]
    pub links: Links,
}
