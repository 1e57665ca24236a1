//! A PostgreSQL server of a test's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::process::children_of;

/// A server that listens on a socket in a temporary directory, and nowhere else. Stopped and removed when dropped.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    dir: PathBuf,
}

impl Postgres {
    /// Makes a database cluster and starts its server.
    ///
    /// # Errors
    /// PostgreSQL's programs are missing, in words.
    ///
    /// # Panics
    /// The programs are there, and the server does not come up.
    pub fn start() -> Result<Self, String> {
        let programs = programs().ok_or("there is no initdb below /usr/lib/postgresql")?;
        let dir = said(&as_postgres(
            "mktemp",
            &["-d", "/tmp/ergodic-postgres-XXXXXX"],
        ));
        let server = Self {
            programs,
            dir: PathBuf::from(dir),
        };
        server.program(
            "initdb",
            &[
                "--auth=trust",
                "--encoding=UTF8",
                "--username=ergodic",
                "--pgdata",
            ],
        );

        let settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\n",
            server.dir.display()
        );
        let file = server.data().join("postgresql.conf");
        let old = std::fs::read_to_string(&file).expect("initdb has written it");
        std::fs::write(&file, old + &settings).expect("a file can be written");

        server.control(&["start"]);
        Ok(server)
    }

    /// The URL of its database.
    pub fn url(&self) -> String {
        format!(
            "postgres://ergodic:not-to-be-told@localhost/postgres?host={}",
            self.dir.display()
        )
    }

    /// Stops the server, cutting off whoever is connected, and starts it again.
    ///
    /// # Panics
    /// The server does not come up.
    pub fn restart(&self) {
        self.control(&["restart", "--mode=immediate"]);
    }

    /// Stops the server, cutting off whoever is connected.
    ///
    /// # Panics
    /// The server does not stop.
    pub fn stop(&self) {
        self.control(&["stop", "--mode=immediate"]);
    }

    /// Starts it again.
    ///
    /// # Panics
    /// The server does not come up.
    pub fn go_on(&self) {
        self.control(&["start"]);
    }

    /// SIGSTOP for all of its processes: connections stay open, and nobody answers.
    ///
    /// # Panics
    /// The server does not run.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// The server does not run.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let file =
            std::fs::read_to_string(self.data().join("postmaster.pid")).expect("the server runs");
        let first: u32 = file
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok())
            .expect("its number");

        // The one that makes others first.
        for process in std::iter::once(first).chain(children_of(first)) {
            run("kill", &[&format!("-{name}"), &process.to_string()]);
        }
    }

    /// What a query yields, unadorned.
    ///
    /// # Panics
    /// The query fails.
    pub fn ask(&self, sql: &str) -> String {
        let socket = self.dir.display().to_string();
        let args = [
            "-h",
            &socket,
            "-U",
            "ergodic",
            "-d",
            "postgres",
            "-v",
            "ON_ERROR_STOP=1",
            "-qAt",
            "-c",
            sql,
        ];

        said(&run(
            &self.programs.join("psql").display().to_string(),
            &args,
        ))
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn control(&self, args: &[&str]) {
        let log = self.dir.join("log").display().to_string();
        self.program(
            "pg_ctl",
            &[args, &["--wait", "--silent", "--log", &log, "--pgdata"]].concat(),
        );
    }

    /// Runs a program of the server's on its data.
    fn program(&self, name: &str, args: &[&str]) {
        let program = self.programs.join(name).display().to_string();
        let data = self.data().display().to_string();
        said(&as_postgres(&program, &[args, &[&data]].concat()));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.data().join("postmaster.pid").exists() {
            self.thaw();
        }

        let program = self.programs.join("pg_ctl").display().to_string();
        let data = self.data().display().to_string();
        as_postgres(
            &program,
            &[
                "stop",
                "--mode=immediate",
                "--wait",
                "--silent",
                "--pgdata",
                &data,
            ],
        );

        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The folder of the newest installed version's programs.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let folders = versions.filter_map(|entry| {
        let version = entry.file_name().to_string_lossy().parse::<u32>().ok()?;
        Some((version, entry.path().join("bin")))
    });
    folders
        .filter(|(_, folder)| folder.join("initdb").is_file())
        .max()
        .map(|(_, folder)| folder)
}

/// PostgreSQL refuses to run as root: then it runs as the user that its package makes.
fn as_postgres(program: &str, args: &[&str]) -> Output {
    let root = std::fs::metadata("/proc/self")
        .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if root {
        run(
            "runuser",
            &[&["-u", "postgres", "--", program], args].concat(),
        )
    } else {
        run(program, args)
    }
}

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .current_dir(Path::new("/"))
        .output()
        .expect("a program of PostgreSQL starts")
}

fn said(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
