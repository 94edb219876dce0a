//! Memories in and out of files.
