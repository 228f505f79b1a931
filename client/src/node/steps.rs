//! Whether job steps run on this machine: by the processes, which also tell while slurmd and slurmctld are away.

use std::path::Path;

/// Slurm's process for one step of a job, the batch script and the external step included.
const STEP_PROGRAM: &str = "slurmstepd";

/// The argument of the one that runs no step: with cgroup v2 it keeps slurmd's scope for as long as the machine is up
/// (`slurmstepd infinity`, 22.05 and newer).
const SCOPE_KEEPER: &str = "infinity";

/// Whether any runs. What cannot be looked at counts as one: a machine is not turned off in doubt.
pub fn is_any_running() -> bool {
    is_any_running_in(Path::new("/proc"))
}

fn is_any_running_in(proc: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(proc) else {
        return true;
    };
    entries
        .filter_map(Result::ok)
        .any(|entry| is_step(&entry.path()))
}

/// A process that has ended meanwhile, and what is no process, is none.
fn is_step(process: &Path) -> bool {
    let Ok(program) = std::fs::read_to_string(process.join("comm")) else {
        return false;
    };
    if program.trim_end() != STEP_PROGRAM {
        return false;
    }
    // Empty for one that has ended and that nobody has asked about.
    let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
    !line.is_empty()
        && !line
            .split(|&byte| byte == 0)
            .any(|word| word == SCOPE_KEEPER.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_step_is_known_by_its_program() {
        let proc = tempfile::tempdir().unwrap();
        let add = |pid: &str, program: &str, line: &str| {
            let process = proc.path().join(pid);
            fs::create_dir(&process).unwrap();
            fs::write(process.join("comm"), format!("{program}\n")).unwrap();
            fs::write(process.join("cmdline"), line.replace(' ', "\0")).unwrap();
        };
        fs::write(proc.path().join("uptime"), "1").unwrap();
        add("1", "systemd", "/sbin/init");
        add("20", "slurmd", "/usr/sbin/slurmd -b");
        add("21", "slurmstepd", "/usr/sbin/slurmstepd infinity");
        add("23", "slurmstepd", "");
        assert!(!is_any_running_in(proc.path()));
        add("22", "slurmstepd", "slurmstepd: [7.batch]");
        assert!(is_any_running_in(proc.path()));
        assert!(is_any_running_in(&proc.path().join("not-there")));
    }
}
