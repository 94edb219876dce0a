//! Who acts, and whom a grant is for: a tenant from its API key, and the user and agent asserted inside it.

use std::fmt::{self, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{GovernanceError, cut};
use super::{Identity, Role, TenantName};
use crate::item::LABEL_BYTES_MAX;

/// Greatest length of a user or agent name in bytes.
pub const SCOPE_NAME_BYTES_MAX: usize = LABEL_BYTES_MAX;
/// Greatest length of an actor's canonical name: every byte of both names may be escaped.
pub const ACTOR_NAME_BYTES_MAX: usize = 64 + 2 * ("/agent:".len() + 3 * SCOPE_NAME_BYTES_MAX);

const USER_MARK: &str = "/user:";
const AGENT_MARK: &str = "/agent:";

/// Who acts. The tenant and the role come from the API key; user and agent are what the tenant says about itself, so
/// they narrow and name, but never open another tenant's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    tenant: TenantName,
    role: Role,
    user: Option<String>,
    agent: Option<String>,
}

impl Actor {
    /// The tenant itself, for no user or agent in particular.
    pub fn of_tenant(identity: Identity) -> Self {
        Self { tenant: identity.tenant, role: identity.role, user: None, agent: None }
    }

    /// Somebody inside the tenant.
    ///
    /// # Errors
    /// A name that is empty, too long, or holds control or invisible characters.
    pub fn new(identity: Identity, user: Option<&str>, agent: Option<&str>) -> Result<Self, GovernanceError> {
        let checked = |what, name: Option<&str>| name.map(|name| check_scope_name(what, name)).transpose();
        Ok(Self { user: checked("user", user)?, agent: checked("agent", agent)?, ..Self::of_tenant(identity) })
    }

    /// Whose key was presented.
    pub fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// What the key allows.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The user that the tenant named.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The agent that the tenant named.
    pub fn agent(&self) -> Option<&str> {
        self.agent.as_deref()
    }

    /// The subjects whose grants this actor enjoys: the tenant, and each name that was asserted inside it.
    pub fn subjects(&self) -> Vec<Subject> {
        let tenant = &self.tenant;
        let user = self.user.iter().map(|user| Subject::User { tenant: tenant.clone(), user: user.clone() });
        let agent = self.agent.iter().map(|agent| Subject::Agent { tenant: tenant.clone(), agent: agent.clone() });
        std::iter::once(Subject::Tenant(tenant.clone())).chain(user).chain(agent).collect()
    }
}

impl fmt::Display for Actor {
    /// The canonical name, such as `acme/user:ann/agent:bot`. Different actors of one role have different names.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.tenant.as_str())?;
        if let Some(user) = &self.user {
            write!(formatter, "{USER_MARK}{}", escape(user))?;
        }
        if let Some(agent) = &self.agent {
            write!(formatter, "{AGENT_MARK}{}", escape(agent))?;
        }
        Ok(())
    }
}

/// Whom a grant is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// Everybody in a tenant.
    Tenant(TenantName),
    /// One user of a tenant.
    User {
        /// The tenant.
        tenant: TenantName,
        /// The user's name inside it.
        user: String,
    },
    /// One agent of a tenant.
    Agent {
        /// The tenant.
        tenant: TenantName,
        /// The agent's name inside it.
        agent: String,
    },
}

impl Subject {
    /// A user of a tenant.
    ///
    /// # Errors
    /// A name that no user can have.
    pub fn user(tenant: TenantName, user: &str) -> Result<Self, GovernanceError> {
        Ok(Self::User { tenant, user: check_scope_name("user", user)? })
    }

    /// An agent of a tenant.
    ///
    /// # Errors
    /// A name that no agent can have.
    pub fn agent(tenant: TenantName, agent: &str) -> Result<Self, GovernanceError> {
        Ok(Self::Agent { tenant, agent: check_scope_name("agent", agent)? })
    }

    /// The tenant it is in.
    pub fn tenant(&self) -> &TenantName {
        match self {
            Self::Tenant(tenant) | Self::User { tenant, .. } | Self::Agent { tenant, .. } => tenant,
        }
    }

    /// The names under which the subject appears where actors and subjects are recorded.
    pub(super) fn names(&self) -> SubjectNames {
        let exact = self.to_string();
        let glob = match self {
            Self::Tenant(tenant) => format!("{tenant}/*"),
            Self::User { .. } => format!("{exact}{AGENT_MARK}*"),
            Self::Agent { tenant, agent } => format!("{tenant}{USER_MARK}*{AGENT_MARK}{}", escape(agent)),
        };
        SubjectNames { exact, glob }
    }

    /// Whether a grant for this subject is one for the actor.
    pub fn includes(&self, actor: &Actor) -> bool {
        self.tenant() == actor.tenant()
            && match self {
                Self::Tenant(_) => true,
                Self::User { user, .. } => actor.user() == Some(user),
                Self::Agent { agent, .. } => actor.agent() == Some(agent),
            }
    }
}

/// A subject's own canonical name, and an SQL GLOB for the names it is a part of. Canonical names hold none of the
/// characters that GLOB gives a meaning to.
pub(super) struct SubjectNames {
    pub(super) exact: String,
    pub(super) glob: String,
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.tenant().as_str())?;
        match self {
            Self::Tenant(_) => Ok(()),
            Self::User { user, .. } => write!(formatter, "{USER_MARK}{}", escape(user)),
            Self::Agent { agent, .. } => write!(formatter, "{AGENT_MARK}{}", escape(agent)),
        }
    }
}

impl FromStr for Subject {
    type Err = GovernanceError;

