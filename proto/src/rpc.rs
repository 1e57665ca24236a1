//! What is known of each RPC beside its messages: who may call it, whether it may be repeated, and whether a standby answers it.
//!
//! `build.rs` makes the table out of the options in the `.proto` files, which `ergodic/v1/options.proto` describes.

use crate::token::TokenRole;

include!(concat!(env!("OUT_DIR"), "/methods.rs"));

/// A method that a peer can call.
#[derive(Debug, Clone, Copy)]
pub struct RpcMethod {
    /// Path of its requests: `/ergodic.v1.SweepService/List`.
    pub path: &'static str,
    /// Name of the message that requests it.
    pub request: &'static str,
    /// Whether there may be several such messages.
    pub stream: bool,
    /// The roles that may call it, where tokens are used.
    pub roles: &'static [TokenRole],
    /// Whether a request may be sent once more if its connection broke before the answer came.
    pub is_idempotent: bool,
    /// Whether a standby answers it from what is stored.
    pub answered_by_standby: bool,
}

/// The roles that may call methods of a service which a later version may add.
struct RpcService {
    name: &'static str,
    roles: &'static [TokenRole],
}

impl RpcMethod {
    /// The method of requests with this path.
    pub fn find(path: &str) -> Option<&'static Self> {
        let found = METHODS.binary_search_by_key(&path, |method| method.path);
        found.ok().map(|at| &METHODS[at])
    }

    /// Name of the method: `List`.
    pub fn name(&self) -> &'static str {
        method_name(self.path)
    }
}

/// The last part of a path.
pub fn method_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The roles that may send requests with this path. A service itself says that it has no such method, so that clients of a later
/// version know; whatever is of no service is for nobody.
pub fn allowed_roles(path: &str) -> &'static [TokenRole] {
    if let Some(method) = RpcMethod::find(path) {
        return method.roles;
    }

    let service = path
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .and_then(|(name, _)| SERVICES.iter().find(|service| service.name == name));
    service.map_or(&[], |service| service.roles)
}

#[cfg(test)]
mod tests {
    use crate::rpc::*;

    /// Each method with the roles that may call it, and whether it may be repeated and is answered by a standby.
    const EXPECTED: &[(&str, &str, bool, bool)] = &[
        ("AdminService/Backup", "admin", false, false),
        ("AdminService/ListTokens", "admin", false, false),
        ("AdminService/NewToken", "admin", false, false),
        ("AdminService/RevokeToken", "admin", false, false),
        ("FileService/Fetch", "worker user admin", false, true),
        ("FileService/Has", "worker user admin", true, false),
        ("FileService/Put", "worker user admin", false, false),
        ("SweepService/Compare", "user admin", true, true),
        ("SweepService/CurvePages", "user admin", true, true),
        ("SweepService/Curves", "user admin", true, true),
        ("SweepService/Distance", "user admin", true, true),
        ("SweepService/DrainWorkers", "user admin", false, false),
        ("SweepService/Effects", "user admin", true, true),
        ("SweepService/Explain", "user admin", true, false),
        ("SweepService/Extend", "user admin", false, false),
        ("SweepService/Info", "user admin", true, true),
        ("SweepService/Launch", "user admin", false, false),
        ("SweepService/List", "user admin", true, true),
        ("SweepService/ListPages", "user admin", true, true),
        ("SweepService/Needs", "user admin", true, true),
        ("SweepService/Output", "user admin", false, false),
        ("SweepService/Predictions", "user admin", true, true),
        ("SweepService/Remove", "user admin", false, false),
        ("SweepService/Rows", "user admin", false, true),
        ("SweepService/Status", "user admin", true, true),
        ("SweepService/Steer", "user admin", false, false),
        ("SweepService/Table", "user admin", true, true),
        ("SweepService/TablePages", "user admin", true, true),
        ("SweepService/Trials", "user admin", true, true),
        ("SweepService/Variance", "user admin", true, true),
        ("SweepService/Verdict", "user admin", true, true),
        ("SweepService/Watch", "user admin", false, true),
        ("SweepService/Workers", "user admin", true, false),
        ("WorkerService/CommitResults", "worker admin", false, false),
        (
            "WorkerService/FetchCheckpoint",
            "worker admin",
            false,
            false,
        ),
        ("WorkerService/GetSweep", "worker user admin", false, true),
        ("WorkerService/KeepCheckpoint", "worker admin", false, false),
        ("WorkerService/Session", "worker admin", false, false),
    ];

    #[test]
    fn each_method_has_its_roles_and_is_repeated_and_answered_as_it_should_be() {
        let found: Vec<(&str, String, bool, bool)> = METHODS
            .iter()
            .map(|method| {
                let roles: Vec<&str> = method.roles.iter().map(|role| role.name()).collect();
                (
                    method.path.trim_start_matches("/ergodic.v1."),
                    roles.join(" "),
                    method.is_idempotent,
                    method.answered_by_standby,
                )
            })
            .collect();
        let expected: Vec<(&str, String, bool, bool)> = EXPECTED
            .iter()
            .map(|(path, roles, repeated, standby)| (*path, (*roles).into(), *repeated, *standby))
            .collect();

        assert_eq!(found, expected);
    }

    #[test]
    fn every_method_of_every_file_is_in_the_table() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("ergodic/v1");
        let mut methods = 0;
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let text = std::fs::read_to_string(entry.path()).expect("a file of text");
            methods += text
                .lines()
                .filter(|line| line.trim_start().starts_with("rpc "))
                .count();
        }

        assert_eq!(METHODS.len(), methods);
        for method in METHODS {
            let found = RpcMethod::find(method.path).map(|found| found.path);
            assert_eq!(found, Some(method.path));
        }
    }

    #[test]
    fn an_unknown_method_is_for_the_roles_of_its_service_and_any_other_path_for_nobody() {
        let unknown = "/ergodic.v1.WorkerService/Later";
        assert!(RpcMethod::find(unknown).is_none());
        assert_eq!(
            allowed_roles(unknown),
            [TokenRole::Worker, TokenRole::Admin]
        );

        for path in [
            "/ergodic.v1.Other/List",
            "/ergodic.v1.WorkerService",
            "/",
            "",
        ] {
            assert!(allowed_roles(path).is_empty(), "{path}");
        }
    }
}
