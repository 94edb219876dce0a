//! A labelled collection: documents, queries and which documents answer which query.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// One document: its title, where it has one, and its text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Document {
    pub(super) id: String,
    pub(super) text: String,
}

/// One query.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    id: String,
    pub(super) text: String,
    split: Option<String>,
    /// How relevant each document is that is relevant at all.
    pub(super) relevant: HashMap<String, f64>,
}

/// A collection.
pub(super) struct Collection {
    folder: PathBuf,
    pub(super) documents: Vec<Document>,
    queries: Vec<Query>,
}

#[derive(Deserialize)]
struct DocumentLine {
    #[serde(alias = "_id")]
    id: String,
    #[serde(default)]
    title: String,
    text: String,
}

#[derive(Deserialize)]
struct QueryLine {
    #[serde(alias = "_id")]
    id: String,
    text: String,
    split: Option<String>,
    #[serde(default)]
    relevant: Vec<String>,
}

impl Collection {
    /// Reads `corpus.jsonl`, `queries.jsonl` and, where the queries name no splits, `qrels/`.
    ///
    /// # Errors
    /// A file that is not there, or the line that is wrong.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let document = |line: DocumentLine| Document {
            id: line.id,
            text: format!("{} {}", line.title, line.text).trim().to_owned(),
        };
        let documents: Vec<DocumentLine> = lines(&folder.join("corpus.jsonl"))?;
        let queries: Vec<QueryLine> = lines(&folder.join("queries.jsonl"))?;
        let query = |line: QueryLine| {
            let relevant = line.relevant.into_iter().map(|id| (id, 1.0)).collect();
            Query { id: line.id, text: line.text, split: line.split, relevant }
        };
        let documents = documents.into_iter().map(document).collect();
        let queries = queries.into_iter().map(query).collect();
        let mut collection = Self { folder: folder.to_owned(), documents, queries };
        collection.judge()?;
        Ok(collection)
    }

    /// The queries of a split that have an answer: as the queries name it, or as `qrels/SPLIT.tsv` does.
    ///
    /// # Errors
    /// There is no such split, or its file is broken.
    pub(super) fn queries(&self, split: &str) -> anyhow::Result<Vec<&Query>> {
        let named: Vec<&Query> = self
            .queries
            .iter()
            .filter(|query| query.split.as_deref() == Some(split) && !query.relevant.is_empty())
            .collect();
        if named.is_empty() {
            bail!("{} has no judged queries of a split named {split}", self.folder.display());
        }
        Ok(named)
    }

    /// Takes the judgements of every `qrels/SPLIT.tsv` in, for queries that do not name their split themselves.
    ///
    /// # Errors
    /// The line that is wrong.
    fn judge(&mut self) -> anyhow::Result<()> {
        let folder = self.folder.join("qrels");
        if self.queries.iter().any(|query| query.split.is_some()) || !folder.is_dir() {
            return Ok(());
        }
        let places: HashMap<String, usize> =
            self.queries.iter().enumerate().map(|(place, query)| (query.id.clone(), place)).collect();
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            let Some(split) = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_table(&path)) else {
                continue;
            };
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            // The first line names the columns.
            for (index, line) in text.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty()) {
                let (query, document, grade) = judgement(line)
                    .with_context(|| format!("{} line {}: not `query document grade`", path.display(), index + 1))?;
                let Some(&place) = places.get(query) else { continue };
                if grade > 0.0 {
                    self.queries[place].split = Some(split.to_owned());
                    self.queries[place].relevant.insert(document.to_owned(), grade);
                }
            }
        }
        Ok(())
    }
}

fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tsv")
}

fn judgement(line: &str) -> Option<(&str, &str, f64)> {
    let mut fields = line.split('\t').map(str::trim);
    Some((fields.next()?, fields.next()?, fields.next()?.parse().ok()?))
}

fn lines<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            serde_json::from_str(line).with_context(|| format!("{} line {}", path.display(), index + 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judgements_come_from_the_queries_or_from_a_table_of_their_split() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        write(
            "corpus.jsonl",
            "{\"_id\": \"d1\", \"title\": \"T\", \"text\": \"x\"}\n{\"id\": \"d2\", \"text\": \"y\"}\n",
        );
        write("queries.jsonl", "{\"id\": \"1\", \"text\": \"q\", \"split\": \"train\", \"relevant\": [\"d1\"]}\n");
        let collection = Collection::read(folder.path()).expect("read");
        assert_eq!(collection.documents[0].text, "T x");
        assert_eq!(collection.queries("train").expect("there")[0].relevant["d1"], 1.0);
        assert!(collection.queries("test").is_err());
        write("queries.jsonl", "{\"_id\": \"1\", \"text\": \"q\"}\n{\"_id\": \"2\", \"text\": \"r\"}\n");
        fs::create_dir(folder.path().join("qrels")).expect("made");
        write("qrels/test.tsv", "query-id\tcorpus-id\tscore\n1\td2\t2\n1\td1\t0\n9\td1\t1\n");
        let collection = Collection::read(folder.path()).expect("read");
        let queries = collection.queries("test").expect("there");
        assert_eq!((queries.len(), &queries[0].relevant), (1, &HashMap::from([("d2".to_owned(), 2.0)])));
        write("qrels/test.tsv", "query-id\tcorpus-id\tscore\n1 d2 2\n");
        assert!(Collection::read(folder.path()).is_err());
    }
}
