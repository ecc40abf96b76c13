//! From the names that a person gives to the nodes of a fault.

use netsplit_plan::TestnetPlan;
use netsplit_proto::control::Selector;
use netsplit_spec::{Links, Testnet};

use crate::session::faults::Shape;

/// Selectors become nodes, in a fixed order: the same nodes always make the same shape. The error is a sentence.
pub fn shape(testnet: &Testnet, selector: &Selector) -> Result<Shape, String> {
    if let (Some(from), Some(to)) = (&selector.from, &selector.to) {
        let mut ends = netsplit_spec::select(testnet, &[from.nodes.clone(), to.nodes.clone()])?.into_iter();
        let (from, to) = (ends.next().unwrap_or_default(), ends.next().unwrap_or_default());
        if from == to && from.len() == 1 {
            return Err(format!("{} has no link to itself", from.concat()));
        }
        return Ok(Shape::Cut { from, to, one_way: selector.one_way });
    }
    let lists: Vec<Vec<String>> = selector.partition.iter().map(|side| side.nodes.clone()).collect();
    let mut sides = netsplit_spec::select(testnet, &lists)?;
    if sides.len() < 2 {
        return Err("a partition needs at least two sides".to_owned());
    }
    let mut all: Vec<&String> = sides.iter().flatten().collect();
    all.sort();
    if let Some([twice, _]) = all.array_windows().find(|[one, next]| one == next) {
        return Err(format!("{twice} stands on two sides"));
    }
    sides.sort();
    Ok(Shape::Partition(sides))
}

/// The same links, changed instead of cut.
pub fn changed(shape: Shape, links: Links) -> Result<Shape, String> {
    let Shape::Cut { from, to, one_way } = shape else {
        return Err("links are changed from some nodes to others: name both".to_owned());
    };
    if links.is_empty() {
        return Err("nothing would change: give a latency, a loss or another quality".to_owned());
    }
    if let Some((field, problem)) = links.problems().first() {
        return Err(format!("the {field} {problem}"));
    }
    Ok(Shape::Link { from, to, one_way, links })
}

/// A node on no side of a partition would carry the votes across: that has to be said, not to happen.
pub fn names_every_node(plan: &TestnetPlan, shape: &Shape) -> Result<(), String> {
    let Shape::Partition(sides) = shape else { return Ok(()) };
    let named = |name: &&str| sides.iter().flatten().any(|other| other == name);
    let missing: Vec<&str> =
        plan.nodes.iter().map(|node| node.name.as_str()).filter(|name| !named(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "a split names every node, else the others carry messages across: {} stand on no side (`cut` takes some links \
         only)",
        missing.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use netsplit_plan::plan_testnet;
    use netsplit_proto::control::selector::Side;
    use netsplit_spec::Document;

    use super::*;

    fn testnet() -> Testnet {
        let text = include_str!("../../../examples/quickstart.yaml");
        match netsplit_spec::parse(text, "quickstart.yaml").unwrap().remove(0) {
            Document::Testnet(testnet) => testnet,
            Document::Experiment(_) => panic!("quickstart.yaml starts with its testnet"),
        }
    }

    fn partition(sides: &[&[&str]]) -> Selector {
        let side = |names: &&[&str]| Side { nodes: names.iter().map(ToString::to_string).collect() };
        Selector { partition: sides.iter().map(side).collect(), ..Selector::default() }
    }

    #[test]
    fn groups_and_nodes_become_the_same_shape_in_any_order() {
        let one = shape(&testnet(), &partition(&[&["validator"], &["full-1", "full-0"]])).unwrap();
        let all = ["validator-3", "validator-1", "validator-0", "validator-2"];
        let other = shape(&testnet(), &partition(&[&["full"], &all])).unwrap();
        assert_eq!(one, other);
        names_every_node(&plan_testnet(&testnet()), &one).unwrap();
    }

    #[test]
    fn a_wrong_name_a_node_on_two_sides_and_a_forgotten_node_are_told() {
        let typo = shape(&testnet(), &partition(&[&["validatr-0"], &["full"]])).unwrap_err();
        assert_eq!(typo, "unknown node or group `validatr-0`, did you mean `validator-0`?");
        let twice = shape(&testnet(), &partition(&[&["validator"], &["validator-1", "full"]])).unwrap_err();
        assert_eq!(twice, "validator-1 stands on two sides");
        let some = shape(&testnet(), &partition(&[&["validator-0"], &["validator-1"]])).unwrap();
        assert!(
            names_every_node(&plan_testnet(&testnet()), &some)
                .unwrap_err()
                .contains("validator-2, validator-3, full-0, full-1")
        );
    }

    /// `heal` is given the words again, as sides whatever made the fault.
    #[test]
    fn a_random_pick_is_the_same_for_the_same_words() {
        let words = [["validator/random:1"], ["role:full"]];
        let side = |names: &[&str; 1]| Side { nodes: names.map(str::to_owned).to_vec() };
        let cut = Selector { from: Some(side(&words[0])), to: Some(side(&words[1])), ..Selector::default() };
        let made = shape(&testnet(), &cut).unwrap();
        let Shape::Cut { from, to, .. } = &made else { panic!("{made:?}") };
        assert!(from.len() == 1 && from[0].starts_with("validator-"), "{made:?}");
        assert_eq!(to, &["full-0", "full-1"]);
        let healed = shape(&testnet(), &partition(&[&words[0], &words[1]])).unwrap();
        assert_eq!(healed.sides(), made.sides());
    }
}
