//! The head node's own settings: URLs, paths and what slurm.conf says.

use std::path::PathBuf;

use super::Check;
use crate::config::error::Path;
use crate::config::file::SiteFile;

/// slurmctld is asked for all nodes' states at most this often.
pub const MIN_POLL_INTERVAL_SECONDS: u32 = 30;
/// Less often, and the sweep works on states that are long gone.
pub const MAX_POLL_INTERVAL_SECONDS: u32 = 3_600;
/// Linux: `sun_path` has 108 bytes, the last one zero.
pub const MAX_SOCKET_PATH_LENGTH: usize = 107;
/// Less would fail every node: an instance needs about as long to boot.
pub const MIN_RESUME_TIMEOUT_SECONDS: u32 = 30;
/// The resume queue keeps a message for an hour; a later resume would be lost without a word.
pub const MAX_RESUME_TIMEOUT_SECONDS: u32 = 3_600;
/// Two keys overlap while one replaces the other; a third would be one that nobody has removed.
pub const MAX_TRUSTED_KEYS: usize = 2;

impl Check {
    pub fn urls(&mut self, file: &SiteFile) {
        let root = Path::default();
        let (queues, aws) = (root.key("queues"), root.key("aws"));
        let names = ["resume", "suspend", "reports", "updates"];
        let urls = [
            &file.queues.resume,
            &file.queues.suspend,
            &file.queues.reports,
            &file.queues.updates,
        ];
        for (name, url) in names.iter().zip(urls) {
            self.url(&queues.key(name), url);
        }
        self.unique(&urls, |index| queues.key(names[index]));
        for (name, url) in [
            ("endpoint_url", &file.aws.endpoint_url),
            ("proxy", &file.aws.proxy),
        ] {
            if let Some(url) = url {
                self.url(&aws.key(name), url);
            }
        }
        let table = &file.aws.table;
        let is_name = table
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        if !is_name || !(3..=255).contains(&table.len()) {
            let problem = format!("{table:?} is no name of a DynamoDB table");
            self.note(
                &aws.key("table"),
                problem,
                "write 3 to 255 of A-Z, a-z, 0-9, _, . and -",
            );
        }
    }

    fn url(&mut self, path: &Path, url: &str) {
        let rest = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"));
        let host = rest
            .and_then(|rest| rest.split('/').next())
            .unwrap_or_default();
        if host.is_empty() || !url.chars().all(|c| c.is_ascii_graphic()) {
            self.note(
                path,
                format!("{url:?} is not a URL"),
                "write it whole, as in https://host/path",
            );
        }
    }

    pub fn paths(&mut self, file: &SiteFile) {
        let root = Path::default();
        let (client, aws) = (root.key("client"), root.key("aws"));
        let set = |path: &Option<PathBuf>| path.clone().unwrap_or_else(|| "/".into());
        for (path, value) in [
            (client.key("spool_directory"), &file.client.spool_directory),
            (client.key("socket"), &file.client.socket),
            (client.key("jobs_file"), &file.client.jobs_file),
            (
                aws.key("credentials_file"),
                &set(&file.aws.credentials_file),
            ),
            (aws.key("ca_bundle"), &set(&file.aws.ca_bundle)),
            (
                root.key("slurm").key("bin_directory"),
                &file.slurm.bin_directory,
            ),
        ] {
            if !value.is_absolute() {
                let problem = format!("{} is not an absolute path", value.display());
                self.note(
                    &path,
                    problem,
                    "slurmctld calls us from a directory of its own: start with /",
                );
            }
        }
        let length = file.client.socket.as_os_str().len();
        if length > MAX_SOCKET_PATH_LENGTH {
            let problem = format!(
                "the path has {length} bytes: Linux takes {MAX_SOCKET_PATH_LENGTH} for a socket"
            );
            self.note(
                &client.key("socket"),
                problem,
                "choose a shorter one, such as /run/spillway/agent.sock",
            );
        }
    }

    pub fn callback(&mut self, file: &SiteFile) {
        let path = Path::default().key("callback").key("trusted_keys");
        let keys = &file.callback.trusted_keys;
        if keys.len() > MAX_TRUSTED_KEYS {
            let problem = format!(
                "{} keys: at most {MAX_TRUSTED_KEYS} may overlap",
                keys.len()
            );
            self.note(
                &path,
                problem,
                "remove those that `spillway keys list` does not show, or shows as older than the active one",
            );
        }
        self.unique(keys, |index| path.index(index));
    }

    pub fn slurm(&mut self, file: &SiteFile) {
        let slurm = Path::default().key("slurm");
        let (resume, suspend) = (
            file.slurm.resume_timeout_seconds,
            file.slurm.suspend_timeout_seconds,
        );
        let (min, max) = (MIN_RESUME_TIMEOUT_SECONDS, MAX_RESUME_TIMEOUT_SECONDS);
        self.within(&slurm.key("resume_timeout_seconds"), resume, min, max);
        self.within(&slurm.key("suspend_timeout_seconds"), suspend, 1, max);
        let poll = file.slurm.poll_interval_seconds;
        let (min, max) = (MIN_POLL_INTERVAL_SECONDS, MAX_POLL_INTERVAL_SECONDS);
        self.within(&slurm.key("poll_interval_seconds"), poll, min, max);
    }
}
