//! Views made safe to show: what they say comes from outside, from guests' owners to whoever
//! answers at the exporter's address.

use super::super::out;
use crate::expose::view::View;

/// Longest name and longest sentence that is shown, in characters. An exporter's names have at
/// most 128 bytes.
const MAX_NAME: usize = 128;
const MAX_TEXT: usize = 1000;

/// Escapes what a terminal would obey, and bounds what it would have to show.
pub(super) fn view(mut view: View) -> View {
    let texts = [
        &mut view.synthetic,
        &mut view.host.kernel,
        &mut view.host.cpu_model,
        &mut view.pmu_mode,
    ];
    for text in texts.into_iter().flatten().chain(&mut view.blind_spots) {
        *text = self::text(text, MAX_TEXT);
    }
    for source in &mut view.sources {
        source.name = text(&source.name, MAX_NAME);
        source.state = text(&source.state, MAX_NAME);
    }
    for vm in &mut view.vms {
        vm.name = text(&vm.name, MAX_NAME);
        vm.verdict = text(&vm.verdict, MAX_TEXT);
    }
    view
}

/// One text made safe.
pub(super) fn text(text: &str, most: usize) -> String {
    let plain = out::printable(text).replace('\u{a0}', " ");
    out::shorten(&plain, most).into_owned()
}
