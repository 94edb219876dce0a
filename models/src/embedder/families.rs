//! What the families of BERT call their fields and tensors; their arithmetic is the same.

use crate::ModelError;

/// One family of encoders.
#[derive(Debug)]
pub(super) struct EncoderFamily {
    pub name: &'static str,
    /// Values of `model_type`, then the class that `architectures` names.
    known_as: &'static [&'static str],
    /// What tensor names begin with in a checkpoint that was saved with a head.
    pub prefix: &'static str,
    pub positions: PositionIds,
    pub default_pad_token_id: usize,
    pub fields: FieldNames,
    pub tensors: TensorNames,
}

/// Which row of the position table a token takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PositionIds {
    /// Its index.
    FromZero,
    /// Its index among the tokens that are no padding token, counted from the padding token's id plus 1; a padding
    /// token itself takes the row of its id.
    BehindPadding,
}

/// Names in `config.json`.
#[derive(Debug)]
pub(super) struct FieldNames {
    pub hidden_size: &'static str,
    pub num_layers: &'static str,
    pub num_heads: &'static str,
    pub intermediate_size: &'static str,
    pub activation: &'static str,
    /// `None`: the family has no segment types.
    pub num_types: Option<&'static str>,
}

/// Names in the checkpoint, behind the prefix; those of a layer behind `layers` and its number.
#[derive(Debug)]
pub(super) struct TensorNames {
    pub layers: &'static str,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub attention_output: &'static str,
    pub attention_norm: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub output_norm: &'static str,
}

pub(super) const WORD_EMBEDDINGS: &str = "embeddings.word_embeddings.weight";
pub(super) const POSITION_EMBEDDINGS: &str = "embeddings.position_embeddings.weight";
pub(super) const TYPE_EMBEDDINGS: &str = "embeddings.token_type_embeddings.weight";
pub(super) const EMBEDDING_NORM: &str = "embeddings.LayerNorm";

const BERT_FIELDS: FieldNames = FieldNames {
    hidden_size: "hidden_size",
    num_layers: "num_hidden_layers",
    num_heads: "num_attention_heads",
    intermediate_size: "intermediate_size",
    activation: "hidden_act",
    num_types: Some("type_vocab_size"),
};

const BERT_TENSORS: TensorNames = TensorNames {
    layers: "encoder.layer.",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    output_norm: "output.LayerNorm",
};

static FAMILIES: [EncoderFamily; 3] = [
    EncoderFamily {
        name: "bert",
        known_as: &["bert", "BertModel"],
        prefix: "bert.",
        positions: PositionIds::FromZero,
        default_pad_token_id: 0,
        fields: BERT_FIELDS,
        tensors: BERT_TENSORS,
    },
    EncoderFamily {
        name: "roberta",
        known_as: &["roberta", "xlm-roberta", "camembert", "RobertaModel", "XLMRobertaModel", "CamembertModel"],
        prefix: "roberta.",
        positions: PositionIds::BehindPadding,
        default_pad_token_id: 1,
        fields: BERT_FIELDS,
        tensors: BERT_TENSORS,
    },
    EncoderFamily {
        name: "distilbert",
        known_as: &["distilbert", "DistilBertModel"],
        prefix: "distilbert.",
        positions: PositionIds::FromZero,
        default_pad_token_id: 0,
        fields: FieldNames {
            hidden_size: "dim",
            num_layers: "n_layers",
            num_heads: "n_heads",
            intermediate_size: "hidden_dim",
            activation: "activation",
            num_types: None,
        },
        tensors: TensorNames {
            layers: "transformer.layer.",
            query: "attention.q_lin",
            key: "attention.k_lin",
            value: "attention.v_lin",
            attention_output: "attention.out_lin",
            attention_norm: "sa_layer_norm",
            up: "ffn.lin1",
            down: "ffn.lin2",
            output_norm: "output_layer_norm",
        },
    },
];

/// The family of a `model_type` or of a class name.
///
/// # Errors
/// [`ModelError::UnknownArchitecture`] with the known model types.
pub(super) fn find(architecture: &str) -> Result<&'static EncoderFamily, ModelError> {
    FAMILIES.iter().find(|family| family.known_as.contains(&architecture)).ok_or_else(|| {
        let is_model_type = |name: &&&str| name.starts_with(char::is_lowercase);
        let known = FAMILIES.iter().flat_map(|family| family.known_as.iter().filter(is_model_type).copied());
        let supported = known.collect::<Vec<&str>>().join(", ");
        ModelError::UnknownArchitecture { architecture: architecture.to_owned(), supported }
    })
}
