use super::*;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

fn seat(table: &Table, peer: IpAddr) -> Seat {
    match table.admit(peer) {
        Admission::Seat(seat) => seat,
        other => panic!("{other:?}"),
    }
}

fn is_there(seat: &Seat) -> bool {
    seat.table.clients().contains_key(&seat.number)
}

/// The client has read nothing of an answer for `ms`.
fn stalls(seat: &Seat, ms: u64) {
    let since = Instant::now() - Duration::from_millis(ms);
    seat.client.set(Phase::Answer {
        begun: since,
        progress: since,
        blocked: true,
    });
}

fn waits(seat: &Seat, ms: u64) {
    let begun = Instant::now() - Duration::from_millis(ms);
    seat.client.set(Phase::Request { begun, bytes: 0 });
}

#[tokio::test]
async fn the_longest_idle_of_the_address_with_most_connections_makes_room() {
    let table = Table::new(4);
    let [a, b, c, d] = [A, B, B, B].map(|peer| seat(&table, peer));
    waits(&a, 9000);
    waits(&c, 5000);
    let e = seat(&table, A);
    assert_eq!(
        [&a, &b, &c, &d, &e].map(is_there),
        [true, true, false, true, true]
    );
    c.client.is_out().await;
    drop(c);
    assert_eq!(table.clients().len(), 4);
}

#[test]
fn busy_and_reading_clients_keep_their_place() {
    let table = Table::new(2);
    let [a, b] = [A, A].map(|peer| seat(&table, peer));
    a.client.works();
    stalls(&b, 100);
    assert!(matches!(table.admit(A), Admission::Later));
    assert!(table.is_full());
    stalls(&b, 5000);
    let _c = seat(&table, A);
    assert!(is_there(&a) && !is_there(&b));
}

#[test]
fn one_address_leaves_a_quarter_to_others() {
    let table = Table::new(4);
    let busy = [A, A, A].map(|peer| seat(&table, peer));
    busy.iter().for_each(|seat| seat.client.works());
    let b = seat(&table, B);
    // It is idle, and would make room for an address below its share.
    assert!(matches!(table.admit(A), Admission::Never));
    let _c = seat(&table, B);
    assert!(!is_there(&b) && busy.iter().all(is_there));
}

#[test]
fn body_that_no_client_reads_is_freed() {
    let table = Table::new(8);
    let [a, b, c, d, page] = [A, A, A, A, A].map(|peer| seat(&table, peer));
    let body = |number| {
        let kind = BodyKind::Scrape;
        Some(BodyId { kind, number })
    };
    // The longest stall of all, but another client reads the same body.
    for (seat, number, ms) in [(&a, 1, 9000), (&b, 1, 10), (&c, 2, 3000), (&d, 2, 4000)] {
        seat.client.takes(body(number));
        stalls(seat, ms);
    }
    let (kind, number) = (BodyKind::Page, 0);
    page.client.takes(Some(BodyId { kind, number }));
    stalls(&page, 9000);
    assert_eq!(table.free_body(BodyKind::Scrape), 2);
    assert_eq!(
        [&a, &b, &c, &d, &page].map(is_there),
        [true, true, false, false, true]
    );
    assert_eq!(table.free_body(BodyKind::Page), 1);
    assert_eq!(table.free_body(BodyKind::Page), 0);
}

#[test]
fn a_network_of_ipv6_is_one_client() {
    let of = |text: &str| network(text.parse().unwrap());
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:1"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    assert_eq!(of("::ffff:192.0.2.1"), A);
}
