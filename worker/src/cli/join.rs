//! `ergodic-worker --coordinator`: starts a worker from its arguments, and shuts it down in order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ergodic_common::ErrorCode;
use ergodic_common::ids::WorkerId;
use ergodic_proto::cache_folder::find_cache_folder;
use ergodic_proto::identity::{host_name, random_hex};
use ergodic_proto::status::UserError;
use tokio::sync::watch;

use crate::checkpoint_store::CheckpointPolicy;
use crate::cli::departure::{Departure, drain_when_due};
use crate::cli::{JoinArgs, WorkerAuthArgs};
use crate::device::DeviceChoice;
use crate::experiment::Experiments;
use crate::link::checkpoints::CheckpointTransfer;
use crate::link::datasets::DatasetDirs;
use crate::link::session::WorkerIdentity;
use crate::link::{LinkPool, delivery, reconnect};
use crate::program::host::{ProgramHost, ProgramTrust};
use crate::runner::SlotConfig;
use crate::shared_queue::SharedQueue;
use crate::spool::Spool;
use crate::supply::Supply;
use crate::train::Isa;
use crate::{slots, system};

pub(super) async fn join_coordinator(
    args: JoinArgs,
    isa: Isa,
    experiments: Experiments,
) -> Result<(), UserError> {
    let worker_id = WorkerId::from(random_hex::<16>());
    let departure = Departure::from_args(&args, &worker_id, Instant::now())?;
    let slots = choose_slot_count(&args)?;
    let url = args.join.clone().ok_or_else(missing_url)?;
    let gpus = choose_gpus(&args);
    let cache = args.cache_dir.clone().unwrap_or_else(default_cache_dir);
    let folders = [&args.spool, &args.checkpoint_dir, &Some(cache)].map(Option::clone);
    let programs = set_up_programs(args.programs, &url, &args.access, &folders)?
        .map(|host| host.with_gpus(gpus.clone()));
    let is_local_only = programs.as_ref().is_some_and(|host| host.is_local_only);
    let links = LinkPool::from_urls(&url, &args.access.clone().read_auth()?)?
        .with_local_leaders(is_local_only);

    let memory = args.memory.or_else(system::available_memory_bytes);
    let supply = Supply::new(slots, memory, gpus);
    let queue = open_queue(&args, slots, supply, &worker_id)?;
    let config = SlotConfig {
        threads: args.threads,
        isa,
        device: args.device,
        checkpoint_dir: args.checkpoint_dir.clone(),
        programs: programs.clone(),
        experiments: experiments.clone(),
    };
    let numerics = start_slots(&args, slots, &queue, (&links, &worker_id), &config)?;
    let identity = WorkerIdentity {
        coordinator_url: url,
        numerics,
        worker_id,
        name: args.name.unwrap_or_else(default_worker_name),
        slots,
        idle_exit: args.idle_exit,
        leaves_at: departure.leaves_at,
        has_programs: programs.is_some(),
        experiments,
        memory,
    };

    let dirs = DatasetDirs {
        data_dir: args.data_dir,
        cache_dir: args.cache_dir.unwrap_or_else(default_cache_dir),
    };
    log_start(&identity, args.threads, isa);

    delivery::start_delivery(&queue, &links, &identity.worker_id);
    let (leave, leaving) = watch::channel(false);
    let leave = (leave, programs.clone());
    tokio::spawn(drain_when_due(queue.clone(), departure, leave));

    reconnect::run_until_drained(&identity, &queue, links, &dirs, programs, leaving).await?;
    tracing::info!("left");
    Ok(())
}

fn missing_url() -> UserError {
    let message = "--coordinator: no URL given; use --coordinator URL or ERGODIC_COORDINATOR, as in --coordinator http://127.0.0.1:7700";
    UserError::new(ErrorCode::BadInput, message)
}

