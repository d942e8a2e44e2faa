use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use crate::cli::top::fixture::three;

/// A server that answers the first request.
fn server(status: &str, body: Vec<u8>) -> Exporter {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1000];
        let n = stream.read(&mut request).unwrap();
        assert!(request[..n].starts_with(b"GET /api/view HTTP/1.1\r\n"));
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&body);
    });
    Exporter::new(Address::parse(&address).unwrap()).unwrap()
}

fn useless(exporter: &Exporter) -> String {
    match exporter.ask() {
        Err(NoView::Useless(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn not_yet(exporter: &Exporter) -> String {
    match exporter.ask() {
        Err(NoView::NotYet(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn view_survives_a_round_trip() {
    let view = three();
    let exporter = server("200 OK", serde_json::to_vec(&view).unwrap());
    assert_eq!(exporter.ask(), Ok(view));
}

#[test]
fn missing_view_and_garbage_have_their_own_messages() {
    let text = useless(&server("404 Not Found", b"x".to_vec()));
    assert!(text.contains("no /api/view"), "{text}");
    for garbage in [&b"<html>"[..], b"{}", b"", b"[[[[", b"\xff\0"] {
        let text = useless(&server("200 OK", garbage.to_vec()));
        assert!(text.contains("unknown format"), "{text}");
    }
    let text = useless(&server("301 Moved Permanently", vec![]));
    assert!(text.contains("301"), "{text}");
}

#[test]
fn an_exporter_before_its_first_tick_will_have_a_view() {
    let text = not_yet(&server("503 Service Unavailable", vec![]));
    assert!(text.contains("503"), "{text}");
}

#[test]
fn length_of_an_answer_is_limited() {
    let text = not_yet(&server("200 OK", vec![b' '; MOST + 1]));
    assert!(text.contains("length limit"), "{text}");
}

#[test]
fn truncated_answer_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || drop(listener.accept().unwrap()));
    let exporter = Exporter::new(Address::parse(&address).unwrap()).unwrap();
    let text = not_yet(&exporter);
    assert!(text.contains("did not answer"), "{text}");
}

#[test]
fn refused_connection_means_no_exporter() {
    // Bound, so that no other process gets the port, but not listening.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::local(listener.local_addr().unwrap());
    drop(listener);
    let trouble = Exporter::new(address).unwrap().ask().unwrap_err();
    assert!(matches!(trouble, NoView::NoAnswer { .. }), "{trouble:?}");
    assert!(trouble.to_string().contains("refused"), "{trouble}");
}

#[test]
fn addresses_are_what_people_type() {
    let shown = |text| Address::parse(text).map(|a| (a.shown, a.view.to_string()));
    let expected = (
        "http://h:9752".to_owned(),
        "http://h:9752/api/view".to_owned(),
    );
    for text in ["http://h:9752", "http://h:9752/", "h:9752"] {
        assert_eq!(shown(text), Ok(expected.clone()), "{text}");
    }
    let below = shown("http://h/kvm/").unwrap().1;
    assert_eq!(below, "http://h/kvm/api/view");
    for wrong in [
        "",
        "https://h",
        "ftp://h",
        "http://",
        "http://a:b@h",
        "http://h?x",
        "a b",
    ] {
        assert!(shown(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn wildcard_address_becomes_localhost() {
    let local = |text: &str| Address::local(text.parse().unwrap()).view.to_string();
    assert_eq!(local("0.0.0.0:1"), "http://127.0.0.1:1/api/view");
    assert_eq!(local("[::]:1"), "http://[::1]:1/api/view");
    assert_eq!(local("192.0.2.1:1"), "http://192.0.2.1:1/api/view");
}
