//! How every command writes files: whole or not at all, and what is no file is written into and stays what it is.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use ergodic_tests::{Cluster, Finished, SmallDisk, program, skip};

use crate::refusals::refused;
use crate::weights::KEEPING;

/// All commands that write a file, without where to, with the ending that its name needs.
fn commands(id: &str) -> Vec<(Vec<String>, &'static str)> {
    let all: [(&[&str], &'static str); 9] = [
        (&["table", id], ".csv"),
        (&["table", id], ".parquet"),
        (&["trials", id], ".json"),
        (&["curves", id], ".md"),
        (&["plot", id, "--kind", "distribution"], ".svg"),
        (&["plot", id, "--kind", "distribution"], ".png"),
        (&["weights", id, "0/1"], ".safetensors"),
        (&["backup"], ".backup"),
        (&["token", "new", "--role", "user"], ".token"),
    ];

    all.map(|(args, ending)| (args.iter().map(|arg| (*arg).to_owned()).collect(), ending))
        .to_vec()
}

/// What is to be tried is a coordinator that asks for tokens, with a sweep that keeps everything.
fn cluster() -> (Cluster, String) {
    let mut cluster = Cluster::start(&["--secure"]);
    cluster.access = vec![
        "--token-file".to_owned(),
        cluster.path("store/auth/admin.token").display().to_string(),
    ];
    let access = cluster.access.clone();
    let _worker = cluster.worker(2, &access.iter().map(String::as_str).collect::<Vec<_>>());

    let id = cluster.launch(KEEPING);
    cluster.wait_for_end(&id);
    (cluster, id)
}

fn ask(cluster: &Cluster, args: &[String], place: &Path) -> Finished {
    let place = place.display().to_string();
    let args: Vec<&str> = args
        .iter()
        .map(String::as_str)
        .chain(["-o", &place])
        .collect();
    cluster.run(&args)
}

/// What a client says of the coordinator.
fn whom(cluster: &Cluster) -> Vec<String> {
    [
        vec!["--coordinator".to_owned(), cluster.url.clone()],
        cluster.access.clone(),
    ]
    .concat()
}

/// Names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let mut names: Vec<String> = entries
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();

    names
}

#[test]
fn what_is_no_file_is_written_into_and_links_stay() {
    let (cluster, id) = cluster();
    let dir = cluster.path("out");
    fs::create_dir(&dir).expect("a directory");

    for (args, ending) in commands(&id) {
        // A file of its own is what all others are compared with, where the same is written twice.
        let file = dir.join(format!("file{ending}"));
        assert_eq!(ask(&cluster, &args, &file).code, 0, "{args:?}");
        let wanted = fs::read(&file).expect("a file");
        let same = |what: &str, found: &[u8]| match ending {
            ".token" => assert!(
                found.starts_with(b"user.") && found.ends_with(b"\n"),
                "{what}"
            ),
            _ => assert!(
                found == wanted,
                "{args:?}: {what} has {} bytes of {}",
                found.len(),
                wanted.len()
            ),
        };

        let fifo = dir.join(format!("fifo{ending}"));
        assert!(
            Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .is_ok_and(|status| status.success())
        );

        let reading = fifo.clone();
        let reader = std::thread::spawn(move || {
            let mut read = Vec::new();
            File::open(reading)
                .and_then(|mut fifo| fifo.read_to_end(&mut read))
                .map(|_| read)
        });

        assert_eq!(ask(&cluster, &args, &fifo).code, 0, "{args:?}");
        same(
            "the pipe",
            &reader.join().expect("a reader").expect("it reads"),
        );
        assert!(
            fs::symlink_metadata(&fifo).is_ok_and(|found| found.file_type().is_fifo()),
            "{args:?}"
        );

        let target = dir.join(format!("target{ending}"));
        let link = dir.join(format!("link{ending}"));

        if ending != ".token" {
            fs::write(&target, "what was there").expect("a file");
        }

        symlink(target.file_name().expect("a name"), &link).expect("a link");
        assert_eq!(ask(&cluster, &args, &link).code, 0, "{args:?}");
        assert!(link.is_symlink() && !target.is_symlink(), "{args:?}");
        same(
            "what the link leads to",
            &fs::read(&target).expect("a file"),
        );

        // Devices, by links whose names end as they must.
        let null = dir.join(format!("null{ending}"));
        let full = dir.join(format!("full{ending}"));
        symlink("/dev/null", &null).expect("a link");
        symlink("/dev/full", &full).expect("a link");
        assert_eq!(ask(&cluster, &args, &null).code, 0, "{args:?}");
        refused(
            &ask(&cluster, &args, &full),
            2,
            &["full", "cannot be written", "No space left"],
        );

        for device in ["/dev/null", "/dev/full"] {
            let found = fs::metadata(device).expect("a device");
            assert!(found.file_type().is_char_device(), "{args:?}: {device}");
        }

        assert!(null.is_symlink() && full.is_symlink());

        // Stdout by its name, into a pipe, and into a file that the shell goes on with.
        let stdout = dir.join(format!("stdout{ending}"));
        symlink("/dev/stdout", &stdout).expect("a link");
        let piped = ask(&cluster, &args, &stdout);
        assert!(piped.code == 0 && piped.stdout.len() > 20, "{piped:?}");
        let shown = dir.join("shown");
        let line = "echo before; \"$@\"; code=$?; echo after; exit $code";

        let mut command = Command::new("sh");
        command
            .args(["-c", line, "sh"])
            .arg(program("ergodic"))
            .args(&args)
            .arg("-o")
            .arg(&stdout);

        command
            .args(whom(&cluster))
            .stdout(File::create(&shown).expect("a file"))
            .stderr(Stdio::null());
        assert!(
            command.status().is_ok_and(|status| status.success()),
            "{args:?}"
        );

        let shown = fs::read(&shown).expect("a file");
        assert!(
            shown.starts_with(b"before\n") && shown.ends_with(b"after\n"),
            "{args:?}"
        );
        assert!(shown.len() > 34, "{args:?}: nothing is between them");

        assert!(stdout.is_symlink());
        assert!(
            names(&dir).iter().all(|name| !name.ends_with(".part")),
            "{:?}",
            names(&dir)
        );
    }

    // What the shell substitutes.
    let into = cluster.path("substituted");
    let line = format!("\"$@\" -o >(cat > {}) && wait $!", into.display());
    let mut command = Command::new("bash");
    command
        .args(["-c", &line, "bash"])
        .arg(program("ergodic"))
        .args(["table", &id, "--format", "csv"])
        .args(whom(&cluster));

    match command.status() {
        Ok(status) => {
            assert!(status.success());
            assert_eq!(
                fs::read(&into).expect("a file"),
                fs::read(dir.join("file.csv")).expect("a file")
            );
        }
        Err(why) => skip(
            "what_is_no_file_is_written_into_and_links_stay: substitution",
            "bash",
            &why.to_string(),
        ),
    }
}

