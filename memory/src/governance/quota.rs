//! Storage quotas: how many items and bytes a tenant may keep over all its cubes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::TenantName;
use super::error::GovernanceError;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaResource {
    /// Memories, whatever their state.
    Items,
    /// Bytes of text and metadata, over all versions.
    Bytes,
}

impl fmt::Display for QuotaResource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Items => "items",
            Self::Bytes => "bytes",
        })
    }
}

/// An amount of storage: used, asked for, or allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// Number of items.
    pub num_items: u64,
    /// Bytes of text and metadata.
    pub bytes: u64,
}

impl Storage {
    fn plus(self, other: Self) -> Self {
        Self {
            num_items: self.num_items.saturating_add(other.num_items),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            num_items: self.num_items.saturating_sub(other.num_items),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// What a tenant may keep; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Most items.
    #[serde(default)]
    pub num_items_max: Option<u64>,
    /// Most bytes.
    #[serde(default)]
    pub bytes_max: Option<u64>,
}

impl Quota {
    /// Whether `asked` fits beside `used`. Asking for nothing always fits, so that a tenant above a lowered quota can
    /// still edit and erase.
    ///
    /// # Errors
    /// It does not fit; the error names what is used, asked for and allowed.
    pub fn check(&self, used: Storage, asked: Storage) -> Result<(), GovernanceError> {
        let resources = [
            (QuotaResource::Items, self.num_items_max, used.num_items, asked.num_items),
            (QuotaResource::Bytes, self.bytes_max, used.bytes, asked.bytes),
        ];
        for (resource, limit, used, asked) in resources {
            let Some(limit) = limit else { continue };
            if asked > 0 && used.saturating_add(asked) > limit {
                return Err(GovernanceError::QuotaExceeded { resource, used, asked, limit });
            }
        }
        Ok(())
    }
}

/// What every tenant uses, over all mounted cubes. Writers reserve before they write, so that two cubes of one tenant
/// cannot together exceed its quota.
#[derive(Debug, Default)]
pub struct QuotaBook {
    default_quota: Quota,
    quotas: HashMap<TenantName, Quota>,
    used: Mutex<HashMap<TenantName, Storage>>,
}

/// Storage set aside for a write that is under way. Dropping it gives it back; [`Reservation::commit`] keeps it.
#[must_use = "a dropped reservation is given back"]
#[derive(Debug)]
pub struct Reservation<'book> {
    book: &'book QuotaBook,
    tenant: TenantName,
    asked: Storage,
}

impl QuotaBook {
    /// A book in which nothing is used; tenants without a quota of their own have the default.
    pub fn new(default_quota: Quota, quotas: HashMap<TenantName, Quota>) -> Self {
        Self { default_quota, quotas, used: Mutex::default() }
    }

    /// What the tenant may keep.
    pub fn quota(&self, tenant: &TenantName) -> Quota {
        self.quotas.get(tenant).copied().unwrap_or(self.default_quota)
    }

    /// What the tenant uses, reservations included.
    pub fn used(&self, tenant: &TenantName) -> Storage {
        self.lock().get(tenant).copied().unwrap_or_default()
    }

    /// Counts what is in a cube that is mounted now; no quota refuses what is there already.
    pub fn add(&self, tenant: &TenantName, storage: Storage) {
        let mut used = self.lock();
        let entry = used.entry(tenant.clone()).or_default();
        *entry = entry.plus(storage);
    }

    /// Takes off what was erased, or is in a cube that is unmounted now.
    pub fn remove(&self, tenant: &TenantName, storage: Storage) {
        let mut used = self.lock();
        let Some(entry) = used.get_mut(tenant) else { return };
        *entry = entry.minus(storage);
        if *entry == Storage::default() {
            used.remove(tenant);
        }
    }

    /// Sets storage aside for a write.
    ///
    /// # Errors
    /// It does not fit into the quota.
    pub fn reserve(&self, tenant: &TenantName, asked: Storage) -> Result<Reservation<'_>, GovernanceError> {
        let mut used = self.lock();
        let current = used.get(tenant).copied().unwrap_or_default();
        self.quota(tenant).check(current, asked)?;
        used.insert(tenant.clone(), current.plus(asked));
        Ok(Reservation { book: self, tenant: tenant.clone(), asked })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantName, Storage>> {
        // Nothing panics while the lock is held; were it to, the figures would still be whole.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation<'_> {
    /// The write is durable: the storage is used from now on.
    pub fn commit(mut self) {
        self.asked = Storage::default();
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.book.remove(&self.tenant, self.asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(num_items: u64) -> Storage {
        Storage { num_items, bytes: num_items * 10 }
    }

    #[test]
    fn a_quota_is_full_exactly_at_its_limit() {
        let quota = Quota { num_items_max: Some(3), bytes_max: Some(100) };
        quota.check(items(2), items(1)).expect("it fits");
        let error = quota.check(items(3), items(1)).expect_err("full");
        assert_eq!(error.to_string(), "the quota of items is 3: 3 are used and 1 more were asked for");
        let large = Storage { num_items: 1, bytes: 101 };
        let error = quota.check(Storage::default(), large).expect_err("too many bytes");
        assert!(matches!(error, GovernanceError::QuotaExceeded { resource: QuotaResource::Bytes, .. }), "{error}");
        quota.check(items(50), Storage::default()).expect("asking for nothing fits");
        let huge = Storage { num_items: u64::MAX, bytes: u64::MAX };
        assert!(quota.check(huge, huge).is_err(), "no overflow");
        Quota::default().check(huge, huge).expect("no limit");
    }

    #[test]
    fn reservations_count_until_they_are_given_back() {
        let acme: TenantName = "acme".parse().expect("a tenant");
        let quotas = HashMap::from([(acme.clone(), Quota { num_items_max: Some(2), bytes_max: None })]);
        let book = QuotaBook::new(Quota::default(), quotas);
        let first = book.reserve(&acme, items(1)).expect("it fits");
        let second = book.reserve(&acme, items(1)).expect("it fits");
        assert!(book.reserve(&acme, items(1)).is_err(), "two are under way");
        drop(first);
        book.reserve(&acme, items(1)).expect("one was given back").commit();
        second.commit();
        assert_eq!(book.used(&acme), items(2));
        book.remove(&acme, items(2));
        assert_eq!(book.used(&acme), Storage::default());
        let beta: TenantName = "beta".parse().expect("a tenant");
        book.reserve(&beta, items(1_000)).expect("another tenant has the default").commit();
    }

    #[test]
    fn writers_at_the_same_time_never_exceed_the_quota() {
        let acme: TenantName = "acme".parse().expect("a tenant");
        let book = QuotaBook::new(Quota { num_items_max: Some(100), bytes_max: None }, HashMap::new());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        if let Ok(reservation) = book.reserve(&acme, items(1)) {
                            reservation.commit();
                        }
                    }
                });
            }
        });
        assert_eq!(book.used(&acme), items(100));
    }
}
