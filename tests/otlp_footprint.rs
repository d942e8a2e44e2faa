//! Memory cost of a push of a very large host.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use vcpu_exporter::config::otlp::{Compression, Otlp, Temporality};
use vcpu_exporter::config::Config;
use vcpu_exporter::expose::otlp::{settings, Clock, Outcome, Pusher, Resource, Settings};
use vcpu_exporter::expose::App;
use vcpu_exporter::host::identity::Identity;
use vcpu_exporter::snapshot;
use vcpu_exporter::telemetry::Telemetry;

use crate::support::allocations::cost;
use crate::support::{own_process, snapshots};

/// Accepts every request and stores nothing, or refuses all.
fn receiver(status: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            while answer(&client, status).is_some() {}
        }
    });
    address
}

/// Reads one request and answers it; `None` at the end of the connection.
fn answer(mut client: &TcpStream, status: &str) -> Option<()> {
    let mut reader = BufReader::with_capacity(4096, client);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        if line == "\r\n" {
            break;
        }
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    let body = std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink());
    assert_eq!(body.ok()?, length);
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
    client.write_all(answer.as_bytes()).ok()
}

fn endpoint(address: SocketAddr) -> Settings {
    let yaml = format!("otlp: {{endpoints: [{{url: 'http://{address}', timeout: 5m}}]}}");
    let otlp: Otlp = Config::parse(&yaml).expect("a configuration").otlp;
    let mut all = settings::resolve(&otlp, &|_| None).expect("an endpoint");
    all.remove(0)
}

const MB: usize = 1_000_000;

#[test]
fn a_push_of_ten_thousand_vcpus_takes_less_than_a_hundred_megabytes() {
    own_process::run(
        "otlp_footprint::a_push_of_ten_thousand_vcpus_takes_less_than_a_hundred_megabytes",
        push_of_ten_thousand_vcpus,
    );
}

fn push_of_ten_thousand_vcpus() {
    let (telemetry, registry) = Telemetry::new();
    let snapshots = snapshot::Handle::default();
    let mut snapshot = snapshots::Host::of_vcpus(10_000).snapshot();
    snapshot.taken = SystemTime::now();
    let series = snapshot.count_series() as u64;
    snapshots.publish(Arc::new(snapshot));
    let app = Arc::new(App {
        snapshots,
        telemetry,
        registry,
        max_age: Duration::from_secs(10),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (takes, refuses) = (receiver("200 OK"), receiver("503 Service Unavailable"));
    let kinds = [
        (Temporality::Cumulative, Compression::None),
        (Temporality::Delta, Compression::Gzip),
    ];
    for (temporality, compression) in kinds {
        let settings = Settings {
            temporality,
            compression,
            ..endpoint(takes)
        };
        let resource = Resource::new(&Identity::default(), None, &BTreeMap::new());
        let pusher =
            |settings| Pusher::new(settings, resource.clone(), Clock::new(1), Arc::clone(&app));
        let mut first = pusher(settings.clone());
        let (outcome, most, left) = cost(|| runtime.block_on(first.push()));
        let Outcome::Delivered { points, rejected } = outcome else {
            panic!("{outcome:?}");
        };
        println!(
            "{temporality:?} {compression:?}: {points} points, at most {} MB, {} MB kept",
            most / MB,
            left / MB
        );
        assert!(points > series, "{points} of {series}");
        assert_eq!(rejected, 0);
        assert!(most < 100 * MB, "{most} bytes");

        // After a long absence of the receiver, nothing accumulates.
        let mut away = pusher(Settings {
            url: endpoint(refuses).url,
            ..settings
        });
        let failed =
            |outcome: Outcome| assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
        failed(runtime.block_on(away.push()));
        let ((), most, left) = cost(|| {
            for _ in 0..5 {
                failed(runtime.block_on(away.push()));
            }
        });
        println!(
            "  5 that failed: at most {} MB, {} kB kept",
            most / MB,
            left / 1000
        );
        assert!(most < 100 * MB, "{most} bytes");
        assert!(left < MB, "{left} bytes");
    }
}
