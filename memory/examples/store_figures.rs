//! Prints how fast a store is on this machine, with the time of a bare fsync on the same disk beside it.
//!
//! `cargo run --release -p memory --example store_figures -- [items] [folder]`

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use memory::item::NewItem;
use memory::store::{By, ItemFilter, ListRequest, Store};
use memory::{Clock, CubeId, ItemId};

const NUM_SINGLE: usize = 500;
const BATCH_LEN: usize = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let num_items: usize = arguments.next().map_or(Ok(20_000), |number| number.parse())?;
    let parent = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(parent)?;
    let path = folder.path().join("memory.sqlite");
    let cube = CubeId::new();
    let store = Store::open(&path, cube, Clock::system(), &[])?;
    let by = By::actor("figures");

    let fsync = fsyncs(&folder.path().join("beside"))?;
    print_times("fsync of 4 KiB appended", fsync);
    let mut ids: Vec<ItemId> = Vec::new();
    let mut times = Vec::new();
    for number in 0..NUM_SINGLE {
        let new = item(number);
        let start = Instant::now();
        ids.push(store.write(|tx| tx.insert(new, by))?.id);
        times.push(start.elapsed());
    }
    print_times("one insert, durable", times);

    let batches: Vec<Vec<NewItem>> = (0..num_items.div_ceil(BATCH_LEN))
        .map(|batch| (0..BATCH_LEN).map(|number| item(batch * BATCH_LEN + number)).collect())
        .collect();
    let num_batched = batches.len() * BATCH_LEN;
    let start = Instant::now();
    for batch in batches {
        store.write(|tx| batch.into_iter().try_for_each(|new| tx.insert(new, by).map(drop)))?;
    }
    let rate = num_batched as f64 / start.elapsed().as_secs_f64();
    println!("{:<28} {rate:>9.0} items/s in transactions of {BATCH_LEN}", "batch insert");

    let request = ListRequest::new(ItemFilter { tags_any: vec!["tag 3".into()], ..ItemFilter::default() }, 100);
    let times: Result<Vec<Duration>, Box<dyn Error>> = (0..100)
        .map(|_| {
            let start = Instant::now();
            store.read(|reader| reader.list(&request))?;
            Ok(start.elapsed())
        })
        .collect();
    print_times("page of 100 with one tag", times?);
    once("index scan of all items", || store.read(|reader| reader.for_each_current(|_row, _item| Ok(()))))?;
    once("check", || store.check().map(drop))?;
    once("snapshot", || store.snapshot_to(&folder.path().join("snapshot")))?;
    once("erase one", || store.write(|tx| tx.erase(&ids[..1], Vec::new(), by)).map(drop))?;
    once("purge", || store.purge().map(drop))?;
    drop(store);
    once("open", || Store::open(&path, cube, Clock::system(), &[]).map(drop))?;
    println!("{:<28} {:>9.1} MiB", "file", std::fs::metadata(&path)?.len() as f64 / f64::from(1 << 20));
    Ok(())
}

fn item(number: usize) -> NewItem {
    let mut new = NewItem::fact(format!(
        "Person {} told us in meeting {number} that the delivery of part {} moves to week {} of next year.",
        number % 997,
        number % 89,
        number % 52
    ));
    new.tags = vec![format!("tag {}", number % 50), "delivery".into()];
    new.entities = vec![format!("Person {}", number % 997)];
    new
}

fn fsyncs(path: &Path) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut file = File::create(path)?;
    let mut times = Vec::new();
    for _ in 0..NUM_SINGLE {
        let start = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    Ok(times)
}

fn print_times(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!("{what:<28} {:>9.3} ms p50 {:>9.3} ms p99", at(50), at(99));
}

fn once<E: Error + 'static>(what: &str, run: impl FnOnce() -> Result<(), E>) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    run()?;
    println!("{what:<28} {:>9.3} ms", start.elapsed().as_secs_f64() * 1e3);
    Ok(())
}
