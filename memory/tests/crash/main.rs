//! Crashes: a process that writes memories is killed, loses power, or fills its disk, and what it acknowledged is looked for.
//!
//! `cargo test -p memory --test crash` takes few rounds; `cargo test --release -p memory --test crash -- --rounds 200` many.
//! `--seed` repeats a run. A name, or a part of one, runs only the tests that have it.

mod check;
mod disk;
mod journal;
#[path = "../support/mod.rs"]
mod support;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use check::check;
use disk::{Disk, PowerFailure, Sync, run_killed};
use journal::Model;
use support::Random;
use writer::Work;

/// Crashes that one folder goes through before a new one begins.
const NUM_ROUNDS_PER_FOLDER: u64 = 5;
/// A process is killed after at most so long.
const KILL_AFTER_MS_MAX: usize = 250;
/// A run of [`SHORT`] takes about so many steps; power fails anywhere in it, and sometimes after it.
const NUM_STEPS: usize = 7_000;
/// What a process does that is not killed.
const SHORT: Work = Work { run: 0, seed: 0, num_threads: 4, num_operations: 40 };

/// What the command line asks for.
struct Options {
    rounds: u64,
    seed: u64,
    names: Vec<String>,
}

/// A test: its name, and what runs it and returns the line that tells what was seen.
type Test = (&'static str, fn(&Options) -> String);

const TESTS: [Test; 5] = [
    ("killed_processes_lose_nothing", killed_processes_lose_nothing),
    ("what_was_synced_survives_a_power_failure", what_was_synced_survives_a_power_failure),
    ("a_missing_sync_of_files_is_noticed", a_missing_sync_of_files_is_noticed),
    ("a_missing_sync_of_folders_is_noticed", a_missing_sync_of_folders_is_noticed),
    ("a_full_disk_loses_nothing", a_full_disk_loses_nothing),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "--writer") {
        let number = |place: usize| arguments[place].parse::<u64>().expect("a number");
        let (num_threads, num_operations) = (number(4) as usize, number(5) as usize);
        let work = Work { run: number(2), seed: number(3), num_threads, num_operations };
        return writer::write(Path::new(&arguments[1]), work);
    }
    let options = Options::parse(&arguments);
    let chosen = |name: &str| options.names.is_empty() || options.names.iter().any(|part| name.contains(part.as_str()));
    let tests: Vec<&Test> = TESTS.iter().filter(|(name, _run)| chosen(name)).collect();
    println!("\nrunning {} tests (seed {})", tests.len(), options.seed);
    for (name, run) in &tests {
        println!("test {name} ... {}", run(&options));
    }
    println!("\ntest result: ok. {} passed; 0 failed; {} filtered out", tests.len(), TESTS.len() - tests.len());
}

impl Options {
    /// Options of the usual test harness are passed over.
    fn parse(arguments: &[String]) -> Self {
        let mut options = Self { rounds: 10, seed: 1, names: Vec::new() };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut number = || arguments.next().and_then(|number| number.parse().ok()).expect("a number follows");
            match argument.as_str() {
                "--rounds" => options.rounds = number(),
                "--seed" => options.seed = number(),
                other if other.starts_with('-') => {}
                name => options.names.push(name.to_owned()),
            }
        }
        options
    }

    fn random(&self) -> Random {
        Random(self.seed)
    }
}

/// Folders of crashes, one after the other, with what must be in them.
struct Place {
    parent: tempfile::TempDir,
    model: Model,
    num_folders: u64,
    num_acknowledged: usize,
}

impl Place {
    fn new() -> Self {
        // The preloaded disk knows its folder by its real path.
        let place = tempfile::tempdir().expect("a temporary folder");
        Self { parent: place, model: Model::default(), num_folders: 0, num_acknowledged: 0 }
    }

    fn path(&self) -> PathBuf {
        self.parent.path().canonicalize().expect("it is there").join(format!("data-{}", self.num_folders))
    }

    /// Begins a new folder.
    fn begin(&mut self) {
        self.num_acknowledged += std::mem::take(&mut self.model).num_acknowledged;
        std::fs::remove_dir_all(self.path()).ok();
        self.advance();
        for name in ["cubes", "heads"] {
            std::fs::create_dir_all(self.path().join(name)).expect("a folder");
        }
    }

    /// The next folder, which is not there yet.
    fn advance(&mut self) -> PathBuf {
        self.num_folders += 1;
        self.path()
    }

    fn must_hold(&mut self, round: u64, seed: u64) {
        if let Err(wrong) = check(&self.path(), &mut self.model) {
            let kept = self.parent.path().to_owned();
            std::mem::forget(std::mem::replace(&mut self.parent, tempfile::tempdir().expect("a temporary folder")));
            panic!("round {round} of seed {seed}: {wrong}\nit is kept in {}", kept.display());
        }
    }

