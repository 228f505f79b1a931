//! Our hostlists beside the real `scontrol show hostnames`: the same names for well-formed expressions,
//! an error for malformed ones whatever Slurm makes of them.
//!
//! `HOSTLIST_SEED=<number>` repeats a run or tries another; the default is the same every time.

use std::collections::BTreeMap;
use std::process::Command;

use spillway_core::hostlist::Hostlist;

/// Expressions of one run. Half of all have several groups, padding or duplicates.
const PLAIN: usize = 4_000;
const RICH: usize = 5_000;
const MALFORMED: usize = 1_000;
/// scontrol processes at a time.
const THREADS: usize = 2;
const DEFAULT_SEED: u64 = 20_261_123;

/// Made by hand: what generation by chance would miss.
const EDGES: [&str; 14] = [
    "n[0-65535]",
    "n[1-65536],m[1-65536]",
    "n[0-999][0-99]",
    "n[1-010]",
    "n[0000000000000000000000001-2]",
    "n[18446744073709551615]",
    "n[1844674407370955161-1844674407370955163]",
    "n[1-2][1-2][1-2][1-2][1-2]",
    "[1-3],[07-11]",
    "n1 n2\tn3\nn4",
    "n00000000000000000000000001",
    "n[9-10,010,11-012]",
    "n1,n02,n3,n[04-5]",
    "1,02,[3-4]",
];

/// One expression and what it was made to show.
struct Case {
    kind: &'static str,
    expression: String,
}

#[test]
fn agrees_with_scontrol_show_hostnames() {
    let seed = std::env::var("HOSTLIST_SEED").map_or(DEFAULT_SEED, |seed| {
        seed.parse().expect("HOSTLIST_SEED is a number")
    });
    println!("HOSTLIST_SEED={seed}");
    let slurm = Slurm::new();
    let mut random = Random(seed);
    let edges = EDGES.map(|edge| Case {
        kind: "edge",
        expression: edge.into(),
    });
    let mut cases: Vec<Case> = edges.into();
    cases.extend((0..PLAIN).map(|_| Case {
        kind: "plain",
        expression: random.plain(),
    }));
    cases.extend((0..RICH).map(|index| random.rich(index)));
    check_well_formed(&slurm, &cases);
    let malformed: Vec<Case> = (0..MALFORMED)
        .map(|index| random.malformed(index))
        .collect();
    check_malformed(&slurm, &malformed);
}

fn check_well_formed(slurm: &Slurm, cases: &[Case]) {
    let mut mix: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut differences = Vec::new();
    for (case, theirs) in cases.iter().zip(slurm.expand_all(cases)) {
        let ours = match Hostlist::parse(&case.expression) {
            Ok(hostlist) => hostlist.iter().map(|name| name + "\n").collect(),
            Err(error) => format!("error: {error}"),
        };
        let (count, names) = mix.entry(case.kind).or_default();
        *count += 1;
        *names += ours.lines().count();
        if ours != theirs {
            differences.push(format!(
                "{} {:?}\n ours: {:.200}\n Slurm: {:.200}",
                case.kind,
                case.expression,
                ours.replace('\n', " "),
                theirs.replace('\n', " ")
            ));
        }
    }
    println!("{:<28}{:>12}{:>12}", "well-formed", "expressions", "names");
    for (kind, (count, names)) in mix {
        println!("{kind:<28}{count:>12}{names:>12}");
    }
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        cases.len(),
        differences[..differences.len().min(20)].join("\n")
    );
}

fn check_malformed(slurm: &Slurm, cases: &[Case]) {
    let mut mix: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for (case, theirs) in cases.iter().zip(slurm.expand_all(cases)) {
        let ours = Hostlist::parse(&case.expression);
        assert!(
            ours.is_err(),
            "{} {:?} must be refused (Slurm prints {theirs:?})",
            case.kind,
            case.expression
        );
        mix.entry(case.kind).or_default()[usize::from(!theirs.is_empty())] += 1;
    }
    println!(
        "{:<28}{:>12}{:>12}{:>14}",
        "malformed, refused by us", "expressions", "refused", "names printed"
    );
    for (kind, [refused, printed]) in &mix {
        println!(
            "{kind:<28}{:>12}{refused:>12}{printed:>14}",
            refused + printed
        );
    }
    // What Slurm 22.05 prints names for, although one is missing or invented.
    let garbled = ["]1[", "[1- without ]", "empty item", "range without end"];
    for (kind, [refused, printed]) in mix {
        let always = if garbled.contains(&kind) {
            refused == 0
        } else {
            printed == 0
        };
        assert!(
            always,
            "{kind}: Slurm refused {refused} and printed names for {printed}"
        );
    }
}

/// The real scontrol, with a configuration of its own.
struct Slurm {
    configuration: tempfile::TempDir,
}

impl Slurm {
    fn new() -> Self {
        let configuration = tempfile::tempdir().expect("a temporary directory");
        let text =
            "ClusterName=test\nSlurmctldHost=localhost\nNodeName=n1\nPartitionName=p Nodes=ALL\n";
        std::fs::write(configuration.path().join("slurm.conf"), text)
            .expect("slurm.conf is written");
        let slurm = Self { configuration };
        let version = slurm.scontrol(&["--version"]).output();
        let version =
            version.expect("scontrol runs: install it with `apt-get install slurm-client`");
        println!(
            "scontrol of {}",
            String::from_utf8_lossy(&version.stdout).trim()
        );
        slurm
    }

