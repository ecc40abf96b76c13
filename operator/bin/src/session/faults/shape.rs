//! What a person asks for by hand.

use std::fmt;

use netsplit_backend::CutRect;
use netsplit_spec::Links;

/// What makes a fault: the nodes on its sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// No link between two sides works.
    Partition(Vec<Vec<String>>),
    /// Every link from the first to the second, and back unless one way.
    Cut { from: Vec<String>, to: Vec<String>, one_way: bool },
    /// The same links, changed instead of cut.
    Link { from: Vec<String>, to: Vec<String>, one_way: bool, links: Links },
}

impl Shape {
    /// What `heal` compares: the sides, made by `split` or by `cut`, and whether only one way is cut.
    pub fn sides(&self) -> (Vec<Vec<String>>, bool) {
        match self {
            Self::Partition(sides) => (sides.clone(), false),
            Self::Cut { from, to, one_way: true } | Self::Link { from, to, one_way: true, .. } => {
                (vec![from.clone(), to.clone()], true)
            }
            Self::Cut { from, to, one_way: false } | Self::Link { from, to, one_way: false, .. } => {
                let mut sides = vec![from.clone(), to.clone()];
                sides.sort();
                (sides, false)
            }
        }
    }

    /// What they are changed to.
    pub(super) fn links(&self) -> Option<Links> {
        match self {
            Self::Link { links, .. } => Some(*links),
            Self::Partition(_) | Self::Cut { .. } => None,
        }
    }

    /// The directed links: one rectangle a side.
    pub(super) fn rects(&self) -> Vec<CutRect> {
        match self {
            Self::Partition(sides) => (0..sides.len())
                .map(|place| CutRect {
                    from: sides[place].clone(),
                    to: sides
                        .iter()
                        .enumerate()
                        .filter(|(n, _)| *n != place)
                        .flat_map(|(_, side)| side.clone())
                        .collect(),
                })
                .collect(),
            Self::Cut { from, to, one_way } | Self::Link { from, to, one_way, .. } => {
                let mut rects = vec![CutRect { from: from.clone(), to: to.clone() }];
                if !one_way {
                    rects.push(CutRect { from: to.clone(), to: from.clone() });
                }
                rects
            }
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(sides) => {
                let sides: Vec<String> = sides.iter().map(|side| side.join(",")).collect();
                f.write_str(&sides.join(" | "))
            }
            Self::Cut { from, to, one_way } => {
                let arrow = if *one_way { "->" } else { "<->" };
                write!(f, "{} {arrow} {}", from.join(","), to.join(","))
            }
            Self::Link { from, to, one_way, links } => {
                let arrow = if *one_way { "->" } else { "<->" };
                write!(f, "{} {arrow} {}: {links}", from.join(","), to.join(","))
            }
        }
    }
}
