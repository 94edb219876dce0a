//! Runs of the writing process: killed, on a disk that forgets what was not synced, or on a full one.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::journal::Model;
use crate::writer::Work;

/// What the preloaded disk exits with when its power fails.
const POWER_FAILED: i32 = 99;

/// Starts the process and takes its lines into the model; `end` sees to it that it ends.
fn run(command: &mut Command, model: &mut Model, end: impl FnOnce(&mut Child)) -> Option<i32> {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("this program starts");
    let mut out = child.stdout.take().expect("its output is piped");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_len| text)
    });
    end(&mut child);
    let status = child.wait().expect("it ends");
    let text = reader.join().expect("the reader ends").expect("it writes UTF-8");
    let whole = text.rfind('\n').map_or(0, |end| end);
    text[..whole].lines().for_each(|line| model.read(line));
    status.code()
}

fn writer(folder: &Path, work: Work) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.arg("--writer").arg(folder);
    let numbers = [work.run, work.seed, work.num_threads as u64, work.num_operations as u64];
    command.args(numbers.map(|number| number.to_string()));
    command
}

/// Kills the process after some time, unless it has ended by then.
pub fn run_killed(folder: &Path, work: Work, after: Duration, model: &mut Model) {
    run(&mut writer(folder, work), model, |child| {
        std::thread::sleep(after);
        child.kill().expect("it can be killed");
    });
}

/// The library that stands between the process and its disk.
pub struct Disk {
    library: PathBuf,
}

/// What a sync does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// What it should.
    Real,
    /// Nothing, for files.
    SwallowedForFiles,
    /// Nothing, for folders.
    SwallowedForFolders,
}

/// When and how power fails.
#[derive(Debug, Clone, Copy)]
pub struct PowerFailure {
    /// At which change or sync; 0: when the process has ended.
    pub step: usize,
    /// How many of a hundred unsynced changes are there all the same.
    pub keep_percent: u64,
    pub sync: Sync,
}

impl Disk {
    /// Compiles the library into this folder; `None` where there is no C compiler, or not this system's way to preload.
    pub fn build(folder: &Path) -> Option<Self> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/lost_writes.c");
        let library = folder.join("lost_writes.so");
        let arguments = ["-O1", "-shared", "-fPIC", "-o"];
        let built = Command::new("cc").args(arguments).arg(&library).arg(source).args(["-ldl", "-pthread"]).output();
        match built {
            Ok(output) if output.status.success() => Some(Self { library }),
            Ok(output) => panic!("the disk does not compile: {}", String::from_utf8_lossy(&output.stderr)),
            Err(_) => None,
        }
    }

    /// Runs until power fails; `image` is then the folder as it is found afterwards.
    pub fn run(&self, (folder, image): (&Path, &Path), work: Work, failure: PowerFailure, model: &mut Model) {
        let mut command = writer(folder, work);
        let sync = match failure.sync {
            Sync::Real => "real",
            Sync::SwallowedForFiles => "swallow-files",
            Sync::SwallowedForFolders => "swallow-folders",
        };
        self.preload(&mut command, folder).env("FAULT_IMAGE", image).env("FAULT_SYNC", sync);
        command.env("FAULT_STEP", failure.step.to_string()).env("FAULT_KEEP", failure.keep_percent.to_string());
        let code = run(command.env("FAULT_SEED", work.seed.to_string()), model, |_child| {});
        assert!(matches!(code, Some(0 | POWER_FAILED)), "the process ended with {code:?}");
        fs::remove_dir_all(folder).expect("the folder on the lost disk");
    }

    /// Runs on a disk that takes so many writes and no more.
    pub fn run_full(&self, folder: &Path, work: Work, num_writes: usize, model: &mut Model) {
        let mut command = writer(folder, work);
        self.preload(&mut command, folder).env("FAULT_FULL", (num_writes + 1).to_string());
        // Where not even the cube could be made, the process says so and fails.
        run(command.stderr(Stdio::null()), model, |_child| {});
    }

    fn preload<'c>(&self, command: &'c mut Command, folder: &Path) -> &'c mut Command {
        command.env("LD_PRELOAD", &self.library).env("FAULT_ROOT", folder)
    }
}
