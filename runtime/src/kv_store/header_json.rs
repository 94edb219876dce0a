//! The header of a segment's file: JSON as safetensors has it, read without trusting any of it.

use serde::{Deserialize, Serialize};

use super::header::{BLOCK_TOKENS_MAX, SegmentHeader};
use super::identity::{hex, unhex};
use super::layout::{FIRST_BLOCK_ROW, Form, KEY_BYTES, Layout};
use super::{
    BLOCK_BYTES_MAX, BLOCKS_MAX, CHAIN_TOKENS_MAX, Encryption, IDENTITY_BYTES_MAX, KvIdentity, Lineage,
    SOURCE_BYTES_MAX, SOURCES_MAX, SegmentFault, SegmentId, SegmentProblem, TenantTag,
};

/// Name of the format.
pub(super) const FORMAT: &str = "memos-kv";
/// Version of the format; another one is refused instead of guessed at.
pub(super) const VERSION: &str = "1";
/// Bytes before the header: its length.
pub(super) const LENGTH_BYTES: usize = size_of::<u64>();
/// The header's length is padded to this, so that tensors are aligned for whoever maps the file.
const ALIGNMENT: usize = 8;
/// How much is quoted of what a file says.
const QUOTE_CHARS: usize = 120;
const NOT_ENCRYPTED: &str = "none";
const AES_256_GCM: &str = "aes-256-gcm";

/// Field by field what safetensors allows: a field that is unknown, missing or there twice is an error.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderJson {
    #[serde(rename = "__metadata__")]
    metadata: MetadataJson,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys: Option<TensorJson>,
    checks: TensorJson,
    tokens: TensorJson,
    blocks: TensorJson,
}

/// safetensors allows nothing but strings here.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetadataJson {
    format: String,
    version: String,
    segment: String,
    model_fingerprint: String,
    kv_dtype: String,
    kv_layout: String,
    block_size: String,
    rope_fingerprint: String,
    numerics_id: String,
    adapter: String,
    block_bytes: String,
    tenant: String,
    first_block: String,
    num_blocks: String,
    lineage: String,
    sources: String,
    created_ms: String,
    encryption: String,
    key_id: String,
    file_salt: String,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorJson {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Enough to tell a newer format from a damaged file.
#[derive(Deserialize)]
struct VersionJson {
    #[serde(rename = "__metadata__")]
    metadata: VersionFields,
}

#[derive(Deserialize)]
struct VersionFields {
    format: String,
    version: String,
}

/// The header as it stands at the start of the file, its length in front.
pub(super) fn encode(header: &SegmentHeader, form: Form) -> Vec<u8> {
    let [keys, checks, tokens, blocks] = tensors(header, &Layout::of(header, form));
    let keys = (form == Form::Cache).then_some(keys);
    let json = HeaderJson { metadata: metadata_of(header), keys, checks, tokens, blocks };
    let mut bytes = vec![0; LENGTH_BYTES];
    serde_json::to_writer(&mut bytes, &json).expect("plain data becomes JSON: this is a bug");
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), b' ');
    let length = (bytes.len() - LENGTH_BYTES) as u64;
    bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// What the JSON says, without the keys, which are not in it. Nothing is allocated that is larger than `json` itself.
pub(super) fn parse(json: &[u8]) -> Result<(SegmentHeader, Form), SegmentFault> {
    let parsed: HeaderJson = serde_json::from_slice(json).map_err(|error| not_parsed(json, &error))?;
    let (format, version) = (&parsed.metadata.format, &parsed.metadata.version);
    if format != FORMAT || version != VERSION {
        return Err(SegmentFault::Version { format: quote(format), version: quote(version) });
    }
    let header = header_of(parsed.metadata)?;
    check_limits(&header)?;
    let form = if parsed.keys.is_some() { Form::Cache } else { Form::Portable };
    let [keys, checks, tokens, blocks] = tensors(&header, &Layout::of(&header, form));
    let found = [
        ("keys", parsed.keys.is_none_or(|found| found == keys)),
        ("checks", parsed.checks == checks),
        ("tokens", parsed.tokens == tokens),
        ("blocks", parsed.blocks == blocks),
    ];
    match found.into_iter().find(|(_name, is_right)| !is_right) {
        Some((name, _is_right)) => Err(SegmentFault::Tensor { name }),
        None => Ok((header, form)),
    }
}

