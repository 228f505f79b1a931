//! The evaluator against what the IAM User Guide says, above all where it surprises.

use serde_json::{Value, json};

use super::context::Context;
use super::policy::{Decision, Policy, PolicyError, Request, decide};

const INSTANCE: &str = "arn:aws:ec2:us-east-1:1:instance/i-1";

fn policy(statements: &Value) -> Policy {
    let document = json!({"Version": "2012-10-17", "Statement": statements});
    Policy::parse(&document.to_string()).unwrap()
}

fn decision(
    statements: &Value,
    action: &str,
    resource: &str,
    context: &Context,
) -> Result<Decision, PolicyError> {
    let request = Request {
        action,
        resource,
        context,
    };
    decide(&[policy(statements)], &request)
}

fn allows(statements: &Value, action: &str, resource: &str) -> bool {
    decision(statements, action, resource, &Context::default()).unwrap() == Decision::Allowed
}

/// Whether a statement with this condition applies to a request with this context.
fn met(condition: &Value, context: &Context) -> Result<bool, PolicyError> {
    let statement =
        json!({"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition});
    decision(&statement, "ec2:RunInstances", INSTANCE, context)
        .map(|decision| decision == Decision::Allowed)
}

#[track_caller]
fn is(expected: bool, condition: &Value, context: &Context) {
    assert_eq!(met(condition, context), Ok(expected), "{condition}");
}

fn tagged(value: &str) -> Context {
    Context::default().with("aws:ResourceTag/cluster", value)
}

fn tag_keys(keys: &[&str]) -> Context {
    Context::default().with_all("aws:TagKeys", keys.iter().map(|key| (*key).to_owned()))
}

#[test]
fn nothing_is_allowed_until_a_statement_allows_it_and_a_deny_outdoes_every_allow() {
    let none = Context::default();
    let allow = json!({"Effect": "Allow", "Action": "sqs:*", "Resource": "*"});
    let deny = json!({"Sid": "No", "Effect": "Deny", "Action": "sqs:SendMessage", "Resource": "*"});
    let of = |statements: Value, action| decision(&statements, action, "arn:aws:sqs:r:1:q", &none);
    assert_eq!(of(json!([]), "sqs:SendMessage"), Ok(Decision::NotAllowed));
    assert_eq!(of(json!([allow]), "sqs:SendMessage"), Ok(Decision::Allowed));
    let denied = Ok(Decision::Denied("No".to_owned()));
    for both in [json!([allow, deny]), json!([deny, allow])] {
        assert_eq!(of(both.clone(), "sqs:SendMessage"), denied);
        assert_eq!(of(both, "sqs:ReceiveMessage"), Ok(Decision::Allowed));
    }
    // One policy's deny outdoes another's allow.
    let request = Request {
        action: "sqs:SendMessage",
        resource: "arn:aws:sqs:r:1:q",
        context: &none,
    };
    let policies = [policy(&json!([deny])), policy(&json!([allow]))];
    assert_eq!(decide(&policies, &request), denied);
}

#[test]
fn actions_have_wildcards_and_no_case() {
    let table = [
        ("ec2:*", true),
        ("*", true),
        ("EC2:runinstances", true),
        ("ec2:Run*", true),
        ("ec2:?unInstances", true),
        ("ec2:Run", false),
        ("ec2:RunInstance", false),
        ("s3:*", false),
    ];
    for (action, expected) in table {
        let statement = json!({"Effect": "Allow", "Action": action, "Resource": "*"});
        assert_eq!(
            allows(&statement, "ec2:RunInstances", INSTANCE),
            expected,
            "{action}"
        );
    }
    let all_but = json!({"Effect": "Allow", "NotAction": ["iam:*", "ec2:Run*"], "Resource": "*"});
    assert!(!allows(&all_but, "ec2:RunInstances", INSTANCE));
    assert!(allows(&all_but, "ec2:DescribeInstances", "*"));
}

#[test]
fn resources_have_case_and_wildcards_that_stay_in_their_part_unless_they_end_it() {
    let table = [
        ("arn:aws:ec2:us-east-1:1:instance/*", true),
        ("arn:aws:ec2:*:*:instance/*", true),
        ("arn:aws:ec2:us-east-1:1:instance/i-?", true),
        ("arn:aws:ec2:us-east-1:1:Instance/*", false),
        ("arn:aws:ec2:us-east-1:2:instance/*", false),
        ("arn:aws:ec2:us-east-1:1:volume/*", false),
        // A star that ends its part goes on beyond the colon.
        ("arn:aws:ec2:*", true),
        ("arn:aws:ec2:us-east-*", true),
        // One in the middle of a part does not.
        ("arn:aws:e*/i-1", false),
        ("arn:aws:ec2:us-*t-1:1:instance/i-1", true),
        ("*", true),
    ];
    for (resource, expected) in table {
        let statement = json!({"Effect": "Allow", "Action": "*", "Resource": resource});
        assert_eq!(
            allows(&statement, "ec2:RunInstances", INSTANCE),
            expected,
            "{resource}"
        );
        let all_but = json!({"Effect": "Allow", "Action": "*", "NotResource": [resource]});
        assert_eq!(
            allows(&all_but, "ec2:RunInstances", INSTANCE),
            !expected,
            "NotResource {resource}"
        );
    }
}

#[test]
fn texts_are_compared_whole_and_a_not_is_true_of_a_missing_key() {
    let (ours, none) = (tagged("lab"), Context::default());
    let key = "aws:ResourceTag/cluster";
    let table = [
        ("StringEquals", "lab", true, false),
        ("StringEquals", "l*", false, false),
        ("StringEquals", "LAB", false, false),
        ("StringEqualsIgnoreCase", "LAB", true, false),
        ("StringLike", "l*", true, false),
        ("StringLike", "?a?", true, false),
        ("StringLike", "L*", false, false),
        ("StringNotEquals", "lab", false, true),
        ("StringNotEquals", "other", true, true),
        ("StringNotEqualsIgnoreCase", "LAB", false, true),
        ("StringNotLike", "l*", false, true),
        ("StringEqualsIfExists", "other", false, true),
        ("StringEqualsIfExists", "lab", true, true),
        ("StringNotEqualsIfExists", "lab", false, true),
        ("StringNotEqualsIfExists", "other", true, true),
    ];
    for (operator, value, with_key, without_key) in table {
        is(with_key, &json!({operator: {key: value}}), &ours);
        is(without_key, &json!({operator: {key: value}}), &none);
    }
    // Several values: one must match; with a "not", none may.
    is(true, &json!({"StringEquals": {key: ["a", "lab"]}}), &ours);
    is(
        false,
        &json!({"StringNotEquals": {key: ["a", "lab"]}}),
        &ours,
    );
    // An empty list matches nothing, and so a "not" everything.
    is(false, &json!({"StringEquals": {key: []}}), &ours);
    is(true, &json!({"StringNotEquals": {key: []}}), &ours);
    // Names of keys have no case.
    is(
        true,
        &json!({"StringEquals": {"AWS:resourcetag/Cluster": "lab"}}),
        &ours,
    );
}

#[test]
fn all_conditions_of_a_statement_must_be_met() {
    let context = tagged("lab").with("ec2:InstanceType", "c5.large");
    let both = |kind: &str| {
        json!({
            "StringEquals": {"aws:ResourceTag/cluster": "lab", "ec2:InstanceType": kind},
            "Null": {"ec2:CreateAction": "true"},
        })
    };
    is(true, &both("c5.large"), &context);
    is(false, &both("c5.xlarge"), &context);
    is(
        false,
        &both("c5.large"),
        &context.with("ec2:CreateAction", "RunInstances"),
    );
}

#[test]
fn arns_are_compared_part_by_part() {
    let template = "arn:aws:ec2:us-east-1:1:launch-template/lt-1";
    let context = Context::default().with("ec2:LaunchTemplate", template);
    let none = Context::default();
    let table = [
        (template, true),
        ("arn:aws:ec2:us-east-1:1:launch-template/*", true),
        ("arn:aws:ec2:*:*:launch-template/lt-?", true),
        ("arn:aws:ec2:us-east-1:1:launch-template/lt-2", false),
        // A star does not leave its part, not even at the end of one.
        ("arn:aws:ec2:*:launch-template/lt-1", false),
        ("*", false),
    ];
    for (value, expected) in table {
        for operator in ["ArnEquals", "ArnLike"] {
            is(
                expected,
                &json!({operator: {"ec2:LaunchTemplate": value}}),
                &context,
            );
            is(
                false,
                &json!({operator: {"ec2:LaunchTemplate": value}}),
                &none,
            );
        }
        for operator in ["ArnNotEquals", "ArnNotLike"] {
            is(
                !expected,
                &json!({operator: {"ec2:LaunchTemplate": value}}),
                &context,
            );
            // So a Deny with it also refuses a launch without any template.
            is(
                true,
                &json!({operator: {"ec2:LaunchTemplate": value}}),
                &none,
            );
        }
    }
}

#[test]
fn truth_and_absence() {
    let of = |value: &str| Context::default().with("ec2:IsLaunchTemplateResource", value);
    let key = "ec2:IsLaunchTemplateResource";
    is(true, &json!({"Bool": {key: "true"}}), &of("true"));
    is(true, &json!({"Bool": {key: true}}), &of("true"));
    is(false, &json!({"Bool": {key: "true"}}), &of("false"));
    // A missing key is neither true nor false.
    is(false, &json!({"Bool": {key: "false"}}), &Context::default());
    is(
        true,
        &json!({"BoolIfExists": {key: "true"}}),
        &Context::default(),
    );
    is(true, &json!({"Null": {key: "true"}}), &Context::default());
    is(false, &json!({"Null": {key: "true"}}), &of("true"));
    is(true, &json!({"Null": {key: "false"}}), &of("false"));
    is(false, &json!({"Null": {key: false}}), &Context::default());
}

#[test]
fn numbers() {
    let context = Context::default().with("aws:PrincipalTag/level", "5");
    let key = "aws:PrincipalTag/level";
    let table = [
        ("NumericEquals", "5.0", true, false),
        ("NumericNotEquals", "5", false, true),
        ("NumericLessThan", "5", false, false),
        ("NumericLessThanEquals", "5", true, false),
        ("NumericGreaterThan", "4", true, false),
        ("NumericGreaterThanEquals", "6", false, false),
        ("NumericLessThanIfExists", "5", false, true),
    ];
    for (operator, value, with_key, without_key) in table {
        is(with_key, &json!({operator: {key: value}}), &context);
        is(
            without_key,
            &json!({operator: {key: value}}),
            &Context::default(),
        );
    }
    // As a text they differ.
    is(false, &json!({"StringEquals": {key: "5.0"}}), &context);
}

#[test]
fn for_all_is_true_of_nothing_and_for_any_is_false_of_it() {
    let name_only = json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["Name", "job"]}});
    is(true, &name_only, &tag_keys(&["Name"]));
    is(true, &name_only, &tag_keys(&["Name", "job"]));
    is(false, &name_only, &tag_keys(&["Name", "cluster"]));
    is(true, &name_only, &tag_keys(&[]));
    let any = json!({"ForAnyValue:StringEquals": {"aws:TagKeys": ["Name", "job"]}});
    is(true, &any, &tag_keys(&["x", "job"]));
    is(false, &any, &tag_keys(&["x"]));
    is(false, &any, &tag_keys(&[]));
    // With a "not": of every value none may match; of any value, one that does not is enough.
    let all_not = json!({"ForAllValues:StringNotEquals": {"aws:TagKeys": ["cluster"]}});
    is(false, &all_not, &tag_keys(&["Name", "cluster"]));
    is(true, &all_not, &tag_keys(&["Name"]));
    is(true, &all_not, &tag_keys(&[]));
    let any_not = json!({"ForAnyValue:StringNotEquals": {"aws:TagKeys": ["cluster"]}});
    is(true, &any_not, &tag_keys(&["Name", "cluster"]));
    is(false, &any_not, &tag_keys(&["cluster"]));
    is(false, &any_not, &tag_keys(&[]));
    let if_exists = json!({"ForAnyValue:StringLikeIfExists": {"aws:TagKeys": ["job*"]}});
    is(true, &if_exists, &tag_keys(&[]));
    is(false, &if_exists, &tag_keys(&["x"]));
    // Together with Null: some key, and only these.
    let some = json!({
        "ForAllValues:StringEquals": {"aws:TagKeys": ["Name"]},
        "Null": {"aws:TagKeys": "false"},
    });
    is(true, &some, &tag_keys(&["Name"]));
    is(false, &some, &tag_keys(&[]));
}

