//! `memos chat`: a conversation in the terminal, or one line a turn through a pipe.

mod backend;
mod conversation;
mod input;

use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;

use anyhow::bail;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::engine_args::EngineArgs;
use crate::environment::Environment;
use backend::{Answer, AnswerError, Backend};
use conversation::Conversation;
use input::{HELP, Input, LineError, read_stdin};

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
    let mut session = Session {
        conversation: Conversation::new(args.system, &args.memory),
        backend,
        user: if std::io::stdin().is_terminal() { User::Person } else { User::Program },
        // Only from here on: until the model is loaded, Ctrl-C ends the process as usual.
        interrupts: signal(SignalKind::interrupt())?,
    };
    let result = session.run(read_stdin()?).await;
    session.backend.shutdown().await;
    result
}

/// Who is at the other end of stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    /// Someone who sees a prompt, can try again, and can press Ctrl-C.
    Person,
    /// A pipe or a file.
    Program,
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
            Input::System(text) => self.conversation.set_system(text),
            Input::Reset => self.conversation.reset(),
            Input::Help => notice(HELP),
            Input::Exit => return Ok(Flow::Leave),
            Input::Unknown(line) if self.user == User::Program => bail!("unknown command {line}"),
            Input::Unknown(line) => notice(&format!("Unknown command {line}. /help lists the commands.")),
        }
        Ok(Flow::Continue)
    }

    /// One question and its answer.
    async fn turn(&mut self, text: &str) -> anyhow::Result<()> {
        self.conversation.ask(text);
        let mut said = String::new();
        let result = self.answer(&mut said).await;
        // What was said before an error or Ctrl-C is part of the conversation: the user has read it.
        self.conversation.answer(said.trim());
        writeln!(std::io::stdout())?;
        result
    }

    async fn answer(&mut self, said: &mut String) -> anyhow::Result<()> {
        let mut answer = tokio::select! {
            answer = begin(&self.backend, &mut self.conversation) => answer?,
            _ = self.interrupts.recv() => return self.interrupted(),
        };
        let to_terminal = std::io::stdout().is_terminal();
        loop {
            let piece = tokio::select! {
                piece = answer.next() => piece?,
                _ = self.interrupts.recv() => return self.interrupted(),
            };
            let Some(piece) = piece else { return Ok(()) };
            said.push_str(&piece);
            let mut stdout = std::io::stdout();
            match to_terminal {
                true => stdout.write_all(harmless(&piece).as_bytes())?,
                false => stdout.write_all(piece.as_bytes())?,
            }
            stdout.flush()?;
        }
    }

    fn interrupted(&self) -> anyhow::Result<()> {
        match self.user {
            User::Person => Ok(()),
            User::Program => bail!("interrupted"),
        }
    }
}

/// Begins an answer; drops the oldest turns while the conversation is too long.
async fn begin(backend: &Backend, conversation: &mut Conversation) -> Result<Answer, AnswerError> {
    let mut num_dropped = 0;
    loop {
        match backend.answer(conversation.messages()).await {
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
