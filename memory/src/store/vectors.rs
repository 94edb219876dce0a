//! Vectors of memories, one per embedder; a vector never outlives the text that it stands for.

use rusqlite::{OptionalExtension, params};

use super::StoreError;
use super::content::checked_line;
use super::items::{ItemRow, Reader, checked_limit, decode, item_columns};
use super::write::WriteTransaction;
use crate::ItemId;
use crate::item::{Item, LABEL_BYTES_MAX};

/// Most numbers in a vector.
pub const VECTOR_LEN_MAX: usize = 16_384;

/// What became of a vector that was to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorWrite {
    /// It is kept.
    Stored,
    /// The memory's text has changed since that version, or it is gone: the vector stands for nothing.
    Outdated,
}

/// An embedder whose vectors are stored here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEmbedder {
    /// Its name.
    pub name: String,
    /// How many numbers its vectors have.
    pub vector_len: usize,
    /// How many memories have one.
    pub num_vectors: u64,
}

impl WriteTransaction<'_> {
    /// Keeps the vector that an embedder made of a memory's text at `version`, in place of an earlier one.
    ///
    /// # Errors
    /// When the vector has another length than the embedder's others, or holds something that is no number.
    pub fn put_vector(
        &self,
        id: ItemId,
        version: u64,
        embedder: &str,
        vector: &[f32],
    ) -> Result<VectorWrite, StoreError> {
        self.whole(|| {
            if let Some(index) = vector.iter().position(|number| !number.is_finite()) {
                return Err(StoreError::VectorNotFinite { index, value: vector[index] });
            }
            let sql = "SELECT item.row FROM items AS item JOIN versions AS v ON v.row = item.row
                       WHERE item.id = ? AND v.version = ? AND v.text = item.text";
            let mut find = self.connection().prepare_cached(sql)?;
            let row: Option<i64> =
                find.query_row(params![id.as_bytes(), version.cast_signed()], |row| row.get(0)).optional()?;
            let Some(row) = row else { return Ok(VectorWrite::Outdated) };
            let embedder = self.embedder_for(embedder, vector.len())?;
            let numbers: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            let sql = "INSERT INTO vectors (row, embedder, version, numbers) VALUES (?, ?, ?, ?)
                       ON CONFLICT (row, embedder) DO UPDATE SET version = excluded.version, numbers = excluded.numbers";
            self.connection()
                .prepare_cached(sql)?
                .execute(params![row, embedder, version.cast_signed(), numbers])?;
            Ok(VectorWrite::Stored)
        })
    }

    /// Removes an embedder with all its vectors. Returns how many there were.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn drop_embedder(&self, embedder: &str) -> Result<u64, StoreError> {
        self.whole(|| {
            let sql = "DELETE FROM vectors WHERE embedder = (SELECT embedder FROM embedders WHERE name = ?)";
            let num = self.connection().prepare_cached(sql)?.execute([embedder])? as u64;
            self.connection().prepare_cached("DELETE FROM embedders WHERE name = ?")?.execute([embedder])?;
            Ok(num)
        })
    }

    pub(super) fn delete_vectors(&self, row: ItemRow) -> Result<u64, StoreError> {
        self.delete_for(row, "DELETE FROM vectors WHERE row = ?")
    }

    fn embedder_for(&self, name: &str, vector_len: usize) -> Result<i64, StoreError> {
        let sql = "SELECT embedder, vector_len FROM embedders WHERE name = ?";
        let mut find = self.connection().prepare_cached(sql)?;
        let known: Option<(i64, i64)> = find.query_row([name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        if let Some((embedder, expected)) = known {
            if expected != vector_len as i64 {
                let expected = expected.unsigned_abs() as usize;
                return Err(StoreError::VectorLength { embedder: name.to_owned(), expected, found: vector_len });
            }
            return Ok(embedder);
        }
        if vector_len == 0 || vector_len > VECTOR_LEN_MAX {
            return Err(StoreError::OutOfLimit { what: "vector length", num: vector_len, limit: VECTOR_LEN_MAX });
        }
        let name = checked_line("embedder", name, LABEL_BYTES_MAX)?;
        let sql = "INSERT INTO embedders (name, vector_len) VALUES (?, ?)";
        self.connection().prepare_cached(sql)?.execute(params![name, vector_len as i64])?;
        Ok(self.connection().last_insert_rowid())
    }
}

impl Reader<'_> {
    /// The embedders that vectors are stored of.
    ///
    /// # Errors
    /// When the file cannot be read; so for every read here.
    pub fn embedders(&self) -> Result<Vec<StoredEmbedder>, StoreError> {
        let sql = "SELECT name, vector_len, (SELECT count(*) FROM vectors AS v WHERE v.embedder = e.embedder)
                   FROM embedders AS e ORDER BY embedder";
        let mut statement = self.connection().prepare_cached(sql)?;
        let embedders = statement.query_map([], |row| {
            Ok(StoredEmbedder {
                name: row.get(0)?,
                vector_len: row.get::<_, i64>(1)?.unsigned_abs() as usize,
                num_vectors: row.get::<_, i64>(2)?.unsigned_abs(),
            })
        })?;
        Ok(embedders.collect::<Result<_, _>>()?)
    }

    /// Their names alone, without counting vectors.
    pub fn embedder_names(&self) -> Result<Vec<String>, StoreError> {
        let mut statement = self.connection().prepare_cached("SELECT name FROM embedders ORDER BY embedder")?;
        let names = statement.query_map([], |row| row.get(0))?;
        Ok(names.collect::<Result<_, _>>()?)
    }

    /// The vector of a memory's present text.
    pub fn vector(&self, id: ItemId, embedder: &str) -> Result<Option<Vec<f32>>, StoreError> {
        let sql = "SELECT v.numbers FROM vectors AS v JOIN items AS item ON item.row = v.row
                   JOIN embedders AS e ON e.embedder = v.embedder WHERE item.id = ? AND e.name = ?";
        let mut statement = self.connection().prepare_cached(sql)?;
        let mut rows = statement.query(params![id.as_bytes(), embedder])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let mut vector = Vec::new();
        numbers_into(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?, &mut vector);
        Ok(Some(vector))
    }

    /// Calls with every vector of an embedder, in order of rows: for building an index in memory.
    pub fn for_each_vector(
        &self,
        embedder: &str,
        mut visit: impl FnMut(ItemRow, &[f32]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let sql = "SELECT v.row, v.numbers FROM vectors AS v JOIN embedders AS e ON e.embedder = v.embedder
                   WHERE e.name = ? ORDER BY v.row";
        let mut statement = self.connection().prepare_cached(sql)?;
        let mut rows = statement.query([embedder])?;
        let mut vector = Vec::new();
        while let Some(row) = rows.next()? {
            numbers_into(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?, &mut vector);
            visit(ItemRow::from_number(row.get(0)?), &vector)?;
        }
        Ok(())
    }

    /// Memories after `after` that have no vector of the embedder, in order of rows: what is still to be embedded.
    pub fn without_vector(
        &self,
        embedder: &str,
        after: Option<ItemRow>,
        limit: usize,
    ) -> Result<Vec<(ItemRow, Item)>, StoreError> {
        let sql = concat!(
            "SELECT ",
            item_columns!("item"),
            " FROM items AS item WHERE item.row > ? AND NOT EXISTS (SELECT 1 FROM vectors AS v JOIN embedders AS e",
            " ON e.embedder = v.embedder WHERE v.row = item.row AND e.name = ?) ORDER BY item.row LIMIT ?"
        );
        let mut statement = self.connection().prepare_cached(sql)?;
        let after = after.map_or(0, ItemRow::get);
        let mut rows = statement.query(params![after, embedder, checked_limit(limit)?])?;
        let mut items = Vec::new();
        while let Some(row) = rows.next()? {
            items.push(decode(row, self.cube())?);
        }
        Ok(items)
    }
}

fn numbers_into(bytes: &[u8], numbers: &mut Vec<f32>) {
    numbers.clear();
    let (quadruples, _rest) = bytes.as_chunks::<4>();
    numbers.extend(quadruples.iter().map(|&quadruple| f32::from_le_bytes(quadruple)));
}
