//! OTLP over gRPC: a unary call with tonic, of an already encoded message.

use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;
use rustls::ClientConfig;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::{chain, connector, no_answer, Answer, Connector, Settings};
use crate::config::otlp::{Compression, Protocol};

const METHOD: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

#[derive(Debug)]
pub(super) struct Grpc {
    client: tonic::client::Grpc<Client<Connector, tonic::body::Body>>,
    timeout: Duration,
}

impl Grpc {
    pub(super) fn new(tls: ClientConfig, origin: Uri, settings: &Settings) -> Self {
        let connector = connector(tls, Protocol::Grpc, settings.timeout);
        let http2 = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build(connector);
        let client = tonic::client::Grpc::with_origin(http2, origin);
        Self {
            client: match settings.compression {
                Compression::Gzip => client.send_compressed(CompressionEncoding::Gzip),
                Compression::None => client,
            },
            timeout: settings.timeout,
        }
    }

    pub(super) async fn send(&self, body: Bytes, headers: HeaderMap) -> Answer {
        let mut client = self.client.clone();
        if let Err(error) = client.ready().await {
            return Answer::retry(chain(&error));
        }
        let mut request = tonic::Request::new(body);
        *request.metadata_mut() = MetadataMap::from_headers(headers);
        // Sends the deadline to the receiver, which may answer that it has passed.
        request.set_timeout(self.timeout);
        let start = Instant::now();
        let method = PathAndQuery::from_static(METHOD);
        match client.unary(request, method, Encoded).await {
            Ok(response) => Answer::of_response(response.into_inner()),
            Err(status) if is_deadline(&status) && start.elapsed() >= self.timeout => {
                Answer::retry(no_answer(self.timeout))
            }
            Err(status) => answer_of(&status),
        }
    }
}

/// Whether the status means that the deadline passed. If this process checks the deadline late, the
/// receiver's status arrives first; the reason is the same.
fn is_deadline(status: &Status) -> bool {
    matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled)
}

/// A status with a source was created locally, for a connection error.
fn answer_of(status: &Status) -> Answer {
    match std::error::Error::source(status) {
        Some(error) if status.code() != Code::Ok => Answer::retry(chain(error)),
        _ => Answer::of_status(status),
    }
}

/// Sends bytes unchanged and decodes answers.
#[derive(Debug, Clone, Copy)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = ExportMetricsServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, body: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(body);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = ExportMetricsServiceResponse;
    type Error = Status;

    fn decode(&mut self, body: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let bytes = body.copy_to_bytes(body.remaining());
        let response = Self::Item::decode(bytes);
        let not_otlp = |error| Status::internal(format!("not an OTLP answer: {error}"));
        response.map(Some).map_err(not_otlp)
    }
}
