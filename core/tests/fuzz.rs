//! A million texts that nobody of ours has made, put to the reader of sealed envelopes and to the readers of the
//! queues: no panic, and no envelope accepted. The seed is fixed, so that a failure can be looked at again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use spillway_core::envelope::{
    Envelope, OpenError, PublicKey, SigningKey, Update, UpdateAction, open, seal,
};
use spillway_core::message::{
    Message, MessageError, ReportBody, ResumeQueueBody, SuspendQueueBody,
};
use spillway_core::name::{ClusterName, Generation};

/// How many texts there are, of all kinds together.
const TEXTS: usize = 1_000_000;
const SEED: u64 = 0x0073_7069_6c6c_7761;
/// Whatever a seal is made of.
const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";

/// `SplitMix64` (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn text(&mut self, length: usize, alphabet: &[u8]) -> String {
        let byte = |random: &mut Self| char::from(alphabet[random.below(alphabet.len())]);
        (0..length).map(|_| byte(self)).collect()
    }

    fn pick<'a>(&mut self, texts: &'a [String]) -> &'a str {
        &texts[self.below(texts.len())]
    }
}

/// That of the sample events.
fn cluster() -> ClusterName {
    ClusterName::new("lab").unwrap()
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

/// Real ones, of several lengths.
fn real_envelopes() -> Vec<String> {
    let seal = |count: usize| {
        let update = |number: usize| Update {
            nodes: format!("cloud[{number}-{}]", number + 1),
            generation: Generation::new(1_790_000_000_000_000).unwrap(),
            number: number as u64 + 1,
            request_id: None,
            note: None,
            action: UpdateAction::Address {
                addresses: vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()],
            },
        };
        let envelope = Envelope {
            envelope_id: format!("envelope-{count}"),
            issued_ms: 1_790_000_000_000,
            expires_ms: 1_790_000_600_000,
            updates: (0..count).map(update).collect(),
        };
        seal(&cluster(), &envelope, &key(1)).unwrap()
    };
    [0, 1, 2, 5].map(seal).to_vec()
}

/// The bodies of the sample events.
fn real_messages() -> Vec<String> {
    let events = [
        include_str!("../../events/launch/resume.json"),
        include_str!("../../events/terminate/suspend.json"),
        include_str!("../../events/report/agent.json"),
        include_str!("../../events/report/nodes.json"),
        include_str!("../../events/report/timers.json"),
    ];
    let mut bodies = Vec::new();
    for event in events {
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        for record in event["Records"].as_array().unwrap() {
            bodies.push(record["body"].as_str().unwrap().to_owned());
        }
    }
    assert!(bodies.len() > 5);
    bodies
}

/// One character of a text is another one now.
fn changed(text: &str, random: &mut Random, alphabet: &[u8]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let at = random.below(bytes.len());
    let old = bytes[at];
    while bytes[at] == old {
        bytes[at] = alphabet[random.below(alphabet.len())];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Cut anywhere, or with something before, after or in it, or with a piece of itself twice.
fn cut_or_grown(text: &str, random: &mut Random) -> String {
    let at = random.below(text.len());
    let more = 1 + random.below(40);
    match random.below(5) {
        0 => text[..at].to_owned(),
        1 => text[at + 1..].to_owned(),
        2 => format!("{text}{}", random.text(more, ALPHABET)),
        3 => format!(
            "{}{}{}",
            &text[..at],
            random.text(more, ALPHABET),
            &text[at..]
        ),
        _ => format!("{text}{}", &text[at..]),
    }
}

/// The parts of two seals of different keys or contents, mixed.
fn swapped(real: &[String], random: &mut Random) -> String {
    let foreign = real[0].replacen(key(1).id().as_str(), key(2).id().as_str(), 1);
    let sources = [
        random.pick(real).to_owned(),
        random.pick(real).to_owned(),
        foreign,
    ];
    loop {
        let part = |random: &mut Random, index: usize| {
            let source = &sources[random.below(sources.len())];
            source.split('.').nth(index).unwrap().to_owned()
        };
        let mut parts: Vec<String> = (0..4).map(|index| part(random, index)).collect();
        if random.below(4) == 0 {
            let (one, other) = (random.below(4), random.below(4));
            parts.swap(one, other);
        }
        let text = parts.join(".");
        if !real.contains(&text) {
            return text;
        }
    }
}

/// In form a seal of a trusted key, and all of it made up.
fn made_up(random: &mut Random) -> String {
    let alphabet = &ALPHABET[..ALPHABET.len() - 1];
    let length = random.below(400);
    let payload = random.text(length, alphabet);
    // 64 bytes are 86 characters, of which the last carries four bits that must be zero.
    let signature = format!("{}A", random.text(85, alphabet));
    format!("spillway1.{}.{payload}.{signature}", key(1).id())
}

fn what_open_says(text: &str, trusted: &[PublicKey]) -> &'static str {
    match open(text, &cluster(), trusted) {
        Ok(_) => "accepted",
        Err(OpenError::TooLarge { .. }) => "too large",
        Err(OpenError::Malformed(_)) => "malformed",
        Err(OpenError::UnknownKey { .. }) => "unknown key",
        Err(OpenError::Forged) => "forged",
        Err(OpenError::Message(_)) => "message",
    }
}

fn read_as_all(text: &str) -> &'static str {
    let own = cluster();
    let results: [Result<(), MessageError>; 4] = [
        Message::<ResumeQueueBody>::parse(text, &own).map(drop),
        Message::<SuspendQueueBody>::parse(text, &own).map(drop),
        Message::<ReportBody>::parse(text, &own).map(drop),
        Message::<Envelope>::parse(text, &own).map(drop),
    ];
    if results.iter().any(Result::is_ok) {
        "read"
    } else {
        "refused"
    }
}

