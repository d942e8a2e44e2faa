//! `/metrics`: the latest snapshot in the format that the client prefers, compressed on request.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::Extension;
use flate2::write::GzEncoder;
use flate2::Compression;

use super::buffers::Buffer;
use super::guard::Client;
use super::negotiate::{self, Format};
use super::site::{unavailable, NotReady, Site};
use super::text;
use crate::snapshot::Snapshot;

/// Level 1 takes a quarter of the time of level 6; the result is less than twice as large.
pub(super) const LEVEL: Compression = Compression::new(1);

/// The format that a client prefers, and whether it accepts gzip.
#[derive(Debug, Clone, Copy)]
struct Wish {
    format: Format,
    gzip: bool,
}

impl Wish {
    fn from_headers(headers: &HeaderMap) -> Self {
        Self {
            format: negotiate::format(values(headers, header::ACCEPT)),
            gzip: negotiate::gzip(values(headers, header::ACCEPT_ENCODING)),
        }
    }

    /// Index in [`Scrapes::newest`](super::site::Scrapes::newest).
    fn index(self) -> usize {
        2 * usize::from(self.format == Format::Text) + usize::from(self.gzip)
    }
}

/// The values of one header, except those that are not text.
pub(super) fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let all = headers.get_all(name).into_iter();
    all.filter_map(|value| value.to_str().ok())
}

/// Answers a scrape.
pub(super) async fn metrics(
    State(site): State<Arc<Site>>,
    Extension(client): Extension<Arc<Client>>,
    headers: HeaderMap,
) -> Response {
    let Some(newest) = site.app.snapshots.load() else {
        return unavailable(&NotReady::NoSample);
    };
    let wish = Wish::from_headers(&headers);
    let body = site.scrapes.newest[wish.index()].get(&newest, || {
        let (site, scraped) = (Arc::clone(&site), Arc::clone(&site));
        async move {
            site.scrapes
                .places
                .make(move || scrape(&scraped, wish))
                .await
        }
    });
    match tokio::time::timeout(site.patience, body).await {
        Ok(Some(Ok(body))) => answer(wish, body.send(client)),
        Ok(Some(Err(reason))) => unavailable(&reason),
        Ok(None) => unavailable(&"encoding failed; see the log of the exporter"),
        Err(_) => unavailable(&"too many scrapes at once"),
    }
}

fn scrape(site: &Site, wish: Wish) -> Result<Buffer, String> {
    let begun = Instant::now();
    let newest = site.app.snapshots.load();
    let newest = newest.ok_or_else(|| NotReady::NoSample.to_string())?;
    let body = encode(site, wish, &newest, begun).map_err(|error| format!("gzip: {error}"))?;
    let took = begun.elapsed().as_secs_f64();
    site.app.telemetry.scrape_duration.observe(took);
    Ok(body)
}

fn encode(site: &Site, wish: Wish, snapshot: &Snapshot, now: Instant) -> io::Result<Buffer> {
    let mut text = site.scrapes.texts.take();
    text::encode(wish.format, snapshot, &site.app.registry, now, &mut text);
    if !wish.gzip {
        return Ok(text);
    }
    let mut body = site.scrapes.gzipped.take();
    let mut gzip = GzEncoder::new(&mut *body, LEVEL);
    gzip.write_all(&text)?;
    gzip.finish()?;
    Ok(body)
}

fn answer(wish: Wish, body: axum::body::Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, wish.format.content_type()),
        (header::VARY, "accept, accept-encoding"),
    ];
    let mut response = (headers, body).into_response();
    if wish.gzip {
        let gzip = HeaderValue::from_static("gzip");
        response
            .headers_mut()
            .insert(header::CONTENT_ENCODING, gzip);
    }
    response
}
