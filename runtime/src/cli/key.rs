//! `memos key`: makes, lists and revokes API keys, also while a server runs.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::{Args, Subcommand};
use memory::governance::{KeyStore, Role, TenantName};

use crate::data_dir;
use crate::environment::Environment;

/// Arguments of `memos key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
    /// Data directory of the server; by default $MEMOS_DATA_DIR, else the user's data directory
    #[arg(long, global = true, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Key file, if it is not the one in the data directory
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key and show it once; only its hash is kept
    Create {
        /// Whose data the key opens: letters, digits, '-', '_' or '.'
        #[arg(long, default_value = "default")]
        tenant: TenantName,
        /// What the key allows: admin (everything, figures of all tenants included), user (generate), reader (only look)
        #[arg(long, default_value = "user")]
        role: Role,
    },
    /// List all keys: id, tenant, role, when made, whether revoked
    List,
    /// Revoke a key for good; a running server notices within a second
    Revoke {
        /// Id of the key, as `memos key list` shows it
        id: String,
    },
}

/// Runs the command.
///
/// # Errors
/// The key file cannot be found, read or written, or there is no such key.
pub fn run(args: KeyArgs, environment: &Environment) -> anyhow::Result<()> {
    let path = match (args.key_file, args.data_dir.or_else(|| environment.data_dir.clone())) {
        (Some(file), _) => file,
        (None, Some(folder)) => data_dir::keys_path(&folder),
        (None, None) => {
            anyhow::bail!("no data directory: give --data-dir or --key-file, or set MEMOS_DATA_DIR or HOME")
        }
    };
    match args.command {
        KeyCommand::Create { tenant, role } => {
            let new = KeyStore::create(&path, tenant, role).context("cannot make the key")?;
            let record = &new.record;
            eprintln!(
                "{} for tenant {} with role {}. The key is shown this once:",
                record.id, record.tenant, record.role
            );
            println!("{}", new.key.expose());
        }
        KeyCommand::List => {
            let records = KeyStore::list(&path).context("cannot list the keys")?;
            println!("{:<20}  {:<16}  {:<6}  {:<20}  REVOKED", "ID", "TENANT", "ROLE", "CREATED");
            for record in &records {
                let created = utc_text(record.created_unix_s);
                let revoked = record.revoked_unix_s.map_or_else(|| "-".to_owned(), utc_text);
                let tenant = record.tenant.as_str();
                println!("{:<20}  {tenant:<16}  {:<6}  {created:<20}  {revoked}", record.id, record.role);
            }
        }
        KeyCommand::Revoke { id } => {
            let record = KeyStore::revoke(&path, &id).context("cannot revoke the key")?;
            eprintln!("{} of tenant {} is revoked", record.id, record.tenant);
        }
    }
    Ok(())
}

/// A Unix time as `2026-01-31T12:00:00Z`; what lies beyond the range of the system's clock is shown as seconds.
fn utc_text(unix_s: u64) -> String {
    if SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(unix_s)).is_none() {
        return format!("{unix_s} s");
    }
    let (days, seconds) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, day) = civil_date(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar. Counted from 1 March, where
/// the leap day is the last of its year (Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
fn civil_date(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(utc_text(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc_text(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc_text(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc_text(1_767_225_599), "2025-12-31T23:59:59Z");
        assert_eq!(utc_text(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn keys_are_made_listed_and_revoked() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("keys.json");
        let run = |command| {
            let args = KeyArgs { command, data_dir: None, key_file: Some(file.clone()) };
            super::run(args, &Environment::default())
        };
        let tenant: TenantName = "acme".parse().expect("valid");
        run(KeyCommand::Create { tenant, role: Role::Reader }).expect("made");
        run(KeyCommand::List).expect("listed");
        let id = KeyStore::list(&file).expect("listed")[0].id.clone();
        run(KeyCommand::Revoke { id }).expect("revoked");
        assert!(KeyStore::list(&file).expect("listed")[0].revoked_unix_s.is_some());
        assert!(run(KeyCommand::Revoke { id: "key-0".to_owned() }).is_err());
    }
}
