//! Documents: each format read, each broken one refused with its place, and chunks that address the text they hold.

use lopdf::content::{Content, Operation};
use lopdf::{Object, Stream, dictionary};

use super::*;
use crate::ingest::{ChunkSize, Chunking, chunk_document};
use crate::item::{Scope, Source};

fn read(format: DocumentFormat, text: impl AsRef<[u8]>) -> Result<Document, IngestError> {
    read_document(text.as_ref(), format, &DocumentLimits::default())
}

fn characters(size: usize, overlap: usize) -> Chunking<'static> {
    Chunking { unit: ChunkSize::Characters, size, overlap }
}

/// The chunks' texts; every span must address exactly its text.
fn chunks(document: &Document, chunking: &Chunking<'_>) -> Vec<(String, String)> {
    let items = chunk_document(document, "notes", &Scope::default(), chunking).expect("chunks");
    let chunk = |item: crate::item::NewItem| {
        let Source::Document { name, start, end } = &item.source else { panic!("a chunk comes from a document") };
        assert_eq!(name, "notes");
        assert_eq!(&document.text[*start as usize..*end as usize], item.text);
        assert_eq!(item.kind, crate::item::ItemKind::Document);
        let path = item.metadata.get("heading_path").map_or(String::new(), ToString::to_string);
        (path, item.text)
    };
    items.into_iter().map(chunk).collect()
}

fn pdf(content: Stream) -> Vec<u8> {
    let mut pdf = lopdf::Document::with_version("1.5");
    let pages_id = pdf.new_object_id();
    let font_id = pdf.add_object(dictionary! {"Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Courier"});
    let resources_id = pdf.add_object(dictionary! {"Font" => dictionary! {"F1" => font_id}});
    let content_id = pdf.add_object(content);
    let page_id = pdf.add_object(dictionary! {"Type" => "Page", "Parent" => pages_id, "Contents" => content_id});
    let pages = dictionary! {
        "Type" => "Pages", "Kids" => vec![page_id.into()], "Count" => 1, "Resources" => resources_id,
        "MediaBox" => vec![0.into(), 0.into(), 595.into(), 842.into()],
    };
    pdf.objects.insert(pages_id, Object::Dictionary(pages));
    let catalog_id = pdf.add_object(dictionary! {"Type" => "Catalog", "Pages" => pages_id});
    let info_id = pdf.add_object(dictionary! {"Title" => Object::string_literal("The manual")});
    pdf.trailer.set("Root", catalog_id);
    pdf.trailer.set("Info", info_id);
    let mut bytes = Vec::new();
    pdf.save_to(&mut bytes).expect("a PDF in memory");
    bytes
}

fn text_stream(text: &str) -> Stream {
    let operations = vec![
        Operation::new("BT", vec![]),
        Operation::new("Tf", vec!["F1".into(), 12.into()]),
        Operation::new("Td", vec![100.into(), 600.into()]),
        Operation::new("Tj", vec![Object::string_literal(text)]),
        Operation::new("ET", vec![]),
    ];
    Stream::new(dictionary! {}, Content { operations }.encode().expect("a content stream"))
}

#[test]
fn formats_are_detected_and_a_wrong_declaration_is_refused() {
    let detect = |declared, name, bytes: &str| detect_format(declared, name, bytes.as_bytes());
    assert_eq!(detect(Some("text/html; charset=utf-8"), None, "<p>"), Ok(DocumentFormat::Html));
    assert_eq!(detect(Some(".md"), Some("x.pdf"), "# x"), Ok(DocumentFormat::Markdown));
    assert_eq!(detect(None, Some("Notes.JSONL"), "{}"), Ok(DocumentFormat::JsonLines));
    assert_eq!(detect(None, None, "%PDF-1.7"), Ok(DocumentFormat::Pdf));
    assert_eq!(detect(None, None, "\n<!DOCTYPE html><p>"), Ok(DocumentFormat::Html));
    assert_eq!(detect(None, None, "{\"text\": \"a\"}\n"), Ok(DocumentFormat::JsonLines));
    assert_eq!(detect(None, None, "plain"), Ok(DocumentFormat::PlainText));
    assert!(matches!(detect(Some("docx"), None, ""), Err(IngestError::UnknownFormat { name }) if name == "docx"));
    assert!(matches!(detect(Some("pdf"), None, "hello"), Err(IngestError::FormatMismatch { declared: "pdf", .. })));
    assert!(matches!(detect(Some("text"), None, "%PDF-1.4"), Err(IngestError::FormatMismatch { found: "a PDF", .. })));
    assert!(matches!(
        detect(None, Some("a.md"), "PK\u{3}\u{4}"),
        Err(IngestError::FormatMismatch { found: "a ZIP archive", .. })
    ));
    let charset = detect(Some("text/plain; charset=\"latin1\""), None, "");
    assert_eq!(charset, Err(IngestError::UnsupportedCharset { charset: "latin1".to_owned() }));
}

