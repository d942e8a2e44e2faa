//! The source of views: a running exporter, or this process.
//!
//! An exporter has precedence: asking it needs no privileges, and does not open a second set of
//! counters on each vCPU.

use std::time::Instant;

use crate::config::Config;
use crate::diagnosis::View;
use crate::host::privileges;
use crate::snapshot::Handle;

use super::super::pipeline::Running;
use super::safe;

mod exporter;
mod own;

pub(in crate::cli) use exporter::Address;
use exporter::Exporter;

pub(super) enum Source {
    /// A running exporter.
    Exporter(Box<Exporter>),
    /// A pipeline in this process.
    Own(Handle),
}

/// Why there is no view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum NoView {
    /// No connection.
    #[error("no exporter answers at {address}: {reason}")]
    NoAnswer { address: String, reason: String },
    /// The exporter answers, and may have a view later.
    #[error("{0}")]
    NotYet(String),
    /// The server answers, but will never have a view.
    #[error("{0}; --sample reads this host without an exporter")]
    Useless(String),
}

/// A source that worked when it was opened.
pub(super) struct Opened {
    pub(super) source: Source,
    /// The source in words, for the title.
    pub(super) words: String,
    /// The threads of a pipeline in this process.
    pub(super) running: Option<Running>,
}

/// Opens the exporter at `url`, else at the configured address. Without `url`, falls back to
/// sampling in this process if no exporter answers. `sample` skips the exporter.
pub(super) fn open(config: &Config, url: Option<&Address>, sample: bool) -> anyhow::Result<Opened> {
    if sample {
        return own::open(config, "own samples");
    }
    let address = match url {
        Some(address) => address.clone(),
        None => Address::local(config.web.listen_address),
    };
    let words = address.to_string();
    let exporter = Exporter::new(address)?;
    match exporter.ask() {
        Err(NoView::NoAnswer { address, .. }) if url.is_none() => {
            let words = format!("own samples (no exporter answers at {address})");
            return own::open(config, &words);
        }
        Err(useless @ (NoView::NoAnswer { .. } | NoView::Useless(_))) => return Err(useless.into()),
        Ok(_) | Err(NoView::NotYet(_)) => {}
    }
    // Reading from an exporter needs no capability.
    privileges::drop_all_but(&[]);
    Ok(Opened {
        source: Source::Exporter(Box::new(exporter)),
        words,
        running: None,
    })
}

/// The view of the exporter at this address, not sanitized.
pub(in crate::cli) fn ask(address: &Address) -> anyhow::Result<View> {
    let exporter = Exporter::new(address.clone())?;
    privileges::drop_all_but(&[]);
    Ok(exporter.ask()?)
}

impl Source {
    /// The latest view, sanitized.
    pub(super) fn ask(&self) -> Result<View, NoView> {
        let view = match self {
            Self::Exporter(exporter) => exporter.ask()?,
            Self::Own(snapshots) => View::latest(snapshots, Instant::now())
                .ok_or_else(|| NoView::NotYet("no sample yet".to_owned()))?,
        };
        Ok(safe::view(view))
    }
}
