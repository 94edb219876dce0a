//! How far the shutdown has come, seen by connections and streams: first no new work, later no work at all.

use tokio::sync::watch;

/// Stages of a shutdown, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Business as usual.
    Serving,
    /// No new connections; requests that run are finished.
    Draining,
    /// Requests that still run are given up.
    Cancelling,
}

/// The shutdown's progress. Clones share it.
#[derive(Debug, Clone)]
pub struct Drain {
    phase: watch::Sender<Phase>,
}

impl Default for Drain {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving) }
    }
}

impl Drain {
    /// Moves on to a later phase; going back is ignored.
    pub fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = to > *phase;
            *phase = to.max(*phase);
            later
        });
    }

    /// The phase that is reached.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until the phase is reached.
    pub async fn reached(&self, phase: Phase) {
        let mut receiver = self.phase.subscribe();
        // The sender lives in self, so that waiting cannot fail while this runs.
        let _ = receiver.wait_for(|reached| *reached >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_are_reached_in_order_and_never_left() {
        let drain = Drain::default();
        drain.reached(Phase::Serving).await;
        drain.advance(Phase::Cancelling);
        drain.advance(Phase::Draining);
        assert_eq!(drain.phase(), Phase::Cancelling);
        drain.clone().reached(Phase::Draining).await;
    }
}
