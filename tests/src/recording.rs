//! What a worker and a coordinator said to each other, recorded message by message, and said again to another coordinator.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use prost::bytes::{Buf as _, BufMut as _};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::client::Grpc as ClientGrpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::server::{Grpc as ServerGrpc, NamedService, StreamingService};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

/// Messages as bytes, whatever they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct RawCodec;

impl Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, bytes: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&bytes);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}

/// One thing that happened on one of the calls of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordedEvent {
    /// A call of this method begins.
    Call(String),
    /// The worker sent a message.
    Sent(Vec<u8>),
    /// The worker sends no more.
    SentAll,
    /// The coordinator sent a message.
    Received(Vec<u8>),
}

/// Events in their order, each with the number of its call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recording {
    /// The events.
    pub events: Vec<(u32, RecordedEvent)>,
}

impl Recording {
    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Panics
    /// The file is no recording.
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("a recording can be read");
        let mut rest = &bytes[..];
        let mut recording = Self::default();

        while !rest.is_empty() {
            let kind = rest.get_u8();
            let call = rest.get_u32();
            let length = rest.get_u32() as usize;
            let content = rest.copy_to_bytes(length).to_vec();
            let event = match kind {
                0 => RecordedEvent::Call(String::from_utf8(content).expect("a method is text")),
                1 => RecordedEvent::Sent(content),
                2 => RecordedEvent::SentAll,
                _ => RecordedEvent::Received(content),
            };
            recording.events.push((call, event));
        }
        recording
    }

    /// Writes it to a file.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn write(&self, path: &Path) {
        let mut bytes = Vec::new();
        for (call, event) in &self.events {
            let (kind, content) = match event {
                RecordedEvent::Call(method) => (0, method.as_bytes()),
                RecordedEvent::Sent(message) => (1, &message[..]),
                RecordedEvent::SentAll => (2, &[][..]),
                RecordedEvent::Received(message) => (3, &message[..]),
            };
            bytes.put_u8(kind);
            bytes.put_u32(*call);
            bytes.put_u32(content.len() as u32);
            bytes.put_slice(content);
        }
        std::fs::write(path, bytes).expect("a recording can be written");
    }

    /// Sends what the worker sent to the coordinator at `url`, and gives what that one answers to the messages that were
    /// recorded: method, recorded answer, answer now.
    ///
    /// # Panics
    /// An answer does not come.
    pub fn replay(&self, url: &str) -> Vec<(String, Vec<u8>, Vec<u8>)> {
        let runtime = Runtime::new().expect("a runtime can be made");
        runtime.block_on(async {
            let endpoint = Channel::from_shared(url.to_owned()).expect("an address");
            let channel = endpoint.connect().await.expect("the coordinator answers");
            let mut calls: HashMap<u32, ReplayedCall> = HashMap::new();
            let mut answers = Vec::new();

            for (number, event) in &self.events {
                match event {
                    RecordedEvent::Call(method) => {
                        calls.insert(*number, ReplayedCall::start(channel.clone(), method));
                    }
                    RecordedEvent::Sent(message) => calls[number].send(message.clone()).await,
                    RecordedEvent::SentAll => {
                        calls.get_mut(number).expect("the call has begun").requests = None;
                    }
                    RecordedEvent::Received(recorded) => {
                        let call = calls.get_mut(number).expect("the call has begun");
                        let answer = call.next_answer().await;
                        answers.push((call.method.clone(), recorded.clone(), answer));
                    }
                }
            }
            answers
        })
    }
}

/// A call of a recording that is made again.
struct ReplayedCall {
    method: String,
    requests: Option<mpsc::Sender<Vec<u8>>>,
    answers: mpsc::Receiver<Result<Vec<u8>, Status>>,
}

impl ReplayedCall {
    fn start(channel: Channel, method: &str) -> Self {
        let (requests, outgoing) = mpsc::channel(64);
        let (sender, answers) = mpsc::channel(64);
        let path = method.to_owned();

        tokio::spawn(async move {
            match call_raw(channel, &path, outgoing).await {
                Ok(mut stream) => {
                    while let Some(answer) = stream.next().await {
                        let _ = sender.send(answer).await;
                    }
                }
                Err(status) => {
                    let _ = sender.send(Err(status)).await;
                }
            }
        });
        Self {
            method: method.to_owned(),
            requests: Some(requests),
            answers,
        }
    }

    async fn send(&self, message: Vec<u8>) {
        let requests = self.requests.as_ref().expect("the worker sends still");
        requests.send(message).await.expect("the call goes on");
    }

    async fn next_answer(&mut self) -> Vec<u8> {
        let answer = tokio::time::timeout(Duration::from_secs(60), self.answers.recv()).await;
        let answer = answer.unwrap_or_else(|_| panic!("{} is not answered", self.method));
        let answer = answer.unwrap_or_else(|| panic!("{} has ended", self.method));
        answer.unwrap_or_else(|status| panic!("{}: {status}", self.method))
    }
}

