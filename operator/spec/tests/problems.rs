//! What a user is told about a wrong file: every problem, each with its line and path.

use std::fmt::Write as _;

use netsplit_spec::{Files, NamedFile, parse, parse_with};

fn told(text: &str) -> Vec<String> {
    match parse(text, "a.yaml") {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// A whole file around a testnet's spec, whose first line is line 5.
fn testnet(spec: &str) -> String {
    format!("apiVersion: netsplit.dev/v1alpha1\nkind: Testnet\nmetadata: {{name: t}}\nspec:\n{spec}")
}

/// A testnet of validator-0..3 and full-0..1, then an experiment's spec, whose first line is line 12.
fn experiment(spec: &str) -> String {
    let testnet = testnet(
        "  consensus: {bft: {blockTime: 500ms}}\n  nodes: [{name: validator, role: validator, count: 4}, {name: full, role: full, count: 2}]\n",
    );
    format!(
        "{testnet}---\napiVersion: netsplit.dev/v1alpha1\nkind: Experiment\nmetadata: {{name: e}}\nspec:\n{spec}"
    )
}

fn fault(fields: &str) -> String {
    experiment(&format!("  testnet: t\n  faults:\n    - {{at: 5s, for: 15s, {fields}}}\n"))
}

#[test]
fn every_problem_is_told_at_once_with_its_place() {
    let text = testnet(
        "  consensus: {bft: {blockTme: 500ms}}
  nodes:
    - {name: Validator, role: validator, count: 4}
    - {name: full, role: ful, count: many}
    - {name: full, role: full, count: 100000}
  topology: meesh
  links: {latncy: 20ms}
  load: {transfersPerSecond: fast}
",
    );
    let expected = [
        "a.yaml:5: Testnet/t: spec.consensus.bft: unknown field `blockTme`, did you mean `blockTime`?",
        "a.yaml:6: Testnet/t: spec.nodes: 100005 nodes in all: 1000 are the most",
        "a.yaml:7: Testnet/t: spec.nodes[0].name: `Validator` contains `V`: only a-z, 0-9 and `-` are allowed",
        "a.yaml:8: Testnet/t: spec.nodes[1].role: unknown role `ful`, did you mean `full`?",
        "a.yaml:8: Testnet/t: spec.nodes[1].count: expected a whole number, 0 or more, found `many`",
        "a.yaml:9: Testnet/t: spec.nodes[2].count: 100000 is too large: 200 is the most",
        "a.yaml:9: Testnet/t: spec.nodes[2].name: `full` is the name of spec.nodes[1] already",
        "a.yaml:10: Testnet/t: spec.topology: unknown topology `meesh`, did you mean `mesh`?",
        "a.yaml:11: Testnet/t: spec.links: unknown field `latncy`, did you mean `latency`?",
        "a.yaml:12: Testnet/t: spec.load.transfersPerSecond: `fast` is not a rate: write a whole number a second, as in `500/s`",
    ];
    assert_eq!(told(&text), expected);
}

/// One problem a row: text, the line and path where it is, a part of what is said.
#[test]
fn each_kind_of_mistake_in_a_testnet() {
    let ok = "  consensus: {bft: {blockTime: 500ms}}\n";
    let nodes = "  nodes: [{name: v, role: validator}]\n";
    let rows: &[(String, &str, &str)] = &[
        (String::new(), "a.yaml: ", "has no document"),
        ("# nothing\n".to_owned(), "a.yaml: ", "has no document"),
        ("---\n---\n".to_owned(), "a.yaml: ", "has no document"),
        (
            "hello".to_owned(),
            "a.yaml:1: ",
            "expected fields (`apiVersion`, `kind`, `metadata`, `spec`), found `hello`",
        ),
        ("- a\n- b\n".to_owned(), "a.yaml:1: ", "found a list"),
        (testnet(&format!("\tconsensus: {{}}\n{nodes}")), "a.yaml:5: ", "a tab cannot indent YAML"),
        (testnet("  consensus: {bft: \n"), "a.yaml:6: ", "not valid YAML"),
        (testnet("  consensus: \"never closed\n"), "a.yaml:", "not valid YAML"),
        (testnet(&format!("{ok}{ok}{nodes}")), "a.yaml:6: ", "field `consensus` is given twice"),
        (testnet(&format!("{ok}{nodes}  ? [a]\n  : b\n")), "a.yaml:7: ", "a field's name must be text"),
        (testnet(&format!("{ok}{nodes}  seed: !!int 3\n")), "a.yaml:7: ", "tags"),
        (
            testnet(&format!("{ok}{nodes}  <<: {{seed: 1}}\n")),
            "a.yaml:7: Testnet/t: spec.<<: ",
            "merge keys are not supported",
        ),
        (
            testnet(&format!("{ok}{nodes}  seed: \"3\"\n")),
            "a.yaml:7: Testnet/t: spec.seed: ",
            "without quotes",
        ),
        (
            testnet(&format!("{ok}{nodes}  seed: 99999999999999999999\n")),
            "a.yaml:7: Testnet/t: spec.seed: ",
            "too large",
        ),
        (testnet(&format!("{ok}{nodes}  seed: -3\n")), "a.yaml:7: Testnet/t: spec.seed: ", "0 or more"),
        (
            testnet(&format!("{ok}{nodes}  load: {{}}\n")),
            "a.yaml:7: Testnet/t: spec.load.transfersPerSecond: ",
            "is missing",
        ),
        (
            testnet(&format!("{ok}{nodes}  load: {{transfersPerSecond: 0}}\n")),
            "a.yaml:7: Testnet/t: spec.load.transfersPerSecond: ",
            "0 is too small",
        ),
        (
            testnet(&format!("{ok}{nodes}  retention: {{blocks: 5}}\n")),
            "a.yaml:7: Testnet/t: spec.retention.blocks: ",
            "100 is the least",
        ),
        (
            testnet(&format!("{ok}{nodes}  chain: cometbft\n")),
            "a.yaml:7: Testnet/t: spec.chain: ",
            "write `{cometbft: {}}`",
        ),
        (
            testnet(&format!("{ok}{nodes}  chain: netspilt\n")),
            "a.yaml:7: Testnet/t: spec.chain: ",
            "did you mean `netsplit`",
        ),
        (
            testnet(&format!("{ok}{nodes}  chain: {{comet: {{}}}}\n")),
            "a.yaml:7: Testnet/t: spec.chain: ",
            "valid are `cometbft`",
        ),
        (
            testnet(&format!("{ok}{nodes}  chain: {{}}\n")),
            "a.yaml:7: Testnet/t: spec.chain.cometbft: ",
            "is missing",
        ),
        (
            testnet(&format!("{ok}{nodes}  chain: {{cometbft: {{app: noop}}}}\n")),
            "a.yaml:7: Testnet/t: spec.chain.cometbft: ",
            "has no options yet",
        ),
        (
            testnet(&format!("{ok}{nodes}  chain: {{cometbft: {{}}}}\n  retention: {{blocks: 500}}\n")),
            "a.yaml:8: Testnet/t: spec.retention: ",
            "keeps every block",
        ),
        (
            testnet(&format!("{ok}{nodes}  links: {{latency: 2ms, jitter: 20ms}}\n")),
            "a.yaml:7: Testnet/t: spec.links.jitter: ",
            "larger than `latency`",
        ),
        (
            testnet(&format!("{ok}{nodes}  faults: off\n  links: {{latency: 20ms}}\n")),
            "a.yaml:8: Testnet/t: spec.links: ",
            "leaves out the link agents",
        ),
        (
            testnet(&format!("{ok}{nodes}  links: {{latency: 20}}\n")),
            "a.yaml:7: Testnet/t: spec.links.latency: ",
            "has no unit",
        ),
        (
            testnet(&format!("{ok}{nodes}  links: {{latency: 11s}}\n")),
            "a.yaml:7: Testnet/t: spec.links.latency: ",
            "must be at most 2s",
        ),
        (
            testnet(&format!("{ok}{nodes}  links: {{loss: 0.02}}\n")),
            "a.yaml:7: Testnet/t: spec.links.loss: ",
            "is not a share: write `2%`",
        ),
        (
            testnet(&format!("{ok}{nodes}  links: {{loss: 100%}}\n")),
            "a.yaml:7: Testnet/t: spec.links.loss: ",
            "use a `cut`",
        ),
        (
            testnet(&format!("{ok}{nodes}  links: {{rate: 10}}\n")),
            "a.yaml:7: Testnet/t: spec.links.rate: ",
            "write `10mbit`",
        ),
        (
            testnet(&format!("{ok}{nodes}  links: {{rate: 10bit}}\n")),
            "a.yaml:7: Testnet/t: spec.links.rate: ",
            "between 10kbit and 100gbit",
        ),
        (
            testnet(&format!("{ok}  nodes: []\n")),
            "a.yaml:6: Testnet/t: spec.nodes: ",
            "a testnet needs nodes",
        ),
        (testnet(ok), "a.yaml:4: Testnet/t: spec.nodes: ", "is missing"),
        (
            testnet(&format!("{ok}  nodes: [{{name: f, role: full}}]\n")),
            "a.yaml:6: Testnet/t: spec.nodes: ",
            "no group has `role: validator`",
        ),
        (
            testnet(&format!("{ok}  nodes: [{{name: v, role: validator, count: 0}}]\n")),
            "a.yaml:6: Testnet/t: spec.nodes[0].count: ",
            "0 is too small",
        ),
        (
            testnet(&format!("{ok}  nodes: [{{role: validator}}]\n")),
            "a.yaml:6: Testnet/t: spec.nodes[0].name: ",
            "is missing",
        ),
        (
            testnet(&format!(
                "{ok}  nodes: [{{name: v, role: validator, count: 2}}, {{name: v-1, role: full}}]\n"
            )),
            "a.yaml:6: Testnet/t: spec.nodes[1].name: ",
            "`v-1` is a node of group `v` already",
        ),
        (
            testnet(&format!("  consensus: {{bfd: {{}}}}\n{nodes}")),
            "a.yaml:5: Testnet/t: spec.consensus: ",
            "unknown field `bfd`, did you mean `bft`?",
        ),
        (
            testnet(&format!("  consensus: {{bft: {{blockTime: 500}}}}\n{nodes}")),
            "a.yaml:5: Testnet/t: spec.consensus.bft.blockTime: ",
            "`500` has no unit: write `500ms` or `500s`",
        ),
        (
            testnet(&format!("  consensus: {{bft: {{blockTime: 1ms}}}}\n{nodes}")),
            "a.yaml:5: Testnet/t: spec.consensus.bft.blockTime: ",
            "between 10ms and 10m",
        ),
        (
            testnet(&format!("{ok}{nodes}")).replace("{name: t}", "{name: -t}"),
            "a.yaml:3: Testnet/-t: metadata.name: ",
            "begin and end",
        ),
        (
            testnet(&format!("{ok}  nodes: [{{name: v, role: validator, region: eu west}}]\n")),
            "a.yaml:6: Testnet/t: spec.nodes[0].region: ",
            "`eu west` contains ` `",
        ),
        (
            testnet(&format!("{ok}  nodes: [{{name: v, role: validator, regions: [eu, 'a/b']}}]\n")),
            "a.yaml:6: Testnet/t: spec.nodes[0].regions[1]: ",
            "`a/b` contains `/`",
        ),
        (
            testnet(&format!("{ok}  nodes: [{{name: v, role: validator, region: eu, regions: [eu]}}]\n")),
            "a.yaml:6: Testnet/t: spec.nodes[0].regions: ",
            "is given beside `region`",
        ),
        (
            testnet(&format!("{ok}{nodes}")).replace("{name: t}", &format!("{{name: {}}}", "t".repeat(41))),
            "a.yaml:3: ",
            "has 41 characters: 40 are the most",
        ),
        (
            testnet(&format!("{ok}{nodes}")).replace("{name: t}", "{}"),
            "a.yaml:3: Testnet: metadata.name: ",
            "is missing",
        ),
        (
            testnet(&format!("{ok}{nodes}")).replace("kind: Testnet", "kind: Tesnet"),
            "a.yaml:2: kind: ",
            "did you mean `Testnet`?",
        ),
        (
            testnet(&format!("{ok}{nodes}")).replace("v1alpha1", "v1"),
            "a.yaml:1: Testnet/t: apiVersion: ",
            "reads `netsplit.dev/v1alpha1` only",
        ),
        (
            format!("{0}---\n{0}", testnet(&format!("{ok}{nodes}"))),
            "a.yaml:10: Testnet/t: metadata.name: ",
            "there is a testnet of this name in the file already (line 3)",
        ),
    ];
    for (text, place, part) in rows {
        let told = told(text);
        assert_eq!(told.len(), 1, "{text}\n{told:#?}");
        assert!(
            told[0].starts_with(place) && told[0].contains(part),
            "{text}\nwanted {place}...{part}\n{told:#?}"
        );
    }
}

#[test]
fn each_kind_of_mistake_in_an_experiment() {
    let all = "[[validator], [full]]";
    let f = |fields: &str| fault(fields);
    let at = "a.yaml:14: Experiment/e: spec.faults[0]";
    let ex = |spec: &str| {
        experiment(&format!(
            "  testnet: t\n  faults: [{{name: split, at: 5s, for: 15s, partition: {all}}}]\n  expect:\n    - {spec}\n"
        ))
    };
    let e = "a.yaml:15: Experiment/e: spec.expect[0]";
    let rows: Vec<(String, String, &str)> = vec![
        (
            f("partition: [[validator-0, validator-1], [validator-2, validator-3]]"),
            format!("{at}.partition: "),
            "does not say where `full-0` and `full-1` stand",
        ),
        (
            f("partition: [[validator], [full-0]]"),
            format!("{at}.partition: "),
            "where `full-1` stands: name every node, or add `rest: isolate`",
        ),
        (
            f("partition: [[validator, validator-2], [full]]"),
            format!("{at}.partition[0][1]: "),
            "`validator-2` stands on side 0 already, as part of `validator`",
        ),
        (
            f("partition: [[validator], [full, validator-2]]"),
            format!("{at}.partition[1][1]: "),
            "stands on side 0 already",
        ),
        (
            f("partition: [[validatr], [full]], rest: bridge"),
            format!("{at}.partition[0][0]: "),
            "unknown node or group `validatr`, did you mean `validator`?",
        ),
        (
            f("partition: [[validator-4], [full]], rest: bridge"),
            format!("{at}.partition[0][0]: "),
            "the last of group `validator` is `validator-3`",
        ),
        (f("partition: [[validator], []], rest: isolate"), format!("{at}.partition[1]: "), "names no node"),
        (f("partition: [[validator, full]]"), format!("{at}.partition: "), "one side only"),
        (
            f("partition: [[validator], [full-0]], rest: isolat"),
            format!("{at}.rest: "),
            "did you mean `isolate`?",
        ),
        (
            f("partition: [[validator], [full-0]], rest: 2"),
            format!("{at}.rest: "),
            "there is no side 2: the last is 1",
        ),
        (
            f("partition: [[validator-0, full-0], [validator-1]], rest: validator"),
            format!("{at}.rest: "),
            "does not stand on one side",
        ),
        (
            f("partition: [[validator-0, full-0], [validator-1]], rest: full-1"),
            format!("{at}.rest: "),
            "stands on no side itself",
        ),
        (f("cut: {from: [validator-0], to: [validator-0]}"), format!("{at}.cut: "), "off from itself"),
        (
            f("cut: {from: [validator-0], too: [validator-1], to: [full]}"),
            format!("{at}.cut: "),
            "unknown field `too`, did you mean `to`?",
        ),
        (
            f("cut: {from: [validator-0], to: [full], oneWay: yes}"),
            format!("{at}.cut.oneWay: "),
            "expected `true` or `false`, found `yes`",
        ),
        (
            f("cut: {from: [validator-0], to: [full]}, rest: bridge"),
            format!("{at}.rest: "),
            "only a `partition` has a `rest`",
        ),
        (f(&format!("cut: {{from: [full-0], to: [full-1]}}, partition: {all}")), format!("{at}: "), "both"),
        (
            f("cut: {from: ['role:validatr'], to: [full]}"),
            format!("{at}.cut.from[0]: "),
            "unknown role `validatr`, did you mean `validator`?",
        ),
        (
            f("cut: {from: [full], to: ['rol:validator']}"),
            format!("{at}.cut.to[0]: "),
            "unknown selector `rol`, did you mean `role`?",
        ),
        (
            f("cut: {from: [full], to: ['region:eu']}"),
            format!("{at}.cut.to[0]: "),
            "no node has a region: give the groups a `region`",
        ),
        (
            f("cut: {from: [full], to: [random: 1]}"),
            format!("{at}.cut.to[0]: "),
            "write `random:1`, without a space",
        ),
        (
            f("cut: {from: [full], to: ['validator/random:none']}"),
            format!("{at}.cut.to[0]: "),
            "`validator/random:none` is no random pick: write `random:2`",
        ),
        (f("cut: {from: [full], to: ['random:0']}"), format!("{at}.cut.to[0]: "), "is no random pick"),
        (
            f("cut: {from: [full], to: ['validatr/random:1']}"),
            format!("{at}.cut.to[0]: "),
            "unknown node or group `validatr`, did you mean `validator`?",
        ),
        (
            f("cut: {from: [full-0], to: ['full/random:2']}"),
            format!("{at}.cut.to[0]: "),
            "asks for 2, but only 1 can be picked",
        ),
        (
            f("partition: [[validator], ['random:1', full-0]], rest: 'random:1'"),
            format!("{at}.rest: "),
            "picks nodes anew: name a group or a node",
        ),
        (f("name: x"), format!("{at}: "), "does nothing"),
        (
            f("kill: [validator-9]"),
            format!("{at}.kill[0]: "),
            "the last of group `validator` is `validator-3`",
        ),
        (
            f("kill: [validator-0]").replace("  testnet: t", "  testnet: t\n  abort: {}"),
            "a.yaml:13: Experiment/e: spec.abort: ".to_owned(),
            "write for example `silent: 60s`",
        ),
        (f("pause: []"), format!("{at}.pause: "), "names no node"),
        (f("ramp: {over: 5s}, kill: [validator-0]"), format!("{at}.ramp: "), "only a `link` has a `ramp`"),
        (
            f("ramp: {over: 14s}, link: {from: [full-0], to: [full-1], latency: 1ms}"),
            format!("{at}.ramp.over: "),
            "of the 15s that the fault lasts: make that 16s or more",
        ),
        (
            f("ramp: {over: 5s, loss: 1%}, link: {from: [full-0], to: [full-1], latency: 1ms}"),
            format!("{at}.ramp.loss: "),
            "leads nowhere",
        ),
        (
            f("ramp: {over: 5s}, link: {from: [full-0], to: [full-1], rate: 1mbit}"),
            format!("{at}.ramp: "),
            "has nothing to change",
        ),
        (
            f("ramp: {latency: 1ms}, link: {from: [full-0], to: [full-1], latency: 1ms}"),
            format!("{at}.ramp.over: "),
            "is missing",
        ),
        (f("every: 30s, kill: [validator-0]"), format!("{at}.every: "), "needs `repeat` beside it"),
        (f("repeat: 5, kill: [validator-0]"), format!("{at}.repeat: "), "needs `every` beside it"),
        (f("every: 15s, repeat: 5, kill: [validator-0]"), format!("{at}.every: "), "16s is the least"),
        (f("every: 16s, repeat: 0, kill: [validator-0]"), format!("{at}.repeat: "), "between 1 and 100"),
        (f("every: 16s, repeat: 101, kill: [validator-0]"), format!("{at}.repeat: "), "between 1 and 100"),
        (f("every: 1h, repeat: 26, kill: [validator-0]"), format!("{at}.repeat: "), "would start at 1d1h"),
        (f("restart: validator-0"), format!("{at}.restart: "), "expected a list of node or group names"),
        (f("kill: [validator-0], pause: [validator-0]"), format!("{at}: "), "has both `kill` and `pause`"),
        (f("kill: [validator-0], rest: bridge"), format!("{at}.rest: "), "only a `partition` has a `rest`"),
        (f("link: {from: [full-0], to: [full-1]}"), format!("{at}.link: "), "changes nothing"),
        (f("link: {from: [full-0], to: [full-0], latency: 1ms}"), format!("{at}.link: "), "to itself"),
        (
            f("link: {from: [ful], to: [full-0], latency: 1ms}"),
            format!("{at}.link.from[0]: "),
            "did you mean `full`?",
        ),
        (
            f("link: {from: [full-0], to: [full-1], latency: 1ms, lag: 1ms}"),
            format!("{at}.link: "),
            "unknown field `lag`",
        ),
        (f("link: {from: [full-0], to: [full-1], loss: 2}"), format!("{at}.link.loss: "), "write `2%`"),
        (
            f("link: {from: [full-0], to: [full-1], loss: 1%}, cut: {from: [full-0], to: [full-1]}"),
            format!("{at}: "),
            "has both `cut` and `link`",
        ),
        (
            f(&format!("partition: {all}")).replace("for: 15s", "for: 0.5s"),
            format!("{at}.for: "),
            "500ms is too short, 1s is the least: a fault that is shorter cannot be proven",
        ),
        (f(&format!("partition: {all}")).replace("at: 5s", "at: 2d"), format!("{at}.at: "), "2d is too long"),
        (f(&format!("partition: {all}")).replace("at: 5s, ", ""), format!("{at}.at: "), "is missing"),
        (
            f(&format!("partition: {all}")).replace("  testnet: t", "  testnet: t\n  baseline: 6s"),
            "a.yaml:13: Experiment/e: spec.baseline: ".to_owned(),
            "longer than the time before the first fault (`at: 5s`)",
        ),
        (
            experiment("  testnet: t\n"),
            "a.yaml:11: Experiment/e: spec: ".to_owned(),
            "neither `faults` nor `expect`",
        ),
        (
            experiment("  expect: [agreement: {}]\n"),
            "a.yaml:11: Experiment/e: spec.testnet: ".to_owned(),
            "is missing",
        ),
        (
            experiment("  testnet: tt\n  expect: [agreement: {}]\n"),
            "a.yaml:12: Experiment/e: spec.testnet: ".to_owned(),
            "unknown testnet `tt`, did you mean `t`?",
        ),
        (
            experiment("  testnet: t\n  expect: [stall: {within: 5s}]\n"),
            "a.yaml:13: Experiment/e: spec.expect[0].stall: ".to_owned(),
            "`stall` needs a fault",
        ),
        (ex("{stal: {within: 5s}}"), format!("{e}: "), "unknown field `stal`, did you mean `stall`?"),
        (ex("stall: {}"), format!("{e}.stall.within: "), "is missing"),
        (ex("stall"), format!("{e}: "), "`stall` needs a time"),
        (
            ex("stall: {within: 15s}"),
            format!("{e}.stall.within: "),
            "15s is not shorter than the fault (`for: 15s`)",
        ),
        (ex("stall: {within: 14s}"), format!("{e}.stall.within: "), "less than 4 blocks (blockTime 500ms)"),
        (
            ex("recover: {within: 500ms}"),
            format!("{e}.recover.within: "),
            "not longer than the testnet's blockTime (500ms)",
        ),
        (ex("recover: {within: 5s, after: splitt}"), format!("{e}.recover.after: "), "did you mean `split`?"),
        (ex("agreement: {within: 5s}"), format!("{e}.agreement: "), "takes no fields: write `agreement: {}`"),
        (ex("validity: {within: 5s}"), format!("{e}.validity: "), "takes no fields: write `validity: {}`"),
        (ex("{agreement: {}, progress: {}}"), format!("{e}: "), "several expectations"),
        (ex("{}"), format!("{e}: "), "is empty"),
    ];
    for (text, place, part) in rows {
        let told = told(&text);
        assert_eq!(told.len(), 1, "{text}\n{told:#?}");
        assert!(
            told[0].starts_with(&place) && told[0].contains(part),
            "{text}\nwanted {place}...{part}\n{told:#?}"
        );
    }
}

#[test]
fn faults_are_checked_even_if_a_part_of_them_cannot_be_read() {
    let text = experiment(
        "  testnet: t
  faults:
    - {at: soon, for: 15s, partition: [[validator], [ful]], rest: bridge}
    - {name: fault-0, at: 5s, for: 15s, cut: {from: [nobody], to: [full]}}
  expect:
    - recover: {within: long, after: fault-7}
",
    );
    let told = told(&text);
    let parts = [
        "`soon` is not a duration",
        "`ful`, did you mean `full`",
        "is the name of spec.faults[0] already",
        "unknown node or group `nobody`",
        "`long` is not a duration",
        "unknown fault `fault-7`",
    ];
    assert_eq!(told.len(), parts.len(), "{told:#?}");
    for part in parts {
        assert!(told.iter().any(|line| line.contains(part)), "{part}\n{told:#?}");
    }
}

#[test]
fn a_syntax_error_does_not_hide_the_documents_before_it() {
    let text = format!("{}---\n{{ broken\n", testnet("  consensus: {bft: {blockTime: 500ms}}\n"));
    let told = told(&text);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].contains("spec.nodes: is missing") && told[1].contains("not valid YAML"), "{told:#?}");
}

