//! Tests of the API keys: what the file holds, what survives a reload, and what closes the door.

use std::fs;
use std::path::Path;

use super::*;

fn tenant(name: &str) -> TenantName {
    name.parse().expect("a valid tenant name")
}

/// Opens the store as if the last look at the file had been long ago.
fn authenticate_after_interval(store: &KeyStore, key: Option<&str>) -> Result<Access, MemoryError> {
    store.lock_cached().checked_at = None;
    store.authenticate(key)
}

fn granted(tenant_name: &str, role: Role) -> Access {
    Access::Granted(Identity { tenant: tenant(tenant_name), role })
}

fn replace_file(path: &Path, contents: &str) {
    // A new file, as an editor makes it, so that the stamp differs even within one tick of the clock.
    let other = path.with_extension("edited");
    fs::write(&other, contents).expect("write");
    fs::rename(&other, path).expect("rename");
}

#[test]
fn a_created_key_opens_its_tenant_until_it_is_revoked() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("deeper").join("keys.json");
    let store = KeyStore::open(&path).expect("no file yet");
    assert_eq!(store.authenticate(None).expect("open"), Access::Open);
    assert!(!store.is_configured());

    let new = KeyStore::create(&path, tenant("acme"), Role::User).expect("create");
    assert!(new.key.expose().starts_with(KEY_PREFIX));
    assert_eq!(new.key.expose().len(), KEY_PREFIX.len() + 64);
    assert_eq!(authenticate_after_interval(&store, None).expect("configured"), Access::Missing);
    assert_eq!(authenticate_after_interval(&store, Some(new.key.expose())).expect("key"), granted("acme", Role::User));
    assert_eq!(authenticate_after_interval(&store, Some("mk-wrong")).expect("key"), Access::Refused);

    KeyStore::revoke(&path, &new.record.id).expect("revoke");
    assert_eq!(authenticate_after_interval(&store, Some(new.key.expose())).expect("key"), Access::Refused);
    let again = KeyStore::revoke(&path, &new.record.id).expect("revoking twice is harmless");
    assert!(again.revoked_unix_s.is_some());
}

#[test]
fn the_file_holds_no_key_and_debug_shows_none() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("keys.json");
    let new = KeyStore::create(&path, tenant("acme"), Role::Admin).expect("create");
    let text = fs::read_to_string(&path).expect("read");
    let secret = &new.key.expose()[KEY_PREFIX.len()..];
    assert!(!text.contains(secret) && !text.contains(&secret[..16]));
    assert!(!format!("{new:?}").contains(&secret[..16]));
    let store = KeyStore::open(&path)
        .expect("open")
        .with_key("hunter2", Identity { tenant: tenant("default"), role: Role::Admin });
    assert!(!format!("{store:?}").contains("hunter2"));
}

#[cfg(unix)]
#[test]
fn the_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("keys.json");
    KeyStore::create(&path, tenant("acme"), Role::User).expect("create");
    let mode = fs::metadata(&path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);

    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("chmod");
    let error = KeyStore::open(&path).expect_err("writable by others");
    assert!(matches!(error, MemoryError::KeyFilePermissions { mode: 0o666, .. }), "{error}");
}

#[test]
fn two_keys_differ_and_lead_to_their_own_tenants() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("keys.json");
    let first = KeyStore::create(&path, tenant("a"), Role::Admin).expect("create");
    let second = KeyStore::create(&path, tenant("b"), Role::Reader).expect("create");
    assert_ne!(first.key.expose(), second.key.expose());
    assert_ne!(first.record.id, second.record.id);
    let store = KeyStore::open(&path).expect("open");
    assert_eq!(store.authenticate(Some(first.key.expose())).expect("key"), granted("a", Role::Admin));
    assert_eq!(store.authenticate(Some(second.key.expose())).expect("key"), granted("b", Role::Reader));
    assert_eq!(KeyStore::list(&path).expect("list").len(), 2);
}

#[test]
fn a_key_from_the_command_line_works_beside_the_file() {
    let identity = Identity { tenant: tenant("default"), role: Role::Admin };
    let store = KeyStore::without_file().with_key("secret", identity);
    assert!(store.is_configured());
    assert_eq!(store.authenticate(Some("secret")).expect("key"), granted("default", Role::Admin));
    assert_eq!(store.authenticate(Some("secre")).expect("key"), Access::Refused);
    assert_eq!(store.authenticate(Some(&"x".repeat(100_000))).expect("key"), Access::Refused);
    assert_eq!(store.authenticate(None).expect("key"), Access::Missing);
}

