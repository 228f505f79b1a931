//! What happened in a run of the churn, and when.

use std::time::Instant;

/// Lines with their times since the begin.
pub struct Diary {
    begun: Instant,
    lines: Vec<String>,
}

impl Default for Diary {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            lines: Vec::new(),
        }
    }
}

impl Diary {
    /// Notes what happens now; it is printed, too.
    pub fn note(&mut self, what: &str) {
        let line = format!("[{:6.1} s] {what}", self.begun.elapsed().as_secs_f64());
        println!("{line}");
        self.lines.push(line);
    }

    /// Everything, a line each.
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }
}