#[test]
fn variables_take_the_request_s_values() {
    let own =
        json!({"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": "${ec2:SourceInstanceArn}"}});
    let reads = |keys: &[&str]| {
        let keys = keys.iter().map(|key| (*key).to_owned());
        Context::default()
            .with("ec2:SourceInstanceARN", INSTANCE)
            .with_all("dynamodb:LeadingKeys", keys)
    };
    is(true, &own, &reads(&[INSTANCE]));
    is(
        false,
        &own,
        &reads(&[INSTANCE, "arn:aws:ec2:us-east-1:1:instance/i-2"]),
    );
    // A request that names no key passes: `ForAllValues` is true of nothing.
    is(true, &own, &reads(&[]));
    // A caller that is no instance: the variable has no value, and the statement applies to nothing.
    let stranger = Context::default().with_all("dynamodb:LeadingKeys", [INSTANCE.to_owned()]);
    is(false, &own, &stranger);
    is(false, &own, &Context::default());

    let context = Context::default()
        .with("aws:userid", "AROA:i-1")
        .with("aws:PrincipalTag/team", "a*");
    is(
        true,
        &json!({"StringLike": {"aws:userid": "*:i-1"}}),
        &context,
    );
    // A wildcard in a variable's value is none.
    let by_tag = |found: &str| context.clone().with("aws:ResourceTag/team", found);
    let same = json!({"StringLike": {"aws:ResourceTag/team": "${aws:PrincipalTag/team}"}});
    is(true, &same, &by_tag("a*"));
    is(false, &same, &by_tag("ab"));
    let default =
        json!({"StringEquals": {"aws:ResourceTag/team": "${aws:PrincipalTag/none, 'x'}"}});
    is(true, &default, &by_tag("x"));
    is(false, &default, &by_tag("y"));
    let literal = json!({"StringLike": {"aws:ResourceTag/team": "a${*}"}});
    is(true, &literal, &by_tag("a*"));
    is(false, &literal, &by_tag("ab"));
}

