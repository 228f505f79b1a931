//! Hostlists: tables of what is taken and refused, properties, and what 10,000 names cost.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use spillway_core::hostlist::{Hostlist, HostlistError, MAX_NAMES, fold};

fn expand(expression: &str) -> Vec<String> {
    Hostlist::parse(expression)
        .unwrap_or_else(|error| panic!("{expression:?}: {error}"))
        .iter()
        .collect()
}

#[track_caller]
fn check(expression: &str, names: &str) {
    let expanded = expand(expression);
    assert_eq!(expanded.join(" "), names, "{expression}");
    let hostlist = Hostlist::parse(expression).unwrap();
    assert_eq!(hostlist.len(), expanded.len(), "{expression}");
    assert_eq!(hostlist.iter().len(), expanded.len(), "{expression}");
    assert_eq!(
        expand(&hostlist.to_string()),
        expanded,
        "{expression} printed as {hostlist}"
    );
}

/// Each line was printed by `scontrol show hostnames` of Slurm 22.05.8.
#[test]
fn well_formed_expressions_expand_as_in_slurm() {
    check("n1", "n1");
    check("login", "login");
    check("123", "123");
    check("[1-3]", "1 2 3");
    check("n1-2", "n1-2");
    check("n01-n03", "n01-n03");
    check("n-[1-2]", "n-1 n-2");
    check("a_b[1-2]", "a_b1 a_b2");
    check("n2,n1,n2", "n2 n1 n2");
    check("n[2,1,2]", "n2 n1 n2");
    check("n[1-2],m[1-2]", "n1 n2 m1 m2");
    check("n[1-010]", "n1 n2 n3 n4 n5 n6 n7 n8 n9 n10");
    check("n[001-3]", "n001 n002 n003");
    check("n[09-010]", "n09 n10");
    check("n[099-101]", "n099 n100 n101");
    check("n[00-3]", "n00 n01 n02 n03");
    check("n[0-0]", "n0");
    check("a[1-2][03-4]", "a103 a104 a203 a204");
    check("n[1-2]-[3-4]", "n1-3 n1-4 n2-3 n2-4");
    check("n1 n2\tn3\nn4", "n1 n2 n3 n4");
    check(" n1 ", "n1");
    check("n[18446744073709551615]", "n18446744073709551615");
    check(
        "n[0000000000000000000001-2]",
        "n0000000000000000000001 n0000000000000000000002",
    );
}

#[test]
fn several_groups_count_in_slurms_own_order() {
    check(
        "a[1-2]b[3,5]c[7-8]",
        "a1b3c7 a1b3c8 a2b3c7 a2b3c8 a1b5c7 a1b5c8 a2b5c7 a2b5c8",
    );
    check(
        "n[1-2][1-2][1-2][1-2]",
        "n1111 n1112 n2111 n2112 n1211 n1212 n2211 n2212 n1121 n1122 n2121 n2122 n1221 n1222 n2221 n2222",
    );
}

type E = HostlistError;

/// What is wrong, and where.
const MALFORMED: [(&str, E); 33] = [
    ("", E::Empty),
    (" \n", E::Empty),
    (",n1", E::EmptyItem { position: 1 }),
    ("n1,,n2", E::EmptyItem { position: 4 }),
    ("n1,", E::EmptyItem { position: 3 }),
    ("n[1-2", E::Unclosed { position: 2 }),
    ("n[", E::Unclosed { position: 2 }),
    ("m,n[1,", E::Unclosed { position: 4 }),
    ("n]1[", E::Unopened { position: 2 }),
    ("n[1-2]]", E::Unopened { position: 7 }),
    ("n[[1-2]]", E::Nested { position: 3 }),
    ("n[1[2]]", E::Nested { position: 4 }),
    ("n[]", E::EmptyRange { position: 3 }),
    ("n[1,,2]", E::EmptyRange { position: 5 }),
    ("n[1,]", E::EmptyRange { position: 5 }),
    ("n[1-]", E::OpenRange { position: 3 }),
    (
        "n[-1]",
        E::NotANumber {
            position: 3,
            character: '-',
        },
    ),
    (
        "n[1--2]",
        E::NotANumber {
            position: 5,
            character: '-',
        },
    ),
    (
        "n[1-2-3]",
        E::NotANumber {
            position: 6,
            character: '-',
        },
    ),
    (
        "n[a-c]",
        E::NotANumber {
            position: 3,
            character: 'a',
        },
    ),
    (
        "n[1, 2]",
        E::NotANumber {
            position: 5,
            character: ' ',
        },
    ),
    (
        "n[1é]",
        E::NotANumber {
            position: 4,
            character: 'é',
        },
    ),
    (
        "n[5-3]",
        E::Backwards {
            position: 3,
            low: 5,
            high: 3,
        },
    ),
    (
        "n[1-65537]",
        E::LongRange {
            position: 3,
            length: 65_537,
        },
    ),
    (
        "n[0-18446744073709551615]",
        E::LongRange {
            position: 3,
            length: u64::MAX,
        },
    ),
    (
        "n[18446744073709551614-18446744073709551615]",
        E::LargeNumber { position: 3 },
    ),
    ("n[18446744073709551616]", E::LargeNumber { position: 3 }),
    ("n99999999999999999999", E::LargeNumber { position: 1 }),
    ("n[1-2]x", E::AfterBracket { position: 7 }),
    ("n[1-2].dom", E::AfterBracket { position: 7 }),
    ("a[1-2]b[3-4]c", E::AfterBracket { position: 13 }),
    (
        "n1;reboot",
        E::Character {
            position: 3,
            character: ';',
        },
    ),
    (
        "né",
        E::Character {
            position: 2,
            character: 'é',
        },
    ),
];

