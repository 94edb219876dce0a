//! Tests of tokenizer.
