//! Receivers that stop, throttle, hang, refuse and send too much.

use std::cell::Cell;

use super::*;

#[test]
fn a_receiver_that_dies_and_comes_back_has_all_totals() {
    for (protocol, temporality) in [
        (Protocol::Http, Temporality::Cumulative),
        (Protocol::Grpc, Temporality::Cumulative),
        (Protocol::Http, OVER),
        (Protocol::Grpc, OVER),
    ] {
        let sink = Sink::new();
        runtime(async {
            let (server, settings) = serve(&sink, protocol);
            let settings = Settings {
                temporality,
                ..settings
            };
            let address = server.address.to_string();
            let mut watch = Watch::new(&sink, settings, &young_app());
            assert!(matches!(watch.push().await, Outcome::Delivered { .. }));
            server.kill().await;
            for _ in 0..10 {
                watch.go_on(1000);
                let outcome = watch.push().await;
                assert!(
                    matches!(outcome, Outcome::Failed { after: None, .. }),
                    "{outcome:?}"
                );
            }
            watch.go_on(7);
            let (_server, _) = serve_at(&sink, protocol, &address);
            let outcome = watch.push().await;
            assert!(matches!(outcome, Outcome::Delivered { .. }), "{outcome:?}");
            watch.assert_totals();
            assert_eq!(
                (watch.outcomes("delivered"), watch.outcomes("failed")),
                (2, 10)
            );
        });
    }
}

#[test]
fn a_receiver_that_asks_for_patience_gets_it_and_then_all_totals() {
    for protocol in BOTH {
        let sink = Sink::new();
        runtime(async {
            let (_server, settings) = serve(&sink, protocol);
            let mut watch = Watch::new(&sink, settings, &young_app());
            let now = Instant::now();
            let mut schedule = Schedule::new(Duration::from_secs(15), now);
            sink.then(&[Does::Throttles(120), Does::Refuses(503), Does::Takes]);
            let outcome = watch.push().await;
            let Outcome::Failed { after, .. } = &outcome else {
                panic!("{outcome:?}");
            };
            assert_eq!(*after, Some(Duration::from_secs(120)));
            schedule.follow(&outcome, now);
            assert!(schedule.due() >= now + Duration::from_secs(120));
            watch.go_on(5);
            assert!(matches!(
                watch.push().await,
                Outcome::Failed { after: None, .. }
            ));
            watch.go_on(5);
            assert!(matches!(watch.push().await, Outcome::Delivered { .. }));
            watch.assert_totals();
        });
    }
}

#[test]
fn a_receiver_that_hangs_is_given_up_and_later_has_all_totals() {
    for protocol in BOTH {
        let sink = Sink::new();
        runtime(async {
            let (_server, settings) = serve(&sink, protocol);
            let impatient = Settings {
                timeout: Duration::from_millis(200),
                ..settings
            };
            let mut watch = Watch::new(&sink, impatient, &young_app());
            sink.then(&[Does::Hangs, Does::Hangs, Does::Hangs]);
            for _ in 0..3 {
                let outcome = watch.push().await;
                let Outcome::Failed { reason, .. } = outcome else {
                    panic!("{outcome:?}");
                };
                assert_eq!(reason, "the receiver did not answer within 0.2 s");
                watch.go_on(1);
            }
            // However slow this machine is now.
            while !matches!(watch.push().await, Outcome::Delivered { .. }) {}
            watch.assert_totals();
        });
    }
}

/// A gRPC receiver knows the deadline. If this process checks late, the receiver's error comes
/// first.
#[test]
fn deadline_that_the_receiver_notices_first_is_the_same_failure() {
    let sink = Sink::new();
    runtime(async {
        let (_server, settings) = serve(&sink, Protocol::Grpc);
        let settings = Settings {
            timeout: Duration::from_millis(500),
            ..settings
        };
        let client = Client::new(&settings).unwrap();
        sink.then(&[Does::Hangs]);
        let answered = Cell::new(false);
        let send = async {
            let answer = client.send(Default::default()).await;
            answered.set(true);
            answer
        };
        let keep_busy = async {
            while sink.seen() == 0 && !answered.get() {
                tokio::task::yield_now().await;
            }
            // Blocks the thread that should check the deadline.
            if !answered.get() {
                eventually(|| (sink.abandoned() > 0).then_some(())).expect("it gives up");
            }
        };
        let (answer, ()) = tokio::join!(send, keep_busy);
        let Answer::Retry { reason, .. } = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(reason, "the receiver did not answer within 0.5 s");
    });
}

#[test]
fn increments_add_up_whatever_is_lost_between() {
    let sink = Sink::new();
    runtime(async {
        let (_server, settings) = serve(&sink, Protocol::Http);
        let delta = Settings {
            temporality: Temporality::Delta,
            ..settings
        };
        let mut watch = Watch::new(&sink, delta, &young_app());
        for (n, does) in [
            Does::Takes,
            Does::Throttles(1),
            Does::Takes,
            Does::Refuses(400),
            Does::Refuses(503),
            Does::Takes,
            Does::Takes,
        ]
        .into_iter()
        .enumerate()
        {
            watch.go_on(n as u64 * 11);
            sink.then(&[does]);
            watch.push().await;
        }
        watch.assert_totals();
        assert_eq!(watch.outcomes("refused"), 1);
    });
}

