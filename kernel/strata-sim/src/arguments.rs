//! The command line.

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// Run this seed again, all of it, and nothing else (unless `histories` says how many).
    pub seed: Option<u64>,
    pub histories: Option<u64>,
    pub images: u64,
    /// And so many histories with every call failing.
    pub workloads: u64,
    pub seconds: Option<u64>,
    pub quick: bool,
    pub sabotage_only: bool,
    /// Plant this bug alone.
    pub twin: Option<String>,
    pub flips_only: bool,
    pub workers: usize,
}

pub const USAGE: &str = "\
strata-sim [--seed N] [--histories N] [--images N] [--seconds N] [--workers N] [--quick] [--sabotage] [--twin NAME]
           [--flips]

  --seed N       run one seed again, with everything that can be done to it; with --histories, begin there
  --histories N  so many seeds
  --images N     seeds until there are so many crash images (1020000, and every call of 75 histories failed; 10000 with --quick)
  --seconds N    seeds for so long
  --workers N    on so many threads (2)
  --quick        a hundredth of it
  --sabotage     only plant the known bugs, and see whether each is caught
  --twin NAME    only plant this one
  --flips        only turn every bit of a database of 64 KiB round, and cut every file at every byte";

impl Arguments {
    /// `Err` says what is wrong, or is the usage.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut arguments = Arguments {
            seed: None,
            histories: None,
            images: 0,
            workloads: 0,
            seconds: None,
            quick: false,
            sabotage_only: false,
            twin: None,
            flips_only: false,
            workers: 2,
        };
        let mut words = words;
        while let Some(word) = words.next() {
            let mut number = || number_of(&word, words.next());
            match &word[..] {
                "--seed" => arguments.seed = Some(number()?),
                "--histories" => arguments.histories = Some(number()?),
                "--images" => arguments.images = number()?,
                "--seconds" => arguments.seconds = Some(number()?),
                "--workers" => arguments.workers = number()?.clamp(1, 64) as usize,
                "--quick" => arguments.quick = true,
                "--sabotage" => arguments.sabotage_only = true,
                "--twin" => {
                    arguments.sabotage_only = true;
                    arguments.twin = Some(words.next().ok_or("--twin needs a name")?);
                }
                "--flips" => arguments.flips_only = true,
                "--help" | "-h" => return Err(USAGE.to_owned()),
                other => return Err(format!("unknown argument '{other}'\n{USAGE}")),
            }
        }
        if arguments.images == 0 {
            (arguments.images, arguments.workloads) = if arguments.quick { (10_000, 1) } else { (1_020_000, 75) };
        }
        Ok(arguments)
    }

    /// Whether one seed is to be run again.
    pub fn is_replay(&self) -> bool {
        self.seed.is_some() && self.histories.is_none() && self.seconds.is_none()
    }
}

fn number_of(name: &str, word: Option<String>) -> Result<u64, String> {
    let word = word.ok_or_else(|| format!("{name} needs a number"))?;
    word.parse().map_err(|_| format!("{name} needs a number, not '{word}'"))
}
