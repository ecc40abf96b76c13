//! Plans against golden files, and cuts against their definition.

use std::collections::BTreeSet;
use std::time::Duration;

use netsplit_plan::{
    Base, CutRect, LinkFault, NodeIndex, Ramp, base_links, compile,
    expected::{Expected, Shares},
    faulted_links, plan_testnet, ramped, seed_of,
};
use netsplit_spec::{
    BaseLinks, Document, Links, Matrix, MatrixRow, Share, Testnet, Topology, ValidFault, ValidFaultKind,
    parse, wan,
};
use proptest::prelude::*;

fn quickstart() -> Testnet {
    let text = include_str!("../../../examples/quickstart.yaml");
    match parse(text, "quickstart.yaml").expect("the example is valid").remove(0) {
        Document::Testnet(testnet) => testnet,
        other @ Document::Experiment(_) => panic!("{other:?}"),
    }
}

#[test]
fn the_plan_of_the_quickstart() {
    insta::assert_json_snapshot!("quickstart", plan_testnet(&quickstart()));
}

#[test]
fn neighbours_by_topology() {
    let peers = |topology: Topology, sizes: [u32; 2]| {
        let mut testnet = quickstart();
        testnet.topology = topology;
        testnet.nodes[0].count = sizes[0];
        testnet.nodes[1].count = sizes[1];
        plan_testnet(&testnet).nodes.into_iter().map(|node| node.peers).collect::<Vec<_>>()
    };
    assert_eq!(peers(Topology::Mesh, [2, 1]), [vec![1, 2], vec![0, 2], vec![0, 1]]);
    assert_eq!(peers(Topology::Ring, [3, 2]), [vec![1, 4], vec![0, 2], vec![1, 3], vec![2, 4], vec![0, 3]]);
    assert_eq!(peers(Topology::Ring, [1, 1]), [vec![1], vec![0]]);
    assert_eq!(peers(Topology::Star, [2, 2]), [vec![1, 2, 3], vec![0], vec![0], vec![0]]);
    for topology in [Topology::Mesh, Topology::Ring, Topology::Star] {
        assert_eq!(peers(topology, [1, 0]), [Vec::<usize>::new()]);
        let peers = peers(topology, [7, 4]);
        for (node, of) in peers.iter().enumerate() {
            assert!(
                of.is_sorted() && of.iter().all(|peer| *peer != node && peers[*peer].contains(&node)),
                "{topology:?}"
            );
        }
    }
}

#[test]
fn the_seed_is_the_given_one_or_the_names() {
    let mut testnet = quickstart();
    assert_eq!(plan_testnet(&testnet).seed, seed_of("quickstart"));
    assert_ne!(seed_of("quickstart"), seed_of("quickstarT"));
    testnet.seed = Some(7);
    assert_eq!(plan_testnet(&testnet).seed, 7);
}

type Links2 = BTreeSet<(NodeIndex, NodeIndex)>;

fn union<'a>(rects: impl IntoIterator<Item = &'a CutRect>) -> Links2 {
    let pairs = rects
        .into_iter()
        .flat_map(|rect| rect.from.iter().flat_map(|from| rect.to.iter().map(|to| (*from, *to))));
    pairs.filter(|(from, to)| from != to).collect()
}

fn fault(kind: ValidFaultKind) -> ValidFault {
    ValidFault { id: "f".to_owned(), at: Duration::ZERO, lasts: Duration::from_secs(1), ramp: None, kind }
}

/// The definition, link by link: told apart from the compiler on purpose.
fn is_cut(kind: &ValidFaultKind, from: NodeIndex, to: NodeIndex) -> bool {
    match kind {
        ValidFaultKind::Partition { sides } => {
            let side = |node| sides.iter().position(|side| side.contains(&node));
            matches!((side(from), side(to)), (Some(a), Some(b)) if a != b)
        }
        ValidFaultKind::Cut { from: sources, to: targets, one_way }
        | ValidFaultKind::Link { from: sources, to: targets, one_way, .. } => {
            (sources.contains(&from) && targets.contains(&to))
                || (!one_way && sources.contains(&to) && targets.contains(&from))
        }
        ValidFaultKind::Nodes { .. } => false,
    }
}

const NODES: usize = 9;

fn subset() -> impl Strategy<Value = Vec<NodeIndex>> {
    prop::collection::btree_set(0..NODES, 1..NODES).prop_map(|set| set.into_iter().collect())
}

