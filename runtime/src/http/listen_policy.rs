//! Where a server may listen, and by which name it may be addressed, depending on whether callers need a key.

use std::net::{IpAddr, SocketAddr};

/// Whether callers need an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPolicy {
    /// They do.
    Required,
    /// No key is configured: everyone who can connect is let in.
    Open,
}

/// An address that would let strangers in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "without API keys the server listens on loopback only, and {address} is not loopback: \
     make a key with `memos key create`, or give --api-key"
)]
pub struct NotLoopback {
    /// The address that was asked for.
    pub address: SocketAddr,
}

/// Checks an address that the server is asked to listen on.
///
/// # Errors
/// No keys are configured and the address can be reached from other machines.
pub fn listen_policy(address: SocketAddr, keys: KeyPolicy) -> Result<(), NotLoopback> {
    match keys {
        KeyPolicy::Required => Ok(()),
        KeyPolicy::Open if is_loopback(address.ip()) => Ok(()),
        KeyPolicy::Open => Err(NotLoopback { address }),
    }
}

/// Whether a `Host` header names this machine by a loopback name. A web page can make a browser connect to 127.0.0.1
/// under the page's own domain (DNS rebinding); the header then shows that domain.
pub fn is_loopback_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _port)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok_and(is_loopback)
}

fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address.is_loopback() || address.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_keys_only_loopback_is_listened_on() {
        let check = |address: &str, keys| listen_policy(address.parse().expect("an address"), keys);
        for address in ["127.0.0.1:8000", "127.8.8.8:1", "[::1]:8000", "[::ffff:127.0.0.1]:80"] {
            assert_eq!(check(address, KeyPolicy::Open), Ok(()), "{address}");
        }
        for address in ["0.0.0.0:8000", "[::]:8000", "192.168.1.5:80"] {
            assert!(check(address, KeyPolicy::Open).is_err(), "{address}");
            assert_eq!(check(address, KeyPolicy::Required), Ok(()), "{address}");
        }
    }

    #[test]
    fn only_loopback_names_are_loopback_hosts() {
        for host in
            ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "[::1]", "localhost.:80", "a.localhost"]
        {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["example.com", "localhost.example.com:80", "10.0.0.1", "", "[::2]:80", "127.0.0.1.example.com"] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
