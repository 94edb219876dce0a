//! The worker threads of a device: one job at a time, cut into parts that the workers and the caller claim.
//!
//! A job is published in one atomic word; workers that are awake join it, and the caller works too, so a job never
//! waits for a sleeping worker: whoever is awake does all of it. Workers watch for the next job for a short, bounded
//! time and then sleep, because the machine has other work (an HTTP server, other programs).
#![expect(unsafe_code, reason = "a job's closure is borrowed from the caller's stack; workers follow a pointer to it")]

use std::any::Any;
use std::cell::UnsafeCell;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::KernelError;

/// How long an idle worker watches for the next job before it sleeps, and a caller for the last part to end.
const SPIN: Duration = Duration::from_micros(50);

/// Set in the state word while workers may join the job.
const OPEN: u64 = 1 << 31;
/// Workers inside the job: the bits below `OPEN`.
const JOINED: u64 = OPEN - 1;
/// The upper half counts the jobs.
const NEXT_EPOCH: u64 = 1 << 32;

/// A part of a job: `(index of the part, index of the thread)`.
type Part<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The job at hand. Written by the caller while no worker is inside, read by workers that have joined.
struct Job {
    part: *const Part<'static>,
    num_parts: usize,
}

/// Keeps two counters that different threads hammer on from sharing a cache line.
#[repr(align(128))]
struct Padded<T>(T);

struct Shared {
    /// `epoch | OPEN | JOINED`.
    state: Padded<AtomicU64>,
    /// Index of the next part to claim.
    next_part: Padded<AtomicUsize>,
    job: UnsafeCell<Job>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    caller_waits: AtomicBool,
    caller_sleep: Mutex<()>,
    caller_wake: Condvar,
}

// SAFETY: all fields but `job` are Sync. `job` is written only by the thread that holds `ThreadPool::caller` while the
// state word says that nobody has joined and nobody can; it is read only by threads that have joined an open job, whose
// joining (acquire) follows the publication (release). Its pointer is valid as long as somebody is inside: `run` does
// not return before.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer in `job` is only followed under that protocol.
unsafe impl Send for Shared {}

/// Worker threads that share the parts of a job with their caller.
pub(crate) struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the caller whose job the workers are on.
    caller: Mutex<()>,
}

