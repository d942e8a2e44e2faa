//! OTLP over HTTP: a POST of protobuf (OTLP specification, "OTLP/HTTP").

use std::io::Write;
use std::time::SystemTime;

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Uri};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::HttpClient;
use rustls::ClientConfig;

use super::{chain, connector, Answer, Connector, Settings};
use crate::config::otlp::{Compression, Protocol};
use crate::expose::metrics::LEVEL;

#[derive(Debug)]
pub(super) struct Http {
    client: HyperClient<Connector>,
    uri: Uri,
    gzip: bool,
}

impl Http {
    pub(super) fn new(tls: ClientConfig, uri: Uri, settings: &Settings) -> Self {
        let connector = connector(tls, Protocol::Http, settings.timeout);
        Self {
            // Longer than the caller's timeout, which has the better message.
            client: HyperClient::new(connector, 2 * settings.timeout, None),
            uri,
            gzip: settings.compression == Compression::Gzip,
        }
    }

    pub(super) async fn send(&self, body: Bytes, headers: HeaderMap, now: SystemTime) -> Answer {
        let request = match self.request(body, headers) {
            Ok(request) => request,
            Err(error) => return Answer::refused(chain(&*error)),
        };
        match self.client.send_bytes(request).await {
            Ok(response) => Answer::of_http(&response, now),
            Err(error) => Answer::retry(chain(&*error)),
        }
    }

    fn request(
        &self,
        body: Bytes,
        mut headers: HeaderMap,
    ) -> Result<Request<Bytes>, Box<dyn std::error::Error>> {
        let body = if self.gzip { gzip(&body)?.into() } else { body };
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        headers.insert(header::CONTENT_TYPE, protobuf);
        if self.gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let mut request = Request::post(self.uri.clone()).body(body)?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::with_capacity(body.len() / 4), LEVEL);
    gzip.write_all(body)?;
    gzip.finish()
}
