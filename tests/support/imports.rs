//! The paths that a source file names, outside of comments and unit tests.

use std::collections::BTreeSet;

/// All paths that start with `crate`, `self` or `super`, each item of a group on its own.
pub(crate) fn paths(text: &str) -> BTreeSet<String> {
    let code = code(text);
    let mut paths = BTreeSet::new();
    for start in ["crate::", "self::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let inner = code[..at].ends_with(|c: char| is_of_path(c) || c == '$');
            if !inner {
                tree(&code[at..], "", &mut paths);
            }
        }
    }
    paths
}

/// The text without comments and without modules of unit tests.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| match line.find("//") {
        Some(comment) => &line[..comment],
        None => line,
    });
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let mut code = String::new();
    let mut rest = text.as_str();
    while let Some((before, module)) = rest.split_once("#[cfg(test)]\nmod ") {
        code += before;
        let end = if is_inline(module) { "\n}\n" } else { ";" };
        rest = module.split_once(end).map_or("", |(_, rest)| rest);
    }
    code + rest
}

/// Whether `name {` follows, and not `name;`.
fn is_inline(module: &str) -> bool {
    module
        .find(['{', ';'])
        .is_some_and(|at| module[at..].starts_with('{'))
}

fn is_of_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// Adds the path or group at the start of `text`, and returns the text after it.
fn tree<'a>(text: &'a str, before: &str, paths: &mut BTreeSet<String>) -> &'a str {
    let end = text.find(|c| !is_of_path(c)).unwrap_or(text.len());
    let path = format!("{before}{}", &text[..end]);
    let mut rest = match text[end..].strip_prefix('{') {
        Some(group) if path.ends_with("::") => group,
        _ => {
            paths.insert(path);
            return &text[end..];
        }
    };
    loop {
        rest = tree(rest.trim_start(), &path, paths);
        // An item ends at the comma, also after `as name`.
        let Some(at) = rest.find([',', '}']) else {
            return "";
        };
        let last = rest[at..].starts_with('}');
        rest = &rest[at + 1..];
        if last {
            return rest;
        }
    }
}

#[test]
fn groups_are_taken_apart() {
    let text = "use crate::a::{b, c::{D as E, f},\n};\nlet x = super::g();\n// crate::h\n\
                #[cfg(test)]\nmod tests {\n    use crate::i;\n}\nfn j() { crate::k() }\n";
    let expected = [
        "crate::a::",
        "crate::a::b",
        "crate::a::c::D",
        "crate::a::c::f",
        "crate::k",
        "super::g",
    ];
    assert_eq!(paths(text), expected.map(String::from).into());
}
