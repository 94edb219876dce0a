//! Files made to deceive: headers that lie, with checks that are right, and things that are no files.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::store::open_cached;
use super::*;

/// A file with this header (its length in front), whose checks are right: whoever can write files can compute them.
pub(super) fn plain_file(encoded: &[u8], sample: &Sample) -> Vec<u8> {
    let keys: Vec<u8> = [sample.root()].iter().chain(&sample.keys()).flat_map(|key| key.as_bytes().to_vec()).collect();
    file_with_keys(encoded, sample, &keys)
}

fn file_with_keys(encoded: &[u8], sample: &Sample, keys: &[u8]) -> Vec<u8> {
    let tokens: Vec<u8> = sample.tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    let mut rows = blake3::hash(&tokens).as_bytes().to_vec();
    sample.blocks.iter().for_each(|block| rows.extend_from_slice(blake3::hash(block).as_bytes()));
    let mut hasher = blake3::Hasher::new_derive_key("memos kv store v1 head");
    hasher.update(&(encoded.len() as u64).to_le_bytes()).update(encoded);
    hasher.update(&(rows.len() as u64).to_le_bytes()).update(&rows).update(keys);
    let first_row = hasher.finalize();
    [encoded, keys, first_row.as_bytes(), &rows, &tokens, &sample.blocks.concat()].concat()
}

struct Forger {
    folder: tempfile::TempDir,
    sample: Sample,
    id: SegmentId,
    json: String,
}

impl Forger {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let sample = Sample::new(1, 0, 2);
        let segment = sample.write_to(&open(folder.path(), None).store);
        let encoded = header_json::encode(&segment.header, layout::Form::Cache);
        let json = String::from_utf8(encoded[8..].to_vec()).expect("is text");
        Self { folder, sample, id: segment.header.id, json }
    }

    fn open(&self, bytes: &[u8]) -> Result<(), SegmentFault> {
        let name = self.id.file_name();
        fs::write(self.folder.path().join(&name), bytes).expect("is written");
        let reader = open_cached(&OsDisk, self.folder.path(), OsStr::new(&name), None)?;
        reader.read_tokens(&OsDisk).map(|_tokens| ())
    }

    /// The fault of a file whose header has `from` replaced by `to`.
    fn replaced(&self, from: &str, to: &str) -> SegmentFault {
        let json = self.json.replacen(from, to, 1);
        assert_ne!(json, self.json, "{from} is in the header");
        let encoded = [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat();
        self.open(&plain_file(&encoded, &self.sample)).expect_err("is refused")
    }
}

#[test]
fn the_forger_can_forge() {
    // Otherwise its files would be refused for other reasons than the tests below think.
    let forger = Forger::new();
    let encoded = [&(forger.json.len() as u64).to_le_bytes(), forger.json.as_bytes()].concat();
    forger.open(&plain_file(&encoded, &forger.sample)).expect("an honest file is taken");
}

#[test]
fn a_length_of_the_header_that_cannot_be_is_refused_without_reading_it() {
    let forger = Forger::new();
    let name = forger.id.file_name();
    let bytes = fs::read(forger.folder.path().join(name)).expect("is read");
    for length in [1 << 60, u64::MAX, u64::MAX - 7, HEADER_BYTES_MAX as u64 + 1] {
        let fault = forger.open(&[&length.to_le_bytes(), &bytes[8..]].concat()).expect_err("is refused");
        let is_named =
            matches!(fault, SegmentFault::Limit(SegmentProblem::HeaderBytes { found, .. }) if found == length);
        assert!(is_named, "{fault:?}");
    }
    for length in [bytes.len() as u64, bytes.len() as u64 - 7, HEADER_BYTES_MAX as u64] {
        let fault = forger.open(&[&length.to_le_bytes(), &bytes[8..]].concat()).expect_err("is refused");
        assert!(matches!(fault, SegmentFault::FileBytes { .. }), "{fault:?}");
    }
    for length in [0, 1, 100] {
        let fault = forger.open(&[&u64::to_le_bytes(length), &bytes[8..]].concat()).expect_err("is refused");
        assert!(matches!(fault, SegmentFault::Json { .. }), "{fault:?}");
    }
    assert!(matches!(forger.open(&[]), Err(SegmentFault::TooShort { file_bytes: 0 })));
    assert!(matches!(forger.open(&[0; 7]), Err(SegmentFault::TooShort { file_bytes: 7 })));
    assert!(matches!(forger.open(&[0; 4096]), Err(SegmentFault::Json { .. })));
}

