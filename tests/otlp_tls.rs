//! Pushes over TLS: trusted servers and client certificates, with both protocols.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use vcpu_exporter::config::otlp::{Compression, Protocol, Temporality, Tls};
use vcpu_exporter::expose::otlp::{Answer, Client, Settings};

use crate::support::otlp_sink::Sink;
use crate::support::run::DEADLINE;

fn file(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
    dir.join(name)
}

/// The client certificate that a receiver requires.
#[derive(Clone, Copy)]
enum Asks {
    Nothing,
    Certificate,
}

/// Terminates TLS in front of a receiver without TLS; returns its address.
async fn before(plain: SocketAddr, asks: Asks) -> SocketAddr {
    let certificates = CertificateDer::pem_file_iter(file("receiver.pem")).unwrap();
    let certificates: Result<Vec<_>, _> = certificates.collect();
    let key = PrivateKeyDer::from_pem_file(file("receiver.key")).unwrap();
    let provider = Arc::new(default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match asks {
        Asks::Nothing => config.with_no_client_auth(),
        Asks::Certificate => {
            let mut roots = RootCertStore::empty();
            let ca = CertificateDer::from_pem_file(file("ca.pem")).unwrap();
            roots.add(ca).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let mut config = config.with_single_cert(certificates.unwrap(), key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust us disconnects.
                if let Ok(mut client) = acceptor.accept(client).await {
                    let mut receiver = TcpStream::connect(plain).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut receiver).await;
                }
            });
        }
    });
    address
}

/// The result of a request over TLS with these certificates.
fn answer(protocol: Protocol, asks: Asks, tls: Tls) -> Result<Answer, String> {
    let sink = Sink::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let server = match protocol {
            Protocol::Http => sink.http("127.0.0.1:0"),
            Protocol::Grpc => sink.grpc("127.0.0.1:0"),
        };
        let address = before(server.address, asks).await;
        let settings = Settings {
            url: match protocol {
                Protocol::Http => format!("https://{address}/v1/metrics"),
                Protocol::Grpc => format!("https://{address}"),
            },
            protocol,
            temporality: Temporality::Cumulative,
            compression: Compression::Gzip,
            interval: Duration::from_secs(15),
            timeout: DEADLINE,
            headers: BTreeMap::new(),
            basic_auth: None,
            tls,
        };
        let client = Client::new(&settings).map_err(|error| error.to_string())?;
        Ok(client.send(Default::default()).await)
    })
}

fn trusting(ca: &str) -> Tls {
    Tls {
        ca_file: Some(file(ca)),
        ..Tls::default()
    }
}

const BOTH: [Protocol; 2] = [Protocol::Http, Protocol::Grpc];

#[test]
fn a_receiver_with_a_trusted_certificate_is_talked_to() {
    for protocol in BOTH {
        let answer = answer(protocol, Asks::Nothing, trusting("ca.pem"));
        assert!(matches!(answer, Ok(Answer::Delivered { .. })), "{answer:?}");
    }
}

#[test]
fn a_stranger_is_not() {
    for protocol in BOTH {
        for tls in [trusting("stranger.pem"), Tls::default()] {
            // If the system has no roots, the error says so.
            let reason = match answer(protocol, Asks::Nothing, tls) {
                Ok(Answer::Retry { reason, .. }) => reason,
                Err(reason) => reason,
                other => panic!("{other:?}"),
            };
            assert!(reason.contains("ertificate"), "{reason}");
        }
    }
}

#[test]
fn a_receiver_that_asks_who_we_are_is_told() {
    let own = Tls {
        cert_file: Some(file("client.pem")),
        key_file: Some(file("client.key")),
        ..trusting("ca.pem")
    };
    for protocol in BOTH {
        let told = answer(protocol, Asks::Certificate, own.clone());
        assert!(matches!(told, Ok(Answer::Delivered { .. })), "{told:?}");
        let untold = answer(protocol, Asks::Certificate, trusting("ca.pem"));
        assert!(matches!(untold, Ok(Answer::Retry { .. })), "{untold:?}");
    }
}

#[test]
fn files_that_are_no_certificates_are_named() {
    for (tls, expected) in [
        (trusting("none.pem"), "none.pem: No such file"),
        (
            trusting("client.key"),
            "client.key: has no certificate in PEM form",
        ),
        (
            Tls {
                cert_file: Some(file("client.pem")),
                key_file: Some(file("ca.pem")),
                ..trusting("ca.pem")
            },
            "ca.pem: has no private key in PEM form",
        ),
        (
            Tls {
                cert_file: Some(file("client.pem")),
                key_file: Some(file("receiver.key")),
                ..trusting("ca.pem")
            },
            "receiver.key: ",
        ),
    ] {
        let error = answer(Protocol::Http, Asks::Nothing, tls).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
