//! Where log lines go: standard error, one line each, from the level that the operator chose.

use std::io;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Only what the operator has to act on.
    Error,
    /// And what may become a problem.
    Warn,
    /// And one line for each request.
    #[default]
    Info,
    /// And connections that broke.
    Debug,
}

/// Sends log lines to standard error from now on. A program that has set up its own logging keeps it.
pub fn log_to_stderr(level: LogLevel) {
    let level = match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
    };
    let subscriber = tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(level).with_target(false);
    // The only failure is that a subscriber is installed already.
    let _ = subscriber.try_init();
}