#[test]
fn malformed_expressions_say_where_and_what() {
    for (expression, error) in MALFORMED {
        assert_eq!(
            Hostlist::parse(expression).unwrap_err(),
            error,
            "{expression:?}"
        );
    }
}

#[test]
fn messages_tell_what_to_write() {
    let message = |expression| Hostlist::parse(expression).unwrap_err().to_string();
    assert_eq!(
        message("n[5-3]"),
        "character 3: the range 5-3 runs backwards: write 3-5"
    );
    assert_eq!(
        message("n[1-2"),
        "character 2: this `[` is never closed: add `]` after the last number"
    );
    assert_eq!(
        message("n[[1-2]]"),
        "character 3: `[` inside a bracket: write the groups one after the other, as in n[1-2][3-4]"
    );
}

#[test]
fn expansion_is_bounded() {
    assert_eq!(Hostlist::parse("n[0-65535]").unwrap().len(), 65_536);
    assert_eq!(
        Hostlist::parse("n[1-512][1-512]").unwrap().len() as u64,
        MAX_NAMES
    );
    for expression in [
        "n[1-512][1-513]",
        "n[1-65536][1-65536][1-65536][1-65536][1-65536]",
        &"n[1-65536],".repeat(5),
    ] {
        assert_eq!(
            Hostlist::parse(expression).unwrap_err(),
            HostlistError::TooManyNames,
            "{expression}"
        );
    }
    let long = |length: usize| Hostlist::parse(&format!("{}[1-10]", "n".repeat(length)));
    assert!(long(253).is_ok());
    assert_eq!(
        long(254).unwrap_err(),
        HostlistError::LongName { position: 1 }
    );
}

/// Each line was printed by `scontrol show hostlist` of Slurm 22.05.8.
#[test]
fn names_fold_as_in_slurm() {
    for (names, folded) in [
        ("n1 n2 n10 n3", "n[1-2,10,3]"),
        ("n3 n2 n1", "n[3,2,1]"),
        ("n9 n10", "n[9-10]"),
        ("n09 n10", "n[09-10]"),
        ("n099 n100", "n[099-100]"),
        ("n1 n02 n3", "n[1,02,3]"),
        ("n1 n1 n2", "n[1,1-2]"),
        ("n1 n2 n1 n2", "n[1-2,1-2]"),
        ("n1 m1 n2", "n1,m1,n2"),
        ("n n1", "n,n1"),
        ("n1x3 n1x4 n2x3", "n1x[3-4],n2x3"),
        ("1 2 3", "[1-3]"),
        ("n0 n1 n00 n01", "n[0-1,00-01]"),
        ("n1.d n2.d", "n1.d,n2.d"),
        ("n1-1 n1-2", "n1-[1-2]"),
    ] {
        assert_eq!(fold(names.split(' ')), folded);
        assert_eq!(expand(folded).join(" "), names);
    }
    assert_eq!(fold(Vec::<String>::new()), "");
}

#[test]
fn a_fold_never_writes_a_range_that_slurm_refuses() {
    let names: Vec<String> = (0..70_000).map(|number| format!("n{number}")).collect();
    let folded = fold(&names);
    assert_eq!(folded, "n[0-65535,65536-69999]");
    assert_eq!(expand(&folded), names);
    let largest = ["n18446744073709551614", "n18446744073709551615"];
    assert_eq!(expand(&fold(largest)), largest);
}

#[test]
fn serde_reads_and_writes_the_expression() {
    let hostlist: Hostlist = serde_json::from_str("\"n[1-2],m7\"").unwrap();
    assert_eq!(serde_json::to_string(&hostlist).unwrap(), "\"n[1-2],m7\"");
    let error = serde_json::from_str::<Hostlist>("\"n[1-2\"")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("character 2: this `[` is never closed"),
        "{error}"
    );
}

#[test]
fn node_names_are_checked() {
    let names = Hostlist::parse("n[1-2]").unwrap().node_names().unwrap();
    assert_eq!(
        names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["n1", "n2"]
    );
    assert!(Hostlist::parse("ALL").unwrap().node_names().is_err());
    assert!(Hostlist::parse("-n[1-2]").unwrap().node_names().is_err());
}

