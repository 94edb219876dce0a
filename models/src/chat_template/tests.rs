//! Tests of chat_template.
