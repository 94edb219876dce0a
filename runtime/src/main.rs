//! The binary `memos`: parses the command line and hands over to the runtime library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use runtime::{cli::Cli, environment::Environment};

fn main() -> ExitCode {
    let environment = Environment::read();
    match Cli::parse().run(&environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memos: {error:#}");
            ExitCode::FAILURE
        }
    }
}