/// Whether all numbers of a segment are within their limits.
pub(super) fn check_limits(header: &SegmentHeader) -> Result<(), SegmentProblem> {
    let identity = &header.identity;
    let num_blocks = header.num_blocks as usize;
    if num_blocks == 0 || num_blocks > BLOCKS_MAX {
        return Err(SegmentProblem::NumBlocks { found: num_blocks, max: BLOCKS_MAX });
    }
    if identity.block_size == 0 || identity.block_size > BLOCK_TOKENS_MAX {
        return Err(SegmentProblem::BlockSize { found: identity.block_size, max: BLOCK_TOKENS_MAX });
    }
    if identity.block_bytes == 0 || identity.block_bytes > BLOCK_BYTES_MAX {
        return Err(SegmentProblem::BlockBytes { found: identity.block_bytes, max: BLOCK_BYTES_MAX });
    }
    if header.num_tokens() > CHAIN_TOKENS_MAX {
        return Err(SegmentProblem::ChainTokens { found: header.num_tokens(), max: CHAIN_TOKENS_MAX });
    }
    let names =
        [("kv dtype", &identity.kv_dtype), ("kv layout", &identity.kv_layout), ("numerics id", &identity.numerics_id)];
    if let Some((field, name)) = names.into_iter().find(|(_field, name)| name.len() > IDENTITY_BYTES_MAX) {
        return Err(SegmentProblem::IdentityBytes { field, found: name.len(), max: IDENTITY_BYTES_MAX });
    }
    let Lineage::Known(sources) = &header.lineage else { return Ok(()) };
    if sources.len() > SOURCES_MAX {
        return Err(SegmentProblem::NumSources { found: sources.len(), max: SOURCES_MAX });
    }
    match sources.iter().map(String::len).max() {
        Some(found) if found > SOURCE_BYTES_MAX => Err(SegmentProblem::SourceBytes { found, max: SOURCE_BYTES_MAX }),
        _ => Ok(()),
    }
}

fn tensors(header: &SegmentHeader, layout: &Layout) -> [TensorJson; 4] {
    let num_blocks = u64::from(header.num_blocks);
    let rows = FIRST_BLOCK_ROW as u64 + num_blocks;
    let tensor = |dtype: &str, shape: &[u64], range: &std::ops::Range<u64>| TensorJson {
        dtype: dtype.to_owned(),
        shape: shape.to_vec(),
        data_offsets: [range.start, range.end],
    };
    [
        tensor("U8", &[1 + num_blocks, KEY_BYTES as u64], &layout.keys),
        tensor("U8", &[rows, layout.row_bytes() as u64], &layout.checks),
        tensor("U32", &[header.num_tokens()], &layout.tokens),
        tensor("U8", &[num_blocks, header.identity.block_bytes as u64], &layout.blocks),
    ]
}

fn metadata_of(header: &SegmentHeader) -> MetadataJson {
    let identity = &header.identity;
    let (lineage, sources) = match &header.lineage {
        Lineage::Known(sources) => ("known", sources.as_slice()),
        Lineage::Unknown => ("unknown", [].as_slice()),
    };
    let (encryption, key_id, file_salt) = match &header.encryption {
        Encryption::None => (NOT_ENCRYPTED, String::new(), String::new()),
        Encryption::Aes256Gcm { key_id, file_salt } => (AES_256_GCM, hex(key_id), hex(file_salt)),
    };
    MetadataJson {
        format: FORMAT.to_owned(),
        version: VERSION.to_owned(),
        segment: header.id.to_string(),
        model_fingerprint: hex(&identity.model_fingerprint),
        kv_dtype: identity.kv_dtype.clone(),
        kv_layout: identity.kv_layout.clone(),
        block_size: identity.block_size.to_string(),
        rope_fingerprint: hex(&identity.rope_fingerprint),
        numerics_id: identity.numerics_id.clone(),
        adapter: identity.adapter.map_or_else(String::new, |hash| hex(&hash)),
        block_bytes: identity.block_bytes.to_string(),
        tenant: header.tenant.to_string(),
        first_block: header.first_block.to_string(),
        num_blocks: header.num_blocks.to_string(),
        lineage: lineage.to_owned(),
        sources: serde_json::to_string(sources).expect("strings become JSON: this is a bug"),
        created_ms: header.created_ms.to_string(),
        encryption: encryption.to_owned(),
        key_id,
        file_salt,
    }
}

