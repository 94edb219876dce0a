//! A runtime of one's own, for callers that block their thread on the client.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Any thread may wait on it, those of an asynchronous runtime excepted.
pub struct OwnRuntime {
    /// Taken out by `drop` alone.
    runtime: Option<Runtime>,
}

impl OwnRuntime {
    /// With one thread of this name.
    ///
    /// # Errors
    /// The operating system refuses the thread.
    pub fn start(thread_name: &str) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name(thread_name).enable_all().build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Waits for what is asked.
    pub fn block_on<F: Future>(&self, asked: F) -> F::Output {
        self.runtime.as_ref().expect("only drop takes the runtime: this is a bug").block_on(asked)
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        // A runtime must not be waited for where an async task drops its owner.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
