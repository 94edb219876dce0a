//! Giving out what a cube holds: all of it to carry elsewhere, or everything that is held about one subject.

use std::collections::BTreeMap;

use serde_json::json;

use super::MemoriesError;
use super::mounted::{Entry, MountedCube};
use crate::exchange::ExportRecord;
use crate::governance::audit::{self, AuditEntry, AuditFilter, Outcome};
use crate::governance::grants::{self, Grant};
use crate::governance::{Action, Actor, Allowed, Subject};
use crate::item::{Item, Scope};
use crate::store::{ItemFilter, ItemRow, ListRequest, NUM_ITEMS_PER_CALL_MAX, Reader};

/// Memories that one page of an export looks at.
pub const NUM_EXPORTED_PER_PAGE: usize = 256;
/// Most memories in the export of one subject, which is one answer.
pub const NUM_SUBJECT_ITEMS_MAX: usize = 20_000;
/// Most audit entries and most grants in it.
const NUM_SUBJECT_ROWS_MAX: usize = 100_000;

/// An export that is under way. That it was begun is recorded; each page asks again whether the actor may.
#[derive(Debug)]
pub struct Export {
    actor: Actor,
    after: Option<ItemRow>,
    is_done: bool,
}

/// Everything that is held about a subject.
#[derive(Debug, Clone, Default)]
pub struct SubjectExport {
    /// The memories of its scope, in all states and versions.
    pub records: Vec<ExportRecord>,
    /// Grants for it and by it.
    pub grants: Vec<Grant>,
    /// What it did, and what was done with its memories, oldest first.
    pub audit: Vec<AuditEntry>,
}

impl MountedCube {
    /// Begins to give out every memory that the actor may export.
    ///
    /// # Errors
    /// The actor may not, or it cannot be recorded.
    pub fn begin_export(&self, actor: &Actor) -> Result<Export, MemoriesError> {
        self.permit(actor, Action::ExportCube)?;
        self.note_export(actor, "cube.export")?;
        Ok(Export { actor: actor.clone(), after: None, is_done: false })
    }

    /// The next memories of an export, with their versions; `None` after the last. A page may be empty.
    ///
    /// # Errors
    /// The actor may not any more, or the store cannot be read.
    pub fn export_page(&self, export: &mut Export) -> Result<Option<Vec<ExportRecord>>, MemoriesError> {
        if export.is_done {
            return Ok(None);
        }
        let allowed = self.permit(&export.actor, Action::ExportCube)?;
        let (records, last, num_rows) = self.read(|reader| {
            let rows = reader.rows_after(export.after, NUM_EXPORTED_PER_PAGE)?;
            let (last, num_rows) = (rows.last().map(|(row, _item)| *row), rows.len());
            let records = records_of(reader, &allowed, rows.into_iter().map(|(_row, item)| item))?;
            Ok((records, last, num_rows))
        })?;
        export.after = last;
        export.is_done = num_rows < NUM_EXPORTED_PER_PAGE;
        Ok(Some(records))
    }

    /// Everything that is held about the user, agent or session of this scope in the cube.
    ///
    /// # Errors
    /// The actor may not, the scope names nobody, or there is more than one answer holds.
    pub fn export_subject(
        &self,
        actor: &Actor,
        scope: &Scope,
        reason: Option<&str>,
    ) -> Result<SubjectExport, MemoriesError> {
        let allowed = self.permit(actor, Action::ExportSubject)?;
        let subjects = self.subjects_of(scope)?;
        let export = self.read(|reader| {
            let records = subject_records(reader, &allowed, scope)?;
            let mut audit: BTreeMap<u64, AuditEntry> = BTreeMap::new();
            let mut grants: BTreeMap<i64, Grant> = BTreeMap::new();
            for subject in &subjects {
                let by = AuditFilter { by: Some(subject.clone()), ..AuditFilter::default() };
                collect_audit(reader, by, &mut audit)?;
                collect_grants(reader, subject, &mut grants)?;
            }
            for record in &records {
                let about = AuditFilter { item: Some(record.item.id), ..AuditFilter::default() };
                collect_audit(reader, about, &mut audit)?;
            }
            let (grants, audit) = (grants.into_values().collect(), audit.into_values().collect());
            Ok(SubjectExport { records, grants, audit })
        })?;
        let details = Some(json!({ "memories": export.records.len() }));
        let entry = Entry { action: "subject.export", objects: Vec::new(), reason, details };
        self.record_read(self.event(actor, entry, Outcome::Allowed))?;
        Ok(export)
    }

