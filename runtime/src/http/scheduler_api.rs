//! What MemScheduler holds and decides, over HTTP: tiers, decisions, and a reset for benchmarks.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use scheduler::{Decision, DecisionKind, TierStats};
use serde_json::{Value, json};

use super::error::ApiError;
use super::state::Shared;
use crate::engine::Reset;

/// `GET /v1/scheduler/tiers`
pub async fn tiers(State(app): State<Arc<Shared>>) -> Json<Value> {
    let (stats, info) = (app.parts.engine.stats(), app.parts.engine.info());
    let blocks = stats.scheduler.blocks;
    let device = json!({
        "tier": "device",
        "capacity_blocks": info.num_blocks,
        "used_blocks": info.num_blocks - blocks.free,
        "evicted_blocks": stats.scheduler.evictions,
        "states": {
            "free": blocks.free, "filling": blocks.filling, "cached": blocks.cached, "leased": blocks.leased,
        },
    });
    let lower = |name: &str, tier: &TierStats| {
        json!({
            "tier": name,
            "capacity_blocks": tier.capacity_blocks,
            "used_blocks": tier.used_blocks,
            "hit_blocks": tier.hit_blocks,
            "declined_blocks": tier.declined_blocks,
            "stored_blocks": tier.stored_blocks,
            "evicted_blocks": tier.evicted_blocks,
            "failed_blocks": tier.failed_blocks,
            "load_bytes_per_s": tier.bandwidth,
        })
    };
    Json(json!({
        "object": "list",
        "block_bytes": info.block_bytes,
        "block_tokens": info.block_size,
        "data": [device, lower("host", &stats.host), lower("disk", &stats.disk)],
    }))
}

/// `GET /v1/scheduler/decisions`: the latest, oldest first.
pub async fn decisions(State(app): State<Arc<Shared>>) -> Result<Json<Value>, ApiError> {
    let decisions = app.parts.engine.decisions().await?;
    let data: Vec<Value> = decisions.iter().map(decision_json).collect();
    Ok(Json(json!({"object": "list", "data": data})))
}

/// `POST /v1/scheduler/reset`: forgets what is cached on the device, so that the next request shows the lower tiers.
pub async fn reset(State(app): State<Arc<Shared>>) -> Result<Json<Value>, ApiError> {
    let num_blocks = app.parts.engine.reset(Reset::ForgetDevice).await?;
    Ok(Json(json!({"object": "scheduler.reset", "tier": "device", "forgotten_blocks": num_blocks})))
}

fn decision_json(decision: &Decision) -> Value {
    let (kind, reason) = match decision.kind {
        DecisionKind::Load(_) => ("load", "expected to be faster than to compute, or not measured yet"),
        DecisionKind::Recompute => ("recompute", "expected to be faster than to load"),
        DecisionKind::Spill => ("spill", "evicted from memory while there was room on disk"),
        DecisionKind::SpillRefused => ("drop", "the way to the disk was full"),
        DecisionKind::Save => ("save", "idle, and not on disk yet"),
    };
    json!({
        "number": decision.number,
        "kind": kind,
        "reason": reason,
        "blocks": decision.num_blocks,
        "expected_load_s": decision.load_s,
        "expected_compute_s": decision.compute_s,
        "measured_s": decision.measured_s,
    })
}