fn links() -> impl Strategy<Value = Links> {
    let time = || prop::option::of((0..50u64).prop_map(Duration::from_millis));
    let share = || prop::option::of((0..1_000_000u32).prop_map(Share::millionths));
    let rate = prop::option::of(10_000..1_000_000_000u64);
    (time(), time(), share(), rate, share(), share(), share()).prop_map(
        |(latency, jitter, loss, rate, duplicate, reorder, corrupt)| Links {
            latency,
            jitter,
            loss,
            rate,
            duplicate,
            reorder,
            corrupt,
        },
    )
}

/// Nine nodes over up to three regions, and some rows between those; fields beside the rows hold where a row has none.
fn linked() -> impl Strategy<Value = Testnet> {
    let name = |region: usize| format!("region-{region}");
    let rows = prop::collection::vec(prop::option::of(links()), 9);
    (prop::collection::vec(0..3usize, 0..5), rows, links()).prop_map(move |(regions, rows, links)| {
        let mut testnet = quickstart();
        testnet.nodes.truncate(1);
        testnet.nodes[0].count = NODES as u32;
        testnet.nodes[0].regions = regions.into_iter().map(name).collect();
        let row = |(n, links): (usize, Option<Links>)| {
            Some(MatrixRow { from: name(n / 3), to: name(n % 3), links: links? })
        };
        let rows = rows.into_iter().enumerate().filter_map(row).collect();
        testnet.links = Some(BaseLinks { matrix: Some(Matrix::Rows(rows)), links, ..BaseLinks::default() });
        testnet
    })
}

fn link_faults() -> impl Strategy<Value = Vec<LinkFault>> {
    let one = (subset(), subset(), any::<bool>(), links()).prop_map(|(from, to, one_way, links)| {
        let plan = compile(&fault(ValidFaultKind::Link { from, to, one_way, links }));
        LinkFault { rects: plan.rects, links: plan.links.expect("it is a link fault") }
    });
    prop::collection::vec(one, 0..5)
}

/// By all that may become of one probe.
fn assert_shares(found: Shares, links: &Links) {
    let share = |share: Option<Share>| f64::from(share.map_or(0, Share::as_millionths)) / 1e6;
    let (loss, duplicate, corrupt) = (share(links.loss), share(links.duplicate), share(links.corrupt));
    let (mut comes, mut comes_twice) = (0.0, 0.0);
    for (is_double, of_two) in [(false, 1.0 - duplicate), (true, duplicate)] {
        for (is_damaged, of_damage) in [(false, 1.0 - corrupt), (true, corrupt)] {
            let copies = u32::from(!is_damaged) + u32::from(is_double);
            let weight = (1.0 - loss) * of_two * of_damage;
            comes += if copies > 0 { weight } else { 0.0 };
            comes_twice += if copies > 1 { weight } else { 0.0 };
        }
    }
    assert!((found.lost - (1.0 - comes)).abs() < 1e-9, "{found:?} of {links:?}");
    assert!((found.duplicated * comes - comes_twice).abs() < 1e-9, "{found:?} of {links:?}");
    assert!((found.reordered - share(links.reorder)).abs() < 1e-9, "{found:?} of {links:?}");
}