#[test]
fn aliases_work_but_do_not_explode() {
    let sides = experiment(
        "  testnet: t
  faults:
    - {at: 5s, for: 15s, partition: &sides [[validator], [full]]}
    - {at: 30s, for: 15s, partition: *sides}
",
    );
    assert_eq!(told(&sides), Vec::<String>::new());
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..20 {
        let ten = format!("*a{}, ", n - 1).repeat(10);
        writeln!(bomb, "a{n}: &a{n} [{ten}]").expect("writing to a String succeeds");
    }
    assert!(told(&bomb).iter().any(|line| line.contains("more than 50000 values")), "{:#?}", told(&bomb));
    assert!(told("a: &a [*a]\n").iter().any(|line| line.contains("alias")), "{:#?}", told("a: &a [*a]\n"));
    let deep = "[".repeat(40);
    assert!(told(&deep).iter().any(|line| line.contains("nested deeper than 32 levels")));
    assert!(!told(&"[".repeat(100_000)).is_empty());
    assert!(told(&"x".repeat(2 << 20)).iter().any(|line| line.contains("larger than 1024 KiB")));
}

#[test]
fn a_list_of_problems_is_bounded() {
    let rows = (0..500).map(|n| format!("  field{n}: x")).collect::<Vec<_>>().join("\n");
    let told = told(&testnet(&rows));
    assert_eq!(told.len(), 101);
    assert!(told[100].contains("more problems are not listed"), "{}", told[100]);
}

