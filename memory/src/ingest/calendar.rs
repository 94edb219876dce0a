//! The calendar behind dates in text: where a moment lies for the person who speaks, and spans of days around it.

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::Offset;
use jiff::{Span, civil};

use super::IngestError;
use crate::Timestamp;

/// The moment that "tomorrow" counts from, and how far the speaker's clock is from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    now: Timestamp,
    offset: Offset,
}

/// A stretch of time, its end exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeSpan {
    /// First moment.
    pub start: Timestamp,
    /// First moment that does not belong to it.
    pub end: Timestamp,
}

impl TimeSpan {
    /// Whether the two share a moment.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl Reference {
    /// For a speaker whose clock shows UTC.
    pub fn utc(now: Timestamp) -> Self {
        Self { now, offset: Offset::UTC }
    }

    /// For a speaker whose clock is this many minutes ahead of UTC.
    ///
    /// # Errors
    /// `InvalidOffset` for more than a day.
    pub fn with_offset(now: Timestamp, offset_minutes: i32) -> Result<Self, IngestError> {
        let invalid = IngestError::InvalidOffset { minutes: offset_minutes };
        let offset = offset_minutes.checked_mul(60).and_then(|seconds| Offset::from_seconds(seconds).ok());
        Ok(Self { now, offset: offset.ok_or(invalid)? })
    }

    /// The moment itself.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The day that the speaker's calendar shows.
    pub(super) fn today(&self) -> Option<Date> {
        let now = jiff::Timestamp::from_millisecond(self.now.unix_ms()).ok()?;
        Some(self.offset.to_datetime(now).date())
    }

    /// The days from the first to the one before `end`.
    pub(super) fn days(&self, start: Date, end: Date) -> Option<TimeSpan> {
        Some(TimeSpan { start: self.moment(start, Time::midnight())?, end: self.moment(end, Time::midnight())? })
    }

    /// An hour from this time of the day on.
    pub(super) fn hour(&self, day: Date, hour: i8, minute: i8) -> Option<TimeSpan> {
        let start = self.moment(day, Time::new(hour, minute, 0, 0).ok()?)?;
        Some(TimeSpan { start, end: Timestamp::from_unix_ms(start.unix_ms() + 3_600_000)? })
    }

    fn moment(&self, day: Date, time: Time) -> Option<Timestamp> {
        let moment = self.offset.to_timestamp(civil::DateTime::from_parts(day, time)).ok()?;
        Timestamp::from_unix_ms(moment.as_millisecond())
    }
}

/// This many days later, or earlier.
pub(super) fn plus_days(day: Date, num_days: i64) -> Option<Date> {
    day.checked_add(Span::new().try_days(num_days).ok()?).ok()
}

/// This many months later, or earlier.
pub(super) fn plus_months(day: Date, num_months: i64) -> Option<Date> {
    day.checked_add(Span::new().try_months(num_months).ok()?).ok()
}

/// The Monday of the week.
pub(super) fn week_of(day: Date) -> Option<Date> {
    plus_days(day, -i64::from(day.weekday().to_monday_zero_offset()))
}

/// The nearest such day of the week after this day (`later`), or before it.
pub(super) fn weekday_from(day: Date, wanted: Weekday, later: Direction) -> Option<Date> {
    let ahead = i64::from(wanted.to_monday_zero_offset() - day.weekday().to_monday_zero_offset()).rem_euclid(7);
    match later {
        Direction::Later => plus_days(day, if ahead == 0 { 7 } else { ahead }),
        Direction::Earlier => plus_days(day, if ahead == 0 { -7 } else { ahead - 7 }),
    }
}

/// Which way from today a date without a year or week is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// In what is told as past.
    Earlier,
    /// Otherwise.
    Later,
}

/// "2 March 2026".
pub(super) fn spelled(day: Date) -> String {
    format!("{} {} {}", day.day(), month_name(day.month()), day.year())
}

/// "March".
pub(super) fn month_name(month: i8) -> &'static str {
    const NAMES: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    usize::try_from(month - 1).ok().and_then(|index| NAMES.get(index)).copied().unwrap_or("")
}

/// 1 to 12 for a name or its first letters.
pub(super) fn month_number(name: &str) -> Option<i8> {
    let lower = name.to_lowercase();
    (1..=12).find(|&month| {
        let full = month_name(month).to_lowercase();
        full == lower || (lower.len() >= 3 && lower.len() <= 4 && full.starts_with(&lower))
    })
}

/// The day of the week of this name.
pub(super) fn weekday_named(name: &str) -> Option<Weekday> {
    let start: String = name.to_lowercase().chars().take(3).collect();
    Some(match start.as_str() {
        "mon" => Weekday::Monday,
        "tue" => Weekday::Tuesday,
        "wed" => Weekday::Wednesday,
        "thu" => Weekday::Thursday,
        "fri" => Weekday::Friday,
        "sat" => Weekday::Saturday,
        "sun" => Weekday::Sunday,
        _ => return None,
    })
}
