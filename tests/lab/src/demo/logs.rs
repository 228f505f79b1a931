//! Log lines of slurmctld, the agent and the functions in words for the timeline, and what their times tell.

use serde_json::Value;

/// A line of slurmctld's log that a newcomer can make something of.
pub(super) fn slurmctld(line: &str) -> Option<String> {
    let (_, text) = line.split_once("] ")?;
    let after = |key: &str| text.split_once(key)?.1.split_whitespace().next();
    // An array's task is printed as `2_0(3)`, with the id that slurmctld uses inside in brackets.
    let job = after("JobId=").map(|id| id.split('(').next().unwrap_or(id));
    if let Some(nodes) = after("waking nodes ") {
        return Some(format!("calls ResumeProgram for {nodes}"));
    }
    if let Some(nodes) = after("suspending nodes ") {
        return Some(format!("calls SuspendProgram for {nodes}"));
    }
    let job = job?;
    if let Some(nodes) = after("NodeList=").filter(|_| text.starts_with("sched: ")) {
        return Some(format!("job {job} gets {nodes}"));
    }
    if text.contains(": Configuration for ") {
        return Some(format!("job {job} finds its nodes booted and starts"));
    }
    (text.starts_with("_job_complete: ") && text.ends_with(" done"))
        .then(|| format!("job {job} has ended"))
}

/// A line of the agent's log: its message and the nodes it is about.
pub(super) fn agent(line: &str) -> Option<String> {
    let (_time, rest) = line.split_once(' ')?;
    let (level, text) = rest.trim_start().split_once(' ')?;
    let is_field = |word: &&str| word.split_once('=').is_some_and(|(key, _)| is_name(key));
    let words: Vec<&str> = text.split(' ').collect();
    let mut fields = words.iter().copied().filter(is_field);
    let nodes = fields.find_map(|word| word.strip_prefix("nodes="));
    let message: Vec<&str> = words
        .iter()
        .copied()
        .take_while(|word| !is_field(word))
        .collect();
    let mut told = message.join(" ");
    if level != "INFO" {
        told = format!("{level} {told}");
    }
    Some(with_nodes(told, nodes))
}

/// A structured log line of a function; none for metrics and for what Lambda itself logs.
pub(super) fn function(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line.trim()).ok()?;
    let message = line.get("message")?.as_str()?.to_owned();
    Some(with_nodes(message, line["nodes"].as_str()))
}

fn with_nodes(message: String, nodes: Option<&str>) -> String {
    match nodes.filter(|nodes| !message.contains(nodes)) {
        Some(nodes) => format!("{message}: {nodes}"),
        None => message,
    }
}

/// The name of a field of a log line.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// Calls of ResumeProgram: when slurmctld started each, and when the agent had what it asked.
#[derive(Debug, Clone, Default)]
pub(super) struct ResumePrograms {
    /// Nodes and Unix milliseconds.
    started: Vec<(String, u64)>,
    /// The same.
    taken: Vec<(String, u64)>,
}

impl ResumePrograms {
    /// Takes note of a line of slurmctld's or the agent's log. Both write UTC.
    pub(super) fn look_at(&mut self, line: &str) {
        let value = |key: &str| {
            let text = line.split_once(key)?.1.split_whitespace().next()?;
            Some((text.to_owned(), written_ms(line)?))
        };
        self.started.extend(value(" waking nodes "));
        if line.contains(" resume requested ") {
            self.taken.extend(value(" nodes="));
        }
    }

    /// How long each took, as far as both ends are known.
    pub(super) fn durations_ms(&self) -> Vec<u64> {
        let mut taken = self.taken.clone();
        let mut durations = Vec::new();
        for (nodes, from_ms) in &self.started {
            if let Some(index) = taken.iter().position(|(own, _)| own == nodes) {
                let (_, to_ms) = taken.remove(index);
                durations.push(to_ms.saturating_sub(*from_ms));
            }
        }
        durations
    }
}

/// When a line was written: its time stands in front, in brackets or not, or in its `timestamp`.
pub(super) fn written_ms(line: &str) -> Option<u64> {
    let json = serde_json::from_str::<Value>(line.trim());
    let text = match &json {
        Ok(line) => line["timestamp"].as_str()?,
        Err(_) => line.split([' ', ']']).next()?.trim_start_matches('['),
    };
    let utc = format!("{}Z", text.trim_end_matches('Z'));
    let time: jiff::Timestamp = utc.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slurmctlds_lines_in_words() {
        let table = [
            (
                "[2026-11-23T13:36:25.230] POWER: power_save: pid 9184 waking nodes cloud-[0-1]",
                "calls ResumeProgram for cloud-[0-1]",
            ),
            (
                "[2026-11-23T13:36:30.243] sched: Allocate JobId=2_0(3) NodeList=cloud-0 #CPUs=2 Partition=cloud",
                "job 2_0 gets cloud-0",
            ),
            (
                "[2026-11-23T13:36:28.035] _pick_step_nodes: Configuration for JobId=1 is complete",
                "job 1 finds its nodes booted and starts",
            ),
            (
                "[2026-11-23T13:36:30.275] _job_complete: JobId=2_0(3) done",
                "job 2_0 has ended",
            ),
        ];
        for (line, words) in table {
            assert_eq!(slurmctld(line).as_deref(), Some(words));
        }
        let other = "[2026-11-23T13:36:30.275] _job_complete: JobId=2_0(3) WEXITSTATUS 0";
        assert_eq!(slurmctld(other), None);
    }

    #[test]
    fn the_agents_lines_in_words() {
        let line = "2026-11-23T13:36:25.244339Z  INFO resume requested request_id=a5 generation=17 nodes=cloud-[0-1] jobs=1";
        assert_eq!(
            agent(line).as_deref(),
            Some("resume requested: cloud-[0-1]")
        );
        let line =
            "2026-11-23T13:49:09.387245Z  WARN cannot receive updates: SQS refused pause_ms=1000";
        assert_eq!(
            agent(line).as_deref(),
            Some("WARN cannot receive updates: SQS refused")
        );
    }

    #[test]
    fn lines_of_all_three_are_dated_alike() {
        for line in [
            "[1970-01-01T00:01:00.250] sched: Allocate",
            "1970-01-01T00:01:00.250339Z  INFO sent",
            r#"{"timestamp":"1970-01-01T00:01:00.250339Z","message":"sent"}"#,
        ] {
            assert_eq!(written_ms(line), Some(60_250), "{line}");
        }
        assert_eq!(written_ms("START RequestId: 7"), None);
    }

    #[test]
    fn a_resume_program_lasts_until_the_agent_has_its_request() {
        let mut programs = ResumePrograms::default();
        programs.look_at(
            "2026-11-24T00:00:00.004339Z  INFO resume requested request_id=a nodes=n1 jobs=1",
        );
        programs.look_at("[2026-11-23T23:59:59.990] POWER: power_save: pid 1 waking nodes n1");
        programs.look_at("[2026-11-24T00:00:01.000] POWER: power_save: pid 2 waking nodes n2");
        assert_eq!(programs.durations_ms(), [14]);
    }
}