/// Locks a mutex that guards no data that a panic could leave half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ThreadPool {
    /// Starts `num_threads - 1` workers; the caller of a job is the remaining thread.
    pub fn new(num_threads: NonZeroUsize) -> Result<Self, KernelError> {
        fn nothing(_: usize, _: usize) {}
        let shared = Arc::new(Shared {
            state: Padded(AtomicU64::new(0)),
            next_part: Padded(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job { part: &nothing as *const Part<'static>, num_parts: 0 }),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            caller_waits: AtomicBool::new(false),
            caller_sleep: Mutex::new(()),
            caller_wake: Condvar::new(),
        });
        // The pool exists before its workers, so that a failed start stops those that did start.
        let mut pool = Self { shared, workers: Vec::new(), caller: Mutex::new(()) };
        for index in 1..num_threads.get() {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new()
                .name(format!("kernels-{index}"))
                .spawn(move || shared.work(index))
                .map_err(|source| KernelError::SpawnThread { index, source })?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads that work on a job, the caller included.
    pub fn num_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `part(i, thread)` once for every `i` in `0..num_parts`, on any threads in any order, and returns when
    /// all calls have. `thread` is below [`Self::num_threads`] and differs between the threads of one job.
    ///
    /// While another thread's job has the workers (or within a part), the caller does all parts itself as thread 0.
    ///
    /// # Panics
    /// When a part panics, with its payload, after all parts under way have ended.
    pub fn run(&self, num_parts: usize, part: impl Fn(usize, usize) + Sync) {
        let free = if num_parts > 1 && !self.workers.is_empty() { self.caller.try_lock().ok() } else { None };
        let Some(_caller) = free else {
            (0..num_parts).for_each(|i| part(i, 0));
            return;
        };
        let shared = &*self.shared;
        let borrowed: *const Part<'_> = &part;
        // SAFETY: only the lifetime changes. Nobody follows the pointer after `finish` below has returned, and nothing
        // between here and there can unwind past it.
        let borrowed: *const Part<'static> = unsafe { std::mem::transmute(borrowed) };
        // SAFETY: `caller` is held, and the job before was closed and left by all (`finish`).
        unsafe { *shared.job.get() = Job { part: borrowed, num_parts } };
        shared.next_part.0.store(0, Ordering::Relaxed);
        let epoch = shared.state.0.load(Ordering::Relaxed) & !(OPEN | JOINED);
        shared.state.0.store(epoch.wrapping_add(NEXT_EPOCH) | OPEN, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&shared.sleep));
            shared.wake.notify_all();
        }
        shared.claim_parts(&part, num_parts, 0);
        shared.finish();
        if let Some(payload) = lock(&shared.panic).take() {
            resume_unwind(payload);
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of parts; there is nothing to learn from its own end.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Does parts until none is left. A panic is kept for the caller and ends the job.
    fn claim_parts(&self, part: &Part<'_>, num_parts: usize, thread: usize) {
        let claimed = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let index = self.next_part.0.fetch_add(1, Ordering::Relaxed);
                if index >= num_parts {
                    return;
                }
                part(index, thread);
            }
        }));
        if let Err(payload) = claimed {
            self.next_part.0.store(num_parts, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(payload);
        }
    }

    /// Closes the job and waits until every worker has left it.
    fn finish(&self) {
        let mut state = self.state.0.fetch_and(!OPEN, Ordering::SeqCst);
        let mut spin = Spin::new();
        while state & JOINED != 0 {
            if !spin.again() {
                let mut asleep = lock(&self.caller_sleep);
                self.caller_waits.store(true, Ordering::SeqCst);
                while self.state.0.load(Ordering::SeqCst) & JOINED != 0 {
                    asleep = self.caller_wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
                }
                self.caller_waits.store(false, Ordering::SeqCst);
            }
            state = self.state.0.load(Ordering::Acquire);
        }
    }

    /// A worker's life.
    fn work(&self, thread: usize) {
        let mut seen = 0;
        while let Some(epoch) = self.join_next(seen) {
            seen = epoch;
            // SAFETY: this thread has joined the job: it stays as it is until the thread leaves.
            let (part, num_parts) = unsafe {
                let job = &*self.job.get();
                (&*job.part, job.num_parts)
            };
            self.claim_parts(part, num_parts, thread);
            // From here on the caller may return: nothing of the job is touched any more.
            self.state.0.fetch_sub(1, Ordering::SeqCst);
            if self.caller_waits.load(Ordering::SeqCst) {
                drop(lock(&self.caller_sleep));
                self.caller_wake.notify_all();
            }
        }
    }

    /// Waits for an open job other than `seen` and joins it; `None` when the pool stops.
    fn join_next(&self, seen: u64) -> Option<u64> {
        let mut spin = Spin::new();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let state = self.state.0.load(Ordering::SeqCst);
            let epoch = state & !(OPEN | JOINED);
            if state & OPEN != 0 && epoch != seen {
                let joined = self.state.0.compare_exchange(state, state + 1, Ordering::SeqCst, Ordering::Relaxed);
                if joined.is_ok() {
                    return Some(epoch);
                }
            } else if !spin.again() {
                self.sleep_until_next(seen);
                spin = Spin::new();
            }
        }
    }

    /// Sleeps until a job other than `seen` is open or the pool stops.
    fn sleep_until_next(&self, seen: u64) {
        let mut asleep = lock(&self.sleep);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            let state = self.state.0.load(Ordering::SeqCst);
            let is_open = state & OPEN != 0 && state & !(OPEN | JOINED) != seen;
            if is_open || self.stop.load(Ordering::SeqCst) {
                break;
            }
            asleep = self.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts down [`SPIN`]; the clock is read only now and then.
struct Spin {
    since: Option<Instant>,
    turns: u32,
}

impl Spin {
    fn new() -> Self {
        Self { since: None, turns: 0 }
    }

    /// Pauses for a moment; false when the time is over.
    fn again(&mut self) -> bool {
        std::hint::spin_loop();
        self.turns += 1;
        if !self.turns.is_multiple_of(32) {
            return true;
        }
        self.since.get_or_insert_with(Instant::now).elapsed() < SPIN
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn pool(num_threads: usize) -> ThreadPool {
        ThreadPool::new(NonZeroUsize::new(num_threads).expect("at least one")).expect("threads")
    }

    #[test]
    fn every_part_is_done_exactly_once_however_many_threads_there_are() {
        for num_threads in [1, 2, 3, 8] {
            let pool = pool(num_threads);
            for num_parts in (0..40).chain([1000]).cycle().take(4000) {
                let done: Vec<AtomicU32> = (0..num_parts).map(|_| AtomicU32::new(0)).collect();
                pool.run(num_parts, |part, thread| {
                    assert!(thread < num_threads);
                    done[part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn sleeping_workers_are_woken_and_take_part() {
        let pool = pool(2);
        for _ in 0..20 {
            std::thread::sleep(4 * SPIN);
            // Two parts that wait for each other: the caller alone would never end.
            let arrived = AtomicU32::new(0);
            pool.run(2, |_, _| {
                arrived.fetch_add(1, Ordering::SeqCst);
                while arrived.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
            });
        }
    }

    #[test]
    fn a_panic_in_any_part_reaches_the_caller_and_the_pool_works_on() {
        let pool = pool(3);
        for bad in 0..50 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(50, |part, _| assert!(part != bad, "part {part} is bad"));
            }));
            let payload = result.expect_err("the panic must arrive");
            assert_eq!(payload.downcast_ref::<String>().map(String::as_str), Some(&*format!("part {bad} is bad")));
            let sum = AtomicUsize::new(0);
            pool.run(100, |part, _| {
                sum.fetch_add(part, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn jobs_from_several_threads_and_from_within_a_part_are_all_done() {
        let pool = pool(3);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.run(10, |_, _| {
                            pool.run(3, |part, _| {
                                sum.fetch_add(part, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 200 * 10 * 3);
    }
}