    /// The names under which the scope's user and agent appear in grants and in the audit log.
    fn subjects_of(&self, scope: &Scope) -> Result<Vec<Subject>, MemoriesError> {
        let owner = &self.reference().owner;
        let user = scope.user.as_deref().map(|user| Subject::user(owner.clone(), user)).transpose()?;
        let agent = scope.agent.as_deref().map(|agent| Subject::agent(owner.clone(), agent)).transpose()?;
        Ok(user.into_iter().chain(agent).collect())
    }
}

fn records_of(
    reader: &Reader<'_>,
    allowed: &Allowed,
    items: impl Iterator<Item = Item>,
) -> Result<Vec<ExportRecord>, MemoriesError> {
    let reached = items.filter(|item| allowed.access().allows(&item.id, &item.scope));
    reached.map(|item| Ok(ExportRecord { versions: reader.history(item.id)?, item })).collect()
}

fn subject_records(reader: &Reader<'_>, allowed: &Allowed, scope: &Scope) -> Result<Vec<ExportRecord>, MemoriesError> {
    let filter = ItemFilter { scope: scope.clone(), ..ItemFilter::default() };
    let mut request = ListRequest::new(filter, NUM_ITEMS_PER_CALL_MAX);
    let mut records = Vec::new();
    loop {
        let page = reader.list(&request)?;
        records.extend(records_of(reader, allowed, page.items.into_iter())?);
        if records.len() > NUM_SUBJECT_ITEMS_MAX {
            let what = "memories of the subject";
            return Err(MemoriesError::TooMany { what, found: records.len(), limit: NUM_SUBJECT_ITEMS_MAX });
        }
        match page.next {
            Some(next) => request.after = Some(next),
            None => return Ok(records),
        }
    }
}

fn collect_audit(
    reader: &Reader<'_>,
    mut filter: AuditFilter,
    entries: &mut BTreeMap<u64, AuditEntry>,
) -> Result<(), MemoriesError> {
    loop {
        let page = audit::list(reader.connection(), &filter, audit::LIST_LEN_MAX)?;
        let is_last = page.len() < audit::LIST_LEN_MAX;
        filter.from_seq = page.last().map_or(filter.from_seq, |entry| entry.seq + 1);
        entries.extend(page.into_iter().map(|entry| (entry.seq, entry)));
        check_rows("audit entries about the subject", entries.len())?;
        if is_last {
            return Ok(());
        }
    }
}

fn collect_grants(
    reader: &Reader<'_>,
    subject: &Subject,
    found: &mut BTreeMap<i64, Grant>,
) -> Result<(), MemoriesError> {
    let mut after = None;
    loop {
        let page = grants::list_about(reader.connection(), &reader.cube(), subject, after)?;
        let is_last = page.len() < grants::LIST_LEN_MAX;
        after = page.last().map_or(after, |grant| Some(grant.id));
        found.extend(page.into_iter().map(|grant| (grant.id.0, grant)));
        check_rows("grants of the subject", found.len())?;
        if is_last {
            return Ok(());
        }
    }
}

fn check_rows(what: &'static str, found: usize) -> Result<(), MemoriesError> {
    if found > NUM_SUBJECT_ROWS_MAX {
        return Err(MemoriesError::TooMany { what, found, limit: NUM_SUBJECT_ROWS_MAX });
    }
    Ok(())
}
