//! Everything in a cube as JSONL, page by page: a cube may be larger than memory.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream;
use memory::exchange::{ExportRecord, write_json_lines};
use memory::memories::{Export, MountedCube};

use super::call::Call;
use super::place::shown_name;
use crate::http::error::ApiError;

/// Type of the answer: JSON, one value a line.
const MEDIA_TYPE: &str = "application/x-ndjson";

/// An export that is under way.
struct Pages {
    cube: Arc<MountedCube>,
    export: Export,
}

/// `GET /v1/cubes/{cube}/export`
///
/// The first page is read before the answer begins, so that a refusal has its own status; a later failure breaks the
/// answer off.
pub fn export(mut call: Call) -> Result<Response, ApiError> {
    call.finish()?;
    let place = call.place(call.tenant(), Some(&call.path("cube")))?;
    let mut export = place.run(|cube, actor| cube.begin_export(actor))?;
    let first = place.run(|cube, _actor| cube.export_page(&mut export))?.unwrap_or_default();
    let first = lines(&first, Header::Written)?;
    let pages = Pages { cube: Arc::clone(place.cube()), export };
    let rest = stream::try_unfold(pages, next_page);
    let first = stream::once(async move { Ok::<Bytes, std::io::Error>(first) });
    let name = shown_name(place.actor().tenant(), &place.cube().manifest().name);
    let headers = [
        (header::CONTENT_TYPE, MEDIA_TYPE.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.jsonl\"")),
    ];
    Ok((headers, Body::from_stream(futures::StreamExt::chain(first, rest))).into_response())
}

async fn next_page(mut pages: Pages) -> Result<Option<(Bytes, Pages)>, std::io::Error> {
    let read = tokio::task::spawn_blocking(move || {
        let page = pages.cube.export_page(&mut pages.export).map_err(ApiError::from)?;
        let text = page.map(|records| lines(&records, Header::Left)).transpose()?;
        Ok::<_, ApiError>(text.map(|text| (text, pages)))
    });
    match read.await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(error)) => Err(std::io::Error::other(error)),
        Err(panicked) => Err(std::io::Error::other(panicked)),
    }
}

/// Whether a page begins the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    Written,
    Left,
}

fn lines(records: &[ExportRecord], header: Header) -> Result<Bytes, ApiError> {
    let mut text = Vec::new();
    write_json_lines(records, &mut text).map_err(|_unwritable| ApiError::Task { task: "writing the export" })?;
    let text = Bytes::from(text);
    match header {
        Header::Written => Ok(text),
        Header::Left => {
            let end = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1);
            Ok(text.slice(end..))
        }
    }
}
