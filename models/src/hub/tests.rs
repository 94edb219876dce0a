//! The cache is respected, ids cannot climb out of it, and what cannot be had is said clearly. No network.

use std::fs;

use tempfile::TempDir;

use super::*;

/// Remembers nothing.
struct Silent;

impl DownloadProgress for Silent {
    fn begin(&mut self, _file: &str, _num_bytes: u64) {}
    fn advance(&mut self, _num_bytes: u64) {}
    fn finish(&mut self) {}
}

/// A cache that holds one snapshot of `owner/name`.
fn cache(files: &[(&str, &str)]) -> TempDir {
    let cache = tempfile::tempdir().expect("temporary folder");
    let model = cache.path().join("models--owner--name");
    let snapshot = model.join("snapshots").join("abc123");
    fs::create_dir_all(&snapshot).expect("folders");
    fs::create_dir_all(model.join("refs")).expect("folders");
    fs::write(model.join("refs").join("main"), "abc123\n").expect("write");
    for (name, text) in files {
        fs::write(snapshot.join(name), text).expect("write");
    }
    cache
}

fn options(cache: &TempDir) -> HubOptions {
    HubOptions {
        cache: cache.path().to_owned(),
        // Nothing listens here: whatever asks the network fails at once.
        endpoint: Some("http://127.0.0.1:1".to_owned()),
        token: None,
        revision: None,
        network: Network::Off,
    }
}

fn find(model: &str, options: &HubOptions) -> Result<PathBuf, ModelError> {
    resolve(model, options, &mut Silent)
}

#[test]
fn a_complete_snapshot_is_used_without_asking_the_network() {
    let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
    for files in [
        &[("config.json", "{}"), ("model.safetensors", "")][..],
        &[("config.json", "{}"), (INDEX_FILE, index), ("one.safetensors", ""), ("two.safetensors", "")],
    ] {
        let cache = cache(files);
        let snapshot = cache.path().join("models--owner--name/snapshots/abc123");
        for network in [Network::Off, Network::Allowed] {
            let options = HubOptions { network, ..options(&cache) };
            assert_eq!(find("owner/name", &options).expect("cached"), snapshot);
            let by_commit = HubOptions { revision: Some("abc123".to_owned()), ..options };
            assert_eq!(find("owner/name", &by_commit).expect("cached"), snapshot);
        }
    }
}

#[test]
fn what_the_cache_lacks_is_named_when_the_network_is_off() {
    let cache = cache(&[("config.json", "{}")]);
    let options = options(&cache);
    match find("owner/name", &options) {
        Err(ModelError::IncompleteCache { model, file }) => {
            assert_eq!((model.as_str(), file.as_str()), ("owner/name", "model.safetensors"));
        }
        other => panic!("{other:?}"),
    }
    assert!(
        matches!(find("owner/other", &options), Err(ModelError::NotCached { model, .. }) if model == "owner/other")
    );
    let other_branch = HubOptions { revision: Some("dev".to_owned()), ..options };
    assert!(matches!(find("owner/name", &other_branch), Err(ModelError::NotCached { .. })));
}

#[test]
fn a_hub_that_cannot_be_reached_is_a_download_error() {
    let cache = cache(&[("config.json", "{}")]);
    let options = HubOptions { network: Network::Allowed, ..options(&cache) };
    match find("owner/name", &options) {
        Err(ModelError::Download { model, endpoint, .. }) => {
            assert_eq!((model.as_str(), endpoint.as_str()), ("owner/name", "http://127.0.0.1:1"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_folder_is_itself() {
    let cache = cache(&[]);
    let folder = cache.path().join("models--owner--name");
    assert_eq!(find(&folder.display().to_string(), &options(&cache)).expect("a folder"), folder);
}

#[test]
fn names_that_climb_or_are_no_ids_are_refused() {
    let cache = cache(&[("config.json", "{}"), ("model.safetensors", "")]);
    for name in [
        "../owner/name",
        "owner/../name",
        "/etc/nothing-here",
        "owner/name/more",
        "owner//name",
        "",
        "a b/c",
        "owner/.hidden",
        "owner\\name",
        "owner--name",
        "own\0er/name",
        "-owner/name",
    ] {
        let error = find(name, &options(&cache)).expect_err(name);
        assert!(matches!(error, ModelError::ModelName { .. }), "{name}: {error:?}");
    }
    for revision in ["../main", "a//b", "", "x y", ".main", "refs/../main"] {
        let options = HubOptions { revision: Some(revision.to_owned()), ..options(&cache) };
        assert!(matches!(find("owner/name", &options), Err(ModelError::Revision { .. })), "{revision}");
    }
    // A reference file that points elsewhere.
    fs::write(cache.path().join("models--owner--name/refs/main"), "../../../..").expect("write");
    assert!(matches!(find("owner/name", &options(&cache)), Err(ModelError::NotCached { .. })));
    let index = r#"{"weight_map": {"a": "../secret"}}"#;
    let cache = self::cache(&[("config.json", "{}"), (INDEX_FILE, index)]);
    assert!(matches!(find("owner/name", &options(&cache)), Err(ModelError::HubFileName { .. })));
}
