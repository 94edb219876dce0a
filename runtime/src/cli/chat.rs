//! `memos chat`: a conversation in the terminal, or one line a turn through a pipe.

mod backend;
mod conversation;
mod cube;
mod input;

use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use memory::cube::CubeName;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::engine_args::EngineArgs;
use crate::environment::Environment;
use crate::memories::Provision;
use backend::{Answer, AnswerError, Backend};
use conversation::Conversation;
use cube::{Cube, LocalCube, Remembered};
use input::{HELP, Input, LineError, read_stdin};

/// The line that confirms an erasure.
const CONFIRMATION: &str = "yes";

/// What `--help` says below the options.
const DETAILS: &str = "\
Without options the bundled model answers. Lines that begin with a slash are commands; /help lists them. Ctrl-C stops \
an answer. When stdin is not a terminal, every line is a turn and stdout holds the answers and nothing else. When the \
conversation outgrows the model's context, its oldest turns are dropped, and a notice says so.";

/// Options of `memos chat`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = DETAILS)]
pub struct ChatArgs {
    /// The engine that answers; with --base-url only --model is used, as the name to ask for.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Talk to an OpenAI-compatible endpoint instead; /v1 is added when the URL has no path
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// API key; better in the environment variable MEMOS_API_KEY, where other users of the machine cannot see it
    #[arg(long, value_name = "KEY", requires = "base_url")]
    pub api_key: Option<String>,
    /// Instructions for the model (the beginning of the system turn)
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Something to remember, shown to the model in every turn; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub memory: Vec<String>,
    /// Recall from this cube and remember in it what is told; it is made if it is not there. With --base-url it is a cube of
    /// the server
    #[arg(long, value_name = "NAME")]
    pub cube: Option<CubeName>,
    /// Data directory of the cube; by default $MEMOS_DATA_DIR, else the user's data directory
    #[arg(long, value_name = "FOLDER", requires = "cube", conflicts_with = "base_url")]
    pub data_dir: Option<PathBuf>,
    /// Longest answer in tokens. Default: what the context has room for, at most 1024 in this process
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<NonZeroUsize>,
    /// Sampling temperature; 0 always takes the most likely token. Default: what the model recommends, else 0
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// Sample from the most likely tokens that together have this probability
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,
    /// Sample from this many most likely tokens
    #[arg(long, value_name = "K")]
    pub top_k: Option<u32>,
    /// Seed of the sampling: the same seed gives the same answers
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
}

/// Runs the chat until the user leaves or the input ends.
///
/// # Errors
/// A model that cannot be loaded, an endpoint that cannot be reached; when stdin is not a terminal, also the first
/// turn that cannot be answered.
pub async fn run(args: ChatArgs, environment: &Environment) -> anyhow::Result<()> {
    let backend = Backend::start(&args, environment).await?;
    let cube = open_cube(&args, &backend, environment)?;
    let mut session = Session {
        conversation: Conversation::new(args.system, &args.memory),
        backend,
        cube,
        doomed: None,
        user: if std::io::stdin().is_terminal() { User::Person } else { User::Program },
        // Only from here on: until the model is loaded, Ctrl-C ends the process as usual.
        interrupts: signal(SignalKind::interrupt())?,
    };
    let result = session.run(read_stdin()?).await;
    session.backend.shutdown().await;
    if let Some(cube) = session.cube {
        cube.close();
    }
    result
}

/// The cube that `--cube` names: here, or at the endpoint.
fn open_cube(args: &ChatArgs, backend: &Backend, environment: &Environment) -> anyhow::Result<Option<Cube>> {
    let Some(name) = &args.cube else { return Ok(None) };
    if let Some(client) = backend.client() {
        return Ok(Some(Cube::Remote { client, name: name.clone(), report: serde_json::Value::Null }));
    }
    let Some(tokenizer) = backend.tokenizer() else { return Ok(None) };
    let data_dir = args.data_dir.clone().or_else(|| environment.data_dir.clone());
    let (local, provision) = LocalCube::open(name, data_dir, tokenizer)?;
    if provision == Provision::Made {
        notice(&format!("The cube {name} was made."));
    }
    Ok(Some(Cube::Local(Box::new(local))))
}