    /// Takes the canonical spelling only, so that one subject cannot be granted to, or revoked, under two names.
    fn from_str(text: &str) -> Result<Self, GovernanceError> {
        let invalid = || GovernanceError::InvalidSubject { text: cut(text) };
        if text.len() > ACTOR_NAME_BYTES_MAX {
            return Err(invalid());
        }
        let (tenant, rest) = text.split_at(text.find('/').unwrap_or(text.len()));
        let tenant: TenantName = tenant.parse().map_err(|_| invalid())?;
        let subject = if rest.is_empty() {
            Self::Tenant(tenant)
        } else if let Some(name) = rest.strip_prefix(USER_MARK) {
            Self::user(tenant, &unescape(name).ok_or_else(invalid)?)?
        } else if let Some(name) = rest.strip_prefix(AGENT_MARK) {
            Self::agent(tenant, &unescape(name).ok_or_else(invalid)?)?
        } else {
            return Err(invalid());
        };
        if subject.to_string() == text { Ok(subject) } else { Err(invalid()) }
    }
}

impl TryFrom<String> for Subject {
    type Error = GovernanceError;

    fn try_from(text: String) -> Result<Self, GovernanceError> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.to_string()
    }
}

fn check_scope_name(what: &'static str, name: &str) -> Result<String, GovernanceError> {
    let fits = !name.is_empty() && name.len() <= SCOPE_NAME_BYTES_MAX && name.trim() == name;
    if !fits || name.chars().any(is_invisible) {
        return Err(GovernanceError::InvalidScopeName { what, name: cut(name), max_len: SCOPE_NAME_BYTES_MAX });
    }
    Ok(name.to_owned())
}

/// Characters that change how a name looks, or nothing at all: two names that differ in them only look the same.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Percent-escapes every byte that is not an ASCII letter, digit or one of `-_.@+`. The marks of a canonical name are
/// thus never part of a name, and letters of other scripts that look like ASCII ones are told apart by the reader.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.@+".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("writing to a string cannot fail: this is a bug");
        }
    }
    escaped
}

fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let (high, low) = (digit(after.first()?)?, digit(after.get(1)?)?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(tenant: &str, user: Option<&str>, agent: Option<&str>) -> Actor {
        let identity = Identity { tenant: tenant.parse().expect("a tenant"), role: Role::User };
        Actor::new(identity, user, agent).expect("valid names")
    }

    #[test]
    fn names_are_canonical_and_cannot_be_spoofed() {
        assert_eq!(actor("acme", None, None).to_string(), "acme");
        assert_eq!(actor("acme", Some("ann"), None).to_string(), "acme/user:ann");
        assert_eq!(actor("acme", None, Some("bot")).to_string(), "acme/agent:bot");
        let tricky = ["ann/agent:bot", "ann%2Fagent:bot", "ann", "ann ann", "аnn", "田中", "a/user:b", "ann:x", "%"];
        let mut names: Vec<String> = Vec::new();
        for user in tricky {
            names.push(actor("acme", Some(user), None).to_string());
            names.push(actor("acme", None, Some(user)).to_string());
            names.push(actor("acme", Some(user), Some("bot")).to_string());
        }
        let num_names = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), num_names, "two actors share a name");
        assert!(names.iter().all(|name| name.is_ascii()));
    }

    #[test]
    fn subjects_parse_from_their_own_text_only() {
        for user in ["ann", "ann/agent:bot", "田中", "a b", "50%"] {
            let acme: TenantName = "acme".parse().expect("a tenant");
            for subject in [
                Subject::Tenant(acme.clone()),
                Subject::user(acme.clone(), user).expect("a name"),
                Subject::agent(acme, user).expect("a name"),
            ] {
                assert_eq!(subject.to_string().parse::<Subject>().expect("its own text"), subject);
            }
        }
        for text in [
            "",
            "/",
            "acme/",
            "acme/user:",
            "acme/user:a%20",
            "acme/user:%61nn",
            "acme/user:a b",
            "acme/user:%e7%94%b0",
            "acme/user:%FF",
            "acme/user:%4",
            "acme/user:ann/agent:bot",
            "acme/team:x",
            "ac me",
            "acme/user:a%00b",
        ] {
            assert!(text.parse::<Subject>().is_err(), "{text:?} is no subject");
        }
        assert!(format!("acme/user:{}", "x".repeat(100_000)).parse::<Subject>().is_err());
    }

    #[test]
    fn scope_names_have_limits() {
        let identity = Identity { tenant: "acme".parse().expect("a tenant"), role: Role::User };
        for name in ["", " ann", "ann\n", "a\u{0}b", "an\u{200b}n", "\u{202e}nna", &"x".repeat(257)] {
            assert!(Actor::new(identity.clone(), Some(name), None).is_err(), "{name:?}");
            assert!(Actor::new(identity.clone(), None, Some(name)).is_err(), "{name:?}");
        }
        let longest = actor("t", Some(&"\u{7530}".repeat(85)), Some(&"/".repeat(256)));
        assert!(longest.to_string().len() <= ACTOR_NAME_BYTES_MAX);
    }

    #[test]
    fn a_grant_for_a_name_counts_in_its_own_tenant_only() {
        let ann = actor("acme", Some("ann"), Some("bot"));
        let subjects = ann.subjects();
        assert_eq!(subjects.len(), 3);
        assert!(subjects.iter().all(|subject| subject.includes(&ann)));
        let other = actor("beta", Some("ann"), Some("bot"));
        assert!(!subjects.iter().any(|subject| subject.includes(&other)));
        let user_named_bot = actor("acme", Some("bot"), None);
        assert!(!subjects[2].includes(&user_named_bot), "an agent's grant is not its namesake's");
    }
}