    fn scontrol(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("scontrol");
        command
            .args(arguments)
            .env_clear()
            .env("SLURM_CONF", self.configuration.path().join("slurm.conf"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// What scontrol prints on standard output for each.
    fn expand_all(&self, cases: &[Case]) -> Vec<String> {
        let chunks = cases.chunks(cases.len().div_ceil(THREADS));
        std::thread::scope(|scope| {
            let threads: Vec<_> = chunks
                .map(|chunk| {
                    scope.spawn(|| {
                        chunk
                            .iter()
                            .map(|case| self.expand(&case.expression))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().expect("no thread panics"))
                .collect()
        })
    }

    fn expand(&self, expression: &str) -> String {
        let output = self
            .scontrol(&["show", "hostnames", expression])
            .output()
            .expect("scontrol runs");
        assert!(
            output.status.code().is_some(),
            "scontrol died of {expression:?}"
        );
        String::from_utf8(output.stdout).expect("names are ASCII")
    }
}

/// `SplitMix64`: enough for variety, the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let index = self.below(from.len() as u64);
        from[usize::try_from(index).expect("an index")]
    }

    /// Text before a number. Some end in a digit, which then runs into the number.
    fn text(&mut self) -> &'static str {
        self.pick(&[
            "n",
            "cloud",
            "gpu-",
            "rack2",
            "c5.large-",
            "a_b",
            "x0",
            "node-00",
            "N",
            "z9z",
            "eu.west-",
            "t1-",
        ])
    }

    fn number(&mut self) -> u64 {
        let bound = [10, 100, 1_000, 100_000, u64::from(u32::MAX)]
            [usize::try_from(self.below(5)).expect("an index")];
        self.below(bound)
    }

    /// `low` or `low-high`, without padding.
    fn range(&mut self) -> String {
        let low = self.number();
        if self.below(3) == 0 {
            low.to_string()
        } else {
            format!("{low}-{}", low + self.below(40))
        }
    }

    /// A range whose bounds have leading zeros, each of its own count.
    fn padded_range(&mut self) -> String {
        let low = self.number();
        let high = low + self.below(120);
        let digits = low.to_string().len();
        let low_width = digits + usize::try_from(self.below(5)).expect("small");
        let high_width = usize::try_from(self.below(9)).expect("small");
        if self.below(4) == 0 {
            format!("{low:0low_width$}")
        } else {
            format!("{low:0low_width$}-{high:0high_width$}")
        }
    }

    fn bracket(&mut self, range: fn(&mut Self) -> String) -> String {
        let ranges: Vec<String> = (0..=self.below(4)).map(|_| range(self)).collect();
        format!("[{}]", ranges.join(","))
    }

    fn item(&mut self) -> String {
        let text = self.text();
        match self.below(4) {
            0 => format!("{text}{}", self.number()),
            1 => text.to_owned(),
            _ => text.to_owned() + &self.bracket(Self::range),
        }
    }

    fn plain(&mut self) -> String {
        let items: Vec<String> = (0..=self.below(4)).map(|_| self.item()).collect();
        items.join(",")
    }

    fn several_groups(&mut self) -> String {
        let mut expression = self.text().to_owned();
        for index in 0..2 + self.below(3) {
            if index > 0 {
                expression += self.pick(&["", "-", "x", ".r", "-0", "7"]);
            }
            let (low, more) = (self.below(30), self.below(6));
            let width = usize::try_from(self.below(4)).expect("small");
            let high = low + more;
            let further = if self.below(3) == 0 {
                format!(",{}", self.below(200))
            } else {
                String::new()
            };
            let group = format!("[{low:0width$}-{high}{further}]");
            expression += &group;
        }
        expression
    }

    fn rich(&mut self, index: usize) -> Case {
        let (kind, expression) = match index % 4 {
            0 => ("several groups", self.several_groups()),
            1 => (
                "padding",
                format!("{}{}", self.text(), self.bracket(Self::padded_range)),
            ),
            2 => {
                let item = self.item();
                ("duplicates", format!("{item},{},{item}", self.item()))
            }
            _ => {
                let (groups, text) = (self.several_groups(), self.text());
                (
                    "all of these",
                    format!(
                        "{groups},{text}{},{groups}",
                        self.bracket(Self::padded_range)
                    ),
                )
            }
        };
        Case { kind, expression }
    }

    fn malformed(&mut self, index: usize) -> Case {
        let (text, range, number) = (self.text(), self.range(), self.number());
        let below = number.saturating_sub(1 + self.below(5));
        let (kind, expression) = match index % 10 {
            0 => ("[1- without ]", format!("{text}[{number}-{}", number + 1)),
            1 => ("]1[", format!("{text}]{number}[")),
            2 => ("backwards", format!("{text}[{}-{below}]", number + 1)),
            3 => (
                "text after bracket",
                format!("{text}[{range}]{}", self.pick(&["x", ".dom", "-", "7"])),
            ),
            4 => (
                "empty item",
                [
                    format!("{text}{number},,m1"),
                    format!(",{text}"),
                    format!("{text},"),
                ][index / 10 % 3]
                    .clone(),
            ),
            5 => ("nested", format!("{text}[{number},[{range}]]")),
            6 => (
                "empty range",
                [
                    format!("{text}[]"),
                    format!("{text}[{range},]"),
                    format!("{text}[,{range}]"),
                ][index / 10 % 3]
                    .clone(),
            ),
            7 => (
                "not a number",
                format!(
                    "{text}[{}]",
                    self.pick(&["a", "1-b", "x-2", "-3", "1--2", "0x1-0x2", "1_2"])
                ),
            ),
            8 => ("range without end", format!("{text}[{number}-]")),
            _ => (
                "range too long",
                format!(
                    "{text}[{number}-{}]",
                    number + 65_536 + self.below(1_000_000)
                ),
            ),
        };
        Case { kind, expression }
    }
}
