//! What the configuration says of updates, as it stands now: a key that is added or removed counts for the
//! next envelope, without a restart.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use spillway_core::config::{CallbackSettings, NO_TRUSTED_KEYS};
use spillway_core::envelope::PublicKey;
use tracing::{error, info, warn};

use crate::config::{LoadError, load_client};
use crate::files::{self, Identity};

/// `[callback]` of a file that may change.
#[derive(Debug)]
pub struct Settings {
    file: PathBuf,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    settings: CallbackSettings,
    /// The file as it was then; none before the first look.
    identity: Option<Identity>,
}

impl Settings {
    /// `settings`: what was read at the start.
    pub fn new(file: &Path, settings: CallbackSettings) -> Self {
        let identity = None;
        Self {
            file: file.to_owned(),
            read: Mutex::new(Read { settings, identity }),
        }
    }

    /// What the file says now. While it cannot be read or is wrong, what it said last.
    pub fn now(&self) -> CallbackSettings {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the reading: if the file changes in between, it is read again the next time.
        let identity = files::identity(&self.file);
        if identity.is_none() || identity == read.identity {
            return read.settings.clone();
        }
        let is_first = read.identity.is_none();
        read.identity = identity;
        match load_client(&self.file) {
            Ok(config) if is_first || config.callback != read.settings => {
                read.settings = config.callback;
                tell(&read.settings);
            }
            Ok(_) => {}
            Err(error) => {
                error!(
                    "{error}; until that is mended, the keys that were trusted before are: {}",
                    ids(&read.settings.trusted_keys)
                );
                // What could not be read may be readable next time without having changed.
                if matches!(error, LoadError::File(_)) {
                    read.identity = None;
                }
            }
        }
        read.settings.clone()
    }
}

fn tell(settings: &CallbackSettings) {
    if settings.trusted_keys.is_empty() {
        warn!("{NO_TRUSTED_KEYS}");
    } else {
        let keys = ids(&settings.trusted_keys);
        info!(roads = ?settings.roads, "updates are believed if sealed with {keys}");
    }
}

fn ids(keys: &[PublicKey]) -> String {
    let ids: Vec<String> = keys.iter().map(|key| key.id().to_string()).collect();
    if ids.is_empty() {
        return "none".to_owned();
    }
    ids.join(" or ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use spillway_core::envelope::SigningKey;

    use super::*;

    #[test]
    fn a_change_counts_at_once_and_a_mistake_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("spillway.toml");
        let example = include_str!("../../../infra/examples/spillway.toml");
        let write = |keys: &str| {
            // As an editor does it.
            let new = file.with_extension("new");
            let callback = format!("[callback]\ntrusted_keys = [{keys}]\n");
            fs::write(&new, example.replace("[callback]\n", &callback)).unwrap();
            fs::rename(&new, &file).unwrap();
        };
        let [one, two] = [1, 2].map(|seed| SigningKey::from_seed(&[seed; 32]).public());
        let settings = Settings::new(&file, CallbackSettings::default());
        let trusted = || settings.now().trusted_keys;
        assert_eq!(trusted(), []);
        write(&format!("\"{one}\""));
        assert_eq!(trusted(), std::slice::from_ref(&one));
        write(&format!("\"{one}\", \"{two}\""));
        assert_eq!(trusted(), [one, two.clone()]);
        write("\"ed25519:half\"");
        assert_eq!(trusted().len(), 2);
        fs::remove_file(&file).unwrap();
        assert_eq!(trusted().len(), 2);
        write(&format!("\"{two}\""));
        assert_eq!(trusted(), [two]);
        write("");
        assert_eq!(trusted(), []);
    }
}
