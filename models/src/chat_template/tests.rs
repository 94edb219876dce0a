//! Templates in the style of those in the wild: tools, reversed lists, refused conversations, Python's printing.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use super::*;

/// A model folder with the given files.
fn folder(files: &[(&str, &str)]) -> (TempDir, ModelSource) {
    let folder = tempfile::tempdir().expect("temporary folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("write");
    }
    let source = ModelSource::Folder(PathBuf::from(folder.path()));
    (folder, source)
}

fn template(text: &str) -> ChatTemplate {
    let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>", "special": true}});
    let (_folder, source) = folder(&[("tokenizer_config.json", &config.to_string())]);
    ChatTemplate::from_text(text, &source).expect("valid template")
}

fn input<'a>(messages: &'a Value, tools: Option<&'a Value>, kwargs: &'a Map<String, Value>) -> ChatInput<'a> {
    ChatInput { messages, tools, add_generation_prompt: Continuation::AssistantTurn, kwargs }
}

fn render(text: &str, messages: &Value) -> Result<String, ModelError> {
    template(text).render(&input(messages, None, &Map::new()))
}

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "weather", "description": "It's <warm> & \"dry\"",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}])
}

/// Headers for every turn, a system turn that is always there, tools in the first user turn.
const LLAMA_LIKE: &str = r#"{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start|>system<|end|>\n\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{{- system_message }}
{{- "<|eot|>" }}
{%- if tools is not none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("No first user message to put tools in") }}
    {%- endif %}
    {{- '<|start|>user<|end|>\n\n' }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start|>' + message['role'] + '<|end|>\n\n' + message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("one call at a time") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start|>assistant<|end|>\n\n' -}}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}<|eot|>" }}
    {%- else %}
        {{- "<|start|>ipython<|end|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant<|end|>\n\n' }}
{%- endif %}
"#;

#[test]
fn a_llama_like_template_renders_turns_tools_and_calls() {
    let messages = json!([
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",
            "function": {"name": "weather", "arguments": "{\"city\": \"Köln\", \"days\": 2}"}}]},
        {"role": "tool", "content": "sunny"},
    ]);
    let expected = "<s><|start|>system<|end|>\n\nEnvironment: ipython\nBe brief.<|eot|><|start|>user<|end|>\n\n{\n    \
        \"type\": \"function\",\n    \"function\": {\n        \"name\": \"weather\",\n        \"description\": \"It's <warm> & \
        \\\"dry\\\"\",\n        \"parameters\": {\n            \"type\": \"object\",\n            \"properties\": {\n                \
        \"city\": {\n                    \"type\": \"string\"\n                }\n            },\n            \"required\": [\n                \
        \"city\"\n            ]\n        }\n    }\n}\n\nWeather?<|eot|><|start|>assistant<|end|>\n\n{\"name\": \"weather\", \
        \"parameters\": {\"city\": \"Köln\", \"days\": 2}}<|eot|><|start|>ipython<|end|>\n\n\"sunny\"<|eot|>\
        <|start|>assistant<|end|>\n\n";
    let rendered = template(LLAMA_LIKE).render(&input(&messages, Some(&tools()), &Map::new())).expect("renders");
    assert_eq!(rendered, expected);
    let plain = json!([{"role": "user", "content": "Hi"}]);
    let expected = "<s><|start|>system<|end|>\n\n<|eot|><|start|>user<|end|>\n\nHi<|eot|><|start|>assistant<|end|>\n\n";
    assert_eq!(render(LLAMA_LIKE, &plain).expect("renders"), expected);
    // A list of tools without tools is no list of tools.
    let rendered = template(LLAMA_LIKE).render(&input(&plain, Some(&json!([])), &Map::new())).expect("renders");
    assert_eq!(rendered, expected);
    let system_only = json!([{"role": "system", "content": "x"}]);
    match template(LLAMA_LIKE).render(&input(&system_only, Some(&tools()), &Map::new())) {
        Err(ModelError::TemplateRefused { message }) => assert_eq!(message, "No first user message to put tools in"),
        other => panic!("{other:?}"),
    }
}

