//! The one place where environment variables are read; everything below it gets plain values.

use std::path::PathBuf;

use models::hub::{HubOptions, Network};

/// What the process environment says.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `MEMOS_DATA_DIR`, else `$XDG_DATA_HOME/memos`, else `$HOME/.local/share/memos`.
    pub data_dir: Option<PathBuf>,
    /// `MEMOS_API_KEY`: a key for tenant `default` that does not show in the process list.
    pub api_key: Option<String>,
    /// `MEMOS_EMBEDDER_API_KEY`: the key that an embedding service asks for.
    pub embedder_api_key: Option<String>,
    /// `MEMOS_EXTRACTOR_API_KEY`: the key that a service asks for that extracts facts.
    pub extractor_api_key: Option<String>,
    /// Folder of the Hugging Face cache: `HF_HUB_CACHE`, else `$HF_HOME/hub`, else `$HOME/.cache/huggingface/hub`.
    hub_cache: Option<PathBuf>,
    /// `HF_ENDPOINT`: another hub than the public one.
    hub_endpoint: Option<String>,
    /// `HF_TOKEN`: for models that need a login.
    hub_token: Option<String>,
    /// `HF_HUB_OFFLINE`: only the cache may be used.
    hub_offline: bool,
}

impl Environment {
    /// Reads the variables once. A variable that is set but empty counts as not set.
    pub fn read() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HOME");
        let below_home = |below: &str| home.as_ref().map(|home| home.join(below));
        Self {
            data_dir: path("MEMOS_DATA_DIR")
                .or_else(|| path("XDG_DATA_HOME").map(|data| data.join("memos")))
                .or_else(|| below_home(".local/share/memos")),
            api_key: text("MEMOS_API_KEY"),
            embedder_api_key: text("MEMOS_EMBEDDER_API_KEY"),
            extractor_api_key: text("MEMOS_EXTRACTOR_API_KEY"),
            hub_cache: path("HF_HUB_CACHE")
                .or_else(|| path("HF_HOME").map(|home| home.join("hub")))
                .or_else(|| below_home(".cache/huggingface/hub")),
            hub_endpoint: text("HF_ENDPOINT"),
            hub_token: text("HF_TOKEN"),
            hub_offline: text("HF_HUB_OFFLINE").is_some_and(|value| value != "0" && value != "false"),
        }
    }

    /// How models are looked up by hub id. Without a home directory the cache is `.cache/huggingface/hub` below the
    /// working directory.
    pub fn hub_options(&self) -> HubOptions {
        HubOptions {
            cache: self.hub_cache.clone().unwrap_or_else(|| PathBuf::from(".cache/huggingface/hub")),
            endpoint: self.hub_endpoint.clone(),
            token: self.hub_token.clone(),
            revision: None,
            network: if self.hub_offline { Network::Off } else { Network::Allowed },
        }
    }
}