#[test]
fn broken_bytes_are_refused_with_their_place() {
    assert_eq!(read(DocumentFormat::PlainText, b"ab\nc\xff"), Err(IngestError::NotUtf8 { offset: 4, line: 2 }));
    assert_eq!(
        read(DocumentFormat::Markdown, "a\n\nb\u{7}"),
        Err(IngestError::ControlCharacter { offset: 4, line: 3, code: 7 })
    );
    assert!(matches!(read(DocumentFormat::Html, "<p>\0</p>"), Err(IngestError::ControlCharacter { code: 0, .. })));
    for format in [DocumentFormat::PlainText, DocumentFormat::Markdown, DocumentFormat::Html, DocumentFormat::JsonLines]
    {
        assert_eq!(read(format, " \n\t\r\n"), Err(IngestError::NoText), "{format:?}");
    }
    let limits = DocumentLimits { input_bytes_max: 10, ..DocumentLimits::default() };
    let large = read_document(&[b'a'; 11], DocumentFormat::PlainText, &limits);
    assert!(matches!(large, Err(IngestError::TooLarge { num_bytes: 11, limit: 10, .. })));
}

#[test]
fn markdown_keeps_its_outline_with_every_chunk() {
    let text = "---\ntitle: x\n---\nIntro.\r\n\r\n# Guide\n\n## Setup\n\nInstall it.\n\n```\n# no heading\n```\n\n## Use\n\nRun it.\n\n> # quoted\n";
    let document = read(DocumentFormat::Markdown, text).expect("markdown");
    assert_eq!(document.title.as_deref(), Some("Guide"));
    assert!(!document.text.contains('\r'));
    let chunks = chunks(&document, &characters(200, 0));
    let paths: Vec<&str> = chunks.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["", "[\"Guide\",\"Setup\"]", "[\"Guide\",\"Use\"]"]);
    assert!(chunks[1].1.starts_with("# Guide") && chunks[1].1.ends_with("```"));
}

#[test]
fn html_is_read_without_its_boilerplate_however_broken() {
    let page = "<html><head><title>My &amp; page</title><style>p{}</style></head><body><nav>Menu<ul><li>Home</nav>\
        <h1>One</h1><p>First <b>bold</b>\n  text<br>line</p><script>if (a < b) { x('<p>no</p>') }</script>\
        <h2>Two</h2><ul><li>a<li>b</ul><table><tr><td>1<td>2</table><footer>foot</footer></div></p></body>";
    let document = read(DocumentFormat::Html, page).expect("a page");
    assert_eq!(document.title.as_deref(), Some("My & page"));
    assert_eq!(document.text, "One\n\nFirst bold text\nline\n\nTwo\n\n- a\n- b\n\n1 | 2");
    let paths: Vec<Vec<String>> = document.sections.iter().map(|section| section.heading_path.clone()).collect();
    assert_eq!(paths, [vec!["One".to_owned()], vec!["One".to_owned(), "Two".to_owned()]]);
    assert_eq!(
        read(DocumentFormat::Html, "<nav><p>All is in an open nav").expect("a page").text,
        "All is in an open nav"
    );
    assert_eq!(read(DocumentFormat::Html, "a &#1; b <unclosed attr='").expect("a page").text, "a b");
    let deep = format!("{}deep{}", "<div><ul><li>".repeat(50_000), "</li></ul></div>".repeat(50_000));
    assert!(read(DocumentFormat::Html, deep).expect("a deep page").text.contains("deep"));
}

#[test]
fn the_text_of_a_pdf_is_read_and_a_broken_one_is_an_error() {
    let bytes = pdf(text_stream("Hold the button for ten seconds."));
    let document = read(DocumentFormat::Pdf, &bytes).expect("a PDF");
    assert_eq!(document.title.as_deref(), Some("The manual"));
    assert_eq!(
        chunks(&document, &characters(100, 0)),
        [("[\"page 1\"]".to_owned(), "Hold the button for ten seconds.".to_owned())]
    );
    assert!(matches!(read(DocumentFormat::Pdf, "%PDF-1.7\nnothing"), Err(IngestError::BrokenPdf { .. })));
    assert_eq!(read(DocumentFormat::Pdf, pdf(Stream::new(dictionary! {}, Vec::new()))), Err(IngestError::NoText));
    // Cut and flipped at many places: an error or a text, but never a panic.
    for length in (0..bytes.len()).step_by(37) {
        let _ = read(DocumentFormat::Pdf, &bytes[..length]);
        let mut flipped = bytes.clone();
        flipped[length] ^= 0x55;
        let _ = read(DocumentFormat::Pdf, &flipped);
    }
}

