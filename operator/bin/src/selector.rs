//! From the names that a person gives to the nodes of a fault.

use netsplit_plan::TestnetPlan;
use netsplit_proto::control::Selector;
use netsplit_spec::Links;

use crate::{nearest, session::faults::Shape};

/// Names become nodes, in a fixed order: the same nodes always make the same shape. The error is a sentence.
pub fn shape(plan: &TestnetPlan, selector: &Selector) -> Result<Shape, String> {
    if let (Some(from), Some(to)) = (&selector.from, &selector.to) {
        let (from, to) = (resolve(plan, &from.nodes)?, resolve(plan, &to.nodes)?);
        if from == to && from.len() == 1 {
            return Err(format!("{} has no link to itself", from.concat()));
        }
        return Ok(Shape::Cut { from, to, one_way: selector.one_way });
    }
    let sides = selector.partition.iter().map(|side| resolve(plan, &side.nodes));
    let mut sides = sides.collect::<Result<Vec<_>, _>>()?;
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

fn resolve(plan: &TestnetPlan, names: &[String]) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for name in names {
        let meant = plan.nodes.iter().filter(|node| node.name == *name || node.group == *name);
        let before = found.len();
        found.extend(meant.map(|node| node.name.clone()));
        if found.len() == before {
            let valid: Vec<String> = plan.nodes.iter().map(|node| node.name.clone()).collect();
            return Err(format!("no node or group is called `{name}`{}", nearest::hint(name, &valid)));
        }
    }
    if found.is_empty() {
        return Err("a side of a fault needs at least one node".to_owned());
    }
    found.sort();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use netsplit_proto::control::selector::Side;
    use netsplit_spec::Document;

    use super::*;

    fn plan() -> TestnetPlan {
        let text = include_str!("../../../examples/quickstart.yaml");
        match netsplit_spec::parse(text, "quickstart.yaml").unwrap().remove(0) {
            Document::Testnet(testnet) => netsplit_plan::plan_testnet(&testnet),
            Document::Experiment(_) => panic!("quickstart.yaml starts with its testnet"),
        }
    }

    fn partition(sides: &[&[&str]]) -> Selector {
        let side = |names: &&[&str]| Side { nodes: names.iter().map(ToString::to_string).collect() };
        Selector { partition: sides.iter().map(side).collect(), ..Selector::default() }
    }

    #[test]
    fn groups_and_nodes_become_the_same_shape_in_any_order() {
        let one = shape(&plan(), &partition(&[&["validator"], &["full-1", "full-0"]])).unwrap();
        let all = ["validator-3", "validator-1", "validator-0", "validator-2"];
        let other = shape(&plan(), &partition(&[&["full"], &all])).unwrap();
        assert_eq!(one, other);
        names_every_node(&plan(), &one).unwrap();
    }

    #[test]
    fn a_wrong_name_a_node_on_two_sides_and_a_forgotten_node_are_told() {
        let typo = shape(&plan(), &partition(&[&["validatr-0"], &["full"]])).unwrap_err();
        assert_eq!(typo, "no node or group is called `validatr-0`, did you mean `validator-0`?");
        let twice = shape(&plan(), &partition(&[&["validator"], &["validator-1", "full"]])).unwrap_err();
        assert_eq!(twice, "validator-1 stands on two sides");
        let some = shape(&plan(), &partition(&[&["validator-0"], &["validator-1"]])).unwrap();
        assert!(
            names_every_node(&plan(), &some)
                .unwrap_err()
                .contains("validator-2, validator-3, full-0, full-1")
        );
    }
}
