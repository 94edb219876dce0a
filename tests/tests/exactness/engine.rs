//! The real engine: requests that run together, find each other's prefixes and are preempted give what each gives alone.

use kernels::{CpuOptions, DType, Device};
use memos_tests::paged_model::exact_isa;
use memos_tests::reference_case::ReferenceCase;
use models::{LoadFormat, LoadOptions, Model, ModelSource, SamplingParams, TokenLogprob};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use runtime::engine::{
    Cached, DiskOptions, EngineEvent, EngineHandle, EngineOptions, GenerateRequest, Generation, PrefixCache,
    PromptLogprobs, Tenant,
};
use runtime::kv_store::{KvStoreOptions, MasterKey};
use scheduler::TenantId;

use crate::{SEED, prompts_with_shared_prefixes};

/// Bytes of a pool that holds this many blocks of the case `llama`: 2 layers, K and V, 2 heads of 16, 16 tokens, f32.
const fn pool_bytes(num_blocks: usize) -> usize {
    num_blocks * 2 * 2 * 2 * 16 * 16 * 4
}

fn start(num_blocks: usize, prefix_cache: PrefixCache) -> anyhow::Result<EngineHandle> {
    start_with(num_blocks, EngineOptions { prefix_cache, ..EngineOptions::default() })
}

fn start_with(num_blocks: usize, options: EngineOptions) -> anyhow::Result<EngineHandle> {
    let case = ReferenceCase::named("llama")?;
    let device = Device::cpu(CpuOptions { num_threads: std::num::NonZeroUsize::new(2), isa: Some(exact_isa()) })?;
    let load = LoadOptions { format: LoadFormat::Safetensors, dtype: None, max_positions: None };
    let model = Model::load(&device, &ModelSource::Folder(case.folder), load)?;
    let options = EngineOptions {
        block_size: 16,
        kv_cache_bytes: pool_bytes(num_blocks),
        kv_dtype: Some(DType::F32),
        max_batch_tokens: 48,
        max_running: 8,
        max_waiting: 64,
        max_waiting_per_tenant: 64,
        ..options
    };
    let engine = EngineHandle::start(device, model, "llama", &options)?;
    assert_eq!(engine.info().num_blocks, num_blocks);
    Ok(engine)
}

/// Requests of three tenants, greedy and sampled, long enough to outgrow a small pool.
fn requests() -> anyhow::Result<Vec<GenerateRequest>> {
    let mut random = StdRng::seed_from_u64(SEED + 2);
    let prompts = prompts_with_shared_prefixes(&ReferenceCase::named("llama")?, &mut random);
    let request = |(index, prompt): (usize, Vec<u32>)| {
        let tenant = index as u64 % 3;
        GenerateRequest {
            tenant: Tenant { name: format!("tenant {tenant}").into(), id: TenantId(tenant), salt: [tenant as u8; 32] },
            prompt,
            sampling: SamplingParams {
                temperature: if index % 2 == 0 { 0.0 } else { 0.9 },
                frequency_penalty: 0.3,
                seed: Some(index as u64),
                ..SamplingParams::default()
            },
            max_tokens: random.random_range(30..60),
            stop_tokens: Vec::new(),
            num_logprobs: Some(20),
            prompt_logprobs: PromptLogprobs::Skip,
        }
    };
    Ok(prompts.into_iter().enumerate().map(request).collect())
}

/// What a generation told: tokens with the bits of their log-probabilities and alternatives, and the cached tokens.
#[derive(Debug, Default, PartialEq)]
struct Told {
    tokens: Vec<(u32, u32)>,
    alternatives: Vec<Vec<(u32, u32)>>,
    cached: Cached,
}

