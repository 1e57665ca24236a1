//! The machines of the simulation: a coordinator and workers, made of the programs' own parts.
//!
//! Simulated are the network (turmoil), time, chance, the death of a process, and how long a trial and a commit take. A
//! slot is a task rather than a thread, the two loops of the coordinator are tasks too; connections are taken and made
//! without TLS, limits and handshakes. All else is what the programs run.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use ergodic::server::blobs::BlobStore;
use ergodic::server::{
    CoordinatorParts, CoordinatorSetup, LimitOptions, ProgramPolicy, assemble_coordinator,
    recover_core,
};
use ergodic::store::sqlite::SqliteStore;
use ergodic::store::{ReadableStore as _, Store};
use ergodic_common::Spec;
use ergodic_common::spec::SpecSource;
use ergodic_common::trial::CPU_F32;
use ergodic_proto::channel::connect::connect_lazily_over;
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::v1;
use ergodic_proto::v1::sweep_service_client::SweepServiceClient;
use ergodic_worker::device::DeviceChoice;
use ergodic_worker::experiment::Experiments;
use ergodic_worker::link::datasets::DatasetDirs;
use ergodic_worker::link::session::WorkerIdentity;
use ergodic_worker::link::{Link, LinkPool, delivery, reconnect};
use ergodic_worker::runner::{SlotConfig, TrialRunner, run_assignment};
use ergodic_worker::shared_queue::SharedQueue;
use ergodic_worker::train::Isa;
use ergodic_worker::work_queue::Assignment;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

use crate::ledger::{Shared, Watched};

const PORT: u16 = 7700;
/// Short, so that much happens in little time.
const LEASE_TTL: Duration = Duration::from_secs(4);
/// How long an end may take.
const GRACE: Duration = Duration::from_secs(5);
/// Trials that a worker runs at a time.
const SLOTS: u32 = 2;

/// A sweep of many empty trials in two shape classes.
const SWEEP: &str = "name = \"s\"\nrepeats = 60\nseed = 3\n[data]\ntrain = 64\n[model]\nkind = \"empty\"\n[grid]\n\
                     lr = [0.1, 0.2, 0.3]\nbatch_size = [8, 16]\n";

/// The sweep that everybody works on.
pub(crate) fn sweep() -> (SpecSource, Arc<Spec>) {
    let source = SpecSource {
        file: "s".into(),
        text: SWEEP.into(),
        ..SpecSource::default()
    };
    let spec = Spec::read_stored(&source).expect("a valid sweep");
    (source, Arc::new(spec))
}

/// What outlives the coordinator's process: its disk, and the one that looks at it.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) dir: PathBuf,
    pub(crate) ledger: Shared,
    pub(crate) spec: Arc<Spec>,
    pub(crate) seed: u64,
    pub(crate) stop: watch::Receiver<bool>,
}

/// Serves until it is told to stop.
pub(crate) async fn coordinator(disk: Disk) -> turmoil::Result {
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&disk.dir)?);
    disk.ledger.look().compare(store.open_reader()?.as_ref());
    let epoch = store.acquire_leadership("http://coordinator:7700")?.epoch;
    let mut writer = store.open_writer(epoch)?;
    let (core, _) = recover_core(
        store.as_ref(),
        Some(writer.as_mut()),
        epoch,
        LEASE_TTL,
        false,
    )?;

    let watched = Watched {
        writer,
        spec: disk.spec.clone(),
        ledger: disk.ledger.clone(),
    };
    let CoordinatorParts {
        engine,
        mut writer,
        services,
        ..
    } = assemble_coordinator(CoordinatorSetup {
        store,
        epoch,
        core,
        writer: Box::new(watched),
        blobs: BlobStore::new(disk.dir.join("data")),
        data_dir: None,
        tokens: None,
        programs: ProgramPolicy::Nobody,
        lease_ttl: LEASE_TTL,
        limits: LimitOptions::without_rates(),
        stopping: disk.stop.clone(),
    })?;
    tokio::spawn(engine.run_until_stopped());

    tokio::spawn(async move {
        for turn in 0_u64.. {
            // A commit takes from one to eight hundredths of a second.
            sleep(Duration::from_millis(10 + 10 * (mix(disk.seed ^ turn) % 8))).await;
            writer.commit_queued();
        }
    });

    let connections = incoming().await?;
    let mut stop = disk.stop;
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
        sleep(GRACE).await;
    };
    tokio::select! {
        served = services.serve_connections(connections) => Ok(served?),
        // As the program does, which waits for nobody who holds a connection open.
        () = stopped => Ok(()),
    }
}

async fn incoming() -> io::Result<ReceiverStream<io::Result<Accepted>>> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let (ready, connections) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if ready.send(Ok(Accepted(stream))).await.is_err() {
                return;
            }
        }
    });

    Ok(ReceiverStream::new(connections))
}

/// A connection that somebody made.
struct Accepted(TcpStream);

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Makes connections in the simulated network.
#[derive(Clone)]
struct Connector;

impl tower::Service<http::Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            Ok(TokioIo::new(TcpStream::connect((host, PORT)).await?))
        })
    }
}

const COORDINATOR: &str = "http://coordinator:7700";

