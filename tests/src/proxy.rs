//! A network between workers and coordinator that can be made to fail: late, cut, silent, or damaged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What happens to bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Bytes arrive.
    Fair,
    /// Bytes arrive this much later.
    Slow(Duration),
    /// Bytes vanish, and so does whatever else is sent over a connection that has lost any. New connections are taken,
    /// and go nowhere.
    Silent,
    /// One bit of about so many bytes arrives changed.
    Damaging(u64),
}

/// A proxy in front of one address. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub url: String,
    weather: watch::Sender<Weather>,
    /// Counts up with every cut; connections of an earlier count are reset.
    cuts: watch::Sender<u64>,
    harm: Arc<AtomicU64>,
    _runtime: Runtime,
}

/// What a connection needs to know.
#[derive(Clone)]
struct Sky {
    weather: watch::Receiver<Weather>,
    cuts: watch::Receiver<u64>,
    /// Connections cut, bytes lost or damaged.
    harm: Arc<AtomicU64>,
}

impl Proxy {
    /// A proxy in front of a coordinator.
    ///
    /// # Panics
    /// There is no free port.
    pub fn before(url: &str) -> Self {
        let to: SocketAddr = url
            .trim_start_matches("http://")
            .parse()
            .expect("a coordinator's address");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");

        let (weather, fair) = watch::channel(Weather::Fair);
        let (cuts, uncut) = watch::channel(0);
        let harm = Arc::new(AtomicU64::new(0));
        let sky = Sky {
            weather: fair,
            cuts: uncut,
            harm: harm.clone(),
        };

        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        runtime.spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(join(from, to, sky.clone()));
            }
        });

        Self {
            url,
            weather,
            cuts,
            harm,
            _runtime: runtime,
        }
    }

    /// Changes the weather for all connections, old and new.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Resets all connections there are (RST, not an orderly end).
    pub fn cut(&self) {
        self.cuts.send_modify(|n| *n += 1);
    }

    /// Connections that were cut, pieces that were lost, bits that were changed: proof that something happened.
    pub fn harm(&self) -> u64 {
        self.harm.load(Ordering::SeqCst)
    }
}

async fn join(mut from: TcpStream, to: SocketAddr, mut sky: Sky) {
    let Ok(mut there) = TcpStream::connect(to).await else {
        return;
    };
    let _ = (from.set_nodelay(true), there.set_nodelay(true));
    let uncut = *sky.cuts.borrow_and_update();
    let lost = AtomicBool::new(false);

    let mut cuts = sky.cuts.clone();
    let cut = {
        let (read, write) = from.split();
        let (read_there, write_there) = there.split();
        let both = async {
            tokio::join!(
                carry(read, write_there, &sky, &lost, 1),
                carry(read_there, write, &sky, &lost, 2)
            );
        };

        tokio::select! {
            () = both => false,
            _ = cuts.wait_for(|n| *n != uncut) => true,
        }
    };

    if cut {
        // Sockets that linger for no time close with a reset.
        let _ = (from.set_zero_linger(), there.set_zero_linger());
        sky.harm.fetch_add(1, Ordering::SeqCst);
    }
}

/// Carries bytes one way until an end closes. An end that closes in good order is closed in good order on the other side.
async fn carry(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    sky: &Sky,
    lost: &AtomicBool,
    seed: u64,
) {
    let mut piece = vec![0; 16 << 10];
    let mut chance = Chance(seed);

    while let Ok(n @ 1..) = from.read(&mut piece).await {
        let weather = *sky.weather.borrow();
        match weather {
            Weather::Slow(by) => tokio::time::sleep(by).await,
            Weather::Damaging(per) => {
                _ = sky
                    .harm
                    .fetch_add(chance.damage(&mut piece[..n], per), Ordering::SeqCst)
            }
            Weather::Silent => lost.store(true, Ordering::SeqCst),
            Weather::Fair => {}
        }

        if lost.load(Ordering::SeqCst) {
            sky.harm.fetch_add(1, Ordering::SeqCst);
        } else if to.write_all(&piece[..n]).await.is_err() {
            return;
        }
    }

    // What follows a hole must not arrive, not even the end.
    if lost.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }

    let _ = to.shutdown().await;
}

/// A small generator of its own, so that a run can be repeated.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Flips a bit in about one of `per` bytes; gives how many.
    fn damage(&mut self, piece: &mut [u8], per: u64) -> u64 {
        let mut flipped = 0;
        for byte in piece {
            if self.next().is_multiple_of(per) {
                *byte ^= 1 << (self.next() % 8);
                flipped += 1;
            }
        }
        flipped
    }
}