/// The queue of a worker, with its spool if there is one.
fn open_queue(
    args: &JoinArgs,
    slots: u32,
    supply: Supply,
    worker_id: &WorkerId,
) -> Result<Arc<SharedQueue>, UserError> {
    let spool = args
        .spool
        .as_deref()
        .map(|dir| Spool::open(dir, worker_id, args.spool_size))
        .transpose()?;
    let queue = SharedQueue::new(slots).with_supply(supply);
    Ok(Arc::new(queue.with_spool(spool)))
}

fn log_start(identity: &WorkerIdentity, threads: u32, isa: Isa) {
    tracing::info!(
        name = identity.name,
        slots = identity.slots,
        threads,
        isa = isa.name(),
        numerics = identity.numerics,
        "worker started"
    );
}

/// How programs are run, if they are to be. They must not see what the worker may read: its credentials, and folders such as spool
/// and caches.
pub(super) fn set_up_programs(
    trust: Option<ProgramTrust>,
    url: &str,
    access: &WorkerAuthArgs,
    folders: &[Option<PathBuf>],
) -> Result<Option<ProgramHost>, UserError> {
    let Some(trust) = trust else {
        return Ok(None);
    };
    for folder in folders.iter().flatten() {
        // What does not exist cannot be hidden. A folder that cannot be made is refused where it is used.
        let _ = std::fs::create_dir_all(folder);
    }

    let credentials = [&access.token_file, &access.cert, &access.key];
    let hidden = credentials.into_iter().chain(folders).flatten();
    let hidden: Vec<PathBuf> = hidden.cloned().collect();
    ProgramHost::set_up(trust, url, &hidden).map(Some)
}

/// The GPUs that programs get shares of.
fn choose_gpus(args: &JoinArgs) -> Vec<String> {
    match (&args.programs, &args.gpus) {
        (None, _) => Vec::new(),
        (Some(_), Some(names)) => names.0.clone(),
        (Some(_), None) => system::find_gpus(),
    }
}

/// Number of trials at a time: by default as many as the cores allow, or 1 on a device.
fn choose_slot_count(args: &JoinArgs) -> Result<u32, UserError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    let is_on_cpu = args.device == DeviceChoice::Cpu;
    // Only one thread may use a device, so more slots than one would gain nothing.
    let default = if is_on_cpu {
        (cores / args.threads).max(1)
    } else {
        1
    };

    let slots = args.slots.unwrap_or(default);
    if !is_on_cpu && slots > 1 {
        let message = format!(
            "--slots {slots}: --device {} has one slot; start a worker per device",
            args.device
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    Ok(slots)
}

/// Starts the slots and, unless they are off, the upload of checkpoints. Returns the numerics class
/// of the slots.
fn start_slots(
    args: &JoinArgs,
    slots: u32,
    queue: &Arc<SharedQueue>,
    (links, worker_id): (&LinkPool, &WorkerId),
    config: &SlotConfig,
) -> Result<String, UserError> {
    let policy = args.checkpoint_every.0.map(|interval| CheckpointPolicy {
        interval,
        transfer: CheckpointTransfer::start_transfer(links, worker_id),
    });

    if policy.is_none() && config.checkpoint_dir.is_some() {
        let message = "--checkpoint-dir: --checkpoint-every off writes no checkpoints; omit one of the two options";
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    slots::start_slots(queue, slots, config, policy.as_ref())
}

/// The name of a worker that was given none: its machine and process, for people.
fn default_worker_name() -> String {
    let host: String = host_name()
        .chars()
        .filter(|c| !c.is_control())
        .take(64)
        .collect();
    let host = if host.is_empty() { "worker" } else { &host };
    format!("{host}:{}", std::process::id())
}

/// The user's cache, or a folder for temporary files where there is none.
pub(super) fn default_cache_dir() -> PathBuf {
    find_cache_folder().unwrap_or_else(|| std::env::temp_dir().join("ergodic"))
}
