//! Files that stay open between reads, so that reading a prefix opens each of its segments once.

use std::sync::Arc;

use super::SegmentId;
use super::reader::SegmentReader;

/// Most files that stay open: enough for a prefix of 4096 blocks in full segments.
pub const OPEN_SEGMENTS_MAX: usize = 64;

/// The segments that were read last, in the order of their use. So few that they are searched one by one.
#[derive(Default)]
pub(super) struct OpenSegments(Vec<(SegmentId, Arc<SegmentReader>)>);

impl OpenSegments {
    /// The open segment; it is now the one used last.
    pub fn get(&mut self, id: SegmentId) -> Option<Arc<SegmentReader>> {
        let place = self.0.iter().position(|(open, _reader)| *open == id)?;
        self.0[place..].rotate_left(1);
        self.0.last().map(|(_id, reader)| Arc::clone(reader))
    }

    /// Keeps a segment open, in place of the one that was not used for longest.
    pub fn put(&mut self, id: SegmentId, reader: Arc<SegmentReader>) {
        self.close(id);
        if self.0.len() == OPEN_SEGMENTS_MAX {
            self.0.remove(0);
        }
        self.0.push((id, reader));
    }

    /// Lets go of a segment.
    pub fn close(&mut self, id: SegmentId) {
        self.0.retain(|(open, _reader)| *open != id);
    }
}
