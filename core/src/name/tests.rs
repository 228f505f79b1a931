//! What each name takes and refuses, in code and through serde.

use proptest::prelude::*;
use proptest::string::string_regex;

use super::*;

#[test]
fn names_that_are_taken() {
    for text in ["a", "hpc-1", "0", &"c".repeat(40)] {
        assert_eq!(ClusterName::new(text).unwrap().as_str(), text);
    }
    for text in ["n1", "cloud-c5.large_001", "007", &"n".repeat(64), "all1"] {
        assert_eq!(NodeName::new(text).unwrap().to_string(), text);
    }
    for text in ["i-0123abcd", "i-0123456789abcdef0"] {
        assert_eq!(InstanceId::new(text).unwrap().as_str(), text);
    }
    for text in [
        "1",
        "123",
        "123_0",
        "123_4",
        "123+1",
        "4294967295_4294967295",
    ] {
        assert_eq!(JobId::new(text).unwrap().as_str(), text);
    }
}

#[test]
fn names_that_are_refused() {
    for text in ["", "A", "a_b", "-a", "a-", "a.b", &"c".repeat(41)] {
        assert!(ClusterName::new(text).is_err(), "{text:?}");
    }
    for text in [
        "",
        "n[1-2]",
        "n1,n2",
        "n 1",
        "-n",
        ".n",
        "_n",
        "..",
        "né",
        "n\n",
        "ALL",
        "default",
        &"n".repeat(65),
    ] {
        assert!(NodeName::new(text).is_err(), "{text:?}");
    }
    for text in [
        "",
        "i-",
        "i-0123abc",
        "i-0123ABCD",
        "mi-0123abcd",
        "i-0123456789abcdef01",
    ] {
        assert!(InstanceId::new(text).is_err(), "{text:?}");
    }
    for text in ["", "a b", "a/b", "é", &"r".repeat(65)] {
        assert!(RequestId::new(text).is_err(), "{text:?}");
    }
    for text in [
        "",
        "0",
        "01",
        "x",
        "1_",
        "_1",
        "1_2_3",
        "1+",
        "-1",
        "4294967296",
        "1_01",
    ] {
        assert!(JobId::new(text).is_err(), "{text:?}");
    }
}

#[test]
fn errors_say_what_and_why_and_stay_short() {
    assert_eq!(
        NodeName::new("n[1-2]").unwrap_err().to_string(),
        "node name \"n[1-2]\" is not valid: 1 to 64 of A-Z, a-z, 0-9, _, . and -, with a letter or digit first"
    );
    assert_eq!(
        NodeName::new("All").unwrap_err().to_string(),
        "node name \"All\" is a word with a meaning of its own in Slurm: choose another name"
    );
    let long = NodeName::new("\n".repeat(1 << 20)).unwrap_err().to_string();
    assert!(long.len() < 300 && !long.contains('\n'), "{long}");
}

#[test]
fn serde_checks_what_it_reads() {
    assert_eq!(
        serde_json::to_string(&NodeName::new("n1").unwrap()).unwrap(),
        "\"n1\""
    );
    assert!(serde_json::from_str::<NodeName>("\"n1;reboot\"").is_err());
    assert!(serde_json::from_str::<NodeName>("1").is_err());
    assert_eq!(
        serde_json::from_str::<JobId>("140814").unwrap().as_str(),
        "140814"
    );
    assert_eq!(
        serde_json::from_str::<JobId>("\"12_3\"").unwrap().as_str(),
        "12_3"
    );
    assert!(serde_json::from_str::<JobId>("0").is_err());
    assert!(serde_json::from_str::<JobId>("-1").is_err());
    assert_eq!(
        serde_json::from_str::<Generation>("1800000000000000")
            .unwrap()
            .get(),
        1_800_000_000_000_000
    );
    assert!(serde_json::from_str::<Generation>("9007199254740992").is_err());
    assert!(serde_json::from_str::<Generation>("0").is_err());
    assert!(serde_json::from_str::<Generation>("\"1\"").is_err());
}

#[test]
fn a_stamp_is_always_higher_than_the_last() {
    let first = Generation::stamp(1_800_000_000_000_000, None).unwrap();
    assert_eq!(first.get(), 1_800_000_000_000_000);
    assert_eq!(first.at_ms(), 1_800_000_000_000);
    let same_moment = Generation::stamp(1_800_000_000_000_000, Some(first)).unwrap();
    assert_eq!(same_moment.get(), first.get() + 1);
    let clock_went_back = Generation::stamp(5, Some(same_moment)).unwrap();
    assert!(clock_went_back > same_moment);
    assert!(Generation::stamp(5, Some(Generation::new(MAX_GENERATION).unwrap())).is_err());
    assert_eq!(first.to_string().parse::<Generation>().unwrap(), first);
    assert!("+5".parse::<Generation>().is_err());
}

/// Whatever the published pattern allows (reserved words and lengths aside) is taken by the code.
fn check_pattern(rule: &Rule, text: &str) -> Result<(), TestCaseError> {
    let is_reserved = rule
        .reserved
        .iter()
        .any(|word| word.eq_ignore_ascii_case(text));
    prop_assert!(
        is_reserved || text.len() > rule.max_length || rule.check(text).is_ok(),
        "{} {text:?}",
        rule.kind
    );
    Ok(())
}

fn drawn(rule: &Rule) -> impl Strategy<Value = String> + use<> {
    string_regex(rule.pattern.trim_matches(['^', '$'])).unwrap()
}

const RULES: [&Rule; 12] = [
    &ClusterName::RULE,
    &NodeName::RULE,
    &PartitionName::RULE,
    &NodeGroupName::RULE,
    &RequestId::RULE,
    &JobId::RULE,
    &InstanceId::RULE,
    &Region::RULE,
    &Zone::RULE,
    &InstanceType::RULE,
    &LaunchTemplateId::RULE,
    &SubnetId::RULE,
];

proptest! {
    #[test]
    fn schema_patterns_agree_with_the_checks(names in RULES.map(drawn)) {
        for (rule, name) in RULES.iter().zip(&names) {
            check_pattern(rule, name)?;
        }
    }
}

#[test]
fn names_of_aws() {
    for (text, is_region) in [
        ("eu-central-1", true),
        ("us-gov-west-1", true),
        ("EU-1", false),
        ("eu", false),
        ("eu--1", false),
        ("1-eu", false),
    ] {
        assert_eq!(Region::new(text).is_ok(), is_region, "{text}");
    }
    for text in ["c7i.large", "u-6tb1.metal", "p5.48xlarge", "c7i.metal-24xl"] {
        assert!(InstanceType::new(text).is_ok(), "{text}");
    }
    for text in [
        "c7i",
        ".large",
        "c7i.",
        "C7i.large",
        "c7i.large.x",
        "c7i large",
    ] {
        assert!(InstanceType::new(text).is_err(), "{text}");
    }
    assert!(Zone::new("us-west-2-lax-1a").is_ok());
    assert!(LaunchTemplateId::new("lt-0123456789abcdef0").is_ok());
    assert!(LaunchTemplateId::new("my-template").is_err());
    assert!(SubnetId::new("subnet-0123abcd").is_ok());
    assert!(SubnetId::new("subnet-").is_err());
}
