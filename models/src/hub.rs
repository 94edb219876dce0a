//! Models by hub id: finds them in the local Hugging Face cache, and downloads what is missing unless that is off.

use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use serde_json::Value;

use crate::ModelError;

/// The public hub.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// The branch that is loaded when no other revision is asked for.
pub const DEFAULT_REVISION: &str = "main";
/// Longest hub id, of owner and name together.
const MAX_ID_BYTES: usize = 200;
/// Times a broken-off download is resumed.
const MAX_RETRIES: usize = 3;

const CONFIG_FILE: &str = "config.json";
/// Small files of a model that not every model has.
const TEXT_FILES: [&str; 9] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
];
const WEIGHTS_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// Where to look for models; the environment variables of the Hugging Face tools are read by the caller.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Folder of the cache, usually `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// The hub's address; `None`: [`DEFAULT_ENDPOINT`].
    pub endpoint: Option<String>,
    /// Access token for models that need a login.
    pub token: Option<String>,
    /// Branch, tag or commit; `None`: [`DEFAULT_REVISION`].
    pub revision: Option<String>,
    /// Whether the network may be used.
    pub network: Network,
}

/// Whether missing files may be downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// They may.
    Allowed,
    /// Only the cache is read.
    Off,
}

/// Hears of downloads while they run.
pub trait DownloadProgress {
    /// A file of `num_bytes` begins.
    fn begin(&mut self, file: &str, num_bytes: u64);
    /// So many more bytes have arrived.
    fn advance(&mut self, num_bytes: u64);
    /// The file is complete.
    fn finish(&mut self);
}

/// The folder of a model: `model` itself when it is a folder, else the snapshot of hub id `name` or `owner/name`.
///
/// What the cache has is used without asking the network.
///
/// # Errors
/// [`ModelError::ModelName`] when it is neither, [`ModelError::NotCached`] and [`ModelError::IncompleteCache`] when
/// the network is off, [`ModelError::Download`] when the hub cannot be reached or does not have the model.
pub fn resolve(model: &str, options: &HubOptions, progress: &mut dyn DownloadProgress) -> Result<PathBuf, ModelError> {
    let folder = Path::new(model);
    if folder.is_dir() {
        return Ok(folder.to_owned());
    }
    let place = Place::new(model, options)?;
    match (place.cached_snapshot(), options.network) {
        (Ok(folder), _) => Ok(folder),
        (Err(error), Network::Off) => Err(error),
        (Err(_), Network::Allowed) => place.download(options, progress),
    }
}

/// Whether a name is a hub id: one or two parts of letters, digits, `-`, `_` and `.`, neither hidden nor climbing.
fn is_hub_id(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && !part.contains("..")
            && !part.contains("--")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    name.len() <= MAX_ID_BYTES && name.split('/').count() <= 2 && name.split('/').all(is_part)
}

/// Whether a name can be a revision: parts of letters, digits, `-`, `_`, `.` between slashes, none climbing.
fn is_revision(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    name.len() <= MAX_ID_BYTES && name.split('/').all(is_part)
}

/// Where the files of one revision of one model are.
struct Place<'a> {
    model: &'a str,
    revision: &'a str,
    cache: &'a Path,
}

impl<'a> Place<'a> {
    fn new(model: &'a str, options: &'a HubOptions) -> Result<Self, ModelError> {
        if !is_hub_id(model) {
            return Err(ModelError::ModelName { model: model.to_owned() });
        }
        let revision = options.revision.as_deref().unwrap_or(DEFAULT_REVISION);
        if !is_revision(revision) {
            return Err(ModelError::Revision { revision: revision.to_owned() });
        }
        Ok(Self { model, revision, cache: &options.cache })
    }

    fn repo(&self) -> Repo {
        Repo::with_revision(self.model.to_owned(), RepoType::Model, self.revision.to_owned())
    }

    /// The folder of the cached snapshot: `refs` says which commit a branch stands for; a commit stands for itself.
    fn snapshot(&self) -> Option<PathBuf> {
        let folder = self.cache.join(self.repo().folder_name());
        let commit = std::fs::read_to_string(folder.join("refs").join(self.revision)).ok();
        let commit = commit.as_deref().map_or(self.revision, str::trim);
        let snapshot = folder.join("snapshots").join(commit);
        (is_revision(commit) && snapshot.is_dir()).then_some(snapshot)
    }

