//! Where views come from: the exporter that runs already, or this process.
//!
//! The exporter is asked first. It needs no privileges, and counters are not set on each vCPU a
//! second time.

use std::time::Instant;

use crate::config::Config;
use crate::expose::view::View;
use crate::snapshot::Handle;

use super::super::pipeline::Running;
use super::safe;

mod exporter;
mod own;

pub(super) use exporter::Address;
use exporter::Exporter;

/// Where views come from.
pub(super) enum Source {
    /// The exporter at an address.
    Exporter(Box<Exporter>),
    /// This process.
    Own(Handle),
}

/// Why there is no view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// Nothing listens there.
    #[error("nobody answers at {address}: {reason}")]
    Nobody { address: String, reason: String },
    /// Somebody does, and will have a view.
    #[error("{0}")]
    NotYet(String),
    /// Somebody does, and will not have one.
    #[error("{0}; --sample reads this host without an exporter")]
    Useless(String),
}

/// A source that works, so far as can be told now.
pub(super) struct Opened {
    pub(super) source: Source,
    /// What it is, in words.
    pub(super) words: String,
    /// What samples in this process.
    pub(super) running: Option<Running>,
}

/// Finds out whom to ask: the exporter at `url`; without one, that of the configuration, and this
/// process where nobody is there or `sample` says so.
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
        Err(Trouble::Nobody { address, .. }) if url.is_none() => {
            let words = format!("own samples: nobody answers at {address}");
            return own::open(config, &words);
        }
        Err(useless @ (Trouble::Nobody { .. } | Trouble::Useless(_))) => return Err(useless.into()),
        Ok(_) | Err(Trouble::NotYet(_)) => {}
    }
    own::need_nothing();
    Ok(Opened {
        source: Source::Exporter(Box::new(exporter)),
        words,
        running: None,
    })
}

impl Source {
    /// The newest view, safe to show.
    pub(super) fn ask(&self) -> Result<View, Trouble> {
        let view = match self {
            Self::Exporter(exporter) => exporter.ask()?,
            Self::Own(snapshots) => View::of(snapshots, Instant::now())
                .ok_or_else(|| Trouble::NotYet("nothing is sampled yet".to_owned()))?,
        };
        Ok(safe::view(view))
    }
}
