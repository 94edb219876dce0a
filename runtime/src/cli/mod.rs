//! The command line: `memos serve | chat | bench | key | cube | item | audit`, one file a command.

pub mod audit;
pub mod bench;
pub mod chat;
pub mod cube;
mod download_line;
pub mod engine_args;
pub mod item;
pub mod key;
mod local_memory;
mod memory_args;
pub mod serve;
mod table;

use clap::{Parser, Subcommand};

use crate::environment::Environment;

/// Threads for sockets, JSON and tokenizing; computing has threads of its own.
const NUM_ASYNC_THREADS: usize = 2;

/// MemOS runtime: serves a language model behind an OpenAI-compatible endpoint and gives it memory.
#[derive(Debug, Parser)]
#[command(name = "memos", version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a model over HTTP (without arguments: the bundled model on 127.0.0.1:8000)
    Serve(Box<serve::ServeArgs>),
    /// Talk to a model in the terminal
    Chat(chat::ChatArgs),
    /// Measure: an endpoint under load, cache reuse, the bare engine, retrieval quality
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Create, list and revoke API keys
    Key(key::KeyArgs),
    /// Make, look at, check, carry and compare MemCubes, while no server uses their data directory
    Cube(cube::CubeArgs),
    /// Add, list, search, import, export and erase memories of a cube, while no server uses its data directory
    Item(item::ItemArgs),
    /// Read and verify the audit log of a cube, while no server uses its data directory
    Audit(audit::AuditArgs),
}

impl Cli {
    /// Runs the chosen command to its end.
    ///
    /// # Errors
    /// Whatever the command could not do, in words for the terminal.
    pub fn run(self, environment: &Environment) -> anyhow::Result<()> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(NUM_ASYNC_THREADS).enable_all().build()?;
        match self.command {
            Command::Serve(args) => runtime.block_on(serve::run(*args, environment)),
            Command::Chat(args) => runtime.block_on(chat::run(args, environment)),
            Command::Bench(command) => runtime.block_on(bench::run(command, environment)),
            Command::Key(args) => key::run(args, environment),
            Command::Cube(args) => cube::run(args, environment),
            Command::Item(args) => item::run(args, environment),
            Command::Audit(args) => audit::run(args, environment),
        }
    }
}