/// Who is at the other end of stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    /// Someone who sees a prompt, can try again, and can press Ctrl-C.
    Person,
    /// A pipe or a file.
    Program,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Complete,
    Interrupted,
}

/// Whether the chat goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    Leave,
}

struct Session {
    conversation: Conversation,
    backend: Backend,
    cube: Option<Cube>,
    /// The memory that is erased if the next line says so.
    doomed: Option<Remembered>,
    user: User,
    interrupts: Signal,
}

impl Session {
    async fn run(&mut self, mut lines: mpsc::Receiver<Result<String, LineError>>) -> anyhow::Result<()> {
        if self.user == User::Person {
            notice(&format!("{}. /help lists the commands, /exit leaves.", self.backend.describe()));
        }
        while let Some(line) = self.next_line(&mut lines).await {
            let flow = match line {
                Ok(line) => self.obey(&line).await,
                Err(error) => Err(error.into()),
            };
            match flow {
                Ok(Flow::Continue) => {}
                Ok(Flow::Leave) => break,
                // A person reads the notice and tries again; a program would go on with answers missing.
                Err(error) if self.user == User::Person => notice(&format!("{error:#}")),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for a line; `None` when the input has ended or the user wants to leave.
    async fn next_line(
        &mut self,
        lines: &mut mpsc::Receiver<Result<String, LineError>>,
    ) -> Option<Result<String, LineError>> {
        let mut num_interrupts = 0;
        loop {
            if self.user == User::Person {
                // A prompt that cannot be shown is no reason to stop.
                let _ = write!(std::io::stderr(), "> ");
            }
            tokio::select! {
                line = lines.recv() => {
                    if line.is_none() && self.user == User::Person {
                        notice("");
                    }
                    return line;
                }
                _ = self.interrupts.recv() => num_interrupts += 1,
            }
            if self.user == User::Program || num_interrupts == 2 {
                notice("");
                return None;
            }
            notice("\nCtrl-C again leaves.");
        }
    }

    async fn obey(&mut self, line: &str) -> anyhow::Result<Flow> {
        if let Some(doomed) = self.doomed.take() {
            if line.trim() == CONFIRMATION {
                return self.erase(&doomed).await.map(|()| Flow::Continue);
            }
            notice("Nothing was erased.");
        }
        match Input::parse(line) {
            Input::Nothing => {}
            Input::Say(text) => self.turn(text).await?,
            Input::Remember(text) => {
                self.conversation.remember(text);
                notice(&format!("Remembered; {} in all.", self.conversation.memories().len()));
            }
            Input::ListMemories if self.conversation.memories().is_empty() => notice("Nothing is remembered."),
            Input::ListMemories => {
                self.conversation.memories().iter().for_each(|memory| notice(&format!("- {memory}")))
            }
            Input::ListCube => self.list_cube().await?,
            Input::Forget(wanted) => self.forget(wanted).await?,
            Input::Why => self.why()?,
            Input::System(text) => self.conversation.set_system(text),
            Input::Reset => self.conversation.reset(),
            Input::Help => notice(HELP),
            Input::Exit => return Ok(Flow::Leave),
            Input::Unknown(line) if self.user == User::Program => bail!("unknown command {line}"),
            Input::Unknown(line) => notice(&format!("Unknown command {line}. /help lists the commands.")),
        }
        Ok(Flow::Continue)
    }

    fn cube(&self) -> anyhow::Result<&Cube> {
        self.cube.as_ref().context("this chat has no cube; start it with --cube NAME")
    }

    async fn list_cube(&self) -> anyhow::Result<()> {
        let memories = self.cube()?.list().await?;
        if memories.is_empty() {
            notice("The cube is empty.");
        }
        memories.iter().for_each(|memory| notice(&harmless(&format!("- {}  {}", memory.id, memory.text))));
        Ok(())
    }

    async fn forget(&mut self, wanted: &str) -> anyhow::Result<()> {
        let mut matching = self.cube()?.matching(wanted).await?;
        match matching.len() {
            0 => notice("No memory says that."),
            1 => {
                self.doomed = matching.pop();
                if let Some(doomed) = &self.doomed {
                    let text = harmless(&doomed.text);
                    notice(&format!("Erase this for good, with everything made from it? {text}\nType {CONFIRMATION}."));
                }
            }
            num => {
                notice(&format!("{num} memories say that; name one by its id:"));
                matching.iter().for_each(|memory| notice(&harmless(&format!("- {}  {}", memory.id, memory.text))));
            }
        }
        Ok(())
    }

    async fn erase(&self, doomed: &Remembered) -> anyhow::Result<()> {
        self.cube()?.erase(&doomed.id).await?;
        notice("Erased.");
        Ok(())
    }

    fn why(&self) -> anyhow::Result<()> {
        let reasons = self.cube()?.why();
        if reasons.is_empty() {
            notice("The last answer was given no memory.");
        }
        reasons.iter().for_each(|reason| notice(&harmless(reason)));
        Ok(())
    }

    /// One question and its answer. What it told is remembered when the answer is complete.
    async fn turn(&mut self, text: &str) -> anyhow::Result<()> {
        self.conversation.ask(text);
        let asked = self.conversation.said();
        let mut said = String::new();
        let result = self.answer(&mut said).await;
        // What was said before an error or Ctrl-C is part of the conversation: the user has read it.
        self.conversation.answer(said.trim());
        writeln!(std::io::stdout())?;
        if result? == Ended::Complete
            && let Some(cube) = &self.cube
        {
            match cube.tell(asked) {
                Ok(0) => {}
                Ok(num) if self.user == User::Person => notice(&format!("({num} remembered)")),
                Ok(_num) => {}
                Err(error) => notice(&format!("(not remembered: {error:#})")),
            }
        }
        Ok(())
    }

    async fn answer(&mut self, said: &mut String) -> anyhow::Result<Ended> {
        let recalled = match &mut self.cube {
            Some(cube) => cube.recall(&self.conversation.said())?,
            None => Vec::new(),
        };
        let mut answer = tokio::select! {
            answer = begin(&self.backend, &mut self.conversation, &recalled) => answer?,
            _ = self.interrupts.recv() => return self.interrupted(),
        };
        let to_terminal = std::io::stdout().is_terminal();
        loop {
            let piece = tokio::select! {
                piece = answer.next() => piece?,
                _ = self.interrupts.recv() => return self.interrupted(),
            };
            let Some(piece) = piece else { return Ok(Ended::Complete) };
            if let (Some(cube), Some(report)) = (&mut self.cube, piece.memory) {
                cube.take_report(report);
            }
            said.push_str(&piece.text);
            let mut stdout = std::io::stdout();
            match to_terminal {
                true => stdout.write_all(harmless(&piece.text).as_bytes())?,
                false => stdout.write_all(piece.text.as_bytes())?,
            }
            stdout.flush()?;
        }
    }

    fn interrupted(&self) -> anyhow::Result<Ended> {
        match self.user {
            User::Person => Ok(Ended::Interrupted),
            User::Program => bail!("interrupted"),
        }
    }
}

/// Begins an answer; drops the oldest turns while the conversation is too long.
async fn begin(backend: &Backend, conversation: &mut Conversation, recalled: &[String]) -> Result<Answer, AnswerError> {
    let mut num_dropped = 0;
    loop {
        match backend.answer(conversation.messages(recalled)).await {
            Err(AnswerError::ContextFull { reason }) => match conversation.drop_oldest_turn() {
                Some(_turn) => num_dropped += 1,
                None => return Err(AnswerError::ContextFull { reason }),
            },
            result => {
                if num_dropped > 0 {
                    notice(&format!("(The context is full: the {num_dropped} oldest turns were dropped.)"));
                }
                return result;
            }
        }
    }
}

/// Says something that is no answer: to stderr, so that stdout holds answers only.
fn notice(text: &str) {
    // Where nobody can read it, nothing is lost.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Text as it may go to a terminal: an answer must not be able to send it control sequences.
fn harmless(text: &str) -> String {
    let replace = |c: char| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_cannot_control_the_terminal() {
        assert_eq!(harmless("a\x1b[2Jb\rc\u{9b}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(harmless("tab\tline\n\u{e9}\u{1f600}"), "tab\tline\n\u{e9}\u{1f600}");
    }
}
