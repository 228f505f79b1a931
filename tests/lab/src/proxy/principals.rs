//! Who is behind an access key id.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use sha2::{Digest as _, Sha256};

use crate::xml;

/// Names of access key ids, registered by the lab or learned from STS's answers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Principals(Arc<Mutex<HashMap<String, String>>>);

impl Principals {
    /// Gives an access key id the name under which the journal and the faults know it.
    pub fn register(&self, access_key_id: &str, name: &str) {
        self.lock()
            .insert(access_key_id.to_owned(), name.to_owned());
    }

    /// Names the session under which the emulator runs a function: `function_arn` as deployed, with its
    /// version where it has one, and its role's ARN.
    ///
    /// Functions get their keys inside the emulator, without an `AssumeRole` that could be watched; but the
    /// emulator derives the key from the two ARNs (MiniStack 1.5.33, `execution_credentials`).
    pub fn register_function(&self, function_arn: &str, role_arn: &str, name: &str) {
        self.register(&function_key(function_arn, role_arn), name);
    }

    /// The name of an access key id, or the id itself.
    pub(super) fn name(&self, access_key_id: &str) -> String {
        self.lock()
            .get(access_key_id)
            .cloned()
            .unwrap_or_else(|| access_key_id.to_owned())
    }

    /// Learns the session name from the answer to an `AssumeRole`.
    pub(super) fn learn(&self, assume_role_answer: &[u8]) {
        let Ok(document) = std::str::from_utf8(assume_role_answer) else {
            return;
        };
        if let (Some(key), Some(arn)) = (
            xml::text(document, "AccessKeyId"),
            xml::text(document, "Arn"),
        ) && let Some((_, session)) = arn.rsplit_once('/')
        {
            self.register(&key, session);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn function_key(function_arn: &str, role_arn: &str) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(format!("{function_arn}:{role_arn}"));
    digest[..8].iter().fold("ASIA".to_owned(), |mut key, byte| {
        let _ = write!(key, "{byte:02X}");
        key
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_a_session_from_the_answer_to_assume_role() {
        let principals = Principals::default();
        principals.learn(
            b"<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIA1</AccessKeyId>\
              </Credentials><AssumedRoleUser><Arn>arn:aws:sts::000000000000:assumed-role/node/i-0abc</Arn>\
              </AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>",
        );
        assert_eq!(principals.name("ASIA1"), "i-0abc");
        assert_eq!(principals.name("ASIA2"), "ASIA2");
    }
}
