//! A coordinator that asks who comes: certificates, tokens, and what each role may do.

use std::path::{Path, PathBuf};

use ergodic_tests::{Cluster, Program, run, wait_for};

use crate::refusals::refused;
use crate::reproducibility::reference;
use crate::{SWEEP, repeated, trials};

/// A coordinator that asks for tokens, addressed as its administrator.
pub(crate) fn guarded(options: &[&str]) -> Cluster {
    let mut cluster = Cluster::start(&[&["--secure"], options].concat());
    assert!(
        cluster.url.starts_with("https://127.0.0.1:"),
        "{}",
        cluster.url
    );
    cluster.access = token_file(&cluster.path("store/auth/admin.token"));
    cluster
}

pub(crate) fn token_file(path: &Path) -> Vec<String> {
    vec![
        "--token-file".to_owned(),
        path.to_string_lossy().into_owned(),
    ]
}

/// Has a token made and kept in a file.
pub(crate) fn token(cluster: &Cluster, role: &str, more: &[&str]) -> PathBuf {
    let path = cluster.path(&format!("{role}{}.token", more.len()));
    let file = path.to_string_lossy().into_owned();
    assert_eq!(
        cluster.ask(&[&["token", "new", "--role", role, "-o", &file], more].concat()),
        ""
    );
    path
}

/// A worker with this token; the coordinator's addresses are the cluster's.
fn worker(cluster: &mut Cluster, token: &Path) -> Program {
    cluster.worker(1, &["--token-file", &token.to_string_lossy()])
}

/// Runs a command with another token.
fn ask_as(cluster: &Cluster, token: &Path, args: &[&str]) -> ergodic_tests::Finished {
    run(&[
        args,
        &[
            "--coordinator",
            &cluster.url,
            "--token-file",
            &token.to_string_lossy(),
        ],
    ]
    .concat())
}

pub(crate) fn secret(token: &Path) -> String {
    let text = std::fs::read_to_string(token).expect("the token was kept");
    text.trim()
        .split('.')
        .nth(2)
        .expect("a token has a secret")
        .to_owned()
}

#[test]
fn a_token_is_all_that_workers_and_users_need() {
    let wanted = reference(SWEEP);
    let mut cluster = guarded(&[]);
    let for_worker = token(&cluster, "worker", &[]);
    let for_user = token(&cluster, "user", &["--note", "lab 3"]);
    let _worker = worker(&mut cluster, &for_worker);
    let admin = std::mem::replace(&mut cluster.access, token_file(&for_user));

    let id = cluster.launch(SWEEP);
    cluster.wait_for_end(&id);
    assert_eq!(cluster.rows(&id), wanted);
    let replayed = cluster.ask(&["replay", &id, "0/0"]);
    assert!(replayed.contains("the same bits here"), "{replayed}");
    cluster.access = admin;

    let list = cluster.ask(&["token", "list", "--format", "csv"]);
    assert!(
        list.lines().count() == 4 && list.contains(",lab 3"),
        "{list}"
    );

    // What opens the door is written down nowhere but in the files of tokens.
    cluster.take_coordinator().kill();
    for token in [
        &for_worker,
        &for_user,
        &cluster.path("store/auth/admin.token"),
    ] {
        let secret = secret(token);
        for kept in [
            "store/auth/tokens.json",
            "store/ergodic.sqlite",
            "coordinator.log",
            "worker-1.log",
        ] {
            let bytes = std::fs::read(cluster.path(kept)).expect("the file is there");
            assert!(
                !bytes
                    .windows(secret.len())
                    .any(|window| window == secret.as_bytes()),
                "a secret is in {kept}"
            );
        }
    }
}