#[test]
fn a_field_that_is_there_twice_missing_or_unknown_is_refused() {
    let forger = Forger::new();
    for (from, to) in [
        ("\"block_size\":\"4\"", "\"block_size\":\"4\",\"block_size\":\"4\""),
        ("\"block_size\":\"4\",", ""),
        ("\"block_size\":\"4\"", "\"block_size\":4"),
        ("\"tokens\":", "\"tokens\":{\"dtype\":\"U32\",\"shape\":[8],\"data_offsets\":[0,32]},\"tokens\":"),
        ("\"tokens\":", "\"more\":{\"dtype\":\"U32\",\"shape\":[8],\"data_offsets\":[0,32]},\"tokens\":"),
        ("\"dtype\":", "\"dtype\":\"U8\",\"dtype\":"),
        ("{", "{{"),
        ("}", ""),
        ("\"none\"", "\"\u{0}none\""),
    ] {
        let fault = forger.replaced(from, to);
        assert!(matches!(fault, SegmentFault::Json { .. }), "{to}: {fault:?}");
    }
    let long_name = format!("\"{}\":", "x".repeat(100_000));
    let SegmentFault::Json { problem } = forger.replaced("\"tokens\":", &long_name) else { panic!("is refused") };
    assert!(problem.len() < 1000, "a fault stays short");
}

#[test]
fn numbers_out_of_their_limits_are_refused_without_overflow() {
    let forger = Forger::new();
    let max = u64::MAX.to_string();
    for (from, to) in [
        ("\"num_blocks\":\"2\"", "\"num_blocks\":\"0\""),
        ("\"num_blocks\":\"2\"", "\"num_blocks\":\"65\""),
        ("\"num_blocks\":\"2\"", "\"num_blocks\":\"4294967295\""),
        ("\"block_size\":\"4\"", "\"block_size\":\"0\""),
        ("\"block_size\":\"4\"", "\"block_size\":\"4294967295\""),
        ("\"block_bytes\":\"96\"", "\"block_bytes\":\"0\""),
        ("\"block_bytes\":\"96\"", "\"block_bytes\":\"18446744073709551615\""),
        ("\"first_block\":\"0\"", "\"first_block\":\"4294967295\""),
    ] {
        let fault = forger.replaced(from, to);
        assert!(matches!(fault, SegmentFault::Limit(_)), "{to}: {fault:?}");
    }
    for (from, to) in [
        ("\"first_block\":\"0\"", format!("\"first_block\":\"{max}\"")),
        ("\"first_block\":\"0\"", "\"first_block\":\"-1\"".to_owned()),
        ("\"first_block\":\"0\"", "\"first_block\":\"\"".to_owned()),
        ("\"lineage\":\"known\"", "\"lineage\":\"maybe\"".to_owned()),
        ("\"encryption\":\"none\"", "\"encryption\":\"rot13\"".to_owned()),
        ("\"adapter\":\"03", "\"adapter\":\"3".to_owned()),
        ("\"adapter\":\"03", "\"adapter\":\"0G".to_owned()),
        ("\"adapter\":\"03", "\"adapter\":\"é".to_owned()),
        ("\"sources\":\"[", "\"sources\":\"[1,".to_owned()),
    ] {
        let fault = forger.replaced(from, &to);
        assert!(matches!(fault, SegmentFault::Field { .. }), "{to}: {fault:?}");
    }
}

#[test]
fn tensors_that_overlap_leave_gaps_or_are_of_another_shape_are_refused() {
    let forger = Forger::new();
    // keys [3, 32] are at 0..96, checks [4, 32] at 96..224, tokens [8] at 224..256, blocks [2, 96] at 256..448.
    for (name, from, to) in [
        ("keys", "[0,96]", "[0,128]"),
        ("keys", "[3,32]", "[32,3]"),
        ("checks", "[96,224]", "[0,128]"),
        ("checks", "[96,224]", "[224,96]"),
        ("tokens", "[224,256]", "[232,264]"),
        ("tokens", "\"U32\"", "\"F32\""),
        ("blocks", "[256,448]", "[256,18446744073709551615]"),
        ("blocks", "[256,448]", "[64,256]"),
        ("blocks", "[2,96]", "[2,96,1]"),
        ("blocks", "[2,96]", "[9223372036854775808,9223372036854775808]"),
        ("blocks", "[2,96]", "[]"),
    ] {
        let fault = forger.replaced(from, to);
        assert!(matches!(fault, SegmentFault::Tensor { name: found } if found == name), "{to}: {fault:?}");
    }
    let fault = forger.replaced("\"num_blocks\":\"2\"", "\"num_blocks\":\"1\"");
    assert!(matches!(fault, SegmentFault::Tensor { .. }), "{fault:?}");
    let fault = forger.replaced("[256,448]", "[256,448.5]");
    assert!(matches!(fault, SegmentFault::Json { .. }), "{fault:?}");
}

