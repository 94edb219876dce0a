//! The small model that the project trains itself, embedded in the binary so that the first command needs no download.

use models::{EmbeddedModel, ModelSource};

/// Name under which it is served.
pub const NAME: &str = "memos-mini";

/// The embedded files, as a source for loading.
pub fn source() -> ModelSource {
    ModelSource::Embedded(EmbeddedModel {
        config: include_bytes!("../../models/bundled/model/config.json"),
        weights: include_bytes!("../../models/bundled/model/model.safetensors"),
        tokenizer: include_bytes!("../../models/bundled/model/tokenizer.json"),
        tokenizer_config: include_bytes!("../../models/bundled/model/tokenizer_config.json"),
        generation_config: include_bytes!("../../models/bundled/model/generation_config.json"),
    })
}
