//! HTML as text: the tokenizer of html5ever without a tree, so that no nesting is too deep and no page too broken.

use std::cell::RefCell;

use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{
    BufferQueue, CharacterTokens, Tag, TagKind, TagToken, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
};

use super::markdown::{Heading, sections};
use super::{Document, DocumentFormat, DocumentLimits, IngestError};

/// Elements whose text is no part of what a page says.
const BOILERPLATE: &[&str] = &[
    "script", "style", "noscript", "template", "svg", "canvas", "iframe", "object", "nav", "footer", "aside", "button",
    "select", "dialog", "head",
];
/// Elements that stand on lines of their own.
const BLOCKS: &[&str] = &[
    "address",
    "article",
    "blockquote",
    "body",
    "br",
    "caption",
    "dd",
    "details",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "li",
    "main",
    "ol",
    "p",
    "pre",
    "section",
    "summary",
    "table",
    "tbody",
    "tfoot",
    "thead",
    "tr",
    "ul",
];

/// Reads a page. Navigation, scripts and the like are left out, unless nothing would be left.
pub(super) fn read(source: &str, limits: &DocumentLimits) -> Result<Document, IngestError> {
    let mut page = tokenized(source, Keep::Content);
    if page.text.trim().is_empty() {
        // An unclosed `<nav>` swallows the page; what it swallowed is better than nothing.
        page = tokenized(source, Keep::Boilerplate);
    }
    if page.headings.len() > limits.num_sections_max {
        return Err(IngestError::TooMany { what: "sections", limit: limits.num_sections_max });
    }
    let first_heading = || page.headings.iter().find(|heading| heading.level == 1).map(|heading| heading.text.clone());
    let title = Some(collapsed(&page.title)).filter(|title| !title.is_empty()).or_else(first_heading);
    let sections = sections(page.text.len(), &page.headings);
    Ok(Document { format: DocumentFormat::Html, title, text: page.text, sections })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Content,
    Boilerplate,
}

struct Page {
    keep: Keep,
    text: String,
    title: String,
    headings: Vec<Heading>,
    /// Names of the boilerplate elements that are open.
    dropped: Vec<String>,
    in_title: bool,
    in_heading: bool,
    num_pre: usize,
}

fn tokenized(source: &str, keep: Keep) -> Page {
    let page = Page {
        keep,
        text: String::new(),
        title: String::new(),
        headings: Vec::new(),
        dropped: Vec::new(),
        in_title: false,
        in_heading: false,
        num_pre: 0,
    };
    let tokenizer = Tokenizer::new(Sink(RefCell::new(page)), TokenizerOpts::default());
    let input = BufferQueue::default();
    input.push_back(StrTendril::from(source));
    // The sink never asks for a script to be run, so one call consumes everything.
    let _ = tokenizer.feed(&input);
    tokenizer.end();
    let mut page = tokenizer.sink.0.into_inner();
    page.text.truncate(page.text.trim_end().len());
    for heading in &mut page.headings {
        heading.text = collapsed(&heading.text);
        heading.start = heading.start.min(page.text.len());
    }
    page
}

struct Sink(RefCell<Page>);

impl TokenSink for Sink {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let mut page = self.0.borrow_mut();
        match token {
            TagToken(tag) => return page.tag(&tag),
            CharacterTokens(text) => page.characters(&text),
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

impl Page {
    fn tag(&mut self, tag: &Tag) -> TokenSinkResult<()> {
        let name: &str = &tag.name;
        match tag.kind {
            TagKind::StartTag => {
                self.open(name, tag.self_closing);
                match name {
                    "script" => TokenSinkResult::RawData(RawKind::ScriptData),
                    "style" | "iframe" | "noscript" | "noembed" | "noframes" | "xmp" => {
                        TokenSinkResult::RawData(RawKind::Rawtext)
                    }
                    "title" | "textarea" => TokenSinkResult::RawData(RawKind::Rcdata),
                    _ => TokenSinkResult::Continue,
                }
            }
            TagKind::EndTag => {
                self.close(name);
                TokenSinkResult::Continue
            }
        }
    }

    fn open(&mut self, name: &str, self_closing: bool) {
        match name {
            "title" => self.in_title = self.title.is_empty() && !self.dropped.iter().any(|open| open == "svg"),
            // The content proper begins here, whatever was left open before it.
            "body" | "main" | "article" | "h1" => self.dropped.clear(),
            _ => {}
        }
        if BOILERPLATE.contains(&name) && !self_closing && self.dropped.len() < 64 {
            self.dropped.push(name.to_owned());
        }
        if BLOCKS.contains(&name) {
            self.line_break();
        }
        match name {
            "pre" => self.num_pre += 1,
            "li" if self.is_kept() => self.text.push_str("- "),
            "td" | "th" if self.is_kept() && !self.text.ends_with('\n') && !self.text.is_empty() => {
                self.text.push_str(" | ");
            }
            _ => {}
        }
        if let Some(level) = heading_level(name)
            && self.is_kept()
        {
            self.in_heading = true;
            self.headings.push(Heading { level, text: String::new(), start: self.text.len() });
        }
    }

    fn close(&mut self, name: &str) {
        if let Some(index) = self.dropped.iter().rposition(|open| open == name) {
            self.dropped.truncate(index);
        }
        match name {
            "title" => self.in_title = false,
            "pre" => self.num_pre = self.num_pre.saturating_sub(1),
            _ => {}
        }
        if heading_level(name).is_some() {
            self.in_heading = false;
        }
        if BLOCKS.contains(&name) {
            self.line_break();
        }
        if matches!(name, "p" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "pre" | "table" | "ul" | "ol" | "blockquote")
        {
            self.paragraph_break();
        }
    }

    fn characters(&mut self, text: &str) {
        if self.in_title {
            self.title.push_str(text);
            return;
        }
        if !self.is_kept() {
            return;
        }
        if self.in_heading
            && let Some(heading) = self.headings.last_mut()
        {
            heading.text.push_str(text);
        }
        // References such as `&#1;` can name control characters, which were refused where they stood as bytes.
        for character in text.chars().filter(|character| !character.is_control() || character.is_whitespace()) {
            let is_preserved = self.num_pre > 0 && matches!(character, '\n' | '\t' | ' ');
            if is_preserved || !character.is_whitespace() {
                self.text.push(character);
            } else if !self.text.is_empty() && !self.text.ends_with([' ', '\n']) {
                self.text.push(' ');
            }
        }
    }

    fn is_kept(&self) -> bool {
        match self.keep {
            Keep::Content => self.dropped.is_empty(),
            // Code stays out in any case: it is never what a page says.
            Keep::Boilerplate => !self.dropped.iter().any(|name| matches!(name.as_str(), "script" | "style" | "head")),
        }
    }

    fn line_break(&mut self) {
        if !self.is_kept() {
            return;
        }
        if self.num_pre == 0 {
            self.text.truncate(self.text.trim_end_matches(' ').len());
        }
        // An item that was opened and holds nothing leaves its bullet behind.
        if self.text.ends_with("\n-") || self.text == "-" {
            self.text.pop();
        }
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
    }

    fn paragraph_break(&mut self) {
        if self.is_kept() && self.text.ends_with('\n') && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }
}

fn heading_level(name: &str) -> Option<u8> {
    match name.as_bytes() {
        [b'h', level @ b'1'..=b'6'] => Some(level - b'0'),
        _ => None,
    }
}

fn collapsed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
