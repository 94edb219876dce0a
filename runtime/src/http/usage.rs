//! Token counts of one request, in OpenAI's shape.

use serde_json::{Value, json};

use crate::engine::Cached;

/// Counts over all choices. The prompt of several choices is computed, and counted, once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Tokens generated, the one that ended an answer included.
    pub completion_tokens: usize,
    /// Prompt tokens whose KV was there before the request.
    pub cached: Cached,
}

impl Usage {
    /// The `usage` object of an answer.
    pub fn to_json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {
                "cached_tokens": self.cached.num_tokens(),
                "cached_tokens_by_tier": {
                    "device": self.cached.device_tokens,
                    "host": self.cached.host_tokens,
                    "disk": self.cached.disk_tokens,
                },
            },
        })
    }
}