proptest! {
    /// Added in any order, and some of them removed again: what holds depends only on which are active.
    #[test]
    fn the_order_of_link_faults_never_matters(
        testnet in linked(),
        faults in link_faults(),
        order in any::<prop::sample::Index>(),
    ) {
        let base = Base::of(&testnet);
        let table = faulted_links(&base, &faults);
        let mut other = faults.clone();
        other.reverse();
        if !other.is_empty() {
            let turn = order.index(other.len());
            other.rotate_left(turn);
            // Twice the same fault is that fault.
            other.push(other[0].clone());
        }
        prop_assert_eq!(faulted_links(&base, &other), table);
        prop_assert!(faulted_links(&base, &[]).is_empty());
    }

    #[test]
    fn the_tables_say_what_the_spec_and_the_faults_ask_for(testnet in linked(), faults in link_faults()) {
        let (base, expected) = (Base::of(&testnet), Expected::of(&testnet));
        let table = faulted_links(&base, &faults);
        let at_base = base_links(&base);
        for from in 0..NODES {
            for to in (0..NODES).filter(|to| *to != from) {
                let touched = faults.iter().any(|f| union(&f.rects).contains(&(from, to)));
                let row = table.iter().find(|row| (row.from, row.to) == (from, to));
                prop_assert_eq!(row.is_some(), touched);
                if let Some(row) = row {
                    let latency = expected.latency(&faults, from, to);
                    prop_assert_eq!(row.links.latency.unwrap_or_default(), latency);
                    assert_shares(expected.shares(&faults, from, to), &row.links);
                    prop_assert_eq!(row.links.rate, expected.rate(&faults, from, to));
                    prop_assert!(row.links.jitter.unwrap_or_default() <= latency);
                }
                let row = at_base.iter().find(|row| (row.from, row.to) == (from, to));
                let links = row.map(|row| row.links).unwrap_or_default();
                prop_assert_eq!(links, base.link(from, to));
                prop_assert_eq!(links.latency.unwrap_or_default(), expected.latency(&[], from, to));
                assert_shares(expected.shares(&[], from, to), &links);
                prop_assert_eq!(links.rate, expected.rate(&[], from, to));
            }
        }
    }
}

#[test]
fn the_base_is_every_link_both_ways() {
    let base = Links { latency: Some(Duration::from_millis(20)), ..Links::default() };
    let table = base_links(&Base::uniform(4, base));
    assert_eq!(table.len(), 12);
    assert!(table.iter().all(|row| row.from != row.to && row.links == base));
    assert!(base_links(&Base::uniform(4, Links::default())).is_empty());
}

/// Twice as many nodes as the pack has regions: the first half in one each, and the second as the first.
fn spread_over(pack: &str, regions: &[&str]) -> Testnet {
    let mut testnet = quickstart();
    testnet.nodes.truncate(1);
    testnet.nodes[0].count = 2 * regions.len() as u32;
    testnet.nodes[0].regions = regions.iter().map(|region| (*region).to_owned()).collect();
    testnet.links = Some(BaseLinks { regions: Some(pack.to_owned()), ..BaseLinks::default() });
    testnet
}

#[test]
fn a_link_takes_half_of_what_the_pack_measured_there_and_back() {
    for pack in wan::names() {
        let rows: Vec<Vec<&str>> =
            wan::text(pack).unwrap().lines().skip(1).map(|line| line.split(',').collect()).collect();
        let regions: BTreeSet<&str> = rows.iter().map(|row| row[0]).collect();
        let regions: Vec<&str> = regions.into_iter().collect();
        let testnet = spread_over(pack, &regions);
        let (base, expected) = (Base::of(&testnet), Expected::of(&testnet));
        let place = |name: &str| regions.iter().position(|region| *region == name).unwrap();
        for row in &rows {
            let (from, to) = (place(row[0]), regions.len() + place(row[1]));
            let half = row[2].parse::<f64>().unwrap() / 2.0;
            let links = base.link(from, to);
            for latency in [links.latency.unwrap(), expected.latency(&[], from, to)] {
                let off = (latency.as_secs_f64() * 1_000.0 - half).abs();
                assert!(off <= 0.001, "{pack}: {row:?} but {latency:?}");
            }
            let rate = row.get(3).map(|rate| netsplit_spec::parse_bits(rate).unwrap());
            assert_eq!(links.rate, rate, "{pack}: {row:?}");
        }
    }
}

/// Two directions that are exchanged, as a table could be wired, are measured as something else.
#[test]
fn the_directions_of_an_uneven_pack_are_told_apart() {
    let testnet = spread_over("seattle-peers", &["n07", "n20", "n21", "n33"]);
    let (base, expected) = (Base::of(&testnet), Expected::of(&testnet));
    let ends = (0..4).flat_map(|from| (0..from).map(move |to| (from, to)));
    let apart = ends.filter(|(from, to)| {
        let there = base.link(*from, *to).latency.unwrap();
        there.abs_diff(expected.latency(&[], *to, *from)) > netsplit_plan::expected::tolerance(there)
    });
    // 150 and 120 ms there and back, 90 and 70, 60 and 90; three more pairs are even.
    assert_eq!(apart.count(), 3);
    let rates = spread_over("simblock-2015", &["japan", "south-america"]);
    let base = Base::of(&rates);
    assert_eq!((base.link(0, 1).rate, base.link(1, 0).rate), (Some(3_400_000), Some(1_800_000)));
}

