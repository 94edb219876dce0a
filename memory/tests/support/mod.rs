//! What the tests of the boundary have in common: a data folder, actors, and seeded randomness.

use std::path::Path;

use memory::Clock;
use memory::governance::quota::{Quota, QuotaBook};
use memory::governance::retention::RetentionRules;
use memory::governance::{Actor, AuditKey, Identity, PolicyEngine, Role};
use memory::memories::{Memories, MemoriesParts};

/// Somebody inside a tenant.
pub fn actor(tenant: &str, role: Role, user: Option<&str>, agent: Option<&str>) -> Actor {
    let identity = Identity { tenant: tenant.parse().expect("a tenant"), role };
    Actor::new(identity, user, agent).expect("valid names")
}

/// The memory of a server whose data is in this folder, with no cube mounted.
pub fn open(folder: &Path, clock: Clock) -> Memories {
    for name in ["cubes", "heads"] {
        std::fs::create_dir_all(folder.join(name)).expect("a folder");
    }
    Memories::new(MemoriesParts {
        folder: folder.join("cubes"),
        heads_folder: folder.join("heads"),
        clock,
        policy: PolicyEngine::builtin(),
        audit_key: AuditKey::from_seed(&[7; 32]),
        quotas: QuotaBook::new(Quota::default(), std::collections::HashMap::new()),
        redactor: None,
        retention: RetentionRules::none(),
        embedder: None,
    })
}

/// SplitMix64 (Steele et al., 2014).
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// A word that no other number gives, and that no stemmer changes into another.
#[allow(dead_code, reason = "shared by several test programs, not all of which use it")]
pub fn word(mut number: u64) -> String {
    const LETTERS: &[u8; 10] = b"bcfghjklmn";
    let mut word = String::from("zq");
    while number > 0 {
        word.push(char::from(LETTERS[(number % 10) as usize]));
        number /= 10;
    }
    word.push('k');
    word
}
