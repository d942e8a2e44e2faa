//! `/metrics`: the newest snapshot in the format the client reads best, gzipped when asked.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use flate2::write::GzEncoder;
use flate2::Compression;
use tokio::sync::OwnedSemaphorePermit;

use super::buffers::Buffer;
use super::negotiate::{self, Format};
use super::site::{unavailable, NotReady, Site};
use super::text;
use crate::snapshot::Snapshot;

/// Level 1 costs a quarter of level 6 and leaves less than twice its bytes.
const LEVEL: Compression = Compression::new(1);

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
struct Wish {
    format: Format,
    gzip: bool,
}

impl Wish {
    fn of(headers: &HeaderMap) -> Self {
        Self {
            format: negotiate::format(values(headers, header::ACCEPT)),
            gzip: negotiate::gzip(values(headers, header::ACCEPT_ENCODING)),
        }
    }
}

/// The values of one header, those that are no text left out.
fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let all = headers.get_all(name).into_iter();
    all.filter_map(|value| value.to_str().ok())
}

/// A body; its buffer goes back to the pool, and its place to the next, once it is sent.
struct Answer {
    buffer: Buffer,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_ref()
    }
}

/// Answers a scrape.
pub(super) async fn metrics(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    if site.app.snapshots.load().is_none() {
        return unavailable(&NotReady::NoSample);
    }
    let wish = Wish::of(&headers);
    let place = Arc::clone(&site.scrapes.answers).acquire_owned();
    let Ok(Ok(place)) = tokio::time::timeout(site.patience, place).await else {
        return unavailable(&"too many scrapes at once");
    };
    match site.work(move |site| scrape(site, wish)).await {
        Some(Ok(buffer)) => answer(wish, buffer, place),
        Some(Err(reason)) => unavailable(&reason),
        None => unavailable(&"too many scrapes at once"),
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

fn answer(wish: Wish, buffer: Buffer, place: OwnedSemaphorePermit) -> Response {
    let body = Bytes::from_owner(Answer {
        buffer,
        _place: place,
    });
    let mut response = Body::from(body).into_response();
    let headers = response.headers_mut();
    let format = HeaderValue::from_static(wish.format.content_type());
    headers.insert(header::CONTENT_TYPE, format);
    let vary = HeaderValue::from_static("accept, accept-encoding");
    headers.insert(header::VARY, vary);
    if wish.gzip {
        let gzip = HeaderValue::from_static("gzip");
        headers.insert(header::CONTENT_ENCODING, gzip);
    }
    response
}
