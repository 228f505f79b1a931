//! One call to EC2, complete.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Chunk, Recipe};
use crate::name::ClusterName;
use crate::pairing::LaunchKey;
use crate::tag;

/// One call to EC2, complete.
///
/// RunInstances where there is a single candidate, unless a price has to be watched, which only a fleet can; CreateFleet
/// else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchCall {
    /// At most 64 ASCII characters; the same for every repetition of this call and for no other.
    pub client_token: String,
    /// How many instances.
    pub count: u32,
    /// Fewer than this are not launched at all; 1 where any number will do.
    #[serde(default = "one")]
    pub at_least: u32,
    /// How.
    pub recipe: Recipe,
    /// Set in the call itself.
    pub tags: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

impl LaunchCall {
    /// Whether RunInstances makes it, and where; CreateFleet does if not.
    #[must_use]
    pub fn only_candidate(&self) -> Option<&super::Candidate> {
        match self.recipe.candidates.as_slice() {
            [only] if !self.recipe.watches_price() => Some(only),
            _ => None,
        }
    }
}

impl Recipe {
    /// Whether EC2 must hold to a price.
    #[must_use]
    pub fn watches_price(&self) -> bool {
        self.capacity == crate::config::CapacityKind::OnDemand
            && self.max_on_demand_cents_per_hour.is_some()
    }
}

impl Chunk {
    /// The call for one attempt at this chunk: `count` instances, no fewer than `at_least`, by `recipe`.
    #[must_use]
    pub fn call(
        &self,
        cluster: &ClusterName,
        place: &CallPlace<'_>,
        recipe: Recipe,
        count: u32,
        at_least: u32,
    ) -> LaunchCall {
        let mut tags = self.tags.clone();
        tags.extend(place.tags());
        LaunchCall {
            client_token: place.client_token(cluster),
            count,
            at_least,
            recipe,
            tags,
        }
    }
}

/// Which call of which launch.
#[derive(Debug, Clone, Copy)]
pub struct CallPlace<'a> {
    /// The launch.
    pub launch: &'a LaunchKey,
    /// Index of the chunk.
    pub chunk: u32,
    /// 1-based.
    pub attempt: u32,
}

impl CallPlace<'_> {
    /// The tags by which the instances of this very call are found again.
    #[must_use]
    pub fn tags(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (tag::REQUEST.to_owned(), self.launch.request_id.to_string()),
            (tag::PART.to_owned(), self.launch.part.to_string()),
            (tag::CHUNK.to_owned(), self.chunk.to_string()),
            (tag::ATTEMPT.to_owned(), self.attempt.to_string()),
        ])
    }

    /// SHA-256 in hexadecimal is exactly the 64 characters that EC2 allows (CreateFleet, ClientToken).
    fn client_token(&self, cluster: &ClusterName) -> String {
        let Self {
            launch,
            chunk,
            attempt,
        } = self;
        let text = format!(
            "{cluster}\n{}\n{}\n{chunk}\n{attempt}",
            launch.request_id, launch.part
        );
        format!("{:x}", Sha256::digest(text))
    }
}