#[test]
fn another_format_or_a_later_version_is_named() {
    let forger = Forger::new();
    let fault = forger.replaced("\"version\":\"1\"", "\"version\":\"2\"");
    assert!(matches!(&fault, SegmentFault::Version { version, .. } if version == "2"), "{fault:?}");
    assert!(!fault.is_damage());
    let fault = forger.replaced("\"version\":\"1\"", "\"version\":\"3\",\"more\":\"fields\"");
    assert!(matches!(&fault, SegmentFault::Version { version, .. } if version == "3"), "{fault:?}");
    let fault = forger.replaced("\"format\":\"memos-kv\"", "\"format\":\"pt\"");
    assert!(matches!(&fault, SegmentFault::Version { format, .. } if format == "pt"), "{fault:?}");
}

#[test]
fn keys_that_do_not_follow_from_the_tokens_are_found() {
    let forger = Forger::new();
    let encoded = [&(forger.json.len() as u64).to_le_bytes(), forger.json.as_bytes()].concat();
    let other = Sample { salt: [9; 32], ..Sample::new(1, 0, 2) };
    let key = |key: KvKey| key.as_bytes().to_vec();
    let [first, second] = forger.sample.keys().try_into().expect("two blocks");
    let swapped = [key(forger.sample.root()), key(second), key(first)].concat();
    let fault = forger.open(&file_with_keys(&encoded, &forger.sample, &swapped)).expect_err("is found");
    assert!(matches!(fault, SegmentFault::Keys { block: 0 }), "{fault:?}");
    let foreign = [key(forger.sample.root()), key(first), key(other.keys()[1])].concat();
    let fault = forger.open(&file_with_keys(&encoded, &forger.sample, &foreign)).expect_err("is found");
    assert!(matches!(fault, SegmentFault::Keys { block: 1 }), "{fault:?}");
}

#[test]
fn what_is_not_a_file_is_set_aside_and_not_followed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let outside = tempfile::tempdir().expect("temporary folder");
    let sample = Sample::new(1, 0, 2);
    let good = sample.write_to(&open(folder.path(), None).store);
    let elsewhere = sample.write_to(&open(outside.path(), None).store);
    let name = |digit: &str| folder.path().join(format!("{}{SEGMENT_SUFFIX}", digit.repeat(32)));
    fs::create_dir(name("a")).expect("is made");
    fs::write(name("a").join("inside"), "text").expect("is written");
    symlink(path_of(outside.path(), &elsewhere), folder.path().join(elsewhere.header.id.file_name()))
        .expect("is linked");
    symlink(name("0"), name("b")).expect("is linked to nothing");
    mknodat(CWD, name("c"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe is made");
    let socket = std::os::unix::net::UnixListener::bind(name("d")).expect("a socket is made");
    fs::write(folder.path().join(format!("notes{SEGMENT_SUFFIX}")), "text").expect("is written");
    fs::write(folder.path().join("notes.txt"), "text").expect("is written");
    let opened = open(folder.path(), None);
    assert_eq!(opened.segments, [good]);
    assert_eq!(opened.refused.len(), 6);
    for refused in &opened.refused {
        let is_named = match refused.file_name.starts_with("notes") {
            true => matches!(refused.fault, SegmentFault::Name),
            false => matches!(refused.fault, SegmentFault::NotAFile),
        };
        assert!(is_named && matches!(refused.kept, Kept::Quarantined(_)), "{refused:?}");
    }
    opened.store.clear_quarantine().expect("is cleared");
    assert!(path_of(outside.path(), &elsewhere).exists(), "what a link points to stays");
    assert!(folder.path().join("notes.txt").exists(), "what is not ours stays");
    drop(socket);
}

#[test]
fn a_segment_replaced_by_a_link_while_running_is_not_followed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path(), None).store;
    let segment = Sample::new(1, 0, 2).write_to(&store);
    let path = path_of(folder.path(), &segment);
    let moved = folder.path().join("moved");
    fs::rename(&path, &moved).expect("is moved");
    symlink(&moved, &path).expect("is linked");
    assert!(matches!(fault_of(read_all(&store, &segment).expect_err("is refused")), SegmentFault::NotAFile));
}
