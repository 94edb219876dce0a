//! Segments that travel: other salt, other key, other box.

use std::fs;

use super::*;

/// A store with segments of two chains, and the folder they are exported to.
struct Trip {
    parent: tempfile::TempDir,
    samples: Vec<Sample>,
}

impl Trip {
    /// Exports with `export_key` from a store with `key`.
    fn new(key: Option<[u8; 32]>, export_key: Option<&MasterKey>) -> Self {
        let parent = tempfile::tempdir().expect("temporary folder");
        let samples = vec![Sample::new(1, 0, 4), Sample::new(1, 4, 2), Sample::new(2, 0, 3)];
        let store = open(&parent.path().join("from"), key).store;
        let ids: Vec<SegmentId> = samples.iter().map(|sample| sample.write_to(&store).header.id).collect();
        let exported = store.export(&ids, &parent.path().join("cube"), export_key).expect("is exported");
        assert_eq!((exported.files.len(), exported.skipped.len()), (3, 0));
        Self { parent, samples }
    }

    fn cube(&self) -> PathBuf {
        self.parent.path().join("cube")
    }

    fn new_store(&self) -> KvStore {
        open(&self.parent.path().join("to"), None).store
    }
}

const NEW_SALT: [u8; 32] = [77; 32];

fn target<'a>(identity: &'a KvIdentity, key: Option<&'a MasterKey>) -> ImportTarget<'a> {
    ImportTarget {
        identity,
        accept: Accept::ExactOnly,
        tenant_salt: NEW_SALT,
        tenant: TenantTag::of_salt(&NEW_SALT),
        key,
    }
}

#[test]
fn segments_travel_to_another_tenant_of_another_server() {
    let export_key = MasterKey::new([99; 32]);
    for key in KEYS {
        for export_key in [None, Some(&export_key)] {
            let trip = Trip::new(key, export_key);
            let store = trip.new_store();
            let identity = identity();
            let report = store.import(&trip.cube(), &target(&identity, export_key)).expect("is imported");
            assert!(report.refused.is_empty(), "{:?}", report.refused);
            assert_eq!(report.imported.len(), 3);
            for Imported { file, exactness } in &report.imported {
                let of_file =
                    |sample: &&Sample| store.tokens(file.header.id).is_ok_and(|tokens| tokens == sample.tokens);
                let sample = trip.samples.iter().find(of_file).expect("is one of those exported");
                let moved = Sample { salt: NEW_SALT, ..Sample::new(0, 0, 1) };
                let moved = Sample { tokens: sample.tokens.clone(), first_block: sample.first_block, ..moved };
                let moved = Sample { blocks: sample.blocks.clone(), ..moved };
                moved.assert_reads_from(&store, file);
                assert_eq!(*exactness, Exactness::Exact);
                assert_eq!(file.header.lineage, sample.lineage);
                assert_eq!(file.header.created_ms, CREATED_MS);
                assert_eq!(file.header.tenant, TenantTag::of_salt(&NEW_SALT));
            }
            let again = store.import(&trip.cube(), &target(&identity, export_key)).expect("runs");
            assert!(again.imported.is_empty());
            assert!(again.refused.iter().all(|(_name, refusal)| matches!(refusal, ImportRefusal::AlreadyHere)));
        }
    }
}