    /// The cached snapshot, if it is complete.
    fn cached_snapshot(&self) -> Result<PathBuf, ModelError> {
        let folder = self.snapshot().ok_or_else(|| self.not_cached())?;
        let weights = self.weight_files(&folder)?;
        let missing = std::iter::once(CONFIG_FILE).chain(weights.iter().map(String::as_str));
        match missing.into_iter().find(|file| !folder.join(file).exists()) {
            Some(file) => Err(ModelError::IncompleteCache { model: self.model.to_owned(), file: file.to_owned() }),
            None => Ok(folder),
        }
    }

    /// Names of the files that hold a snapshot's weights: those of its index if it has one, else the single file.
    fn weight_files(&self, folder: &Path) -> Result<Vec<String>, ModelError> {
        let index = folder.join(INDEX_FILE);
        if folder.join(WEIGHTS_FILE).exists() || !index.exists() {
            return Ok(vec![WEIGHTS_FILE.to_owned()]);
        }
        let bytes = std::fs::read(&index).map_err(|source| ModelError::ReadFile { path: index, source })?;
        let json: Value =
            serde_json::from_slice(&bytes).map_err(|source| ModelError::Json { file: INDEX_FILE, source })?;
        let shards = json.get("weight_map").and_then(Value::as_object).into_iter().flat_map(|map| map.values());
        let mut names: Vec<String> = shards.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        names.sort_unstable();
        names.dedup();
        match names.iter().find(|name| name.contains(['/', '\\', ':']) || name.starts_with('.')) {
            Some(name) => Err(ModelError::HubFileName { model: self.model.to_owned(), name: name.clone() }),
            None => Ok(names),
        }
    }

    /// Fetches every file of the model that the cache lacks.
    fn download(&self, options: &HubOptions, progress: &mut dyn DownloadProgress) -> Result<PathBuf, ModelError> {
        let endpoint = options.endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT);
        let failed = |source: ApiError| ModelError::Download {
            model: self.model.to_owned(),
            endpoint: endpoint.to_owned(),
            source: Box::new(source),
        };
        let builder = ApiBuilder::from_cache(Cache::new(self.cache.to_owned()))
            .with_endpoint(endpoint.to_owned())
            .with_token(options.token.clone())
            .with_retries(MAX_RETRIES)
            .with_progress(false);
        let repo = builder.build().map_err(failed)?.repo(self.repo());
        let info = repo.info().map_err(failed)?;
        let has = |file: &str| info.siblings.iter().any(|sibling| sibling.rfilename == file);
        let mut fetch = |file: &str| self.fetch(&repo, file, progress).map_err(failed);
        // Without a configuration there is no folder to look for the rest in.
        fetch(CONFIG_FILE)?;
        for file in TEXT_FILES.iter().filter(|file| has(file)) {
            fetch(file)?;
        }
        if !has(WEIGHTS_FILE) && has(INDEX_FILE) {
            fetch(INDEX_FILE)?;
        }
        let folder = self.snapshot().ok_or_else(|| self.not_cached())?;
        for file in self.weight_files(&folder)?.iter().filter(|file| has(file)) {
            fetch(file)?;
        }
        Ok(folder)
    }

    fn fetch(&self, repo: &ApiRepo, file: &str, progress: &mut dyn DownloadProgress) -> Result<(), ApiError> {
        let is_cached = self.snapshot().is_some_and(|folder| folder.join(file).exists());
        if !is_cached {
            repo.download_with_progress(file, Reported(progress))?;
        }
        Ok(())
    }

    fn not_cached(&self) -> ModelError {
        ModelError::NotCached { model: self.model.to_owned(), cache: self.cache.to_owned() }
    }
}

/// Hands the library's reports on.
struct Reported<'a>(&'a mut dyn DownloadProgress);

impl Progress for Reported<'_> {
    fn init(&mut self, size: usize, filename: &str) {
        self.0.begin(filename, size as u64);
    }

    fn update(&mut self, size: usize) {
        self.0.advance(size as u64);
    }

    fn finish(&mut self) {
        self.0.finish();
    }
}

#[cfg(test)]
mod tests;
