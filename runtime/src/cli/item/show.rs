//! Memories on the terminal.

use memory::item::{Change, Item, Version};
use memory::memories::Found;
use memory::search::fusion::FoundBy;

use crate::cli::table::{Table, one_line};

/// Characters of a memory that are shown in a table.
const TEXT_CHARS_MAX: usize = 80;

pub(super) fn items(items: &[Item]) -> String {
    let mut table = Table::of_text(&["ID", "KIND", "STATE", "TEXT"]);
    for item in items {
        let text = one_line(&item.text, TEXT_CHARS_MAX);
        table.push(vec![item.id.to_string(), item.kind.to_string(), item.state.to_string(), text]);
    }
    table.to_string()
}

pub(super) fn results(results: &[Found]) -> String {
    let mut table = Table::of_text(&["SCORE", "FOUND BY", "ID", "TEXT"]);
    for Found { item, trace } in results {
        let found_by: Vec<String> = trace.found_by.iter().map(place).collect();
        let text = one_line(&item.text, TEXT_CHARS_MAX);
        table.push(vec![format!("{:.4}", trace.fused_score), found_by.join(", "), item.id.to_string(), text]);
    }
    table.to_string()
}

/// The list and the rank in it, as `lexical 1`.
fn place(found_by: &FoundBy) -> String {
    format!("{:?} {}", found_by.list, found_by.rank).to_lowercase()
}

pub(super) fn item(item: &Item) -> String {
    let mut table = Table::of_text(&["MEMORY", &item.id.to_string()]);
    let moment = |moment: Option<memory::Timestamp>| moment.map_or_else(|| "-".to_owned(), |moment| moment.to_string());
    let labels = |labels: &[String]| if labels.is_empty() { "-".to_owned() } else { labels.join(", ") };
    let scope = [("user", &item.scope.user), ("agent", &item.scope.agent), ("session", &item.scope.session)];
    let scope: Vec<String> =
        scope.iter().filter_map(|(what, name)| name.as_ref().map(|name| format!("{what} {name}"))).collect();
    let rows = [
        ("kind", item.kind.to_string()),
        ("state", item.state.to_string()),
        ("version", item.version.to_string()),
        ("tags", labels(&item.tags)),
        ("entities", labels(&item.entities)),
        ("scope", labels(&scope)),
        ("created by", item.created_by.clone()),
        ("created", item.created_at.to_string()),
        ("recorded", item.recorded_at.to_string()),
        ("valid from", moment(item.valid_from)),
        ("valid to", moment(item.valid_to)),
        ("expires", moment(item.expires_at)),
        ("salience", item.salience.to_string()),
        ("legal hold", if item.legal_hold { "yes" } else { "no" }.to_owned()),
    ];
    rows.into_iter().for_each(|(name, value)| table.push(vec![name.to_owned(), value]));
    format!("{table}\n{}\n", item.text)
}

pub(super) fn history(versions: &[Version]) -> String {
    let mut table = Table::of_text(&["VERSION", "RECORDED", "CHANGE", "BY", "REASON", "TEXT"]);
    for version in versions {
        let reason =
            version.reason.as_deref().map_or_else(|| "-".to_owned(), |reason| one_line(reason, TEXT_CHARS_MAX));
        table.push(vec![
            version.item.version.to_string(),
            version.item.recorded_at.to_string(),
            change(&version.change),
            version.actor.clone(),
            reason,
            one_line(&version.item.text, TEXT_CHARS_MAX),
        ]);
    }
    table.to_string()
}

fn change(change: &Change) -> String {
    match change {
        Change::Created => "created".to_owned(),
        Change::Edited => "edited".to_owned(),
        Change::Transitioned { from, to } => format!("{from} -> {to}"),
        Change::MergedInto { into } => format!("merged into {into}"),
        Change::Unmerged { from } => format!("came back out of {from}"),
        Change::Superseded { by } => format!("superseded by {by}"),
        Change::Restored { version } => format!("restored version {version}"),
        Change::Redacted => "redacted".to_owned(),
        Change::Held { hold: true } => "held".to_owned(),
        Change::Held { hold: false } => "released".to_owned(),
    }
}