async fn listen(mut generation: Generation) -> anyhow::Result<Told> {
    let mut told = Told::default();
    while let Some(event) = generation.next().await {
        match event {
            EngineEvent::Prompt { cached, .. } => told.cached = cached,
            EngineEvent::Token { token, logprob } => {
                let TokenLogprob { logprob, top, .. } = logprob.expect("log-probabilities were asked for");
                told.tokens.push((token, logprob.to_bits()));
                told.alternatives.push(top.into_iter().map(|(token, logprob)| (token, logprob.to_bits())).collect());
            }
            EngineEvent::Finished { .. } => {}
            EngineEvent::Failed(error) => return Err(error.into()),
        }
    }
    Ok(told)
}

/// Each request with nothing beside it and nothing cached.
async fn tell_alone(requests: &[GenerateRequest]) -> anyhow::Result<Vec<Told>> {
    let engine = start(64, PrefixCache::Off)?;
    let mut all = Vec::new();
    for request in requests {
        let mut generations = engine.submit(vec![request.clone()]).await?;
        all.push(listen(generations.remove(0)).await?);
    }
    engine.shutdown().await;
    Ok(all)
}

fn assert_same_told(what: &str, told: &[Told], expected: &[Told]) {
    for (at, (told, expected)) in told.iter().zip(expected).enumerate() {
        assert_eq!(told.tokens, expected.tokens, "{what}: request {at} (seed {SEED})");
        assert_eq!(told.alternatives, expected.alternatives, "{what}: alternatives of request {at} (seed {SEED})");
    }
}

async fn tell_together(engine: &EngineHandle, requests: &[GenerateRequest]) -> anyhow::Result<Vec<Told>> {
    let mut waiting = Vec::new();
    for request in requests {
        let mut generations = engine.submit(vec![request.clone()]).await?;
        waiting.push(tokio::spawn(listen(generations.remove(0))));
    }
    let mut all = Vec::new();
    for task in waiting {
        all.push(task.await??);
    }
    Ok(all)
}

#[tokio::test]
async fn requests_together_tell_what_each_tells_alone() -> anyhow::Result<()> {
    let requests = requests()?;
    let expected = tell_alone(&requests).await?;
    let engine = start(16, PrefixCache::On)?;
    let mut num_cached = 0;
    for round in 0..3 {
        let told = tell_together(&engine, &requests).await?;
        assert_same_told(&format!("round {round}"), &told, &expected);
        num_cached += told.iter().map(|told| told.cached.num_tokens()).sum::<usize>();
        // Clients that leave in the middle must not change what the others get in the next round.
        for request in &requests {
            let mut generations = engine.submit(vec![request.clone()]).await?;
            let mut generation = generations.remove(0);
            let first = generation.next().await;
            assert!(matches!(first, Some(EngineEvent::Prompt { .. })), "{first:?}");
        }
    }
    engine.shutdown().await;
    let stats = engine.stats().scheduler;
    println!("{num_cached} cached prompt tokens, {} preemptions, {} evictions", stats.preemptions, stats.evictions);
    assert!(num_cached > 0 && stats.preemptions > 0 && stats.evictions > 0, "nothing was shown: {stats:?}");
    Ok(())
}

#[tokio::test]
async fn choices_of_one_request_are_computed_once_and_tell_what_each_tells_alone() -> anyhow::Result<()> {
    let first = requests()?.remove(3);
    let choices: Vec<GenerateRequest> = (0..6)
        .map(|choice| {
            let sampling = SamplingParams { seed: Some(100 + choice), ..first.sampling.clone() };
            GenerateRequest { sampling, ..first.clone() }
        })
        .collect();
    let expected = tell_alone(&choices).await?;
    let engine = start(64, PrefixCache::On)?;
    let mut waiting = Vec::new();
    for generation in engine.submit(choices).await? {
        waiting.push(tokio::spawn(listen(generation)));
    }
    let mut told = Vec::new();
    for task in waiting {
        told.push(task.await??);
    }
    assert_same_told("choices", &told, &expected);
    let full_blocks = (first.prompt.len() - 1) / 16 * 16;
    let num_shared = told.iter().filter(|told| told.cached.num_tokens() == full_blocks).count();
    assert_eq!(num_shared, 5, "all but the first choice find the prompt's full blocks");
    engine.shutdown().await;
    let blocks = engine.stats().scheduler.blocks;
    assert_eq!(blocks.free + blocks.cached, 64, "every block is free or cached: {blocks:?}");
    Ok(())
}

