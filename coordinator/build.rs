//! Stamps the program with its target and with the revision that it is built from, for `--version` and exports.
//!
//! `ERGODIC_GIT_REVISION` and `ERGODIC_GIT_DATE` name the revision where they are set. A package from a registry has it in
//! `.cargo_vcs_info.json`. Otherwise git is asked, in optimized builds alone: during development, every commit would
//! have the program built again. Without any of these, the program says that its revision is unknown.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The file that `cargo package` puts into a package.
const PACKAGE_INFO: &str = ".cargo_vcs_info.json";
/// What the program is made of, seen from its package. A change makes the revision a changed one.
const SOURCES: [&str; 4] = ["src", "../common/src", "../proto/src", "../proto/ergodic"];

/// A revision, and the day on which it was committed, as far as they are known.
struct Revision {
    name: String,
    date: Option<String>,
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!(
        "cargo:rustc-env=ERGODIC_TARGET={}",
        read_variable("TARGET").unwrap_or_default()
    );

    let revision = find_named_revision()
        .or_else(find_packaged_revision)
        .or_else(find_git_revision);
    if let Some(revision) = revision {
        println!("cargo:rustc-env=ERGODIC_GIT_REVISION={}", revision.name);
        println!(
            "cargo:rustc-env=ERGODIC_GIT_DATE={}",
            revision.date.unwrap_or_default()
        );
    }
}

fn find_named_revision() -> Option<Revision> {
    println!("cargo:rerun-if-env-changed=ERGODIC_GIT_REVISION");
    println!("cargo:rerun-if-env-changed=ERGODIC_GIT_DATE");
    let name = read_variable("ERGODIC_GIT_REVISION")?;
    let date = read_variable("ERGODIC_GIT_DATE");
    Some(Revision { name, date })
}

fn find_packaged_revision() -> Option<Revision> {
    let info = std::fs::read_to_string(PACKAGE_INFO).ok()?;
    let (_, rest) = info.split_once("\"sha1\"")?;
    let hash = rest.split('"').nth(1)?;
    let is_changed = info.contains("\"dirty\": true");
    let mark = if is_changed { "-dirty" } else { "" };

    Some(Revision {
        name: format!("{}{mark}", hash.get(..12).unwrap_or(hash)),
        date: None,
    })
}

fn find_git_revision() -> Option<Revision> {
    if read_variable("PROFILE")? != "release" {
        return None;
    }

    // Sources without a repository may lie in the repository of something else.
    let workspace = Path::new("..").canonicalize().ok()?;
    let repository = PathBuf::from(ask_git(&["rev-parse", "--show-toplevel"])?);
    if repository.canonicalize().ok()? != workspace {
        return None;
    }

    watch_repository();
    let name = ask_git(&[
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ])?;
    let date = ask_git(&["log", "-1", "--format=%cs"]);
    Some(Revision { name, date })
}

/// Has this script run again when another commit is checked out or made, or sources change.
fn watch_repository() {
    let branch = ask_git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        let path = ask_git(&["rev-parse", "--git-path", name]);
        // A path that does not exist would have this script run at every build.
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }

    for folder in SOURCES.iter().filter(|folder| Path::new(folder).exists()) {
        println!("cargo:rerun-if-changed={folder}");
    }
}

/// What git answers, if there is git and it knows.
fn ask_git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?;
    Some(answer.trim().to_owned()).filter(|answer| output.status.success() && !answer.is_empty())
}

fn read_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
