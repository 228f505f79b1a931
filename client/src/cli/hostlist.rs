//! `spillway hostlist`: expressions as Slurm's own tools read and write them.

use std::io::{self, Write as _};

use anyhow::Context as _;
use clap::Subcommand;
use spillway_core::hostlist::{Hostlist, fold};

use super::{EXIT_OK, output};

/// `hostlist …`
#[derive(Debug, Subcommand)]
pub enum HostlistCommand {
    /// Print each name that an expression stands for, one a line
    Expand {
        /// Such as aws-[001-128,200]
        expression: String,
        /// Print a JSON list
        #[arg(long)]
        json: bool,
    },
    /// Print one expression that stands for all names, in their order
    Fold {
        /// Names or expressions; `-` reads them from standard input
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Does it.
pub fn run(command: HostlistCommand) -> anyhow::Result<u8> {
    match command {
        HostlistCommand::Expand { expression, json } => expand(&expression, json)?,
        HostlistCommand::Fold { names } => {
            let names = gather(names, io::stdin().lock())?;
            output::print_line(&fold(names))?;
        }
    }
    Ok(EXIT_OK)
}

fn parse(expression: &str) -> anyhow::Result<Hostlist> {
    Hostlist::parse(expression).with_context(|| format!("hostlist {expression:?}"))
}

fn expand(expression: &str, json: bool) -> anyhow::Result<()> {
    let hosts = parse(expression)?;
    if json {
        let names: Vec<_> = hosts.iter().collect();
        return output::print_line(&serde_json::to_string(&names)?);
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut write = || -> io::Result<()> {
        for name in &hosts {
            writeln!(out, "{name}")?;
        }
        out.flush()
    };
    write().context("cannot write to standard output")
}

/// All names in order: each word may be an expression, and `-` stands for what is read from `input`.
fn gather(words: Vec<String>, mut input: impl io::Read) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for word in words {
        let text = if word == "-" {
            let mut text = String::new();
            input
                .by_ref()
                .read_to_string(&mut text)
                .context("cannot read standard input")?;
            text
        } else {
            word
        };
        names.extend(parse(text.trim())?.iter());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_words_and_from_standard_input_in_their_order() {
        let words = ["n1", "-", "m[2-3]"].map(str::to_owned).to_vec();
        let names = gather(words, "n2\nn3\n".as_bytes()).unwrap();
        assert_eq!(names, ["n1", "n2", "n3", "m2", "m3"]);
        assert_eq!(fold(&names), "n[1-3],m[2-3]");
    }

    #[test]
    fn a_malformed_word_is_named() {
        let error = gather(vec!["n[1-2".to_owned()], io::empty()).unwrap_err();
        assert!(error.to_string().contains("n[1-2"), "{error}");
    }
}
