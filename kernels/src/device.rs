//! The handle that every operation runs on: threads, instruction set and scratch memory of the CPU backend.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::KernelError;
use crate::cpu::simd::Level;
use crate::cpu::simd::aligned::AlignedVec;
use crate::cpu::simd::bf16_dot::Bf16Dot;
use crate::cpu::threads::ThreadPool;

/// CPU instruction sets that the kernels are written for; a better one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust. Slow where the target has no fused multiply-add of its own.
    Portable,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with the bf16 dot product, `vdpbf16ps`.
    Avx512Bf16,
}

impl Isa {
    /// All instruction sets, best first.
    pub const ALL: [Self; 4] = [Self::Avx512Bf16, Self::Avx512, Self::Avx2, Self::Portable];

    /// The best one that this processor has.
    pub fn detect() -> Self {
        Self::ALL.into_iter().find(|isa| isa.is_available()).unwrap_or(Self::Portable)
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        Level::detect(self).is_some()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512-bf16",
        })
    }
}

impl FromStr for Isa {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.to_string() == name)
            .ok_or_else(|| KernelError::UnknownIsa { name: name.to_owned() })
    }
}

/// What a CPU device may use.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuOptions {
    /// Threads that compute; `None` is as many as the process may run at once (affinity and cgroup limits count).
    pub num_threads: Option<NonZeroUsize>,
    /// Instruction set; `None` is the best one of this processor.
    pub isa: Option<Isa>,
}

/// One chain of fused multiply-adds for each element.
pub(crate) const NUMERICS_FMA: &str = "cpu-fma-1";
/// The same, but products of bf16 weights are dot products of bf16 pairs.
pub(crate) const NUMERICS_BF16_DOT: &str = "cpu-dpbf16-1";

/// Memory that a thread of the pool keeps between parts.
pub(crate) type Scratch = AlignedVec;

/// Where operations run. Today a CPU with its threads; a CUDA device joins behind the same handle.
pub struct Device {
    isa: Isa,
    level: Level,
    /// How products of bf16 weights are computed when it is not by widening them.
    bf16_dot: Option<Bf16Dot>,
    pool: ThreadPool,
    /// No workers: for work that is over before a worker is awake.
    caller_alone: ThreadPool,
    /// One for each thread of the pool; a thread of the pool never waits for its own.
    scratch: Vec<Mutex<Scratch>>,
    /// Results that the threads of one operation hand to its end.
    shared_scratch: Mutex<Scratch>,
}

/// Waking a sleeping worker and waiting for its last part costs some microseconds of both: less work is not shared.
const WORTH_SHARING_NS: usize = 15_000;

impl Device {
    /// Starts the CPU backend.
    ///
    /// # Errors
    /// [`KernelError::IsaUnavailable`] when the processor lacks the instruction set asked for,
    /// [`KernelError::SpawnThread`] when a worker cannot be started.
    pub fn cpu(options: CpuOptions) -> Result<Self, KernelError> {
        let isa = options.isa.unwrap_or_else(Isa::detect);
        let level = Level::detect(isa).ok_or(KernelError::IsaUnavailable { isa })?;
        let num_threads =
            options.num_threads.unwrap_or_else(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
        let pool = ThreadPool::new(num_threads)?;
        let scratch = (0..pool.num_threads()).map(|_| Mutex::new(Scratch::new())).collect();
        let bf16_dot = if isa == Isa::Avx512Bf16 { Bf16Dot::detect() } else { None };
        let caller_alone = ThreadPool::new(NonZeroUsize::MIN)?;
        Ok(Self { isa, level, bf16_dot, pool, caller_alone, scratch, shared_scratch: Mutex::default() })
    }

    /// Threads that compute, the caller of an operation included.
    pub fn num_threads(&self) -> usize {
        self.pool.num_threads()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Names the arithmetic: devices with the same id give the same bits for the same inputs.
    ///
    /// AVX-512, AVX2 and portable share one (one chain of fused multiply-adds per element); the bf16 dot product of
    /// AVX-512-BF16 rounds otherwise and has its own.
    pub fn numerics_id(&self) -> &'static str {
        if self.bf16_dot.is_some() { NUMERICS_BF16_DOT } else { NUMERICS_FMA }
    }

    /// One line for people: backend, instruction set, threads.
    pub fn describe(&self) -> String {
        let threads = self.num_threads();
        format!("CPU, {}, {threads} thread{}", self.isa, if threads == 1 { "" } else { "s" })
    }

    pub(crate) fn level(&self) -> Level {
        self.level
    }

    pub(crate) fn bf16_dot(&self) -> Option<Bf16Dot> {
        self.bf16_dot
    }

    /// A device that computes products of bf16 weights as AVX-512-BF16 does, on any processor.
    #[cfg(test)]
    pub(crate) fn with_emulated_bf16_dot() -> Self {
        use crate::cpu::simd::bf16_dot::Emulated;
        let mut device = crate::testing::device(Isa::Portable, 2);
        device.bf16_dot = Some(Bf16Dot::Emulated(Emulated::default()));
        device
    }

    pub(crate) fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    /// The pool, or the caller alone when all of the work takes one thread `work_ns` nanoseconds only (an estimate).
    pub(crate) fn pool_for(&self, work_ns: usize) -> &ThreadPool {
        if work_ns < WORTH_SHARING_NS { &self.caller_alone } else { &self.pool }
    }

    /// Scratch memory for what an operation's threads hand to its end. Locked for the whole operation.
    pub(crate) fn shared_scratch(&self) -> MutexGuard<'_, Scratch> {
        self.shared_scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The scratch memory of a thread of the pool. What it holds is unspecified.
    pub(crate) fn scratch(&self, thread: usize) -> MutexGuard<'_, Scratch> {
        self.scratch[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("isa", &self.isa).field("num_threads", &self.num_threads()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isa_names_round_trip_and_better_is_greater() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse::<Isa>().expect("own name"), isa);
        }
        assert!(Isa::ALL.is_sorted_by(|better, worse| better > worse));
        assert!(matches!("sse9".parse::<Isa>(), Err(KernelError::UnknownIsa { name }) if name == "sse9"));
    }

    #[test]
    fn the_default_device_uses_the_best_isa_and_another_one_on_demand() {
        let device = Device::cpu(CpuOptions::default()).expect("device");
        assert_eq!(device.isa(), Isa::detect());
        let one = NonZeroUsize::MIN;
        let options = CpuOptions { num_threads: Some(one), isa: Some(Isa::Portable) };
        let device = Device::cpu(options).expect("portable device");
        assert_eq!(device.describe(), "CPU, portable, 1 thread");
        for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
            let asked = Device::cpu(CpuOptions { num_threads: None, isa: Some(isa) });
            assert!(matches!(asked, Err(KernelError::IsaUnavailable { isa: named }) if named == isa));
        }
    }
}
