//! What is known of a request beside its action and its resource: IAM's condition keys and their values.

use std::collections::BTreeMap;

/// The keys of a request. Their names do not differ by case
/// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition.html>).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context(BTreeMap<String, Vec<String>>);

/// The keys that the lab gives a value where AWS does. A policy that asks for another key cannot be judged here:
/// taking such a key for one that the request lacks would allow what AWS refuses, or the other way about.
const KNOWN: &[&str] = &[
    "aws:principalaccount",
    "aws:principalarn",
    "aws:principaltag/",
    "aws:principaltype",
    "aws:requestedregion",
    "aws:requesttag/",
    "aws:resourcetag/",
    "aws:securetransport",
    "aws:tagkeys",
    "aws:userid",
    "aws:username",
    "dynamodb:leadingkeys",
    "ec2:createaction",
    "ec2:instancetype",
    "ec2:islaunchtemplateresource",
    "ec2:launchtemplate",
    "ec2:resourcetag/",
    "ec2:sourceinstancearn",
    "iam:passedtoservice",
    "kms:encryptioncontext:parameter_arn",
    "kms:viaservice",
];

/// Keys that hold several values at once.
const MULTIVALUED: &[&str] = &["aws:tagkeys", "dynamodb:leadingkeys"];

impl Context {
    /// Gives a key its one value.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.0.insert(key.to_ascii_lowercase(), vec![value.into()]);
    }

    /// Gives a key its values. Without any, the request lacks the key.
    pub fn set_all(&mut self, key: &str, values: impl IntoIterator<Item = String>) {
        let values: Vec<String> = values.into_iter().collect();
        if values.is_empty() {
            self.0.remove(&key.to_ascii_lowercase());
        } else {
            self.0.insert(key.to_ascii_lowercase(), values);
        }
    }

    /// This with a key more.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.set(key, value);
        self
    }

    /// This with a key of several values more.
    #[must_use]
    pub fn with_all(mut self, key: &str, values: impl IntoIterator<Item = String>) -> Self {
        self.set_all(key, values);
        self
    }

    /// This with `other`'s keys over it.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.0.extend(other.0.clone());
        self
    }

    /// The values of a key; none if the request lacks it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[String]> {
        self.0.get(&key.to_ascii_lowercase()).map(Vec::as_slice)
    }
}

/// Whether the lab knows a key (see [`KNOWN`]).
pub(super) fn is_known(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    KNOWN.iter().any(|known| {
        known.strip_suffix('/').map_or(key == *known, |_| {
            key.len() > known.len() && key.starts_with(known)
        })
    })
}

/// Whether a key may have several values.
pub(super) fn is_multivalued(key: &str) -> bool {
    MULTIVALUED.contains(&key.to_ascii_lowercase().as_str())
}
