//! The cube of a terminal chat: what is recalled for a question, told after its answer, listed, forgotten and explained.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use hyper::Method;
use memory::cube::CubeName;
use memory::governance::{Actor, Identity, Role};
use memory::ingest::Turn;
use memory::memories::{AddEvent, Listing, MountedCube};
use memory::store::ItemFilter;
use memory::{Clock, ItemId};
use models::Tokenizer;
use serde_json::{Value, json};

use crate::client::Client;
use crate::data_dir::DataDir;
use crate::http::LOCAL_TENANT;
use crate::memories::{self, Housekeeper, MemoryOptions, Provision};
use crate::recall::{
    self, BUDGET_TOKENS_DEFAULT, MemoryTemplate, NUM_MEMORIES_DEFAULT, PlainText, Recall, RecallRequest, Recaller,
    Told, query_of, told_turn,
};

/// Most memories that are listed.
const NUM_LISTED_MAX: usize = 1_000;
/// Where the memories of a chat in the terminal say that they were told.
const CONVERSATION: &str = "memos-chat";

/// A memory as the chat shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    pub id: String,
    pub text: String,
}

/// Where the memories are.
pub(super) enum Cube {
    /// In this process; recalling and telling happen here.
    Local(Box<LocalCube>),
    /// At the endpoint, which recalls and remembers by itself.
    Remote { client: Client, name: CubeName, report: Value },
}

/// A cube of the local data directory.
pub(super) struct LocalCube {
    cube: Arc<MountedCube>,
    actor: Actor,
    plain_text: PlainText,
    template: MemoryTemplate,
    recall: Recall,
    housekeeper: Option<Housekeeper>,
    _data_dir: DataDir,
}

impl LocalCube {
    /// Opens the data directory and its cube, which is made if it is not there.
    ///
    /// # Errors
    /// The data directory is in use or cannot be opened, or the cube is damaged.
    pub fn open(
        name: &CubeName,
        data_dir: Option<PathBuf>,
        tokenizer: Arc<Tokenizer>,
    ) -> anyhow::Result<(Self, Provision)> {
        let path = data_dir.context("no data directory: give --data-dir, or set MEMOS_DATA_DIR or HOME")?;
        let data_dir = DataDir::open(&path)
            .context("cannot open the memories (where a server runs on them, talk to it with --base-url)")?;
        let memories = Arc::new(memories::open(&data_dir, MemoryOptions::default())?);
        let provision = memories::mounted_or_made(&memories, name, Some(LOCAL_TENANT))?;
        let identity = Identity { tenant: LOCAL_TENANT.parse()?, role: Role::Admin };
        let local = Self {
            cube: memories.cube(name)?,
            actor: Actor::of_tenant(identity),
            plain_text: PlainText::new(tokenizer),
            template: MemoryTemplate::default(),
            recall: Recall::default(),
            // The only cache over these memories is that of this conversation, which ends with the process.
            housekeeper: Some(Housekeeper::start(memories, || {})),
            _data_dir: data_dir,
        };
        Ok((local, provision))
    }

    fn recall(&mut self, turns: &[Turn]) -> anyhow::Result<Vec<String>> {
        self.recall = Recall::default();
        let Some(query) = query_of(turns) else { return Ok(Vec::new()) };
        let request = RecallRequest {
            query,
            limit: NUM_MEMORIES_DEFAULT,
            budget_tokens: BUDGET_TOKENS_DEFAULT,
            as_of: None,
            without: Vec::new(),
            instead: Vec::new(),
        };
        let recaller = Recaller { actor: &self.actor, plain_text: &self.plain_text, template: &self.template };
        let cubes = [Arc::clone(&self.cube)];
        self.recall = recaller.recall(&cubes, &request)?;
        recall::note_use(&cubes, &self.recall);
        Ok(self.recall.memories.iter().map(|memory| memory.line.clone()).collect())
    }

