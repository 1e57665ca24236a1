//! The files under `deploy/`, each read by the tool that is meant to read it.

use std::path::Path;
use std::process::Command;

#[test]
fn deploy_files_pass_their_checkers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lie in the workspace");

    // What the script cannot check here it says by name, or fails if ERGODIC_REQUIRE lists it.
    let output = Command::new("bash")
        .arg(root.join("deploy/check.sh"))
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
