//! The files under `deploy/`, each read by the tool that is meant to read it, and the files of a release.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use ergodic_tests::{program, skip};

fn repository() -> &'static Path {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("tests lie in the workspace")
}

#[test]
fn deploy_files_pass_their_checkers() {
    // What the script cannot check here it says by name, or fails if ERGODIC_REQUIRE lists it.
    let output = Command::new("bash")
        .arg(repository().join("deploy/check.sh"))
        .output()
        .expect("bash can be run");
    let said = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert!(output.status.success(), "{said}");

    for line in said
        .lines()
        .filter(|line| line.to_lowercase().contains("skip"))
    {
        ergodic_tests::note(line);
    }
}

/// Stand-ins for programs, which pass on what they are asked: real ones of a test build are large.
fn write_stand_ins(folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder can be made");
    for name in ["ergodic", "ergodic-worker"] {
        let path = folder.join(name);
        let script = format!("#!/bin/sh\nexec '{}' \"$@\"\n", program(name).display());
        std::fs::write(&path, script).expect("a file can be written");
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, executable).expect("they can be set");
    }
}

fn release(programs: &Path, out: &Path) -> BTreeMap<String, Vec<u8>> {
    let script = repository().join("deploy/release.sh");
    let output = Command::new("bash")
        .arg(script)
        .arg("--programs")
        .arg(programs)
        .arg("--out")
        .arg(out)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output()
        .expect("bash can be run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");

    let files = std::fs::read_dir(out).expect("the files are made");
    files
        .map(|file| {
            let path = file.expect("a file").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            let content = std::fs::read(&path).expect("a file can be read");
            (name.into_owned(), content)
        })
        .collect()
}

/// Runs a tool that must succeed; its stdout.
fn tool(name: &str, args: &[&Path]) -> String {
    let output = Command::new(name)
        .args(args)
        .output()
        .expect("the tool can be run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_release_has_all_its_parts_and_the_same_bytes_twice() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let programs = dir.path().join("programs");
    write_stand_ins(&programs);
    let out = dir.path().join("first");
    let files = release(&programs, &out);
    assert!(files == release(&programs, &dir.path().join("second")));

    let version = env!("CARGO_PKG_VERSION");
    let archive = format!("ergodic-{version}-x86_64-unknown-linux-gnu.tar.gz");
    assert!(files.contains_key(&archive), "{:?}", files.keys());
    let sums = String::from_utf8_lossy(&files["SHA256SUMS"]);
    assert!(sums.contains(&archive), "{sums}");

    // What is unpacked into a prefix works there.
    let unpacked = dir.path().join("unpacked");
    std::fs::create_dir(&unpacked).expect("a folder can be made");
    let flags = ["-xzf", "-C", "--strip-components=1"].map(Path::new);
    tool(
        "tar",
        &[flags[0], &out.join(&archive), flags[1], &unpacked, flags[2]],
    );
    for part in [
        "share/man/man1/ergodic-table.1",
        "share/man/man1/ergodic-worker.1",
        "share/bash-completion/completions/ergodic-worker",
        "share/zsh/site-functions/_ergodic",
        "share/fish/vendor_completions.d/ergodic.fish",
        "share/doc/ergodic/LICENSE-MIT",
        "share/doc/ergodic/examples/quickstart.toml",
    ] {
        assert!(unpacked.join(part).is_file(), "{part}");
    }
    let said = tool(
        &unpacked.join("bin/ergodic").to_string_lossy(),
        &[Path::new("-V")],
    );
    assert_eq!(said, format!("ergodic {}\n", ergodic_common::BUILD));

    let notices = unpacked.join("share/doc/ergodic/THIRD-PARTY.txt");
    let notices = std::fs::read_to_string(notices).expect("the notices are there");
    for (krate, words) in [
        ("tokio", "Tokio Contributors"),
        ("mimalloc", "Permission is hereby granted"),
    ] {
        assert!(notices.contains(&format!("\n* {krate} ")), "{krate}");
        assert!(notices.contains(words), "{words}");
    }
    check_notices(&notices);
    check_debian_package(
        &out.join(format!("ergodic_{version}_amd64.deb")),
        dir.path(),
    );
}

/// Checks that the text of each library's licence is there.
fn check_notices(notices: &str) {
    let listed = notices.split("\n====").next().expect("a list");
    let titles = listed
        .lines()
        .filter_map(|line| line.strip_prefix("* ")?.split_once(": "))
        .map(|(title, _)| title);
    for title in titles {
        let has_text = ["\n", " ("]
            .iter()
            .any(|end| notices.contains(&format!("\n{title}{end}")));
        assert!(has_text, "{title}");
        assert!(!title.starts_with("ergodic"), "our own is no other's");
    }

    for title in ["The Rust standard library", "The GNU C Library"] {
        assert!(notices.contains(&format!("\n{title}\n")), "{title}");
    }
    assert!(notices.contains("GNU LESSER GENERAL PUBLIC LICENSE"));
}

fn check_debian_package(package: &Path, scratch: &Path) {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        return skip(
            "a_release_has_all_its_parts_and_the_same_bytes_twice",
            "dpkg-deb",
            "it is not installed",
        );
    }

    let control = tool("dpkg-deb", &[Path::new("--field"), package]);
    assert!(
        control.contains("Package: ergodic\n") && control.contains("Architecture: amd64\n"),
        "{control}"
    );
    let root = scratch.join("root");
    tool("dpkg-deb", &[Path::new("--extract"), package, &root]);
    let sums = scratch.join("sums");
    tool("dpkg-deb", &[Path::new("--control"), package, &sums]);
    let sums = std::fs::read_to_string(sums.join("md5sums")).expect("the sums are there");
    for part in [
        "usr/bin/ergodic-worker",
        "usr/share/man/man1/ergodic.1.gz",
        "usr/share/doc/ergodic/copyright",
        "usr/share/zsh/vendor-completions/_ergodic",
        "etc/ergodic/worker.env",
    ] {
        assert!(root.join(part).is_file(), "{part}");
        assert!(sums.contains(&format!("  {part}\n")), "{part}: {sums}");
    }

    // The units start what the package installs.
    for name in ["ergodic", "ergodic-worker"] {
        let unit = root.join(format!("usr/lib/systemd/system/{name}.service"));
        let unit = std::fs::read_to_string(unit).expect("the unit is there");
        assert!(unit.contains(&format!("\nExecStart=/usr/bin/{name} ")));
        assert!(!unit.contains("/usr/local"), "{unit}");
    }
}

#[test]
fn a_release_of_programs_that_do_not_belong_together_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    write_stand_ins(dir.path());
    let worker = dir.path().join("ergodic-worker");
    std::fs::write(&worker, "#!/bin/sh\necho ergodic-worker 0.0.1+00000000\n").expect("written");
    let out = dir.path().join("out");

    for (programs, code, words) in [
        (dir.path(), 1, "the two programs"),
        (Path::new("/nowhere"), 2, "no such directory"),
    ] {
        let output = Command::new("bash")
            .arg(repository().join("deploy/release.sh"))
            .arg("--programs")
            .arg(programs)
            .arg("--out")
            .arg(&out)
            .output()
            .expect("bash can be run");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
        assert!(!out.exists(), "nothing is left behind");
    }
}