async fn call_raw(
    channel: Channel,
    method: &str,
    requests: mpsc::Receiver<Vec<u8>>,
) -> Result<Streaming<Vec<u8>>, Status> {
    let mut client = ClientGrpc::new(channel).accept_compressed(CompressionEncoding::Zstd);
    client
        .ready()
        .await
        .map_err(|e| Status::unavailable(e.to_string()))?;

    let path: PathAndQuery = method.parse().map_err(|_| Status::internal("no path"))?;
    let request = Request::new(ReceiverStream::new(requests));
    Ok(client
        .streaming(request, path, RawCodec)
        .await?
        .into_inner())
}

/// A coordinator's address for a worker, behind which everything is passed on and recorded. It ends when it is dropped.
#[derive(Debug)]
pub struct Recorder {
    /// Where it listens.
    pub url: String,
    events: Arc<Mutex<Recording>>,
    _runtime: Runtime,
}

impl Recorder {
    /// Listens in front of the coordinator at `url`.
    ///
    /// # Panics
    /// The coordinator does not answer, or no port is free.
    pub fn start(url: &str) -> Self {
        let runtime = Runtime::new().expect("a runtime can be made");
        let events = Arc::new(Mutex::new(Recording::default()));
        let forward = runtime.block_on(async {
            let endpoint = Channel::from_shared(url.to_owned()).expect("an address");
            Forward {
                channel: endpoint.connect().await.expect("the coordinator answers"),
                events: events.clone(),
            }
        });

        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        listener
            .set_nonblocking(true)
            .expect("a listener can be made not to block");
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let connections = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let services = Server::builder()
                .add_service(ForwardWorkers(forward.clone()))
                .add_service(ForwardFiles(forward));
            let _ = services.serve_with_incoming(connections).await;
        });
        Self {
            url,
            events,
            _runtime: runtime,
        }
    }

    /// What has been said so far.
    pub fn recording(&self) -> Recording {
        self.events.lock().expect("no thread has panicked").clone()
    }
}

#[derive(Debug, Clone)]
struct Forward {
    channel: Channel,
    events: Arc<Mutex<Recording>>,
}

#[derive(Debug, Clone)]
struct ForwardWorkers(Forward);

#[derive(Debug, Clone)]
struct ForwardFiles(Forward);

impl NamedService for ForwardWorkers {
    const NAME: &'static str = "ergodic.v1.WorkerService";
}

impl NamedService for ForwardFiles {
    const NAME: &'static str = "ergodic.v1.FileService";
}

type BoxedResponse = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl tower::Service<http::Request<Body>> for ForwardWorkers {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxedResponse;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> BoxedResponse {
        self.0.forward(request)
    }
}

impl tower::Service<http::Request<Body>> for ForwardFiles {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxedResponse;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> BoxedResponse {
        self.0.forward(request)
    }
}

impl Forward {
    fn forward(&self, request: http::Request<Body>) -> BoxedResponse {
        let method = request.uri().path().to_owned();
        let call = ForwardedCall {
            forward: self.clone(),
            method,
        };
        Box::pin(async move {
            let mut server = ServerGrpc::new(RawCodec).accept_compressed(CompressionEncoding::Zstd);
            Ok(server.streaming(call, request).await)
        })
    }

    fn record(&self, call: u32, event: RecordedEvent) {
        self.events
            .lock()
            .expect("no thread has panicked")
            .events
            .push((call, event));
    }

    fn record_call(&self, method: &str) -> u32 {
        let mut recording = self.events.lock().expect("no thread has panicked");
        let calls = recording
            .events
            .iter()
            .filter(|(_, event)| matches!(event, RecordedEvent::Call(_)));
        let number = calls.count() as u32;
        recording
            .events
            .push((number, RecordedEvent::Call(method.to_owned())));
        number
    }
}

struct ForwardedCall {
    forward: Forward,
    method: String,
}

impl StreamingService<Vec<u8>> for ForwardedCall {
    type Response = Vec<u8>;
    type ResponseStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<Vec<u8>, Status>> + Send>>;
    type Future =
        Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Vec<u8>>>) -> Self::Future {
        let forward = self.forward.clone();
        let method = self.method.clone();
        Box::pin(async move {
            let number = forward.record_call(&method);
            let (sender, requests) = mpsc::channel(1);
            tokio::spawn(pass_on(
                forward.clone(),
                number,
                request.into_inner(),
                sender,
            ));

            let answers = call_raw(forward.channel.clone(), &method, requests).await?;
            let answers = answers.map(move |answer| {
                if let Ok(message) = &answer {
                    forward.record(number, RecordedEvent::Received(message.clone()));
                }
                answer
            });
            Ok(Response::new(Box::pin(answers) as Self::ResponseStream))
        })
    }
}

async fn pass_on(
    forward: Forward,
    number: u32,
    mut messages: Streaming<Vec<u8>>,
    sender: mpsc::Sender<Vec<u8>>,
) {
    while let Some(Ok(message)) = messages.next().await {
        forward.record(number, RecordedEvent::Sent(message.clone()));
        if sender.send(message).await.is_err() {
            return;
        }
    }
    forward.record(number, RecordedEvent::SentAll);
}
