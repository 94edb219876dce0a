//! Tests of decode_stream.