/// The links of two groups, in eu and us, below line 5.
fn linked(links: &str) -> String {
    testnet(&format!(
        "  consensus: {{bft: {{blockTime: 500ms}}}}\n  links: {{{links}}}\n  nodes:\n    - {{name: v, role: validator, \
         region: eu}}\n    - {{name: w, role: validator, regions: [us, eu]}}\n"
    ))
}

#[test]
fn each_kind_of_mistake_in_links_by_region() {
    let both = "{from: eu, to: us, latency: 9ms}, {from: us, to: eu, latency: 9ms}";
    let at = "a.yaml:6: Testnet/t: spec.links";
    let rows: Vec<(String, String, &str)> = vec![
        (
            linked("regions: aws-cometbft"),
            format!("{at}.regions: "),
            "unknown pack `aws-cometbft`, did you mean `aws-cometbft-e2e`?",
        ),
        (
            linked(&format!("matrix: [{both}], latency: 5ms")),
            format!("{at}.latency: "),
            "is given beside `matrix`, which says how long each link takes",
        ),
        (
            linked(&format!("matrix: [{both}], regions: simblock-2019")),
            format!("{at}.matrix: "),
            "is given beside `regions`",
        ),
        (
            linked("matrix: [{from: eu, to: us, latency: 9ms}]"),
            format!("{at}.matrix: "),
            "does not say how long packets take from `us` to `eu`: a row is one direction",
        ),
        (
            linked(&format!("matrix: [{both}, {{from: eu, to: us, latency: 1ms}}]")),
            format!("{at}.matrix[2]: "),
            "is from and to the regions of spec.links.matrix[0] already",
        ),
        (
            linked(&format!("matrix: [{both}, {{from: eu, to: eu, latency: 3s}}]")),
            format!("{at}.matrix[2].latency: "),
            "must be at most 2s",
        ),
        (
            linked(&format!("matrix: [{both}, {{from: eu, to: eu, latency: 1ms, jitter: 2ms}}]")),
            format!("{at}.matrix[2].jitter: "),
            "is larger than `latency`",
        ),
        (
            linked(&format!("matrix: [{both}, {{to: eu, latency: 1ms}}]")),
            format!("{at}.matrix[2].from: "),
            "is missing",
        ),
        (
            linked(&format!("matrix: [{both}]")).replace("region: eu}", "region: eur}"),
            "a.yaml:8: Testnet/t: spec.nodes[0].region: ".to_owned(),
            "unknown region `eur`, did you mean `eu`?",
        ),
        (
            linked(&format!("matrix: [{both}]")).replace("[us, eu]", "[us, moon]"),
            "a.yaml:9: Testnet/t: spec.nodes[1].regions[1]: ".to_owned(),
            "unknown region `moon`, valid are `eu`, `us`",
        ),
        (
            linked(&format!("matrix: [{both}]")).replace(", region: eu}", "}"),
            "a.yaml:8: Testnet/t: spec.nodes[0]: ".to_owned(),
            "has no `region`, which `links: {matrix: ...}` needs: write for example `region: eu`",
        ),
    ];
    for (text, place, part) in rows {
        let told = told(&text);
        assert_eq!(told.len(), 1, "{text}\n{told:#?}");
        assert!(
            told[0].starts_with(&place) && told[0].contains(part),
            "{text}\nwanted {place}...{part}\n{told:#?}"
        );
    }
}

