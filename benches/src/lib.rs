//! Benchmarks live in benches/; this library is empty on purpose: nothing depends on it.