#[test]
fn a_partial_success_counts_and_is_not_sent_again() {
    for protocol in BOTH {
        let sink = Sink::new();
        runtime(async {
            let (_server, settings) = serve(&sink, protocol);
            let mut watch = Watch::new(&sink, settings, &young_app());
            sink.then(&[Does::Rejects(3)]);
            let outcome = watch.push().await;
            let Outcome::Delivered { points, rejected } = outcome else {
                panic!("{outcome:?}");
            };
            assert!(points > 100);
            assert_eq!((rejected, sink.seen()), (3, 1));
        });
    }
}

#[test]
fn an_endless_answer_is_not_read_to_its_end() {
    let sink = Sink::new();
    runtime(async {
        let (_server, settings) = serve(&sink, Protocol::Http);
        let mut watch = Watch::new(&sink, settings, &young_app());
        sink.then(&[Does::Floods]);
        let outcome = watch.push().await;
        let Outcome::Failed { reason, .. } = outcome else {
            panic!("{outcome:?}");
        };
        assert!(reason.contains("4 MiB"), "{reason}");
        assert!(matches!(watch.push().await, Outcome::Delivered { .. }));
    });
}

#[test]
fn a_page_is_no_delivery() {
    let sink = Sink::new();
    runtime(async {
        let (_server, settings) = serve(&sink, Protocol::Http);
        let mut watch = Watch::new(&sink, settings, &young_app());
        sink.then(&[Does::ShowsPage]);
        let outcome = watch.push().await;
        let Outcome::Refused { reason } = outcome else {
            panic!("{outcome:?}");
        };
        assert!(reason.contains("(text/html; charset=utf-8)"), "{reason}");
        assert_eq!(
            (watch.outcomes("delivered"), watch.outcomes("refused")),
            (0, 1)
        );
    });
}

#[test]
fn a_receiver_that_repeats_headers_puts_none_into_the_reason() {
    for protocol in BOTH {
        let sink = Sink::new();
        runtime(async {
            let (_server, settings) = serve(&sink, protocol);
            let password = HeaderSource::Value("correct horse".to_owned());
            let settings = Settings {
                headers: BTreeMap::from([(
                    "x-api-key".to_owned(),
                    HeaderSource::Value("battery-staple".to_owned()),
                )]),
                basic_auth: Some(vcpu_exporter::config::otlp::BasicAuth {
                    username: "user".to_owned(),
                    password,
                }),
                ..settings
            };
            let mut watch = Watch::new(&sink, settings, &young_app());
            sink.then(&[Does::Echoes]);
            let outcome = watch.push().await;
            let Outcome::Refused { reason } = outcome else {
                panic!("{outcome:?}");
            };
            assert!(reason.starts_with("the receiver answered "), "{reason}");
            assert!(
                reason.ends_with(": message omitted, because it quotes a header of the request")
            );
        });
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let (sink, other) = (Sink::new(), Sink::new());
    runtime(async {
        let (_server, settings) = serve(&sink, Protocol::Http);
        let (_elsewhere, elsewhere) = serve(&other, Protocol::Http);
        let mut watch = Watch::new(&sink, settings, &young_app());
        sink.then(&[Does::Redirects(elsewhere.url)]);
        let outcome = watch.push().await;
        let Outcome::Refused { reason } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(reason, "the receiver answered 307 Temporary Redirect");
        assert_eq!((sink.seen(), other.seen()), (1, 0));
    });
}

#[test]
fn headers_come_from_the_configuration_files_and_variables() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "  first \n").unwrap();
    for protocol in BOTH {
        let sink = Sink::new();
        runtime(async {
            let (_server, settings) = serve(&sink, protocol);
            let settings = Settings {
                headers: BTreeMap::from([
                    (
                        "x-tenant".to_owned(),
                        HeaderSource::Value("seven".to_owned()),
                    ),
                    ("x-key".to_owned(), HeaderSource::File(file.clone())),
                    ("x-path".to_owned(), HeaderSource::Env("PATH".to_owned())),
                ]),
                basic_auth: Some(vcpu_exporter::config::otlp::BasicAuth {
                    username: "123456".to_owned(),
                    password: HeaderSource::File(file.clone()),
                }),
                ..settings
            };
            std::fs::write(&file, "  first \n").unwrap();
            let mut watch = Watch::new(&sink, settings, &young_app());
            assert!(matches!(watch.push().await, Outcome::Delivered { .. }));
            assert_eq!(sink.header("x-tenant").as_deref(), Some("seven"));
            assert_eq!(sink.header("x-key").as_deref(), Some("first"));
            assert_eq!(sink.header("x-path"), std::env::var("PATH").ok());
            // RFC 7617: base64 of 123456:first
            assert_eq!(
                sink.header("authorization").as_deref(),
                Some("Basic MTIzNDU2OmZpcnN0")
            );
            let agent = sink.header("user-agent").unwrap();
            assert!(agent.starts_with("vcpu-exporter/"), "{agent}");
            std::fs::write(&file, "second").unwrap();
            assert!(matches!(watch.push().await, Outcome::Delivered { .. }));
            assert_eq!(
                sink.header("x-key").as_deref(),
                Some("second"),
                "a new key is taken"
            );
            std::fs::remove_file(&file).unwrap();
            assert!(matches!(watch.push().await, Outcome::Failed { .. }));
        });
    }
}