    fn num_acknowledged(&self) -> usize {
        self.num_acknowledged + self.model.num_acknowledged
    }
}

fn killed_processes_lose_nothing(options: &Options) -> String {
    let (mut place, mut random) = (Place::new(), options.random());
    for round in 0..options.rounds {
        if round % NUM_ROUNDS_PER_FOLDER == 0 {
            place.begin();
        }
        let work = Work { run: round, seed: random.next(), num_threads: 4, num_operations: usize::MAX };
        let after = Duration::from_millis(random.below(KILL_AFTER_MS_MAX) as u64);
        run_killed(&place.path(), work, after, &mut place.model);
        place.must_hold(round, options.seed);
    }
    let num_acknowledged = place.num_acknowledged();
    assert!(num_acknowledged > 0, "every process was killed before it wrote anything");
    format!("ok ({} kills, {num_acknowledged} acknowledged writes)", options.rounds)
}

fn what_was_synced_survives_a_power_failure(options: &Options) -> String {
    let (mut place, mut random) = (Place::new(), options.random());
    let Some(disk) = Disk::build(place.parent.path()) else { return skipped() };
    for round in 0..options.rounds {
        if round % NUM_ROUNDS_PER_FOLDER == 0 {
            place.begin();
        }
        let work = Work { run: round, seed: random.next(), ..SHORT };
        let step = 1 + random.below(NUM_STEPS);
        let failure = PowerFailure { step, keep_percent: [0, 0, 30, 70][random.below(4)], sync: Sync::Real };
        let folder = place.path();
        let image = place.advance();
        disk.run((&folder, &image), work, failure, &mut place.model);
        place.must_hold(round, options.seed);
    }
    let num_acknowledged = place.num_acknowledged();
    assert!(num_acknowledged > 0, "power failed before anything was written");
    format!("ok ({} failures, {num_acknowledged} acknowledged writes)", options.rounds)
}

/// The test above can fail: were the write-ahead log not synced, this is what it would see.
fn a_missing_sync_of_files_is_noticed(options: &Options) -> String {
    let (mut place, mut random) = (Place::new(), options.random());
    let Some(disk) = Disk::build(place.parent.path()) else { return skipped() };
    place.begin();
    let mut run = |sync: Sync, run: u64| {
        let (folder, image) = (place.path(), place.advance());
        let work = Work { run, seed: random.next(), ..SHORT };
        disk.run((&folder, &image), work, PowerFailure { step: 0, keep_percent: 0, sync }, &mut place.model);
        check(&place.path(), &mut place.model)
    };
    assert_eq!(run(Sync::Real, 0), Ok(()));
    let wrong = run(Sync::SwallowedForFiles, 1).expect_err("nothing was synced, so something must be missing");
    assert!(wrong.contains("lost") || wrong.contains("mounted"), "{wrong}");
    format!("ok ({wrong})")
}

fn a_missing_sync_of_folders_is_noticed(options: &Options) -> String {
    let (mut place, mut random) = (Place::new(), options.random());
    let Some(disk) = Disk::build(place.parent.path()) else { return skipped() };
    place.begin();
    let (folder, image) = (place.path(), place.advance());
    let failure = PowerFailure { step: 0, keep_percent: 0, sync: Sync::SwallowedForFolders };
    disk.run((&folder, &image), Work { seed: random.next(), ..SHORT }, failure, &mut place.model);
    let wrong = check(&place.path(), &mut place.model).expect_err("no name was synced, so the cube must be missing");
    format!("ok ({wrong})")
}

fn a_full_disk_loses_nothing(options: &Options) -> String {
    let (mut place, mut random) = (Place::new(), options.random());
    let Some(disk) = Disk::build(place.parent.path()) else { return skipped() };
    let mut num_refused = 0;
    for round in 0..options.rounds {
        if round % NUM_ROUNDS_PER_FOLDER == 0 {
            num_refused += place.model.num_refused;
            place.begin();
        }
        let work = Work { run: round, seed: random.next(), ..SHORT };
        disk.run_full(&place.path(), work, random.below(NUM_STEPS / 2), &mut place.model);
        place.must_hold(round, options.seed);
    }
    num_refused += place.model.num_refused;
    assert!(num_refused > 0, "no write was ever refused");
    let num_acknowledged = place.num_acknowledged();
    format!("ok ({} full disks, {num_acknowledged} acknowledged writes, {num_refused} refused)", options.rounds)
}

fn skipped() -> String {
    "skipped: there is no C compiler, or the system is not Linux".to_owned()
}
