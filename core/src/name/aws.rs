//! Names that AWS gives: region, zone, instance, instance type, launch template, subnet.

use super::{Rule, all_in, deserialize_from_string, name};

deserialize_from_string!(
    InstanceId,
    Region,
    Zone,
    InstanceType,
    LaunchTemplateId,
    SubnetId
);

name!(
    /// An EC2 instance, in the short form of before 2016 or the long one.
    InstanceId,
    Rule {
        kind: "instance id",
        max_length: 19,
        words: "i- and 8 or 17 hexadecimal digits in lower case",
        pattern: "^i-([0-9a-f]{8}|[0-9a-f]{17})$",
        reserved: &[],
        is_valid: is_instance_id,
    }
);

name!(
    /// An AWS region.
    Region,
    Rule {
        kind: "region",
        max_length: 32,
        words: "a region such as eu-central-1",
        pattern: "^[a-z]{2,8}(-[a-z0-9]{1,12}){1,4}$",
        reserved: &[],
        is_valid: is_place,
    }
);

name!(
    /// An availability zone or local zone, by its name in this account.
    Zone,
    Rule {
        kind: "zone",
        max_length: 48,
        words: "a zone such as eu-central-1a (its name, not its id)",
        pattern: "^[a-z]{2,8}(-[a-z0-9]{1,12}){1,4}$",
        reserved: &[],
        is_valid: is_place,
    }
);

name!(
    /// An EC2 instance type.
    InstanceType,
    Rule {
        kind: "instance type",
        max_length: 32,
        words: "a type such as c7i.large",
        pattern: "^[a-z0-9-]{1,20}[.][a-z0-9-]{1,11}$",
        reserved: &[],
        is_valid: is_instance_type,
    }
);

name!(
    /// An EC2 launch template, by its id: a name could be given to another template later.
    LaunchTemplateId,
    Rule {
        kind: "launch template id",
        max_length: 32,
        words: "lt- and digits or letters in lower case, such as lt-0123456789abcdef0",
        pattern: "^lt-[0-9a-z]{1,29}$",
        reserved: &[],
        is_valid: is_launch_template_id,
    }
);

name!(
    /// A subnet.
    SubnetId,
    Rule {
        kind: "subnet id",
        max_length: 32,
        words: "subnet- and digits or letters in lower case, such as subnet-0123456789abcdef0",
        pattern: "^subnet-[0-9a-z]{1,25}$",
        reserved: &[],
        is_valid: is_subnet_id,
    }
);

fn is_instance_id(text: &str) -> bool {
    text.strip_prefix("i-").is_some_and(|hex| {
        matches!(hex.len(), 8 | 17) && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn is_lower(text: &str, punctuation: &str) -> bool {
    !text.is_empty()
        && all_in(text, punctuation)
        && !text.contains(|c: char| c.is_ascii_uppercase())
}

/// Words in lower case with `-` between them, the first of letters only: `eu-central-1`, `us-west-2-lax-1a`.
fn is_place(text: &str) -> bool {
    let mut words = text.split('-');
    let first = words.next().unwrap_or_default();
    let rest: Vec<&str> = words.collect();
    let is_first_valid = first.len() >= 2 && first.bytes().all(|b| b.is_ascii_lowercase());
    is_first_valid && !rest.is_empty() && rest.iter().all(|word| is_lower(word, ""))
}

fn is_instance_type(text: &str) -> bool {
    text.split_once('.')
        .is_some_and(|(family, size)| is_lower(family, "-") && is_lower(size, "-"))
}

fn is_launch_template_id(text: &str) -> bool {
    text.strip_prefix("lt-")
        .is_some_and(|rest| is_lower(rest, ""))
}

fn is_subnet_id(text: &str) -> bool {
    text.strip_prefix("subnet-")
        .is_some_and(|rest| is_lower(rest, ""))
}