#[test]
fn nobody_comes_in_without_the_right_token() {
    let mut cluster = guarded(&[]);
    let for_worker = token(&cluster, "worker", &[]);
    let for_user = token(&cluster, "user", &[]);
    let list = ["list", "--coordinator", &cluster.url];
    refused(&run(&list), 2, &[&cluster.url, "--token-file", "--ca"]);
    refused(
        &ask_as(&cluster, &for_worker, &["list"]),
        4,
        &["role worker", "List"],
    );

    refused(
        &ask_as(&cluster, &for_user, &["token", "list"]),
        4,
        &["role user", "ListTokens"],
    );
    refused(
        &ask_as(&cluster, &for_worker, &["cancel", "abcdefgh"]),
        4,
        &["role worker", "Steer"],
    );

    let spec = cluster.path("sweep.toml");
    std::fs::write(&spec, SWEEP).expect("a file can be written");
    refused(
        &ask_as(&cluster, &for_worker, &["launch", &spec.to_string_lossy()]),
        4,
        &["role worker"],
    );

    let forged = cluster.path("forged.token");
    let text = std::fs::read_to_string(&for_user).expect("the token was kept");
    std::fs::write(&forged, text.replace(&secret(&for_user), &"0".repeat(32)))
        .expect("a file can be written");
    refused(
        &ask_as(&cluster, &forged, &["list"]),
        4,
        &["not created by this coordinator"],
    );

    std::fs::write(&forged, "sesame").expect("a file can be written");
    refused(
        &ask_as(&cluster, &forged, &["list"]),
        2,
        &["forged.token", "ergodic token new"],
    );

    // The token of another coordinator does not trust this one.
    let other = guarded(&[]);
    let elsewhere = other.path("store/auth/admin.token");
    refused(
        &ask_as(&cluster, &elsewhere, &["list"]),
        3,
        &[
            &cluster.url,
            "not the one to be trusted",
            "belongs to another coordinator",
            "--token-file",
        ],
    );

    // A protected door and an open one are told apart.
    let plain = cluster.url.replace("https", "http");
    refused(
        &run(&["list", "--coordinator", &plain]),
        3,
        &[&plain, "https://"],
    );

    let open = Cluster::start(&[]);
    let wrong = open.url.replace("http", "https");
    let token = for_user.to_string_lossy();
    refused(
        &run(&["list", "--coordinator", &wrong, "--token-file", &token]),
        3,
        &["no TLS", "http://"],
    );

    let beyond = [
        "list",
        "--coordinator",
        "http://192.0.2.1:7700",
        "--token-file",
        &token,
    ];
    refused(&run(&beyond), 2, &["192.0.2.1", "https://"]);

    // A worker that is refused ends and says why.
    let stranger = worker(&mut cluster, &for_user);
    assert_eq!(stranger.wait(), 4);
    let log = std::fs::read_to_string(cluster.path("worker-1.log")).expect("it logged");
    assert!(log.contains("role user may not call Session"), "{log}");
}

#[test]
fn a_revoked_token_ends_its_sessions_and_an_expired_one_opens_nothing() {
    let mut cluster = guarded(&["--lease-ttl", "1s"]);
    let first = token(&cluster, "worker", &[]);
    let second = token(&cluster, "worker", &["--note", "2"]);
    cluster.gate.hold_after(2);
    let victim = worker(&mut cluster, &first);
    let id = cluster.launch(&repeated(20));
    cluster.wait_until_held(&id, trials(2));

    let text = std::fs::read_to_string(&first).expect("the token was kept");
    let name = text
        .split('.')
        .nth(1)
        .expect("a token has a name")
        .to_owned();
    assert_eq!(cluster.ask(&["token", "revoke", &name]), "");

    assert_eq!(victim.wait(), 4);
    assert_eq!(cluster.status(&id)["done"], trials(2));
    cluster.gate.open();
    let _heir = worker(&mut cluster, &second);
    cluster.wait_for_end(&id);
    refused(&cluster.run(&["token", "revoke", &name]), 5, &[&name]);

    let admin =
        std::fs::read_to_string(cluster.path("store/auth/admin.token")).expect("it was made");
    let own = admin
        .split('.')
        .nth(1)
        .expect("a token has a name")
        .to_owned();
    refused(
        &cluster.run(&["token", "revoke", &own]),
        4,
        &["cannot revoke itself"],
    );

    let brief = token(&cluster, "user", &["--expires", "1s"]);
    wait_for("a token of one second opens nothing more", || {
        ask_as(&cluster, &brief, &["list"]).code == 4
    });
    refused(&ask_as(&cluster, &brief, &["list"]), 4, &["expired"]);
    refused(&ask_as(&cluster, &first, &["list"]), 4, &["revoked"]);

    // Tokens outlive the coordinator.
    cluster.kill_and_restart_coordinator();
    assert_eq!(cluster.status(&id)["state"], "completed");
}

