//! The OpenAPI document. It is written by hand in `openapi.json`; the tests hold it against the routes and the readers.

/// The document, as it is served.
pub const DOCUMENT: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use models::GenerationConfig;
    use serde_json::{Map, Value, json};

    use super::super::auth::Requirement;
    use super::super::chat_request::ChatRequest;
    use super::super::completion_request::CompletionRequest;
    use super::super::error::ApiError;
    use super::super::fields::Fields;
    use super::super::memory_api::Input;
    use super::super::routes::{Endpoint, Method};
    use super::DOCUMENT;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).expect("the document is JSON")
    }

    fn operation(document: &Value, endpoint: Endpoint) -> Value {
        document["paths"][endpoint.path()][endpoint.method().as_str()].clone()
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document = document();
        let described: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .expect("paths")
            .iter()
            .flat_map(|(path, item)| {
                item.as_object().expect("operations").keys().map(move |method| (path.clone(), method.clone()))
            })
            .collect();
        let served: BTreeSet<(String, String)> = Endpoint::all()
            .map(|endpoint| (endpoint.path().to_owned(), endpoint.method().as_str().to_owned()))
            .collect();
        assert_eq!(described, served);
    }

    #[test]
    fn the_version_is_the_programs() {
        assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn public_routes_ask_for_no_key_and_the_others_tell_their_refusals() {
        let document = document();
        for endpoint in Endpoint::all() {
            let operation = operation(&document, endpoint);
            let is_public = endpoint.requirement() == Requirement::Public;
            assert_eq!(operation["security"] == json!([]), is_public, "{endpoint:?}");
            for status in ["401", "403"] {
                assert_eq!(operation["responses"].get(status).is_some(), !is_public, "{endpoint:?} {status}");
            }
            let has_body = operation.get("requestBody").is_some();
            for status in ["408", "413", "415"] {
                assert_eq!(operation["responses"].get(status).is_some(), has_body, "{endpoint:?} {status}");
            }
            let takes_fields = has_body || matches!(endpoint, Endpoint::Memory(_));
            assert_eq!(operation["responses"].get("400").is_some(), takes_fields, "{endpoint:?}");
            let needs_body = match endpoint {
                Endpoint::Memory(endpoint) => endpoint.input() != Input::Nothing,
                other => other.method() == Method::Post && other != Endpoint::ResetDevice,
            };
            assert_eq!(has_body, needs_body, "{endpoint:?}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_component_is_used() {
        let document = document();
        let mut references = BTreeSet::new();
        collect_references(&document, &mut references);
        for reference in &references {
            let pointer = reference.strip_prefix('#').expect("a reference into this document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        for (kind, components) in document["components"].as_object().expect("components") {
            for name in components.as_object().expect("named components").keys() {
                let reference = format!("#/components/{kind}/{name}");
                assert!(kind == "securitySchemes" || references.contains(&reference), "{reference} is not used");
            }
        }
    }

    fn collect_references(value: &Value, references: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    references.insert(reference.clone());
                }
                map.values().for_each(|value| collect_references(value, references));
            }
            Value::Array(list) => list.iter().for_each(|value| collect_references(value, references)),
            _ => {}
        }
    }

    /// Properties of a schema, those of the schemas that it includes among them.
    fn properties(document: &Value, schema: &str) -> Map<String, Value> {
        let schema = &document["components"]["schemas"][schema];
        let mut found = schema["properties"].as_object().cloned().unwrap_or_default();
        for part in schema["allOf"].as_array().into_iter().flatten() {
            match part["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
                Some(name) => found.extend(properties(document, name)),
                None => found.extend(part["properties"].as_object().cloned().unwrap_or_default()),
            }
        }
        found
    }

    fn read_chat(body: Map<String, Value>) -> Result<(), ApiError> {
        ChatRequest::read(Fields::of_body(body), &GenerationConfig::default(), 1000).map(|_| ())
    }

    fn read_completion(body: Map<String, Value>) -> Result<(), ApiError> {
        CompletionRequest::read(Fields::of_body(body), &GenerationConfig::default(), 1000).map(|_| ())
    }

    #[test]
    fn the_examples_of_all_request_fields_are_accepted_together() {
        let document = document();
        for (schema, read) in [
            ("ChatCompletionRequest", read_chat as fn(Map<String, Value>) -> Result<(), ApiError>),
            ("CompletionRequest", read_completion),
        ] {
            let mut body = Map::new();
            for (name, property) in properties(&document, schema) {
                let example = property["example"].clone();
                assert!(!example.is_null(), "{schema}.{name} has no example");
                body.insert(name, example);
            }
            read(body.clone()).unwrap_or_else(|error| panic!("{schema}: {error}"));
            body.insert("no_such_field".to_owned(), json!(1));
            read(body).expect_err("unknown fields are refused");
        }
    }

    #[test]
    fn every_field_that_is_read_is_described() {
        let document = document();
        for (schema, read, needed) in [
            (
                "ChatCompletionRequest",
                read_chat as fn(Map<String, Value>) -> Result<(), ApiError>,
                ("messages", json!([{"role": "user", "content": "x"}])),
            ),
            ("CompletionRequest", read_completion, ("prompt", json!("x"))),
        ] {
            let described = properties(&document, schema);
            for field in FIELDS {
                // A value of no sensible type: a reader that knows the field complains about it, or ignores it.
                let body =
                    Map::from_iter([(needed.0.to_owned(), needed.1.clone()), (field.to_owned(), json!({"?": 1}))]);
                let is_known = !matches!(read(body), Err(ApiError::UnknownField { param }) if param == field);
                let is_refused_on_purpose = REFUSED_FIELDS.contains(&field);
                let should_be_described = is_known && !is_refused_on_purpose;
                assert_eq!(described.contains_key(field), should_be_described, "{schema}.{field}");
            }
        }
    }

    /// Fields that are known in order to be refused with a reason.
    const REFUSED_FIELDS: [&str; 7] =
        ["audio", "functions", "function_call", "web_search_options", "reasoning_effort", "verbosity", "modalities"];

    /// The fields of OpenAI's and vLLM's APIs and of our own.
    const FIELDS: [&str; 58] = [
        "model",
        "messages",
        "prompt",
        "suffix",
        "best_of",
        "echo",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "seed",
        "stop",
        "stop_token_ids",
        "ignore_eos",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "n",
        "stream",
        "stream_options",
        "timeout_ms",
        "truncation",
        "memory",
        "truncate_prompt_tokens",
        "add_special_tokens",
        "add_generation_prompt",
        "continue_final_message",
        "chat_template_kwargs",
        "tools",
        "tool_choice",
        "response_format",
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "parallel_tool_calls",
        "cache_salt",
        "prediction",
        "audio",
        "functions",
        "function_call",
        "web_search_options",
        "reasoning_effort",
        "verbosity",
        "modalities",
        "min_tokens",
        "prompt_logprobs",
        "guided_json",
        "chat_template",
        "use_beam_search",
    ];
}