/// Launches the sweep.
pub(crate) async fn user(source: SpecSource) -> turmoil::Result {
    let mut sweeps = SweepServiceClient::new(connect_lazily_over(COORDINATOR, Connector)?);
    let request = v1::LaunchRequest {
        source: Some((&source).into()),
        ..v1::LaunchRequest::default()
    };
    sweeps.launch(request.with_checksum()).await?;
    Ok(())
}

/// What can be done to a worker's process from outside.
pub(crate) struct Leash {
    queue: Arc<SharedQueue>,
    leave: watch::Sender<bool>,
}

impl Leash {
    /// SIGTERM.
    pub(crate) fn leave(&self) {
        self.queue.with_queue(|queue| queue.close());
        let _ = self.leave.send(true);
    }
}

/// A worker's machine: which process runs on it, if any, and how many did.
#[derive(Clone, Default)]
pub(crate) struct Machines(Rc<RefCell<Vec<Leash>>>);

impl Machines {
    /// Every process that ever was is told to leave; those that are dead do not hear it.
    pub(crate) fn leave(&self) {
        self.0.borrow().iter().for_each(Leash::leave);
    }

    fn begin(&self, leash: Leash) -> usize {
        self.0.borrow_mut().push(leash);
        self.0.borrow().len()
    }
}

/// Works until it is told to leave.
pub(crate) async fn worker(machines: Machines, seed: u64, cache: PathBuf) -> turmoil::Result {
    let queue = Arc::new(SharedQueue::new(SLOTS));
    let (leave, leaving) = watch::channel(false);
    let process = machines.begin(Leash {
        queue: queue.clone(),
        leave,
    });

    let links = LinkPool::from_link(Link::from_channel(
        connect_lazily_over(COORDINATOR, Connector)?,
        true,
    ));
    let identity = WorkerIdentity {
        coordinator_url: COORDINATOR.into(),
        worker_id: format!("{process:032x}").into(),
        name: format!("process-{process}"),
        numerics: CPU_F32.into(),
        slots: SLOTS,
        idle_exit: None,
        leaves_at: None,
        has_programs: false,
        experiments: Experiments::default(),
        memory: None,
    };
    delivery::start_delivery(&queue, &links, &identity.worker_id);

    for _ in 0..SLOTS {
        tokio::task::spawn_local(slot(queue.clone(), seed));
    }

    let places = DatasetDirs {
        data_dir: None,
        cache_dir: cache,
    };
    reconnect::run_until_drained(&identity, &queue, links, &places, None, leaving).await?;

    Ok(())
}

/// Runs trials as a slot's thread does; what they take is said by the seed.
async fn slot(queue: Arc<SharedQueue>, seed: u64) {
    let equipment = SlotConfig {
        threads: 1,
        isa: Isa::Portable,
        device: DeviceChoice::Cpu,
        checkpoint_dir: None,
        programs: None,
        experiments: Experiments::default(),
    };
    let machine = TrialRunner::new(&equipment).expect("a slot without a device");

    loop {
        let now = queue.uptime();
        match queue.with_queue(|queue| queue.begin_trial(now)) {
            None => sleep(Duration::from_millis(20)).await,
            Some(assignment) => {
                let whole = take_time(&assignment, seed).await;
                let result = whole.and_then(|took| {
                    let mut finished = run_assignment(&assignment, &machine, None).ok()?;
                    finished.result.seconds = took.as_secs_f64();
                    Some(finished)
                });
                queue.finish_trial(&assignment, result);
            }
        }
    }
}

/// How long the trial took; nothing if it was stopped.
async fn take_time(assignment: &Assignment, seed: u64) -> Option<Duration> {
    const LOOK: Duration = Duration::from_millis(50);
    let key = assignment.key;
    let chance = mix(seed ^ mix(key.cell.0 << 32 | u64::from(key.repeat.0)));

    // One in sixteen takes seconds, the others tenths of one.
    let looks = if chance.is_multiple_of(16) {
        20 + (chance >> 8) % 60
    } else {
        1 + (chance >> 8) % 10
    };
    for _ in 0..looks {
        sleep(LOOK).await;
        if assignment.stop.load(Ordering::Relaxed) {
            return None;
        }
    }

    Some(LOOK * looks as u32)
}

/// A number that says nothing of this one.
pub(crate) fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// The digest of all rows, without when and where they were computed.
pub(crate) fn digest(dir: &Path) -> String {
    let store = SqliteStore::open(dir).expect("the coordinator has ended");
    let reader = store.open_reader().expect("a reader");
    let mut hasher = blake3::Hasher::new();

    for sweep in reader.read_sweeps().expect("sweeps can be read") {
        let mut keys = Vec::new();
        let mut keep = |trial: ergodic::store::StoredTrial| {
            keys.push(trial.result.key);
            true
        };
        reader
            .read_trials(sweep.number, &mut keep)
            .expect("rows can be read");

        for key in keys {
            let row = reader
                .read_trial(sweep.number, key)
                .expect("a row can be read")
                .expect("it was there a moment ago");
            let result = ergodic_common::TrialResult {
                seconds: 0.0,
                ..row.result
            };

            hasher.update(&ergodic_proto::result_to_bytes(result));
        }
    }

    hasher.finalize().to_hex()[..16].to_owned()
}