/// A device pool that holds a part of the work, with host memory and a folder below it.
fn tiered(host_blocks: usize, folder: Option<&std::path::Path>) -> EngineOptions {
    let disk = folder.map(|folder| DiskOptions {
        folder: folder.to_owned(),
        store: KvStoreOptions { max_bytes: 64 << 20, master_key: Some(MasterKey::new([9; 32])) },
        tenants: (0..3).map(|tenant| ([tenant as u8; 32], TenantId(tenant))).collect(),
    });
    EngineOptions { host_cache_bytes: pool_bytes(host_blocks), disk, ..EngineOptions::default() }
}

/// Requests whose blocks do not fit the device pool, again and again: what is not on the device comes from lower tiers.
async fn tell_from_tiers(host_blocks: usize, folder: Option<&std::path::Path>) -> anyhow::Result<(Cached, u64)> {
    let requests = requests()?;
    let expected = tell_alone(&requests).await?;
    let engine = start_with(16, tiered(host_blocks, folder))?;
    let mut cached = Cached::default();
    for round in 0..4 {
        let told = tell_together(&engine, &requests).await?;
        assert_same_told(&format!("round {round}"), &told, &expected);
        cached = told.iter().map(|told| told.cached).fold(cached, Cached::plus);
        for (request, expected) in requests.iter().zip(&expected) {
            let mut generations = engine.submit(vec![request.clone()]).await?;
            let told = listen(generations.remove(0)).await?;
            assert_same_told(
                &format!("round {round}, alone"),
                std::slice::from_ref(&told),
                std::slice::from_ref(expected),
            );
            cached = cached.plus(told.cached);
        }
    }
    engine.shutdown().await;
    let stats = engine.stats();
    println!("{cached:?}, host {:?}, disk {:?}", stats.host, stats.disk);
    assert_eq!((stats.host.failed_blocks, stats.disk.failed_blocks), (0, 0));
    Ok((cached, stats.scheduler.preemptions))
}

#[tokio::test]
async fn what_host_memory_gives_back_is_what_was_computed() -> anyhow::Result<()> {
    let (cached, preemptions) = tell_from_tiers(96, None).await?;
    assert!(cached.host_tokens > 0 && preemptions > 0, "nothing was shown: {cached:?}");
    Ok(())
}

#[tokio::test]
async fn what_disk_gives_back_is_what_was_computed_and_it_outlives_the_process() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (cached, _) = tell_from_tiers(4, Some(folder.path())).await?;
    assert!(cached.disk_tokens > 0, "nothing was shown: {cached:?}");

    let requests = requests()?;
    let expected = tell_alone(&requests).await?;
    let engine = start_with(64, tiered(0, Some(folder.path())))?;
    let mut generations = engine.submit(vec![requests[0].clone()]).await?;
    let told = listen(generations.remove(0)).await?;
    assert_same_told("after a restart", std::slice::from_ref(&told), &expected[..1]);
    let full_blocks = (requests[0].prompt.len() - 1) / 16 * 16;
    assert_eq!(told.cached.disk_tokens, full_blocks, "the first request is served from disk");
    engine.shutdown().await;

    // Whoever is not known any more finds nothing, and nothing of theirs stays.
    let strangers = EngineOptions {
        disk: tiered(0, Some(folder.path())).disk.map(|disk| DiskOptions { tenants: Vec::new(), ..disk }),
        ..EngineOptions::default()
    };
    let engine = start_with(64, strangers)?;
    let mut generations = engine.submit(vec![requests[0].clone()]).await?;
    let told = listen(generations.remove(0)).await?;
    assert_eq!(told.cached, Cached::default());
    engine.shutdown().await;
    Ok(())
}