#[test]
fn a_pdf_that_unfolds_too_far_is_refused() {
    let mut bomb = Stream::new(dictionary! {}, vec![b' '; 8 << 20]);
    bomb.compress().expect("a compressed stream");
    let bytes = pdf(bomb);
    assert!(bytes.len() < 64 << 10, "the file itself is small");
    let limits = DocumentLimits { expanded_bytes_max: 1 << 20, ..DocumentLimits::default() };
    let read = read_document(&bytes, DocumentFormat::Pdf, &limits);
    assert_eq!(read, Err(IngestError::ExpandsTooFar { format: "PDF", limit: 1 << 20 }));
}

#[test]
fn lines_of_json_are_sections_and_a_broken_one_is_named() {
    let document =
        read(DocumentFormat::JsonLines, "{\"title\": \"T\", \"text\": \"one\"}\n\n\"two\"\n").expect("lines");
    assert_eq!(document.text, "one\n\ntwo\n\n");
    let paths: Vec<&str> = document.sections.iter().map(|section| section.heading_path[0].as_str()).collect();
    assert_eq!(paths, ["T", "line 3"]);
    for (text, line) in [("\"a\"\n{", 2), ("{\"x\": 1}", 1), ("\"a\"\n\n7", 3), ("\"a\\u0000\"", 1), ("\"\"", 1)] {
        assert!(
            matches!(read(DocumentFormat::JsonLines, text), Err(IngestError::BrokenLine { line: at, .. }) if at == line),
            "{text:?}"
        );
    }
    let long = format!("\"{}\"", "a".repeat(2 << 20));
    assert!(matches!(read(DocumentFormat::JsonLines, long), Err(IngestError::BrokenLine { line: 1, .. })));
    let nested = "[".repeat(100_000);
    assert!(matches!(read(DocumentFormat::JsonLines, nested), Err(IngestError::BrokenLine { line: 1, .. })));
}

#[test]
fn deep_nesting_is_refused() {
    let quoted = format!("{} deep", "> ".repeat(1000));
    assert!(matches!(read(DocumentFormat::Markdown, quoted), Err(IngestError::TooDeep { limit: 128, .. })));
}

#[test]
fn chunks_keep_to_their_size_in_any_script_and_lose_nothing() {
    let scripts = [
        "word ".repeat(3000),
        "界".repeat(3000),
        "ฉันรักเธอ".repeat(500),
        "שלום עולם. ".repeat(400),
        "👩‍👩‍👧 🍵 ".repeat(400),
        "x".repeat(20_000),
    ];
    for text in scripts {
        let document = read(DocumentFormat::PlainText, &text).expect("text");
        let chunks = chunks(&document, &characters(100, 0));
        assert!(chunks.iter().all(|(_, chunk)| chunk.chars().count() <= 100));
        let bare = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(chunks.iter().map(|(_, chunk)| bare(chunk)).collect::<String>(), bare(&text));
    }
}

#[test]
fn sizes_may_be_counted_by_the_caller_and_chunks_may_overlap() {
    let document = read(DocumentFormat::PlainText, "One two three. Four five six. Seven eight nine.").expect("text");
    let count = |text: &str| text.split_whitespace().count();
    let plain = chunks(&document, &Chunking { unit: ChunkSize::Counted(&count), size: 6, overlap: 0 });
    assert_eq!(
        plain.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(),
        ["One two three. Four five six.", "Seven eight nine."]
    );
    let overlapping = chunks(&document, &Chunking { unit: ChunkSize::Counted(&count), size: 6, overlap: 3 });
    assert_eq!(overlapping[1].1, "Four five six. Seven eight nine.");
    for (size, overlap) in [(0, 0), (10, 10), (1 << 20, 0)] {
        let chunks = chunk_document(&document, "notes", &Scope::default(), &characters(size, overlap));
        assert!(matches!(chunks, Err(IngestError::InvalidChunking { .. })), "{size} {overlap}");
    }
}

#[test]
fn ten_megabytes_are_cut_and_not_refused() {
    let text = "A sentence of some words, told again and again. ".repeat(220_000);
    let document = read(DocumentFormat::PlainText, &text).expect("text");
    let items = chunk_document(&document, "big", &Scope::default(), &characters(2000, 0)).expect("chunks");
    assert!(items.len() > 5000 && items.iter().all(|item| item.text.len() <= 2000));
}