#[test]
fn the_portable_form_carries_no_keys() {
    let trip = Trip::new(None, None);
    for name in names_in(&trip.cube()) {
        let bytes = fs::read(trip.cube().join(&name)).expect("is read");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for sample in &trip.samples {
            for key in sample.keys().into_iter().chain([sample.root(), KvKey::from_bytes(sample.salt)]) {
                assert!(!contains(&bytes, key.as_bytes()));
                assert!(!text.contains(&identity::hex(key.as_bytes())));
            }
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(trip.cube().join(&name)).expect("is there").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn what_is_of_another_model_is_refused_and_left() {
    let trip = Trip::new(None, None);
    let from = open(&trip.parent.path().join("from"), None).store;
    let other = Sample { identity: KvIdentity { rope_fingerprint: [9; 32], ..identity() }, ..Sample::new(5, 0, 2) };
    let id = other.write_to(&from).header.id;
    let foreign = from.export(&[id], &trip.cube(), None).expect("is exported").files[0].header.id.file_name();
    let store = trip.new_store();
    let identity = identity();
    let report = store.import(&trip.cube(), &target(&identity, None)).expect("is imported");
    assert_eq!(report.imported.len(), 3);
    let [(name, refusal)] = report.refused.as_slice() else { panic!("one is refused") };
    assert_eq!(*name, foreign);
    let is_named = matches!(refusal, ImportRefusal::Fault(SegmentFault::Identity(mismatch)) if mismatch.field == "rope fingerprint");
    assert!(is_named, "{refusal:?}");
    assert_eq!(names_in(&trip.cube()).len(), 4, "nothing is taken away");
}

#[test]
fn other_numerics_are_taken_only_when_wanted_and_never_under_an_exact_key() {
    let trip = Trip::new(None, None);
    let here = KvIdentity { numerics_id: "cuda-1".to_owned(), ..identity() };
    let store = trip.new_store();
    let report = store.import(&trip.cube(), &target(&here, None)).expect("runs");
    assert!(report.imported.is_empty());
    let is_refused = |refusal: &ImportRefusal| matches!(refusal, ImportRefusal::NotExact { expected, found } if expected == "cuda-1" && found == "cpu-fma-1");
    assert!(report.refused.iter().all(|(_name, refusal)| is_refused(refusal)));
    let target = ImportTarget { accept: Accept::Imported, ..target(&here, None) };
    let report = store.import(&trip.cube(), &target).expect("is imported");
    assert_eq!(report.imported.len(), 3);
    for Imported { file, exactness } in &report.imported {
        assert_eq!(*exactness, Exactness::Imported);
        let keys = file.header.keys.as_ref().expect("has keys");
        assert_eq!(keys.root, identity().root_key(NEW_SALT));
        assert_ne!(keys.root, here.root_key(NEW_SALT));
        assert_eq!(file.header.identity, identity());
    }
}

#[test]
fn the_wrong_key_or_none_is_told() {
    let (right, wrong) = (MasterKey::new([1; 32]), MasterKey::new([2; 32]));
    let trip = Trip::new(None, Some(&right));
    let store = trip.new_store();
    let identity = identity();
    let with_none = store.import(&trip.cube(), &target(&identity, None)).expect("runs");
    let is_no_key = |refusal: &ImportRefusal| matches!(refusal, ImportRefusal::Fault(SegmentFault::NoKey));
    assert!(with_none.refused.len() == 3 && with_none.refused.iter().all(|(_name, refusal)| is_no_key(refusal)));
    let with_wrong = store.import(&trip.cube(), &target(&identity, Some(&wrong))).expect("runs");
    let is_other = |refusal: &ImportRefusal| matches!(refusal, ImportRefusal::Fault(SegmentFault::OtherKey));
    assert!(with_wrong.refused.len() == 3 && with_wrong.refused.iter().all(|(_name, refusal)| is_other(refusal)));
}

#[test]
fn an_import_that_does_not_fit_takes_the_starts_of_chains() {
    let trip = Trip::new(None, None);
    let identity = identity();
    let sizes: u64 = verify(&trip.cube(), None)
        .expect("is listed")
        .into_iter()
        .map(|file| file.result.expect("is good"))
        .filter(|file| file.header.first_block == 0)
        .map(|file| file.file_bytes + (1 + u64::from(file.header.num_blocks)) * 32 + 200)
        .sum();
    let options = KvStoreOptions { max_bytes: sizes, master_key: None };
    let store = KvStore::open(&trip.parent.path().join("to"), options).expect("opens").store;
    let report = store.import(&trip.cube(), &target(&identity, None)).expect("runs");
    assert!(report.imported.iter().all(|imported| imported.file.header.first_block == 0));
    assert_eq!(report.imported.len(), 2);
    assert!(matches!(report.refused[..], [(_, ImportRefusal::Store(KvStoreError::OverBudget { .. }))]));
}

#[test]
fn an_export_passes_over_what_is_damaged() {
    let parent = tempfile::tempdir().expect("temporary folder");
    let from = parent.path().join("from");
    let store = open(&from, None).store;
    let segments = [1, 2].map(|seed| Sample::new(seed, 0, 2).write_to(&store));
    let path = path_of(&from, &segments[0]);
    let mut bytes = fs::read(&path).expect("is read");
    *bytes.last_mut().expect("is not empty") ^= 1;
    fs::write(&path, bytes).expect("is written");
    let ids = segments.map(|segment| segment.header.id);
    let exported = store.export(&ids, &parent.path().join("cube"), None).expect("runs");
    assert_eq!(exported.files.len(), 1);
    assert!(matches!(&exported.skipped[..], [KvReadError::File { id, .. }] if *id == ids[0]));
}

#[test]
fn verify_tells_of_every_file_what_it_is() {
    let key = MasterKey::new([1; 32]);
    for key in [None, Some(&key)] {
        let trip = Trip::new(None, key);
        assert!(verify(&trip.cube(), key).expect("runs").iter().all(|file| file.result.is_ok()));
        let name = names_in(&trip.cube())[1].clone();
        let mut bytes = fs::read(trip.cube().join(&name)).expect("is read");
        *bytes.last_mut().expect("is not empty") ^= 1;
        fs::write(trip.cube().join(&name), bytes).expect("is written");
        let cached = Sample::new(3, 0, 1).write_to(&trip.new_store());
        let cached_name = cached.header.id.file_name();
        fs::copy(trip.parent.path().join("to").join(&cached_name), trip.cube().join(&cached_name)).expect("is copied");
        let report = verify(&trip.cube(), key).expect("runs");
        assert_eq!(report.len(), 4);
        for file in report {
            match file.result {
                Ok(_segment) => assert!(file.file_name != name && file.file_name != cached_name),
                Err(SegmentFault::Checksum { part: SegmentPart::Block(_) }) => assert_eq!(file.file_name, name),
                Err(SegmentFault::Form { .. }) => assert_eq!(file.file_name, cached_name),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn pruning_takes_what_is_of_another_model_or_damaged() {
    let trip = Trip::new(None, None);
    let names = names_in(&trip.cube());
    fs::write(trip.cube().join(&names[0]), "text of some length").expect("is written");
    let pruned = prune(&trip.cube(), Prune::Foreign(&identity()), None).expect("runs");
    assert!(matches!(&pruned.removed[..], [(name, PruneReason::Damaged(_))] if *name == names[0]));
    assert_eq!(names_in(&trip.cube()), names[1..]);
    let other = KvIdentity { kv_dtype: "f32".to_owned(), ..identity() };
    let pruned = prune(&trip.cube(), Prune::Foreign(&other), None).expect("runs");
    assert_eq!(pruned.removed.len(), 2);
    assert!(pruned.removed.iter().all(|(_name, reason)| matches!(reason, PruneReason::Foreign(_))));
    assert_eq!(pruned.bytes_left, 0);
    assert_eq!(names_in(&trip.cube()), Vec::<String>::new());
}

#[test]
fn pruning_without_the_key_takes_nothing() {
    let key = MasterKey::new([1; 32]);
    let trip = Trip::new(None, Some(&key));
    let pruned = prune(&trip.cube(), Prune::ToBytes(0), None).expect("runs");
    assert!(pruned.removed.is_empty());
    assert!(pruned.unread.iter().all(|(_name, fault)| matches!(fault, SegmentFault::NoKey)));
    assert_eq!(pruned.unread.len(), 3);
}

#[test]
fn pruning_to_a_size_takes_the_ends_of_chains_first() {
    let parent = tempfile::tempdir().expect("temporary folder");
    let store = open(&parent.path().join("from"), None).store;
    let cube = parent.path().join("cube");
    // Chain 1 in three parts, of which the first is the oldest, and chain 2, younger than its end.
    let parts = [(1, 0, 10), (1, 4, 20), (1, 8, 30), (2, 0, 40)];
    let mut names = Vec::new();
    for (seed, first_block, created_ms) in parts {
        let sample = Sample::new(seed, first_block, 4);
        let new = NewSegment { created_ms, ..sample.as_new() };
        let id = store.write(&new, &sample.blocks).expect("is written").header.id;
        names.push(store.export(&[id], &cube, None).expect("is exported").files[0].header.id.file_name());
    }
    let sizes: Vec<u64> = names.iter().map(|name| fs::metadata(cube.join(name)).expect("is there").len()).collect();
    let total: u64 = sizes.iter().sum();
    let all = prune(&cube, Prune::ToBytes(total), None).expect("runs");
    assert_eq!((all.removed.len(), all.bytes_left), (0, total));
    let pruned = prune(&cube, Prune::ToBytes(sizes[0] + sizes[3]), None).expect("runs");
    let removed: Vec<&str> = pruned.removed.iter().map(|(name, _reason)| name.as_str()).collect();
    assert_eq!(removed, [&names[2], &names[1]]);
    assert_eq!(pruned.bytes_left, sizes[0] + sizes[3]);
    let pruned = prune(&cube, Prune::ToBytes(1), None).expect("runs");
    let removed: Vec<&str> = pruned.removed.iter().map(|(name, _reason)| name.as_str()).collect();
    assert_eq!(removed, [&names[0], &names[3]], "now the first part is an end");
}
