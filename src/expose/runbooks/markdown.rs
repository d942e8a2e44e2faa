//! Converts runbooks from Markdown to HTML: adds GitHub's anchors and links between runbooks, fills
//! in names, and drops HTML in the text.

use pulldown_cmark::{
    html, CodeBlockKind, CowStr, Event, Options, Parser, Tag, TagEnd, TextMergeStream,
};

use super::subject::{Context, Subject};
use super::RUNBOOKS;

/// The text as HTML. `example` is the VM that the runbook names.
pub(super) fn html(text: &str, example: Option<&str>, subject: &Subject) -> String {
    let events = TextMergeStream::new(Parser::new_ext(text, Options::ENABLE_TABLES));
    let mut page = Page {
        context: Context::Prose,
        example,
        subject,
        is_link: true,
    };
    let events: Vec<Event<'_>> = events.filter_map(|event| page.event(event)).collect();
    let mut body = String::with_capacity(text.len() * 2);
    html::push_html(&mut body, anchored(events).into_iter());
    body
}

struct Page<'a> {
    context: Context,
    example: Option<&'a str>,
    subject: &'a Subject,
    /// Whether the current link has a target.
    is_link: bool,
}

impl Page<'_> {
    fn event<'e>(&mut self, mut event: Event<'e>) -> Option<Event<'e>> {
        match &mut event {
            Event::Text(text) => *text = self.fill(text, self.context),
            Event::Code(text) => *text = self.fill(text, Context::Command),
            Event::Html(text) | Event::InlineHtml(text) => event = Event::Text(text.clone()),
            Event::Start(Tag::CodeBlock(kind)) => {
                self.context = match kind {
                    CodeBlockKind::Fenced(language) => Context::of_block(language),
                    CodeBlockKind::Indented => Context::Command,
                };
            }
            Event::End(TagEnd::CodeBlock) => self.context = Context::Prose,
            Event::Start(Tag::Link { dest_url, .. }) => {
                let target = self.target(dest_url);
                self.is_link = target.is_some();
                *dest_url = target?.into();
            }
            // Without a target, only the link's text remains.
            Event::End(TagEnd::Link) if !self.is_link => return None,
            _ => {}
        }
        Some(event)
    }

    fn fill(&self, text: &str, context: Context) -> CowStr<'static> {
        let filled = self.subject.fill(text, self.example, context);
        filled.into_owned().into()
    }

    /// The target of a link; `None` if this exporter does not serve it.
    fn target(&self, url: &str) -> Option<String> {
        if url.starts_with('#') || url.starts_with("https://") {
            return Some(url.to_owned());
        }
        let (file, anchor) = url.split_once('#').unwrap_or((url, ""));
        let name = file.strip_suffix(".md")?;
        RUNBOOKS.iter().find(|(known, _)| *known == name)?;
        let anchor = match anchor {
            "" => String::new(),
            anchor => format!("#{anchor}"),
        };
        Some(format!("/runbooks/{name}{}{anchor}", self.subject.query()))
    }
}

/// Adds ids to headings, in GitHub's format, as targets of links.
fn anchored(mut events: Vec<Event<'_>>) -> Vec<Event<'_>> {
    for start in 0..events.len() {
        if !matches!(events[start], Event::Start(Tag::Heading { .. })) {
            continue;
        }
        let end = |event: &Event<'_>| matches!(event, Event::End(TagEnd::Heading(_)));
        let text = events[start..].iter().take_while(|event| !end(event));
        let text = text.filter_map(|event| match event {
            Event::Text(text) | Event::Code(text) => Some(text.as_ref()),
            _ => None,
        });
        let slug = slug(&text.collect::<String>());
        if let Some(Event::Start(Tag::Heading { id, .. })) = events.get_mut(start) {
            *id = Some(slug.into());
        }
    }
    events
}

fn slug(heading: &str) -> String {
    let lower = heading.to_lowercase();
    let kept = lower.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
        _ => None,
    });
    kept.collect()
}