    fn tell(&self, turns: Vec<Turn>) -> anyhow::Result<usize> {
        let said_at = Clock::system().now();
        let told =
            Told { turns, scope: memory::item::Scope::default(), conversation: CONVERSATION.to_owned(), said_at };
        let turn = told_turn(told, &self.recall)?;
        if turn.items.is_empty() {
            return Ok(0);
        }
        let id = self.cube.enqueue_turn(&self.actor, turn)?;
        let added = self.cube.write_turn(id)?.unwrap_or_default();
        Ok(added.iter().filter(|added| added.event != AddEvent::Duplicate).count())
    }

    fn list(&self) -> anyhow::Result<Vec<Remembered>> {
        let filter = ItemFilter { valid_at: Some(Clock::system().now()), ..ItemFilter::default() };
        let page = self.cube.list(&self.actor, Listing { filter, limit: NUM_LISTED_MAX, ..Listing::default() })?;
        let remembered = page.items.into_iter().filter(|item| item.state.is_recalled());
        Ok(remembered.map(|item| Remembered { id: item.id.to_string(), text: item.text }).collect())
    }

    fn report(&self) -> Value {
        let recalled = |memory: &recall::Recalled| json!({"text": memory.item.text, "trace": memory.trace});
        json!({"recalled": self.recall.memories.iter().map(recalled).collect::<Vec<_>>()})
    }
}

impl Cube {
    /// The lines for the system turn of a question. An endpoint writes them itself.
    ///
    /// # Errors
    /// The search failed.
    pub fn recall(&mut self, turns: &[Turn]) -> anyhow::Result<Vec<String>> {
        match self {
            Self::Local(local) => tokio::task::block_in_place(|| local.recall(turns)),
            Self::Remote { report, .. } => {
                *report = Value::Null;
                Ok(Vec::new())
            }
        }
    }

    /// Remembers what a question told, once it is answered; says how many memories came of it.
    ///
    /// # Errors
    /// It could not be kept, or could not be written yet.
    pub fn tell(&self, turns: Vec<Turn>) -> anyhow::Result<usize> {
        match self {
            Self::Local(local) => tokio::task::block_in_place(|| local.tell(turns)),
            Self::Remote { report, .. } => match report.pointer("/write/error/message").and_then(Value::as_str) {
                Some(message) => bail!("{message}"),
                None => {
                    let items = report.pointer("/write/items").and_then(Value::as_array);
                    let is_new = |item: &&Value| item["event"] != "duplicate";
                    Ok(items.into_iter().flatten().filter(is_new).count())
                }
            },
        }
    }

    /// Takes a part of the endpoint's report: what it recalled, later what it wrote.
    pub fn take_report(&mut self, part: Value) {
        if let (Self::Remote { report, .. }, Value::Object(part)) = (self, part) {
            match report {
                Value::Object(known) => known.extend(part),
                other => *other = Value::Object(part),
            }
        }
    }

    /// What is remembered now, the oldest first.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn list(&self) -> anyhow::Result<Vec<Remembered>> {
        match self {
            Self::Local(local) => tokio::task::block_in_place(|| local.list()),
            Self::Remote { client, name, .. } => {
                let path = format!("/memories?cube={name}&limit={NUM_LISTED_MAX}");
                let page = client.call(Method::GET, &path).await?;
                let list = page.get("data").and_then(Value::as_array).context("the endpoint listed no memories")?;
                let read = |entry: &Value| {
                    let text = |field: &str| entry.get(field).and_then(Value::as_str).map(str::to_owned);
                    Some(Remembered { id: text("id")?, text: text("text")? })
                };
                Ok(list.iter().filter_map(read).collect())
            }
        }
    }

    /// The memory with this id, or those that say this.
    ///
    /// # Errors
    /// The memories cannot be read.
    pub async fn matching(&self, wanted: &str) -> anyhow::Result<Vec<Remembered>> {
        let folded = wanted.to_lowercase();
        let mut matching = self.list().await?;
        matching.retain(|memory| memory.id == wanted || memory.text.to_lowercase().contains(&folded));
        Ok(matching)
    }

    /// Erases a memory and everything made from it.
    ///
    /// # Errors
    /// It is not there, or is under legal hold.
    pub async fn erase(&self, id: &str) -> anyhow::Result<()> {
        match self {
            Self::Local(local) => {
                let id: ItemId = id.parse()?;
                let erase = || local.cube.erase(&local.actor, &[id], Some("asked for in a chat"));
                tokio::task::block_in_place(erase)?;
            }
            Self::Remote { client, name, .. } => {
                client.call(Method::DELETE, &format!("/memories/{id}?cube={name}")).await?;
            }
        }
        Ok(())
    }

    /// Why each memory was in the last prompt, one line each.
    pub fn why(&self) -> Vec<String> {
        let report = match self {
            Self::Local(local) => local.report(),
            Self::Remote { report, .. } => report.clone(),
        };
        report.get("recalled").and_then(Value::as_array).into_iter().flatten().map(reason_line).collect()
    }

    /// Ends what goes on in the background.
    pub fn close(self) {
        if let Self::Local(mut local) = self
            && let Some(housekeeper) = local.housekeeper.take()
        {
            housekeeper.stop();
        }
    }
}