fn told_of_file(text: Result<&str, &str>) -> Vec<String> {
    let text = text.map(str::to_owned).map_err(str::to_owned);
    let files = Files::from([("m.csv".to_owned(), NamedFile { path: "net/m.csv".to_owned(), text })]);
    match parse_with(&linked("matrix: m.csv"), "a.yaml", &files) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn every_problem_of_a_matrix_file_is_told_at_once_with_its_line() {
    let text = "# mine
from,to,latency,loss,rate
eu,us,9ms,2,
us,eu,9,,10mbit

us,us,1ms,,
eu,eu,1ms
e/u,us,,100%,1bit
us,us,3s,,
us,eu,9ms,100%,
";
    let line = |n: u32, what: &str| format!("net/m.csv:{n}: Testnet/t: spec.links.matrix: {what}");
    let expected = [
        line(3, "loss: `2` is not a share: write `2%` or `0.05%`, at most `100%`"),
        line(4, "latency: `9` has no unit: write `9ms` or `9s`"),
        line(7, "has 3 values, but there are 5 columns"),
        line(8, "from: `e/u` contains `/`: only letters, digits, `-`, `_`, `.` and `:` are allowed"),
        line(9, "latency: must be at most 2s"),
        line(10, "loss: nothing would arrive: use a `cut`, which is proven as such"),
    ];
    assert_eq!(told_of_file(Ok(text)), expected);
    let one = |text: &str, n: u32, part: &str| {
        let told = told_of_file(Ok(text));
        assert!(
            told.len() == 1 && told[0].starts_with(&line(n, "")) && told[0].contains(part),
            "{text}\n{told:#?}"
        );
    };
    one("", 1, "is empty: the first line names the columns");
    one("from,to,rtt\n", 1, "unknown column `rtt`");
    one("from,rtt_ms\n", 1, "column `to` is missing");
    one("from,to,jitter\n", 1, "must have one of the columns `latency`");
    one("from,to,latency,rtt_ms\n", 1, "must have one of the columns `latency`");
    one("from,to,rtt_ms,to\n", 1, "column `to` is given twice");
    one("from,to,rtt_ms\neu,us,9\nus,eu,fast\n", 3, "rtt_ms: `fast` is not a number of milliseconds");
    one("from,to,rtt_ms\neu,us,9\nus,eu,\n", 3, "latency: is missing: leave out the row");
    one("from,to,rtt_ms\neu,us,9\nus,eu,9\neu,us,9\n", 4, "from `eu` to `us` is there already (line 2)");
    one(&"x".repeat(2 << 20), 1, "larger than 1024 KiB");
    let missing = told_of_file(Err("No such file"));
    assert_eq!(missing, ["a.yaml:6: Testnet/t: spec.links.matrix: cannot read `m.csv`: No such file"]);
    let told = told_of_file(Ok("from,to,rtt_ms\neu,us,9\n"));
    assert!(
        told.len() == 1 && told[0].starts_with("a.yaml:6: ") && told[0].contains("from `us` to `eu`"),
        "{told:#?}"
    );
}
