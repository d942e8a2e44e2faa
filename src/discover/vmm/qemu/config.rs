//! The file of `-readconfig`: sections `[group]` or `[group "id"]` with lines `key = "value"`
//! (util/qemu-config.c, `qemu_config_foreach`).

/// The guest's name in sections `[name]`; the last one counts.
pub(super) fn name(text: &str) -> Option<String> {
    let mut here = false;
    let mut found = None;
    for line in text.lines() {
        // A comment starts in the first column; a value may contain '#'.
        if line.starts_with('[') {
            here = line.strip_prefix("[name]").is_some();
        } else if here && !line.starts_with('#') {
            found = guest(line).or(found);
        }
    }
    found
}

/// The value of `guest = "value"`: up to the next quote, without escapes.
fn guest(line: &str) -> Option<String> {
    let rest = line.trim_start().strip_prefix("guest")?.trim_start();
    let value = rest.strip_prefix('=')?.trim_start().strip_prefix('"')?;
    let (value, _) = value.split_once('"')?;
    Some(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn name_is_in_its_section_alone() {
        let text =
            "# qemu config\n[device \"x\"]\n  guest = \"no\"\n\n[name]\n# guest = \"no\"\n  \
                    process = \"p\"\n  guest = \"a,b=c #1\"\n[machine]\n  guest = \"no\"\n";
        assert_eq!(name(text).as_deref(), Some("a,b=c #1"));
        assert_eq!(
            name("[name]\nguest=\"one\"\nguest = \"two\"").as_deref(),
            Some("two")
        );
        assert_eq!(name("[name]\nguest = web\n[name]\nguestx = \"y\""), None);
        assert_eq!(name(""), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_configuration(text in "(\\[name\\]\n)?\\PC{0,60}") {
            let _ = name(&text);
        }
    }
}