fn kind() -> impl Strategy<Value = ValidFaultKind> {
    // Each node's side; side 4 stands for none: a bridge.
    let partition = prop::collection::vec(0usize..5, NODES).prop_map(|places| {
        let side = |side| (0..NODES).filter(|node| places[*node] == side).collect::<Vec<_>>();
        ValidFaultKind::Partition { sides: (0..4).map(side).filter(|side| !side.is_empty()).collect() }
    });
    let cut = (subset(), subset(), any::<bool>()).prop_map(|(from, to, one_way)| ValidFaultKind::Cut {
        from,
        to,
        one_way,
    });
    let link = (subset(), subset(), any::<bool>(), links())
        .prop_map(|(from, to, one_way, links)| ValidFaultKind::Link { from, to, one_way, links });
    prop_oneof![partition, cut, link]
}

proptest! {
    #[test]
    fn rectangles_cut_exactly_what_the_fault_says(kind in kind()) {
        let plan = compile(&fault(kind.clone()));
        let mut expected = Links2::new();
        for from in 0..NODES {
            expected.extend((0..NODES).filter(|to| *to != from && is_cut(&kind, from, *to)).map(|to| (from, to)));
        }
        prop_assert_eq!(union(&plan.rects), expected);
        for rect in &plan.rects {
            prop_assert!(!rect.from.is_empty() && !rect.to.is_empty());
            prop_assert!(rect.from.is_sorted_by(|a, b| a < b) && rect.to.is_sorted_by(|a, b| a < b));
        }
        if let ValidFaultKind::Partition { sides } = &kind {
            prop_assert!(plan.rects.len() <= sides.len());
        }
    }

    /// Faults come and go in any order; what is cut depends only on which are active.
    #[test]
    fn the_order_of_faults_never_matters(
        kinds in prop::collection::vec(kind(), 1..5),
        toggles in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut active: Vec<usize> = Vec::new();
        for toggle in &toggles {
            let place = toggle.index(kinds.len());
            match active.iter().position(|other| *other == place) {
                Some(found) => {
                    active.remove(found);
                }
                None => active.push(place),
            }
            let plans: Vec<_> = active.iter().map(|n| compile(&fault(kinds[*n].clone()))).collect();
            let cut = union(plans.iter().flat_map(|plan| &plan.rects));
            for from in 0..NODES {
                for to in (0..NODES).filter(|to| *to != from) {
                    let expected = active.iter().any(|n| is_cut(&kinds[*n], from, to));
                    prop_assert_eq!(cut.contains(&(from, to)), expected, "{} -> {}", from, to);
                }
            }
        }
    }
}

/// 100 nodes in two halves: two rectangles of 50, not 5,000 pairs.
#[test]
fn a_half_half_cut_stays_small() {
    let sides = vec![(0..50).collect(), (50..100).collect()];
    let plan = compile(&fault(ValidFaultKind::Partition { sides }));
    assert_eq!(
        plan.rects.iter().map(|rect| (rect.from.len(), rect.to.len())).collect::<Vec<_>>(),
        [(50, 50), (50, 50)]
    );
}

#[test]
fn a_ramp_goes_in_equal_steps_to_what_the_link_says_and_stays() {
    let ms = Duration::from_millis;
    let ramp = Ramp { over: ms(2_000), latency: Some(ms(20)), loss: None };
    let goal = Links {
        latency: Some(ms(100)),
        loss: Some(Share::millionths(40_000)),
        jitter: Some(ms(5)),
        ..Links::default()
    };
    let at = |since_ms| {
        let links = ramped(&ramp, goal, since_ms);
        assert_eq!(links.jitter, goal.jitter, "what has no ramp is there at once");
        (links.latency.unwrap().as_millis(), links.loss.unwrap().as_millionths())
    };
    assert_eq!(
        [0, 499, 500, 1_000, 1_499].map(at),
        [(40, 10_000), (40, 10_000), (60, 20_000), (80, 30_000), (80, 30_000)]
    );
    assert_eq!([1_500, 2_000, 90_000].map(at), [(100, 40_000); 3]);
    let down = Ramp { over: ms(1_000), latency: Some(ms(200)), loss: Some(Share::ALL) };
    assert_eq!(ramped(&down, goal, 0).latency, Some(ms(150)), "it may get better, too");
}
