//! Limits that a domain's state must satisfy before it is parsed. libvirt writes the file, but
//! users choose parts of it: a domain's metadata (`virsh metadata`) has no limit of its own.
//!
//! roxmltree compares each attribute with all previous ones of its tag, and each prefix with all
//! namespaces in scope, so limits on both bound its time. 4 MiB of attributes in one tag took
//! 123 s.

/// Bytes of a state file. A large domain (hundreds of disks, metadata) has about 300 KiB.
const MAX_SIZE: usize = 1 << 20;
/// Attributes of a tag. libvirt writes at most about 20.
const MAX_ATTRIBUTES: usize = 64;
/// Namespace declarations. Each tool that stores metadata has one.
const MAX_NAMESPACES: usize = 64;

/// Whether the text is within all limits. One pass, no allocation.
pub(super) fn are_kept(xml: &str) -> bool {
    if xml.len() > MAX_SIZE || xml.matches("xmlns").nth(MAX_NAMESPACES).is_some() {
        return false;
    }
    let mut rest = xml;
    while let Some(start) = rest.find('<') {
        rest = &rest[start..];
        let skipped = skip(rest, "<!--", "-->")
            .or_else(|| skip(rest, "<![CDATA[", "]]>"))
            .or_else(|| skip(rest, "<?", "?>"));
        rest = match skipped {
            Some(after) => after,
            None => match tag(rest) {
                Some(after) => after,
                None => return false,
            },
        };
    }
    true
}

/// The text after `close` if the text starts with `open`; empty if `close` is missing.
fn skip<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let inside = text.strip_prefix(open)?;
    Some(inside.split_once(close).map_or("", |(_, after)| after))
}

/// The text after a tag; `None` if it has too many attributes. A `>` within quotes is part of a
/// value.
fn tag(text: &str) -> Option<&str> {
    let mut attributes = 0;
    let mut quote = None;
    for (n, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(&text[n + 1..]),
            (None, b'"' | b'\'') => {
                attributes += 1;
                quote = Some(byte);
            }
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
        if attributes > MAX_ATTRIBUTES {
            return None;
        }
    }
    Some("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attributes(n: usize) -> String {
        (0..n).map(|n| format!(" a{n}='>'")).collect()
    }

    #[test]
    fn attributes_are_counted_by_tag() {
        let most = format!("<a{}/>", attributes(MAX_ATTRIBUTES));
        assert!(are_kept(&most.repeat(3)));
        assert!(!are_kept(&format!(
            "<a{}/>",
            attributes(MAX_ATTRIBUTES + 1)
        )));
        assert!(!are_kept(&format!(
            "<a x='<!--'{}",
            attributes(MAX_ATTRIBUTES)
        )));
    }

    #[test]
    fn quotes_outside_of_tags_are_text() {
        let quotes = "\"'".repeat(200);
        for text in [
            format!("<a>{quotes}</a>"),
            format!("<!-- {quotes} --><a/>"),
            format!("<a><![CDATA[<b {quotes}>]]></a>"),
            format!("<?xml {quotes}?><a/>"),
        ] {
            assert!(are_kept(&text), "{text}");
        }
    }

    #[test]
    fn size_and_namespaces_are_bounded() {
        assert!(!are_kept(&" ".repeat(MAX_SIZE + 1)));
        let declared = |n| format!("<a {}/>", "xmlns:n=''".repeat(n));
        assert!(are_kept(&declared(MAX_NAMESPACES)));
        assert!(!are_kept(&"<a xmlns='x'>".repeat(MAX_NAMESPACES + 1)));
    }

    proptest! {
        /// Every tag of an accepted document is within the limit, counted in the parsed document.
        #[test]
        fn what_passes_is_within_the_bounds(
            parts in prop::collection::vec("(<a|<!--|-->|<!\\[CDATA\\[|\\]\\]>|<\\?x|\\?>| b='| c=\"|'|\"|>|/>|</a>|x)", 0..60),
            many in 0..100usize,
        ) {
            let xml = format!("<a>{}<b{}/></a>", parts.concat(), attributes(many));
            if let Ok(document) = roxmltree::Document::parse(&xml) {
                let most = document.descendants().map(|n| n.attributes().count()).max();
                prop_assert!(!are_kept(&xml) || most <= Some(MAX_ATTRIBUTES));
            }
        }

        #[test]
        fn any_text_is_looked_at(text in "\\PC{0,200}") {
            let _ = are_kept(&text);
        }
    }
}