/// Looks from the end for the last question, strips thoughts of earlier answers, has a switch for thinking.
const QWEN_LIKE: &str = r#"{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
            {{- '<|im_start|>assistant\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' + content + '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
"#;

#[test]
fn a_qwen_like_template_finds_the_last_question_and_takes_extra_arguments() {
    let messages = json!([
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nTwo."},
        {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "text", "text": "three?"}]},
        {"role": "assistant", "content": "", "tool_calls": [
            {"function": {"name": "f", "arguments": {"x": [1, 2.5, true, null]}}},
            {"function": {"name": "g", "arguments": "not json"}}]},
        {"role": "tool", "content": "4"},
        {"role": "tool", "content": "5"},
    ]);
    let expected = "<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\nTwo.<|im_end|>\n<|im_start|>user\nAnd\nthree?<|im_end|>\n\
        <|im_start|>assistant\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": [1, 2.5, true, null]}}\n</tool_call>\n\
        <tool_call>\n{\"name\": \"g\", \"arguments\": not json}\n</tool_call><|im_end|>\n\
        <|im_start|>user\n<tool_response>\n4\n</tool_response>\n<tool_response>\n5\n</tool_response><|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(render(QWEN_LIKE, &messages).expect("renders"), expected);
    let kwargs = json!({"enable_thinking": false, "messages": "mine"});
    let kwargs = kwargs.as_object().expect("object");
    let rendered = template(QWEN_LIKE).render(&input(&messages, None, kwargs)).expect("renders");
    assert_eq!(rendered, format!("{expected}<think>\n\n</think>\n\n"));
}

