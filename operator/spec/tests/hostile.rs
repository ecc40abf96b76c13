//! No text makes the parser panic, hang or grow; units read back what they write.

use netsplit_spec::units::{format_duration, parse_duration, parse_rate};
use netsplit_spec::{Document, parse, validate, validate_testnet};
use proptest::prelude::*;
use std::time::Duration;

const SPLIT_BRAIN: &str = include_str!("../../../examples/split-brain.yaml");

/// Pieces that steer a mutated file into many branches.
const PIECES: [&str; 40] = [
    "\n",
    " ",
    "\t",
    ":",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "!!str ",
    "---\n",
    "? ",
    "<<: ",
    "\"",
    "'",
    "#",
    "|\n",
    ">-\n",
    "null",
    "~",
    "0",
    "-1",
    "99999999999999999999",
    "5s",
    "1e9",
    "validator",
    "full-7",
    "bridge",
    "isolate",
    "rest: ",
    "cut: ",
    "kind: Experiment",
    "expect: ",
    "stall: ",
    "\u{feff}",
    "\u{0}",
    "é",
    "\r\n",
];

#[derive(Clone, Debug)]
enum Edit {
    Insert(prop::sample::Index, usize),
    Delete(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<prop::sample::Index>(), 0..PIECES.len()).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        (any::<prop::sample::Index>(), 1usize..40).prop_map(|(at, many)| Edit::Delete(at, many)),
        (any::<prop::sample::Index>(), 1usize..200).prop_map(|(at, many)| Edit::Repeat(at, many)),
    ]
}

fn mutate(edits: &[Edit]) -> String {
    let mut text: Vec<char> = SPLIT_BRAIN.chars().collect();
    for edit in edits {
        if text.is_empty() {
            break;
        }
        match edit {
            Edit::Insert(at, piece) => {
                let at = at.index(text.len());
                text.splice(at..at, PIECES[*piece].chars());
            }
            Edit::Delete(at, many) => {
                let at = at.index(text.len());
                let end = (at + many).min(text.len());
                text.drain(at..end);
            }
            Edit::Repeat(at, many) => {
                let at = at.index(text.len());
                let end = (at + many).min(text.len());
                let piece: Vec<char> = text[at..end].to_vec();
                text.splice(at..at, piece);
            }
        }
    }
    text.into_iter().collect()
}

/// Whatever is accepted must be valid all the way; whatever is not must say something, on lines that exist.
fn holds(text: &str) {
    match parse(text, "m.yaml") {
        Err(problems) => {
            let lines = text.lines().count() as u32 + 1;
            assert!(problems.iter().next().is_some());
            for problem in &problems {
                assert!(!problem.message.is_empty() && problem.message.len() < 2_000, "{problem}");
                assert!(
                    problem.line.is_none_or(|line| (1..=lines).contains(&line)),
                    "{problem} of {lines} lines"
                );
            }
        }
        Ok(documents) => {
            assert!(!documents.is_empty());
            for document in &documents {
                match document {
                    Document::Testnet(testnet) => validate_testnet(testnet).expect("it was checked"),
                    Document::Experiment(experiment) => {
                        let testnet = documents.iter().find_map(|document| match document {
                            Document::Testnet(testnet) if testnet.name == experiment.testnet => Some(testnet),
                            _ => None,
                        });
                        if let Some(testnet) = testnet {
                            validate(experiment, testnet).expect("it was checked");
                        }
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn mutated_files_are_answered(edits in prop::collection::vec(edit(), 1..8)) {
        holds(&mutate(&edits));
    }

    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}") {
        holds(&text);
    }

    #[test]
    fn durations_read_back(micros in 0u64..200_000_000_000) {
        let duration = Duration::from_micros(micros);
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }

    #[test]
    fn any_text_is_a_duration_or_a_sentence(text in "[0-9.dhms /-]{0,30}") {
        if let Err(message) = parse_duration(&text) {
            prop_assert!(message.contains('`'));
        }
        if let Err(message) = parse_rate(&text) {
            prop_assert!(message.contains("500/s"));
        }
    }
}

#[test]
fn units_as_people_write_them() {
    let ok = [
        ("500ms", 500),
        ("20s", 20_000),
        ("1m30s", 90_000),
        ("1.5s", 1_500),
        ("0", 0),
        ("0s", 0),
        ("2h", 7_200_000),
    ];
    for (text, millis) in ok {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    for text in [
        "",
        "5",
        "s",
        "-5s",
        "5 s",
        "1s1m",
        "1s1s",
        "1.s",
        ".5s",
        "1.2.3s",
        "5sec",
        "1.0000001s",
        "0.0001ms",
        "9999999999d",
        "400d",
    ] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
    assert_eq!(parse_rate("500/s"), Ok(500));
    assert_eq!(parse_rate("500"), Ok(500));
    assert_eq!(parse_rate("120/m"), Ok(2));
    for text in ["", "-1", "1.5", "90/m", "5/h", "99999999999999999999", "5/s/s"] {
        assert!(parse_rate(text).is_err(), "{text}");
    }
}
