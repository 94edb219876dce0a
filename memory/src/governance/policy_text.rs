//! The texts of the policy: the schema that operators write against, the built-in policies, and the checks of an
//! operator's text.

use std::collections::HashSet;
use std::fmt::Write;

use cedar_policy::{Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use miette::Diagnostic;

use super::error::GovernanceError;
use super::policy::Action;
use super::rights::Right;

/// Greatest length of an operator's policy text in bytes.
pub const OPERATOR_TEXT_BYTES_MAX: usize = 256 << 10;
/// Greatest length of one policy in bytes: Cedar's parser goes as deep as a policy is long.
pub const OPERATOR_POLICY_BYTES_MAX: usize = 8 << 10;
/// Deepest nesting of brackets in a policy.
const NESTING_MAX: usize = 32;
/// Stack for parsing and checking an operator's text; with the limits above it is never used up.
const PARSER_STACK_BYTES: usize = 64 << 20;
/// Most policies of an operator's text: each decision looks at all of them.
pub const NUM_OPERATOR_POLICIES_MAX: usize = 256;

/// The built-in policies. `context.granted` holds the rights that grants give on the cube (or, when an action is
/// decided for single items, on these); the action groups are named after the right that a grant must give.
pub const BUILTIN_POLICIES: &str = r#"
@id("admin-in-own-tenant")
permit (principal, action, resource)
when { principal.tenant == resource.owner && principal.role == "admin" };

@id("user-in-own-tenant")
permit (principal,
    action in [Action::"ReadItems", Action::"WriteItems", Action::"EraseItems", Action::"RedactItems", Action::"CreateCube"],
    resource)
when { principal.tenant == resource.owner && principal.role == "user" };

@id("reader-in-own-tenant")
permit (principal, action == Action::"ReadItems", resource)
when { principal.tenant == resource.owner && principal.role == "reader" };

@id("granted-read")
permit (principal, action in Action::"read", resource) when { context.granted.contains("read") };
@id("granted-write")
permit (principal, action in Action::"write", resource) when { context.granted.contains("write") };
@id("granted-share")
permit (principal, action in Action::"share", resource) when { context.granted.contains("share") };
@id("granted-admin")
permit (principal, action in Action::"admin", resource) when { context.granted.contains("admin") };

@id("no-foreign-read-without-grant")
forbid (principal, action in Action::"read", resource)
unless { principal.tenant == resource.owner || context.granted.contains("read") };
@id("no-foreign-write-without-grant")
forbid (principal, action in Action::"write", resource)
unless { principal.tenant == resource.owner || context.granted.contains("write") };
@id("no-foreign-share-without-grant")
forbid (principal, action in Action::"share", resource)
unless { principal.tenant == resource.owner || context.granted.contains("share") };
@id("no-foreign-admin-without-grant")
forbid (principal, action in Action::"admin", resource)
unless { principal.tenant == resource.owner || context.granted.contains("admin") };

@id("readers-only-read")
forbid (principal, action in [Action::"write", Action::"share", Action::"admin"], resource)
when { principal.role == "reader" };
"#;

/// The schema that policies are checked against, in Cedar's schema language.
pub fn schema_text() -> String {
    let mut text = String::from(
        "entity Actor = { tenant: String, role: String, user?: String, agent?: String };\n\
         entity Cube = { owner: String, name: String };\n",
    );
    for right in Right::ALL {
        writeln!(text, "action \"{right}\";").expect("writing to a string cannot fail: this is a bug");
    }
    for action in Action::ALL {
        let right = action.required_right();
        writeln!(
            text,
            "action \"{action}\" in [\"{right}\"] appliesTo \
             {{ principal: [Actor], resource: [Cube], context: {{ granted: Set<String> }} }};"
        )
        .expect("writing to a string cannot fail: this is a bug");
    }
    text
}

/// Parses and checks an operator's policies; their ids become `operator:` and what `@id` says, or a number.
///
/// # Errors
/// The text is too long, does not parse, or does not fit the schema; the error names the line.
pub(super) fn parse_operator_policies(text: &str) -> Result<PolicySet, GovernanceError> {
    if text.len() > OPERATOR_TEXT_BYTES_MAX {
        let (unit, limit) = ("bytes", OPERATOR_TEXT_BYTES_MAX);
        return Err(GovernanceError::PolicyTextTooLong { unit, actual: text.len(), limit });
    }
    check_depth(text)?;
    let failed = |reason: &str| GovernanceError::PolicyEngine { reason: reason.to_owned() };
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES);
        let parser = parser.spawn_scoped(scope, || parse_and_validate(text));
        let parser = parser.map_err(|error| failed(&error.to_string()))?;
        parser.join().map_err(|_| failed("the parser gave up"))?
    })
}