#[test]
fn a_file_is_whole_or_what_it_was() {
    let (cluster, id) = cluster();
    let dir = cluster.path("out");
    fs::create_dir(&dir).expect("a directory");
    let report: (Vec<String>, &str) = (vec!["report".into(), id.clone()], "");
    let export: (Vec<String>, &str) = (vec!["export".into(), id.clone()], "");

    match SmallDisk::mount(&dir.join("disk"), 1) {
        None => skip(
            "a_file_is_whole_or_what_it_was",
            "tmpfs",
            "mounting one needs root",
        ),
        Some(disk) => {
            for (args, ending) in commands(&id)
                .into_iter()
                .chain([report.clone(), export.clone()])
            {
                let place = disk.path().join(format!("file{ending}"));
                let is_file = !ending.is_empty() && ending != ".token";
                if is_file {
                    fs::write(&place, "what was there").expect("a file");
                }

                let filler = disk.path().join("filler");
                let mut bytes = File::create(&filler).expect("a file");
                while std::io::Write::write_all(&mut bytes, &[0; 4096]).is_ok() {}
                drop(bytes);
                let said = ask(&cluster, &args, &place);
                assert!(
                    said.code != 0 && said.stderr.contains("error: "),
                    "{args:?}: {said:?}"
                );

                assert!(
                    said.stderr.contains("pace left") || said.stderr.contains("room"),
                    "{args:?}: {said:?}"
                );
                fs::remove_file(&filler).expect("a file");

                if is_file {
                    assert_eq!(
                        fs::read_to_string(&place).expect("a file"),
                        "what was there",
                        "{args:?}"
                    );

                    fs::remove_file(&place).expect("a file");
                }

                let left = files_below(disk.path());
                assert!(
                    left.iter().all(|name| name.ends_with(".lock")),
                    "{args:?}: {left:?}"
                );

                let _ = fs::remove_dir_all(&place);
            }

            disk.make_read_only();
            for (args, ending) in commands(&id).into_iter().chain([report, export]) {
                let said = ask(&cluster, &args, &disk.path().join(format!("file{ending}")));
                refused(&said, 2, &["Read-only", "name another"]);
            }
        }
    }

    for (args, ending) in commands(&id) {
        fs::create_dir_all(dir.with_file_name(format!("folder{ending}"))).expect("a directory");
        let nowhere = dir.join("none").join(format!("file{ending}"));
        refused(
            &ask(&cluster, &args, &nowhere),
            2,
            &["cannot be written", "out/none does not exist: create it"],
        );

        if ending != ".token" {
            refused(
                &ask(
                    &cluster,
                    &args,
                    &dir.with_file_name(format!("folder{ending}")),
                ),
                2,
                &["it is a directory"],
            );
        }
    }

    let file = dir.join("t.token");
    let args: Vec<String> = ["token", "new", "--role", "user"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(ask(&cluster, &args, &file).code, 0);
    let before = fs::read(&file).expect("a file");

    refused(&ask(&cluster, &args, &file), 2, &["it exists already"]);
    assert_eq!(fs::read(&file).expect("a file"), before);
    assert_eq!(
        fs::metadata(&file).expect("a file").permissions().mode() & 0o777,
        0o600
    );
}

/// Files below a directory.
fn files_below(dir: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path.display().to_string());
        }
    }

    files
}
