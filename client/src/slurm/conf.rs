//! slurm.conf, as far as `spillway apply` must know it: where it is, and who SlurmUser is.

use std::path::{Path, PathBuf};

use crate::files::{self, FileError};

/// Where Slurm's programs look when nothing else is said (Debian, RPMs).
const DEFAULT: &str = "/etc/slurm/slurm.conf";
/// Where the agent's service is told otherwise: lines such as `SLURM_CONF=/opt/slurm/etc/slurm.conf`.
const SERVICE_ENVIRONMENT: &str = "/etc/default/spillway-agent";
/// Who runs slurmctld where slurm.conf does not say (slurm.conf manual, `SlurmUser`).
const DEFAULT_SLURM_USER: &str = "root";
/// How deep `Include` lines are followed.
const MAX_DEPTH: usize = 4;

/// The slurm.conf that the agent's service uses: what `SLURM_CONF` names here, or for the service, or the usual
/// one.
pub fn find() -> PathBuf {
    std::env::var_os("SLURM_CONF")
        .map(PathBuf::from)
        .or_else(|| of_the_service(&files::read(Path::new(SERVICE_ENVIRONMENT)).ok()?))
        .unwrap_or_else(|| PathBuf::from(DEFAULT))
}

fn of_the_service(text: &str) -> Option<PathBuf> {
    let mut values = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("SLURM_CONF="));
    let value = values.next_back()?.trim_matches(['"', '\'']);
    Some(PathBuf::from(value))
}

/// The name of SlurmUser.
pub fn slurm_user(conf: &Path) -> Result<String, FileError> {
    Ok(find_slurm_user(conf, MAX_DEPTH)?.unwrap_or_else(|| DEFAULT_SLURM_USER.to_owned()))
}

fn find_slurm_user(conf: &Path, depth: usize) -> Result<Option<String>, FileError> {
    for line in files::read(conf)?.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let mut words = line.split(|c: char| c == '=' || c.is_whitespace());
        let key = words.next().unwrap_or_default();
        let value = words.find(|word| !word.is_empty());
        let Some(value) = value else { continue };
        if key.eq_ignore_ascii_case("SlurmUser") {
            return Ok(Some(value.trim_matches('"').to_owned()));
        }
        if key.eq_ignore_ascii_case("Include") && depth > 0 {
            let included = conf.with_file_name(value);
            if let Some(user) = find_slurm_user(&included, depth - 1)? {
                return Ok(Some(user));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn slurm_user_is_who_slurm_conf_says() {
        let directory = tempfile::tempdir().unwrap();
        let conf = directory.path().join("slurm.conf");
        let included = directory.path().join("site.conf");
        for (text, user) in [
            ("ClusterName=a\nSlurmUser=slurm\n", "slurm"),
            ("slurmuser = hpc # not root\n", "hpc"),
            ("#SlurmUser=slurm\nSlurmdUser=root\n", "root"),
            ("Include site.conf\nSlurmUser=slurm\n", "included"),
        ] {
            fs::write(&conf, text).unwrap();
            fs::write(&included, "SlurmUser=\"included\"\n").unwrap();
            assert_eq!(slurm_user(&conf).unwrap(), user, "{text}");
        }
        assert!(slurm_user(&directory.path().join("nowhere")).is_err());
    }

    #[test]
    fn the_service_may_be_told_where_slurm_conf_is() {
        let text = "# a comment\nRUST_LOG=info\nSLURM_CONF=\"/opt/slurm/etc/slurm.conf\"\n";
        let path = of_the_service(text).unwrap();
        assert_eq!(path, Path::new("/opt/slurm/etc/slurm.conf"));
        assert_eq!(of_the_service("#SLURM_CONF=/x\n"), None);
    }
}