const MISTRAL_LIKE: &str = "{{ bos_token }}{% for message in messages %}\
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
    {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
    {% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}\
    {% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}\
    {% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}";

#[test]
fn a_mistral_like_template_refuses_with_its_own_words() {
    let alternating = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}]);
    assert_eq!(render(MISTRAL_LIKE, &alternating).expect("renders"), "<s>[INST] a [/INST]b</s>[INST] c [/INST]");
    match render(MISTRAL_LIKE, &json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])) {
        Err(ModelError::TemplateRefused { message }) => assert!(message.contains("must alternate"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn blocks_are_trimmed_and_python_prints_its_constants() {
    let text = "{% for m in messages %}\n  {% if loop.first %}\n- {{ m.content }} {{ m.content is none }}\n  {% endif %}\n\
        {% endfor %}\n{{ none }} {{ true }} {{ missing }}|{{ 'a<b' }}|{{ ['<', \"'\"] | tojson }}\n";
    let rendered = render(text, &json!([{"role": "user", "content": null}])).expect("renders");
    assert_eq!(rendered, "- None True\nNone True |a<b|[\"<\", \"'\"]");
}

#[test]
fn json_is_written_as_python_writes_it() {
    let value =
        json!([{"role": "user", "content": "x", "data": {"b": [1e20, 1.0, 1e-7, -5, []], "a": "é\u{1}\n", "c": {}}}]);
    let data =
        |options: &str| render(&format!("{{{{ messages[0].data | tojson{options} }}}}"), &value).expect("renders");
    assert_eq!(data(""), r#"{"b": [1e+20, 1.0, 1e-07, -5, []], "a": "é\u0001\n", "c": {}}"#);
    assert_eq!(data("(ensure_ascii=true)"), r#"{"b": [1e+20, 1.0, 1e-07, -5, []], "a": "\u00e9\u0001\n", "c": {}}"#);
    assert_eq!(data("(sort_keys=true)"), r#"{"a": "é\u0001\n", "b": [1e+20, 1.0, 1e-07, -5, []], "c": {}}"#);
    assert_eq!(data("(separators=(',', ':'))"), r#"{"b":[1e+20,1.0,1e-07,-5,[]],"a":"é\u0001\n","c":{}}"#);
    assert!(data("(indent=2)").starts_with("{\n  \"b\": [\n    1e+20,\n"));
}

#[test]
fn loops_can_be_left_dates_be_written_and_generation_blocks_are_transparent() {
    let text = "{% for m in messages %}{% if m.role == 'stop' %}{% break %}{% endif %}{% generation %}{{ m.content }}\
        {% endgeneration %}{% endfor %}{{ strftime_now('%Y') | length }}";
    let messages = json!([{"role": "user", "content": "a"}, {"role": "stop", "content": "b"}]);
    assert_eq!(render(text, &messages).expect("renders"), "a4");
}

#[test]
fn a_final_message_is_left_open() {
    let messages = json!([{"role": "user", "content": "Count."}, {"role": "assistant", "content": "One, two, "}]);
    let kwargs = Map::new();
    let open = |messages: &Value, text: &str| {
        let input =
            ChatInput { messages, tools: None, add_generation_prompt: Continuation::FinalMessage, kwargs: &kwargs };
        template(text).render(&input)
    };
    let kept = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</end>{% endfor %}";
    assert_eq!(open(&messages, kept).expect("renders"), "<user>Count.</end><assistant>One, two, ");
    let trimmed = kept.replace("m.content", "m.content | trim");
    assert_eq!(open(&messages, &trimmed).expect("renders"), "<user>Count.</end><assistant>One, two,");
    for messages in [json!([]), json!([{"role": "assistant", "content": " "}]), json!([{"role": "assistant"}])] {
        assert!(matches!(open(&messages, kept), Err(ModelError::FinalMessage)), "{messages}");
    }
    assert!(matches!(open(&messages, "nothing"), Err(ModelError::FinalMessage)));
}

#[test]
fn hostile_templates_end() {
    let messages = json!([{"role": "user", "content": "x"}]);
    for text in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{{ a }}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{{ 'x' * 100000000000 }}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
        "{% include 'default' %}",
        "{{ messages[0].missing.deeper }}",
        "{{ 1 / 0 }}{{ unknown_function() }}",
    ] {
        let start = std::time::Instant::now();
        let error = render(text, &messages).expect_err(text);
        assert!(matches!(error, ModelError::TemplateRender { .. }), "{text}: {error:?}");
        assert!(start.elapsed().as_secs() < 10, "{text}: {:?}", start.elapsed());
    }
    let (_folder, source) = folder(&[]);
    for text in ["{% if %}", "{{ a", "{% endfor %}", "{% for %}{% endfor %}"] {
        let error = ChatTemplate::from_text(text, &source).expect_err(text);
        assert!(matches!(error, ModelError::TemplateSyntax { .. }), "{text}: {error:?}");
    }
}

#[test]
fn messages_of_the_wrong_form_are_named() {
    let text = "{{ messages[0].content }}";
    let image = json!([{"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "image_url", "image_url": {}}]}]);
    match render(text, &image) {
        Err(ModelError::ContentPart { message: 1, part: 1, kind }) => assert_eq!(kind, "image_url"),
        other => panic!("{other:?}"),
    }
    for (wrong, index) in [
        (json!("hello"), 0),
        (json!([{"role": "user", "content": "a"}, "b"]), 1),
        (json!([{"role": "user", "content": 5}]), 0),
    ] {
        match render(text, &wrong) {
            Err(ModelError::InvalidMessage { message, .. }) => assert_eq!(message, index),
            other => panic!("{wrong}: {other:?}"),
        }
    }
}

#[test]
fn the_file_of_its_own_wins_and_tools_choose_their_template() {
    let list = json!({"chat_template": [{"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "with tools"}]})
    .to_string();
    let messages = json!([{"role": "user", "content": "a"}]);
    let kwargs = Map::new();
    let (_folder, source) = folder(&[("tokenizer_config.json", &list)]);
    let named = ChatTemplate::load(&source).expect("valid").expect("a template");
    assert_eq!(named.render(&input(&messages, None, &kwargs)).expect("renders"), "plain");
    assert_eq!(named.render(&input(&messages, Some(&tools()), &kwargs)).expect("renders"), "with tools");
    let (_folder, source) =
        folder(&[("tokenizer_config.json", &list), ("chat_template.jinja", "file {{ tools is none }}")]);
    let own = ChatTemplate::load(&source).expect("valid").expect("a template");
    assert_eq!(own.render(&input(&messages, None, &kwargs)).expect("renders"), "file True");
    let (_folder, source) = folder(&[("tokenizer_config.json", "{\"chat_template\": null}")]);
    assert!(ChatTemplate::load(&source).expect("valid").is_none());
    let (_folder, source) =
        folder(&[("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"x\"}]}")]);
    let only_rag = ChatTemplate::load(&source).expect("valid").expect("a template");
    let error = only_rag.render(&input(&messages, None, &kwargs)).expect_err("no default");
    assert!(matches!(error, ModelError::TemplateName { .. }));
    let (_folder, source) = folder(&[("tokenizer_config.json", "{\"chat_template\": 5}")]);
    assert!(matches!(ChatTemplate::load(&source), Err(ModelError::InvalidField { name: "chat_template", .. })));
}
