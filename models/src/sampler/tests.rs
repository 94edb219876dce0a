//! Tests of sampler.