/// Refuses what is nested or strung together so far that a recursive parser would use up its stack, which ends the
/// process and not just the parsing.
fn check_depth(text: &str) -> Result<(), GovernanceError> {
    let error =
        |offset: usize, reason: String| Err(GovernanceError::PolicyText { line: line_at(text, offset), reason });
    let (mut depth, mut policy_start) = (0_usize, 0);
    let mut characters = text.char_indices().peekable();
    while let Some((offset, character)) = characters.next() {
        match character {
            '"' => {
                while let Some((_, inner)) = characters.next() {
                    match inner {
                        '"' => break,
                        '\\' => drop(characters.next()),
                        _ => {}
                    }
                }
            }
            '/' if characters.peek().is_some_and(|(_, next)| *next == '/') => {
                characters.by_ref().find(|(_, inner)| *inner == '\n');
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ';' if depth == 0 => policy_start = offset + 1,
            _ => {}
        }
        if depth > NESTING_MAX {
            return error(offset, format!("brackets are nested deeper than {NESTING_MAX}"));
        }
        if offset.saturating_sub(policy_start) > OPERATOR_POLICY_BYTES_MAX {
            return error(offset, format!("the policy is longer than {OPERATOR_POLICY_BYTES_MAX} bytes"));
        }
    }
    Ok(())
}

fn parse_and_validate(text: &str) -> Result<PolicySet, GovernanceError> {
    let parsed: PolicySet = text.parse().map_err(|errors: cedar_policy::ParseErrors| {
        let (line, reason) = errors
            .iter()
            .next()
            .map_or_else(|| (1, errors.to_string()), |error| (line_of(text, error), error.to_string()));
        GovernanceError::PolicyText { line, reason }
    })?;
    if parsed.num_of_templates() > 0 {
        let line = text.find('?').map_or(1, |at| line_at(text, at));
        return Err(GovernanceError::PolicyText { line, reason: "templates cannot be used here".to_owned() });
    }
    let actual = parsed.num_of_policies();
    if actual > NUM_OPERATOR_POLICIES_MAX {
        let (unit, limit) = ("policies", NUM_OPERATOR_POLICIES_MAX);
        return Err(GovernanceError::PolicyTextTooLong { unit, actual, limit });
    }
    let named = name_policies(&parsed, "operator").map_err(|id| {
        let quoted = format!("\"{id}\"");
        let second = text.match_indices(&quoted).nth(1).map_or(0, |(at, _)| at);
        GovernanceError::PolicyText { line: line_at(text, second), reason: format!("two policies have the id {id:?}") }
    })?;
    let validator = Validator::new(schema()?);
    let result = validator.validate(&named, ValidationMode::Strict);
    match result.validation_errors().next() {
        None => Ok(named),
        Some(error) => Err(GovernanceError::PolicyText { line: line_of(text, error), reason: error.to_string() }),
    }
}

/// The same policies under ids of the form `prefix:name`, or the name that two of them have.
pub(super) fn name_policies(policies: &PolicySet, prefix: &str) -> Result<PolicySet, String> {
    let mut named = PolicySet::new();
    let mut seen: HashSet<String> = HashSet::new();
    for (index, policy) in policies.policies().enumerate() {
        let name = policy.annotation("id").map_or_else(|| index.to_string(), str::to_owned);
        if !seen.insert(name.clone()) {
            return Err(name);
        }
        let policy: Policy = policy.new_id(PolicyId::new(format!("{prefix}:{name}")));
        named.add(policy).map_err(|_| name)?;
    }
    Ok(named)
}

fn schema() -> Result<Schema, GovernanceError> {
    let engine_error = |reason: String| GovernanceError::PolicyEngine { reason };
    let (schema, _warnings) =
        Schema::from_cedarschema_str(&schema_text()).map_err(|error| engine_error(error.to_string()))?;
    Ok(schema)
}

fn line_of(text: &str, error: &dyn Diagnostic) -> usize {
    let first = error.labels().and_then(|labels| labels.map(|label| label.offset()).min());
    line_at(text, first.unwrap_or(0))
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_policies_fit_the_schema() {
        let policies: PolicySet = BUILTIN_POLICIES.parse().expect("they parse");
        let named = name_policies(&policies, "builtin").expect("their ids differ");
        let validator = Validator::new(schema().expect("the schema parses"));
        let result = validator.validate(&named, ValidationMode::Strict);
        let errors: Vec<String> = result.validation_errors().map(ToString::to_string).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }

    #[test]
    fn a_wrong_operator_text_is_refused_with_its_line() {
        let good =
            "permit (principal, action == Action::\"ReadItems\", resource)\nwhen { principal.role == \"user\" };\n";
        assert_eq!(parse_operator_policies(good).expect("it fits").num_of_policies(), 1);
        assert_eq!(parse_operator_policies("").expect("no policy is fine").num_of_policies(), 0);
        let cases = [
            (format!("{good}\npermit (principal action, resource);"), 4, "unexpected token"),
            (format!("{good}permit (principal, action == Action::\"Fly\", resource);"), 3, "Fly"),
            (format!("{good}\n\npermit (principal, action, resource)\nwhen {{ principal.age > 3 }};"), 6, "age"),
            (format!("{good}permit (principal == ?principal, action, resource);"), 3, "templates"),
            (format!("@id(\"a\") {good}@id(\"a\") {good}"), 3, "two policies"),
            (format!("{good}permit (principal, action, resource) when {{ principal.tenant == 3 }};"), 3, ""),
            (format!("{good}permit (principal, action, resource) when {{ principal.user == \"ann\" }};"), 3, "user"),
        ];
        for (text, expected_line, expected) in cases {
            match parse_operator_policies(&text) {
                Err(GovernanceError::PolicyText { line, reason }) => {
                    assert_eq!(line, expected_line, "{text}: {reason}");
                    assert!(reason.contains(expected), "{text}: {reason}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_operator_text_has_limits() {
        let comment = format!("// {}\n", "(".repeat(OPERATOR_POLICY_BYTES_MAX - 100));
        parse_operator_policies(&comment).expect("brackets in a comment are none");
        let quoted =
            format!("permit (principal, action, resource) when {{ principal.role == \"{}\\\"\" }};", "(".repeat(100));
        parse_operator_policies(&quoted).expect("brackets in a text are none");
        let long = format!("// {}", "x".repeat(OPERATOR_TEXT_BYTES_MAX));
        let error = parse_operator_policies(&long).expect_err("too long");
        assert!(matches!(error, GovernanceError::PolicyTextTooLong { unit: "bytes", .. }), "{error}");
        let many = "permit (principal, action, resource);".repeat(NUM_OPERATOR_POLICIES_MAX + 1);
        let error = parse_operator_policies(&many).expect_err("too many");
        assert!(matches!(error, GovernanceError::PolicyTextTooLong { unit: "policies", .. }), "{error}");
        for (deep, expected) in [
            (format!("{}true{}", "(".repeat(20_000), ")".repeat(20_000)), "nested"),
            (format!("true{}", " && true".repeat(20_000)), "longer"),
            (format!("principal{}", ".a".repeat(20_000)), "longer"),
            ("if true then ".repeat(20_000), "longer"),
        ] {
            let text = format!("permit (principal, action, resource) when {{ {deep} }};");
            let error = parse_operator_policies(&text).expect_err("too deep").to_string();
            assert!(error.contains(expected), "{error}");
        }
        // The deepest that passes those limits must come back as an answer, whatever it is.
        for repeated in
            ["true && ", "true || ", "principal.role == ", "if true then ", "!", "-", "1 + ", "principal.a.a.a."]
        {
            let deep = repeated.repeat((OPERATOR_POLICY_BYTES_MAX - 200) / repeated.len());
            let text = format!("permit (principal, action, resource) when {{ {deep} true }};");
            drop(parse_operator_policies(&text));
            let bracketed = format!("{}true{}", "(".repeat(NESTING_MAX - 1), ")".repeat(NESTING_MAX - 1));
            let text = format!("permit (principal, action, resource) when {{ {bracketed} }};");
            parse_operator_policies(&text).expect("it is nested as deep as it may be");
        }
    }
}