/// A kind of text, what read it, and what that said: how often.
type Mix = BTreeMap<(&'static str, &'static str), usize>;

fn run(random: &mut Random, texts: usize) -> Mix {
    let (envelopes, messages) = (real_envelopes(), real_messages());
    let trusted = [key(1).public(), key(2).public()];
    let mut mix = Mix::new();
    for number in 0..texts {
        let (kind, text) = match number % 20 {
            0..=3 => (
                "envelope, one character changed",
                changed(random.pick(&envelopes), random, ALPHABET),
            ),
            4..=6 => (
                "envelope, cut or grown",
                cut_or_grown(random.pick(&envelopes), random),
            ),
            7..=8 => ("envelope, parts swapped", swapped(&envelopes, random)),
            9..=10 => ("envelope, made up", made_up(random)),
            11..=12 => {
                let length = random.below(600);
                ("envelope, random characters", random.text(length, ALPHABET))
            }
            13 => {
                let bytes: Vec<u8> = (0..random.below(300))
                    .map(|_| random.next().to_le_bytes()[0])
                    .collect();
                ("random bytes", String::from_utf8_lossy(&bytes).into_owned())
            }
            14..=17 => {
                let json: Vec<u8> = (0x20..0x7f).collect();
                (
                    "message, one character changed",
                    changed(random.pick(&messages), random, &json),
                )
            }
            _ => (
                "message, cut or grown",
                cut_or_grown(random.pick(&messages), random),
            ),
        };
        let told = catch_unwind(AssertUnwindSafe(|| {
            (what_open_says(&text, &trusted), read_as_all(&text))
        }));
        let Ok((opened, read)) = told else {
            panic!("{kind}: a reader panics at {text:?}");
        };
        assert_ne!(opened, "accepted", "{kind}: {text:?}");
        let said = if kind.starts_with("message") {
            read
        } else {
            opened
        };
        *mix.entry((kind, said)).or_default() += 1;
    }
    mix
}

#[test]
fn a_million_texts_that_are_not_ours() {
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8);
    let trusted = [key(1).public(), key(2).public()];
    for text in real_envelopes() {
        assert_eq!(what_open_says(&text, &trusted), "accepted");
    }
    let mut mix = Mix::new();
    std::thread::scope(|scope| {
        let work = |worker: usize| {
            let texts = TEXTS / workers + usize::from(worker < TEXTS % workers);
            move || run(&mut Random(SEED ^ worker as u64), texts)
        };
        let running: Vec<_> = (0..workers)
            .map(|worker| scope.spawn(work(worker)))
            .collect();
        for worker in running {
            for (what, count) in worker.join().expect("no panic in a reader") {
                *mix.entry(what).or_default() += count;
            }
        }
    });
    for ((kind, said), count) in &mix {
        println!("{count:>7}  {kind}: {said}");
    }
    assert_eq!(mix.values().sum::<usize>(), TEXTS);
    // The mix reaches every check: signatures are verified in a fifth of all, and messages are read.
    let forged: usize = mix
        .iter()
        .filter(|((_, said), _)| *said == "forged")
        .map(|(_, count)| count)
        .sum();
    assert!(forged > TEXTS / 5, "{forged}");
    for said in ["malformed", "unknown key", "read", "refused"] {
        assert!(mix.keys().any(|(_, told)| *told == said), "{said}");
    }
}
