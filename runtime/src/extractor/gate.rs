//! How many calls of a model are under way at once. Each holds a thread, and slow ones must not take them all.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use memory::ingest::ModelFailure;

/// Calls that run at once.
pub const NUM_RUNNING_MAX: usize = 2;
/// Calls under way, those that wait among them: fewer than there are threads for memories.
pub const NUM_CALLS_MAX: usize = 4;

/// See the module's description.
#[derive(Default)]
pub struct Gate {
    calls: Mutex<Calls>,
    left: Condvar,
}

#[derive(Default)]
struct Calls {
    num_running: usize,
    num_waiting: usize,
}

/// A call that runs; dropping it lets the next one in.
pub struct Pass<'a>(&'a Gate);

impl Gate {
    /// Waits for a place until `deadline`.
    ///
    /// # Errors
    /// All places to wait are taken, or none to run became free in time.
    pub fn enter(&self, timeout: Duration) -> Result<Pass<'_>, ModelFailure> {
        let deadline = Instant::now() + timeout;
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.num_running + calls.num_waiting >= NUM_CALLS_MAX {
            return Err(ModelFailure::Busy { limit: NUM_CALLS_MAX });
        }
        calls.num_waiting += 1;
        while calls.num_running >= NUM_RUNNING_MAX {
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                calls.num_waiting -= 1;
                return Err(ModelFailure::Timeout { limit_s: timeout.as_secs() });
            };
            calls = self.left.wait_timeout(calls, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        calls.num_waiting -= 1;
        calls.num_running += 1;
        Ok(Pass(self))
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner).num_running -= 1;
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let gate = Gate::default();
        let short = Duration::from_millis(20);
        let running: Vec<Pass<'_>> = (0..NUM_RUNNING_MAX).map(|_| gate.enter(short).expect("free")).collect();
        assert!(matches!(gate.enter(short), Err(ModelFailure::Timeout { .. })));
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (NUM_RUNNING_MAX..NUM_CALLS_MAX)
                .map(|_| scope.spawn(|| gate.enter(Duration::from_secs(20)).map(drop)))
                .collect();
            while gate.calls.lock().expect("no panic").num_waiting < NUM_CALLS_MAX - NUM_RUNNING_MAX {
                std::thread::yield_now();
            }
            assert_eq!(gate.enter(short).err(), Some(ModelFailure::Busy { limit: NUM_CALLS_MAX }));
            drop(running);
            for one in waiting {
                assert_eq!(one.join().expect("no panic"), Ok(()));
            }
        });
        gate.enter(short).expect("all places are free again");
    }
}