/// A certificate authority and two certificates of it, for 127.0.0.1, as PEM files.
fn authority(dir: &Path) -> [String; 5] {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("a file can be written");
        path.to_string_lossy().into_owned()
    };

    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names are valid");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = write(
        "ca.pem",
        &params.self_signed(&key).expect("it signs itself").pem(),
    );

    let issuer = Issuer::new(params, key);
    let issue = |name: &str, purpose| {
        let key = KeyPair::generate().expect("a key");
        let mut params =
            CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address is a name");
        params.extended_key_usages = vec![purpose];
        let pem = params.signed_by(&key, &issuer).expect("it is signed").pem();
        (
            write(&format!("{name}.pem"), &pem),
            write(&format!("{name}.key"), &key.serialize_pem()),
        )
    };
    let (server, server_key) = issue("server", ExtendedKeyUsagePurpose::ServerAuth);

    let (client, client_key) = issue("client", ExtendedKeyUsagePurpose::ClientAuth);
    [ca, server, server_key, client, client_key]
}

#[test]
fn certificates_from_elsewhere_serve_both_sides() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let [ca, server, server_key, client, client_key] = authority(dir.path());
    let mut cluster = Cluster::start(&[
        "--tls-cert",
        &server,
        "--tls-key",
        &server_key,
        "--client-ca",
        &ca,
    ]);
    let token = token_file(&cluster.path("store/auth/admin.token"));

    let shown = ["--ca", &ca, "--cert", &client, "--key", &client_key].map(str::to_owned);
    let trusted = cluster.url.clone();
    let without = run(&[
        "list",
        "--coordinator",
        &trusted,
        &token[0],
        &token[1],
        "--ca",
        &ca,
    ]);
    refused(&without, 3, &[&trusted]);

    cluster.access = token.iter().chain(&shown).cloned().collect();
    let access = cluster.access.clone();
    let _worker = cluster.worker(1, &access.iter().map(String::as_str).collect::<Vec<_>>());
    let id = cluster.launch(SWEEP);
    cluster.wait_for_end(&id);

    // Without a fingerprint in the token, the authority must be named.
    refused(
        &run(&["list", "--coordinator", &trusted, &token[0], &token[1]]),
        2,
        &["--ca"],
    );
}

/// The permissions of each file and folder of a store, those of the store first.
fn permissions_in(store: &Path) -> Vec<(String, u32)> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| {
        let name = path
            .strip_prefix(store)
            .expect("below it")
            .to_string_lossy()
            .into_owned();
        (
            name,
            std::fs::metadata(path)
                .expect("it is there")
                .permissions()
                .mode()
                & 0o777,
        )
    };
    let mut found = vec![mode(store)];

    for folder in [store.to_owned(), store.join("auth"), store.join("data")] {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        found.extend(entries.map(|entry| mode(&entry.expect("an entry").path())));
    }

    found
}

#[test]
fn whoever_asks_for_tokens_keeps_others_of_the_machine_out_and_whoever_does_not_leaves_it_to_the_umask()
 {
    for umask in ["000", "022", "027"] {
        let with_umask = ["bash", "-c", &format!("umask {umask}; exec \"$@\""), "bash"];
        let open = Cluster::under(&with_umask, "127.0.0.1:0", &[]);
        let kept_out = u32::from_str_radix(umask, 8).expect("an octal number");

        for (name, mode) in permissions_in(&open.path("store")) {
            let usual = if open.path("store").join(&name).is_dir() {
                0o777
            } else {
                0o666
            };
            assert_eq!(mode, usual & !kept_out, "{name} under {umask}");
        }

        let guarded = Cluster::under(&with_umask, "127.0.0.1:0", &["--secure"]);
        let found = permissions_in(&guarded.path("store"));
        // Whoever cannot enter the folder reads nothing in it; what is secret is so wherever it is moved to.
        assert_eq!(found[0].1, 0o700, "under {umask}");

        for secret in [
            "auth",
            "auth/ca.key",
            "auth/tokens.json",
            "auth/admin.token",
            "ergodic.sqlite",
        ] {
            let (_, mode) = found
                .iter()
                .find(|(name, _)| name == secret)
                .unwrap_or_else(|| panic!("no {secret}: {found:?}"));
            assert_eq!(mode & 0o077, 0, "{secret} under {umask}");
        }
    }
}