#[test]
fn variables_stand_in_resources_too_but_not_in_old_policies() {
    let statement =
        json!({"Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3:::b/${aws:username}/*"});
    let context = Context::default().with("aws:username", "ann");
    let allowed = |resource| decision(&statement, "s3:GetObject", resource, &context);
    assert_eq!(allowed("arn:aws:s3:::b/ann/x"), Ok(Decision::Allowed));
    assert_eq!(allowed("arn:aws:s3:::b/bob/x"), Ok(Decision::NotAllowed));
    let without = decision(
        &statement,
        "s3:GetObject",
        "arn:aws:s3:::b//x",
        &Context::default(),
    );
    assert_eq!(without, Ok(Decision::NotAllowed));
    // "All but my own" must not become "all" where nobody is known.
    let all_but = json!({"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:s3:::b/${aws:username}/*"});
    let without = decision(
        &all_but,
        "s3:GetObject",
        "arn:aws:s3:::b/bob/x",
        &Context::default(),
    );
    assert_eq!(without, Ok(Decision::NotAllowed));

    let document = json!({"Version": "2008-10-17", "Statement": statement}).to_string();
    let request = Request {
        action: "s3:GetObject",
        resource: "arn:aws:s3:::b/${aws:username}/x",
        context: &context,
    };
    let old = [Policy::parse(&document).unwrap()];
    assert_eq!(decide(&old, &request), Ok(Decision::Allowed));
}

