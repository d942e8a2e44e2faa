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

use super::super::answer::Response;
use super::{chain, connector, Answer, Connector, Settings};
use crate::config::otlp::{Compression, Protocol};

/// Level 1 takes a quarter of the time of level 6; the result is less than twice as large.
const LEVEL: flate2::Compression = flate2::Compression::new(1);

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
            Ok(response) => {
                let header = |name| response.headers().get(name)?.to_str().ok();
                Answer::of_http(&Response {
                    status: response.status(),
                    content_type: header(header::CONTENT_TYPE),
                    retry_after: header(header::RETRY_AFTER),
                    body: response.body(),
                    now,
                })
            }
            Err(error) => Answer::retry(chain(&*error)),
        }
    }

    fn request(
        &self,
        body: Bytes,
        headers: HeaderMap,
    ) -> Result<Request<Bytes>, Box<dyn std::error::Error>> {
        let body = match self.gzip {
            true => gzip(&body)?.into(),
            false => body,
        };
        let mut request = Request::post(self.uri.clone()).body(body)?;
        *request.headers_mut() = headers;
        let own = request.headers_mut();
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        own.insert(header::CONTENT_TYPE, protobuf);
        if self.gzip {
            own.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(request)
    }
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::with_capacity(body.len() / 4), LEVEL);
    gzip.write_all(body)?;
    gzip.finish()
}
