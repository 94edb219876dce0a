//! Dates: every wording against the day it must mean, counted from Sunday, 1 March 2026.

use super::*;

fn reference() -> Reference {
    Reference::utc("2026-03-01T10:00:00Z".parse().expect("a moment"))
}

fn found(text: &str, direction: Direction) -> Vec<(String, Bearing)> {
    let days = |mention: Mention| (mention.time.start.to_string()[..16].to_owned(), mention.bearing);
    find_dates(text, &reference(), direction).into_iter().map(days).collect()
}

#[test]
fn dates_mean_the_day_they_name() {
    for (text, day) in [
        ("on 2027-03-14", "2027-03-14T00:00"),
        ("12 July", "2026-07-12T00:00"),
        ("the 12th of July 2031", "2031-07-12T00:00"),
        ("July 12th, 2027", "2027-07-12T00:00"),
        ("Jan 3", "2027-01-03T00:00"),
        ("in March 2027", "2027-03-01T00:00"),
        ("in January", "2027-01-01T00:00"),
        ("in 2019", "2019-01-01T00:00"),
        ("13.2.2027", "2027-02-13T00:00"),
        ("2/13/2027", "2027-02-13T00:00"),
        ("tomorrow", "2026-03-02T00:00"),
        ("the day after tomorrow", "2026-03-03T00:00"),
        ("yesterday", "2026-02-28T00:00"),
        ("next Monday", "2026-03-02T00:00"),
        ("next week", "2026-03-02T00:00"),
        ("last Friday", "2026-02-27T00:00"),
        ("next month", "2026-04-01T00:00"),
        ("last year", "2025-01-01T00:00"),
        ("in two weeks", "2026-03-15T00:00"),
        ("3 days ago", "2026-02-26T00:00"),
        ("on Friday", "2026-03-06T00:00"),
        ("tomorrow at 3pm", "2026-03-02T15:00"),
        ("on 12 July at 09:30", "2026-07-12T09:30"),
        ("2027年3月14日", "2027-03-14T00:00"),
        ("明天", "2026-03-02T00:00"),
        ("29 February", "2028-02-29T00:00"),
    ] {
        assert_eq!(found(text, Direction::Later), [(day.to_owned(), Bearing::At)], "{text:?}");
    }
}

#[test]
fn what_is_told_as_past_lies_in_the_past() {
    assert_eq!(found("met on 12 July", Direction::Earlier)[0].0, "2025-07-12T00:00");
    assert_eq!(found("met on Friday", Direction::Earlier)[0].0, "2026-02-27T00:00");
    assert_eq!(found("met in May", Direction::Earlier)[0].0, "2025-05-01T00:00");
}

#[test]
fn the_word_before_a_date_says_what_it_does() {
    assert_eq!(found("since 2019", Direction::Later), [("2019-01-01T00:00".to_owned(), Bearing::Since)]);
    assert_eq!(found("from March 2027", Direction::Later)[0].1, Bearing::Since);
    assert_eq!(found("until next Friday", Direction::Later), [("2026-03-06T00:00".to_owned(), Bearing::Until)]);
    assert_eq!(found("every Friday", Direction::Later)[0].1, Bearing::Recurring);
    assert_eq!(found("on Fridays", Direction::Later)[0].1, Bearing::Recurring);
}

#[test]
fn what_is_no_date_is_not_one() {
    for text in
        ["code 4471", "version 2.10.5", "31 February", "2027-13-40", "2/3/2027", "maybe", "room 12", "May I", "the sun"]
    {
        assert_eq!(found(text, Direction::Later), [], "{text:?}");
    }
}

#[test]
fn words_that_age_are_written_out() {
    for (text, written) in [
        ("I fly tomorrow at 3pm.", "I fly on 2 March 2026 at 3pm."),
        ("It is due by tomorrow.", "It is due by 2 March 2026."),
        ("I am away until next week.", "I am away until the week of 2 March 2026."),
        ("I met Anna last night.", "I met Anna on the night of 28 February 2026."),
        ("On next Friday we meet.", "On Friday, 6 March 2026 we meet."),
        ("I moved last year.", "I moved in 2025."),
        ("I ate at tomorrow's place.", "I ate at tomorrow's place."),
        ("The meeting is on Monday.", "The meeting is on Monday."),
        ("我明天去北京。", "我2026年3月2日去北京。"),
    ] {
        assert_eq!(with_absolute_dates(text, &find_dates(text, &reference(), Direction::Later)), written);
    }
}

#[test]
fn the_speakers_clock_decides_what_today_is() {
    let now = "2026-03-01T23:30:00Z".parse().expect("a moment");
    let ahead = Reference::with_offset(now, 120).expect("an offset");
    let today = &find_dates("today", &ahead, Direction::Later)[0];
    assert_eq!(today.time.start.to_string(), "2026-03-01T22:00:00.000Z");
    assert!(Reference::with_offset(now, 5000).is_err());
    assert!(Reference::with_offset(now, i32::MAX).is_err());
}

#[test]
fn the_ends_of_the_calendar_are_no_panic() {
    for year in ["-9999-01-02T00:00:00Z", "9999-12-30T22:00:00Z"] {
        let Ok(now) = year.parse() else { continue };
        for text in [
            "tomorrow",
            "yesterday",
            "in 999 years",
            "999 years ago",
            "next year",
            "last Monday",
            "on 31 December 9999",
        ] {
            let _ = find_dates(text, &Reference::utc(now), Direction::Later);
        }
    }
}