/// The hook has 30 ms in all. Best of many runs, so that a busy machine does not decide.
#[test]
fn ten_thousand_names_take_less_than_2_ms_each_way() {
    let expression = "rack[01-10]-cloud[0001-1000]";
    let names = expand(expression);
    let scattered: Vec<String> = (0..10_000)
        .map(|number| format!("cloud-{}", number * 7 % 10_000))
        .collect();
    let best = |work: &dyn Fn() -> usize| {
        let timed = |_| {
            let start = Instant::now();
            assert!(work() > 0);
            start.elapsed()
        };
        (0..30).map(timed).min().unwrap()
    };
    let figures = [
        ("expand", best(&|| expand(expression).len())),
        ("fold", best(&|| fold(&names).len())),
        ("fold of scattered names", best(&|| fold(&scattered).len())),
        (
            "expand of scattered names",
            best(&|| expand(&fold(&scattered)).len()),
        ),
    ];
    println!("{figures:?}");
    for (what, took) in &figures[..3] {
        assert!(*took < Duration::from_millis(2), "{what} took {took:?}");
    }
}

/// The same rules once more, as plainly as they can be said: recursion, and strings all the way.
mod reference {
    /// `groups` of text and (low as written, high); Slurm's order: for the last group but one, for those
    /// before it from right to left, for the last group.
    pub fn product(groups: &[(String, Vec<(String, u64)>)]) -> Vec<String> {
        let (last, before) = groups.split_last().expect("at least one group");
        let mut heads = vec![String::new()];
        for (text, ranges) in before {
            let numbers = numbers(ranges);
            heads = numbers
                .iter()
                .flat_map(|number| {
                    heads
                        .iter()
                        .map(move |head| format!("{head}{text}{number}"))
                })
                .collect();
        }
        let tails = numbers(&last.1);
        heads
            .iter()
            .flat_map(|head| {
                tails
                    .iter()
                    .map(move |tail| format!("{head}{}{tail}", last.0))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    fn numbers(ranges: &[(String, u64)]) -> Vec<String> {
        let mut all = Vec::new();
        for (low, high) in ranges {
            for number in low.parse::<u64>().unwrap()..=*high {
                all.push(format!(
                    "{}{number}",
                    "0".repeat(low.len().saturating_sub(number.to_string().len()))
                ));
            }
        }
        all
    }
}

/// Text before a number: may end in a digit, which then runs into the number.
fn text() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9._-]{0,5}"
}

/// A low bound as written, perhaps padded, and a high bound.
fn range() -> impl Strategy<Value = (String, u64)> {
    (0_u64..1200, 0_usize..6, 0_u64..30)
        .prop_map(|(low, width, more)| (format!("{low:0width$}"), low + more))
}

fn item() -> impl Strategy<Value = (String, Vec<String>)> {
    let group = (text(), prop::collection::vec(range(), 1..4));
    let product = prop::collection::vec(group, 1..4).prop_map(|mut groups| {
        if groups.len() == 3 {
            // Keeps the product small enough to compare by the thousand.
            for (_, ranges) in &mut groups {
                ranges.truncate(1);
            }
        }
        let written = groups.iter().map(|(text, ranges)| {
            let ranges: Vec<String> = ranges
                .iter()
                .map(|(low, high)| format!("{low}-{high}"))
                .collect();
            format!("{text}[{}]", ranges.join(","))
        });
        (written.collect(), reference::product(&groups))
    });
    prop_oneof![text().prop_map(|name| (name.clone(), vec![name])), product]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn expansion_agrees_with_the_reference(items in prop::collection::vec(item(), 1..4)) {
        let expression = items.iter().map(|(written, _)| written.as_str()).collect::<Vec<_>>().join(",");
        let names: Vec<String> = items.into_iter().flat_map(|(_, names)| names).collect();
        prop_assume!(names.len() as u64 <= MAX_NAMES);
        let hostlist = Hostlist::parse(&expression).unwrap();
        prop_assert_eq!(hostlist.len(), names.len());
        prop_assert_eq!(hostlist.iter().collect::<Vec<_>>(), names);
    }

    #[test]
    fn fold_keeps_names_order_and_duplicates(names in prop::collection::vec("[ab]{0,1}x?0{0,2}[0-9]{1,3}|[a-c]{1,2}", 1..200)) {
        let folded = fold(&names);
        prop_assert_eq!(expand(&folded), names);
        prop_assert_eq!(fold(expand(&folded)), folded);
    }

    #[test]
    fn fold_of_an_expansion_expands_to_the_same(items in prop::collection::vec(item(), 1..3)) {
        let names: Vec<String> = items.into_iter().flat_map(|(_, names)| names).collect();
        prop_assume!(names.len() as u64 <= MAX_NAMES);
        prop_assert_eq!(expand(&fold(&names)), names);
    }

    #[test]
    fn any_text_is_a_list_or_an_error_within_it(text in "[n0-9\\[\\],é -]{0,20}|\\PC{0,20}") {
        match Hostlist::parse(&text) {
            Ok(hostlist) => prop_assert_eq!(expand(&hostlist.to_string()), expand(&text)),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
