//! The snapshots that the handle keeps.

use super::fixture::empty;
use super::*;

#[test]
fn window_is_5_to_10_s_and_each_tick_returns_one_snapshot() {
    let (handle, start) = (Handle::default(), Instant::now());
    let publish = |second: u64| handle.publish(Arc::new(empty(start, Duration::from_secs(second))));
    assert!(publish(0).is_none());
    assert!(handle.window().is_none(), "one snapshot has no deltas");
    for second in 1..=60 {
        let back = publish(second);
        assert_eq!(back.is_some(), second != 1 && second != 5, "{second}");
        let (base, newest) = handle.window().unwrap();
        let span = (newest.taken_mono - base.taken_mono).as_secs();
        assert!(
            (5..10).contains(&span) || second < 5,
            "{span} s at {second}"
        );
        let back = back.map(|back| Arc::strong_count(&back));
        assert!(
            back.is_none_or(|holders| holders == 1),
            "no other reference exists"
        );
    }
}

#[test]
fn ticks_longer_than_the_rotation_have_a_window_of_two() {
    let (handle, start) = (Handle::default(), Instant::now());
    for tick in 0..6 {
        handle.publish(Arc::new(empty(start, Duration::from_secs(tick * 30))));
    }
    let (base, newest) = handle.window().unwrap();
    assert_eq!((newest.taken_mono - base.taken_mono).as_secs(), 60);
}
