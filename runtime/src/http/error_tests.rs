//! Tests of errors as clients see them.

use super::*;

#[test]
fn the_json_has_openais_four_fields() {
    let error = ApiError::OutOfRange {
        param: "temperature".to_owned(),
        allowed: "between 0 and 2".to_owned(),
        got: "-1".to_owned(),
    };
    let expected = json!({"error": {
        "message": "temperature must be between 0 and 2, got -1",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": "invalid_value",
    }});
    assert_eq!(error.to_json(), expected);
    assert_eq!(error.status(), StatusCode::BAD_REQUEST);
}

#[test]
fn a_full_queue_tells_when_to_come_back() {
    let error = ApiError::Engine(EngineError::QueueFull { limit: 8, retry_after_s: 3 });
    let response = error.into_response();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()[header::RETRY_AFTER], "3");
}

#[test]
fn a_context_overflow_names_both_numbers() {
    let error = ApiError::ContextLength { param: "messages", prompt_tokens: 100, max_tokens: 50, limit: 128 };
    let text = error.to_string();
    assert!(["128", "150", "100", "50"].iter().all(|number| text.contains(number)), "{text}");
    assert_eq!(error.to_json()["error"]["code"], "context_length_exceeded");
}

#[test]
fn the_state_of_the_key_file_is_not_told_to_clients() {
    let error = ApiError::Keys(MemoryError::KeyFileGone { path: "/secret/place".into() });
    assert!(!error.to_string().contains("secret"));
    assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
}