fn header_of(metadata: MetadataJson) -> Result<SegmentHeader, SegmentFault> {
    let adapter = match metadata.adapter.as_str() {
        "" => None,
        hash => Some(bytes("adapter", hash)?),
    };
    let id = SegmentId::parse(&metadata.segment);
    Ok(SegmentHeader {
        id: id.ok_or(SegmentFault::Field { field: "segment", expected: "an id of 32 hexadecimal digits" })?,
        identity: KvIdentity {
            model_fingerprint: bytes("model_fingerprint", &metadata.model_fingerprint)?,
            kv_dtype: metadata.kv_dtype,
            kv_layout: metadata.kv_layout,
            block_size: number("block_size", &metadata.block_size)?,
            rope_fingerprint: bytes("rope_fingerprint", &metadata.rope_fingerprint)?,
            numerics_id: metadata.numerics_id,
            adapter,
            block_bytes: number("block_bytes", &metadata.block_bytes)?,
        },
        tenant: TenantTag::new(bytes("tenant", &metadata.tenant)?),
        first_block: number("first_block", &metadata.first_block)?,
        num_blocks: number("num_blocks", &metadata.num_blocks)?,
        keys: None,
        lineage: lineage_of(&metadata.lineage, &metadata.sources)?,
        created_ms: number("created_ms", &metadata.created_ms)?,
        encryption: encryption_of(&metadata.encryption, &metadata.key_id, &metadata.file_salt)?,
    })
}

fn lineage_of(lineage: &str, sources: &str) -> Result<Lineage, SegmentFault> {
    let list = serde_json::from_str(sources);
    let list = list.map_err(|_error| SegmentFault::Field { field: "sources", expected: "a JSON list of strings" })?;
    match lineage {
        "known" => Ok(Lineage::Known(list)),
        "unknown" => Ok(Lineage::Unknown),
        _ => Err(SegmentFault::Field { field: "lineage", expected: "\"known\" or \"unknown\"" }),
    }
}

fn encryption_of(name: &str, key_id: &str, file_salt: &str) -> Result<Encryption, SegmentFault> {
    match name {
        NOT_ENCRYPTED => Ok(Encryption::None),
        AES_256_GCM => {
            Ok(Encryption::Aes256Gcm { key_id: bytes("key_id", key_id)?, file_salt: bytes("file_salt", file_salt)? })
        }
        _ => Err(SegmentFault::Field { field: "encryption", expected: "a known cipher" }),
    }
}

fn number<N: std::str::FromStr>(field: &'static str, text: &str) -> Result<N, SegmentFault> {
    text.parse().map_err(|_error| SegmentFault::Field { field, expected: "a whole number of its range" })
}

fn bytes<const LEN: usize>(field: &'static str, text: &str) -> Result<[u8; LEN], SegmentFault> {
    unhex(text).ok_or(SegmentFault::Field { field, expected: "hexadecimal digits of the right number" })
}

fn not_parsed(json: &[u8], error: &serde_json::Error) -> SegmentFault {
    match serde_json::from_slice::<VersionJson>(json) {
        Ok(VersionJson { metadata }) if metadata.format != FORMAT || metadata.version != VERSION => {
            SegmentFault::Version { format: quote(&metadata.format), version: quote(&metadata.version) }
        }
        _ => SegmentFault::Json { problem: quote(&error.to_string()) },
    }
}

fn quote(text: &str) -> String {
    text.chars().take(QUOTE_CHARS).collect()
}