#[test]
fn a_broken_or_vanished_file_closes_the_door_until_it_is_repaired() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("keys.json");
    let new = KeyStore::create(&path, tenant("acme"), Role::User).expect("create");
    let good = fs::read_to_string(&path).expect("read");
    let store = KeyStore::open(&path).expect("open");

    replace_file(&path, "{\"format\": \"memos-keys\", ");
    for _ in 0..2 {
        let error = authenticate_after_interval(&store, Some(new.key.expose())).expect_err("broken");
        assert!(matches!(error, MemoryError::KeyFileBroken { .. }), "{error}");
        // Within the interval too: the old keys are not trusted while the new ones cannot be read.
        store.authenticate(Some(new.key.expose())).expect_err("still broken");
    }
    fs::remove_file(&path).expect("remove");
    let error = authenticate_after_interval(&store, None).expect_err("gone");
    assert!(matches!(error, MemoryError::KeyFileGone { .. }), "{error}");
    replace_file(&path, "{\"format\": \"memos-keys\", \"version\": 1, \"keys\": []}");
    assert_eq!(authenticate_after_interval(&store, None).expect("empty"), Access::Missing);
    replace_file(&path, &good);
    assert_eq!(authenticate_after_interval(&store, Some(new.key.expose())).expect("key"), granted("acme", Role::User));
}

#[test]
fn files_that_are_not_key_files_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("keys.json");
    let record = "{\"id\":\"key-1\",\"hash\":\"00\",\"tenant\":\"a\",\"role\":\"user\",\"created_unix_s\":1,\"revoked_unix_s\":null}";
    let cases = [
        ("", "line 1 column 0"),
        ("[]", "\"format\""),
        ("{\"format\":\"other\",\"version\":1,\"keys\":[]}", "\"format\""),
        ("{\"format\":\"memos-keys\",\"keys\":[]}", "\"version\""),
        ("{\"format\":\"memos-keys\",\"version\":9,\"keys\":[]}", "format version 9"),
        ("{\"format\":\"memos-keys\",\"version\":1,\"keys\":[{}]}", "does not parse"),
        (&format!("{{\"format\":\"memos-keys\",\"version\":1,\"keys\":[{record}]}}"), "does not parse"),
    ];
    for (contents, expected) in cases {
        replace_file(&path, contents);
        let message = KeyStore::open(&path).expect_err(contents).to_string();
        assert!(message.contains(expected), "{contents}: {message}");
        KeyStore::create(&path, tenant("a"), Role::User).expect_err("a broken file is not overwritten");
        assert_eq!(fs::read_to_string(&path).expect("read"), contents);
    }
}

#[test]
fn writers_at_the_same_time_lose_no_key() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("keys.json");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| KeyStore::create(&path, tenant("a"), Role::User).expect("create"));
        }
    });
    assert_eq!(KeyStore::list(&path).expect("list").len(), 8);
}

#[test]
fn tenant_names_and_roles_are_checked() {
    for name in ["", "a b", "ä", "a/b", &"x".repeat(65)] {
        assert!(name.parse::<TenantName>().is_err(), "{name}");
    }
    assert!("Acme-1_x.y".parse::<TenantName>().is_ok());
    assert!("root".parse::<Role>().is_err());
    for role in [Role::Admin, Role::User, Role::Reader] {
        assert_eq!(role.as_str().parse::<Role>().expect("role"), role);
    }
}

#[test]
fn unknown_ids_cannot_be_revoked() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("keys.json");
    let error = KeyStore::revoke(&path, "key-0").expect_err("no file");
    assert!(matches!(error, MemoryError::UnknownKey { .. }), "{error}");
}

#[test]
fn roles_allow_what_they_say() {
    let allowed = |role: Role| {
        [Permission::Read, Permission::Infer, Permission::Observe].map(|permission| role.allows(permission))
    };
    assert_eq!(allowed(Role::Admin), [true, true, true]);
    assert_eq!(allowed(Role::User), [true, true, false]);
    assert_eq!(allowed(Role::Reader), [true, false, false]);
}