#[test]
fn what_the_lab_does_not_know_is_its_error_and_never_passes() {
    let statement = |condition: Value| {
        json!({"Version": "2012-10-17", "Statement": {
            "Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition}})
        .to_string()
    };
    for operator in [
        "IpAddress",
        "DateGreaterThan",
        "BinaryEquals",
        "StringMatches",
        "NullIfExists",
        "ForAllValues:Null",
        "ForEachValue:StringEquals",
    ] {
        let document = statement(json!({operator: {"aws:userid": "true"}}));
        let error = Policy::parse(&document).unwrap_err();
        assert_eq!(error, PolicyError::Operator(operator.to_owned()));
    }
    for (condition, value) in [
        (json!({"Null": {"aws:userid": "yes"}}), "yes"),
        (json!({"Bool": {"aws:SecureTransport": "1"}}), "1"),
        (json!({"NumericEquals": {"aws:userid": "five"}}), "five"),
    ] {
        let error = Policy::parse(&statement(condition)).unwrap_err();
        assert_eq!(error, PolicyError::Value(value.to_owned()));
    }
    let none = Context::default();
    let unknown = met(&json!({"StringNotEquals": {"aws:SourceVpc": "v"}}), &none);
    assert_eq!(unknown, Err(PolicyError::Key("aws:SourceVpc".to_owned())));
    let unknown = met(
        &json!({"StringEquals": {"aws:userid": "${aws:SourceVpc}"}}),
        &none,
    );
    assert_eq!(unknown, Err(PolicyError::Key("aws:SourceVpc".to_owned())));
    // A tag's key must follow the slash.
    let unknown = met(&json!({"StringEquals": {"aws:ResourceTag/": "v"}}), &none);
    assert_eq!(
        unknown,
        Err(PolicyError::Key("aws:ResourceTag/".to_owned()))
    );
    let several = met(
        &json!({"StringEquals": {"aws:TagKeys": "Name"}}),
        &tag_keys(&["Name"]),
    );
    assert_eq!(
        several,
        Err(PolicyError::Multivalued("aws:TagKeys".to_owned()))
    );
    let open = met(
        &json!({"StringEquals": {"aws:userid": "${aws:userid"}}),
        &none,
    );
    assert_eq!(open, Err(PolicyError::Variable("${aws:userid".to_owned())));
    for broken in [
        json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*"}}),
        json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "NotAction": "*", "Resource": "*"}}),
        json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}}),
        json!({"Version": "2012-10-17", "Statement": {"Effect": "Maybe", "Action": "*", "Resource": "*"}}),
        json!({"Version": "2099-01-01", "Statement": []}),
        json!({"Version": "2012-10-17"}),
    ] {
        let error = Policy::parse(&broken.to_string()).unwrap_err();
        assert!(
            matches!(error, PolicyError::Document(_)),
            "{broken}: {error}"
        );
    }
}