/// A recalled memory with the lists that found it and the words that it shares with the question.
fn reason_line(entry: &Value) -> String {
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |field: &str| entry.pointer(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let found_by: Vec<String> = list("/trace/found_by")
        .iter()
        .map(|found| format!("{} rank {}", text(found, "list"), found.get("rank").and_then(Value::as_u64).unwrap_or(0)))
        .collect();
    let terms: Vec<String> = list("/trace/terms").iter().map(|term| text(term, "term")).collect();
    let path: Vec<String> =
        list("/trace/graph_path").iter().filter_map(|step| step.as_str().map(str::to_owned)).collect();
    let mut line = format!("- {} ({}", text(entry, "text"), found_by.join(", "));
    if !terms.is_empty() {
        line.push_str(&format!("; words: {}", terms.join(", ")));
    }
    if !path.is_empty() {
        line.push_str(&format!("; by way of: {}", path.join(" > ")));
    }
    line.push(')');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_lists_words_and_the_way() {
        let entry = json!({"text": "Velka likes teal.", "trace": {
            "found_by": [{"list": "lexical", "rank": 1, "score": 2.0}, {"list": "graph", "rank": 2, "score": 1.0}],
            "terms": [{"term": "velka", "score": 1.5}], "graph_path": ["Velka", "mentions"],
        }});
        let expected = "- Velka likes teal. (lexical rank 1, graph rank 2; words: velka; by way of: Velka > mentions)";
        assert_eq!(reason_line(&entry), expected);
        assert_eq!(reason_line(&json!({"text": "x"})), "- x ()");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_local_cube_remembers_recalls_and_forgets() {
        let folder = tempfile::tempdir().expect("a folder");
        let tokenizer = Arc::new(Tokenizer::load(&crate::bundled::source()).expect("a tokenizer"));
        let name: CubeName = "chat".parse().expect("a name");
        let open = || LocalCube::open(&name, Some(folder.path().to_owned()), Arc::clone(&tokenizer));
        let (local, provision) = open().expect("opened");
        assert_eq!(provision, Provision::Made);
        let mut cube = Cube::Local(Box::new(local));
        let said = |text: &str| vec![Turn { role: memory::ingest::Role::User, text: text.to_owned() }];
        let told = said("Zorvan's favourite colour is teal.");
        assert_eq!(cube.recall(&told).expect("nothing yet"), Vec::<String>::new());
        assert_eq!(cube.tell(told).expect("kept"), 1);
        cube.close();
        let (local, provision) = open().expect("opened again");
        assert_eq!(provision, Provision::Found);
        let mut cube = Cube::Local(Box::new(local));
        let asked = said("What is Zorvan's favourite colour?");
        assert_eq!(cube.recall(&asked).expect("found"), ["- Zorvan's favourite colour is teal."]);
        assert!(cube.why()[0].contains("lexical rank 1"), "{:?}", cube.why());
        assert_eq!(cube.tell(asked).expect("a question tells nothing"), 0);
        let matching = cube.matching("TEAL").await.expect("listed");
        assert_eq!(matching.len(), 1);
        cube.erase(&matching[0].id).await.expect("erased");
        assert_eq!(cube.list().await.expect("listed"), []);
        cube.close();
    }
}
