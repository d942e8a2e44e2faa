//! Sanitizes views: their texts come from untrusted sources, such as owners of guests and any
//! server at the exporter's address.

use super::super::out;
use crate::diagnosis::View;

/// Most characters of a name and of a sentence. An exporter's names have at most 128 bytes.
const MAX_NAME: usize = 128;
const MAX_TEXT: usize = 1000;

/// Escapes control characters and bounds the length of all texts.
pub(super) fn view(mut view: View) -> View {
    let texts = [
        &mut view.synthetic,
        &mut view.host.name,
        &mut view.host.kernel,
        &mut view.host.cpu_model,
        &mut view.pmu_mode,
    ];
    view.host.verdict = text(&view.host.verdict, MAX_TEXT);
    for text in texts.into_iter().flatten().chain(&mut view.visibility_gaps) {
        *text = self::text(text, MAX_TEXT);
    }
    for source in &mut view.sources {
        source.name = text(&source.name, MAX_NAME);
        source.state = text(&source.state, MAX_NAME);
    }
    for vm in &mut view.vms {
        vm.name = text(&vm.name, MAX_NAME);
        vm.verdict = text(&vm.verdict, MAX_TEXT);
        // Mentions are byte offsets into the original text.
        vm.mentions.clear();
    }
    view
}

/// Sanitizes one text.
pub(super) fn text(text: &str, most: usize) -> String {
    let plain = out::printable(text).replace('\u{a0}', " ");
    out::shorten(&plain, most).into_owned()
}
