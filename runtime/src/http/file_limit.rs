//! How many connections the operating system's limit on open files leaves room for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are kept for everything but connections: weights, keys, databases, the terminal.
const NUM_RESERVED_FILES: u64 = 128;

/// Raises the soft limit on open files as far as needed and allowed, and returns how many connections fit, at most
/// the number that is wanted.
pub fn connections_that_fit(wanted: usize) -> usize {
    let needed = wanted as u64 + NUM_RESERVED_FILES;
    let limit = getrlimit(Resource::Nofile);
    let mut current = limit.current.unwrap_or(u64::MAX);
    if current < needed {
        let raised = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
        // Being refused leaves the old limit, with which the server runs too.
        if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }).is_ok() {
            current = raised;
        }
    }
    room(current, wanted)
}

fn room(num_files: u64, wanted: usize) -> usize {
    // Where the limit is tiny, half of it is for connections.
    let room = num_files.saturating_sub(NUM_RESERVED_FILES).max(num_files / 2).max(1);
    usize::try_from(room).map_or(wanted, |room| room.min(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_kept_for_other_things() {
        assert_eq!(room(1024, 4096), 896);
        assert_eq!(room(1_000_000, 4096), 4096);
        assert_eq!(room(64, 4096), 32);
        assert_eq!(room(0, 4096), 1);
    }
}
