//! The limits that depend on the size of a fleet, as options of `ergodic serve`.

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;

/// Maximum number of connections, unless the option says otherwise and if the system allows as many
/// files.
const DEFAULT_CONNECTIONS: usize = 8192;
/// Maximum number of workers in session, unless the option says otherwise.
const DEFAULT_SESSIONS: u32 = 8192;
/// Maximum that the options take.
const MAX_FLEET: i64 = 100_000;

/// The options of a coordinator that grow with its fleet.
#[derive(Debug, Clone, Copy, Args)]
pub struct LimitOptions {
    /// Workers in session at a time
    #[arg(long = "max-sessions", default_value_t = DEFAULT_SESSIONS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_FLEET))]
    pub sessions: u32,
    /// Connections at a time, of workers and clients together [default: half of the files that the process may open, at most 8192]
    #[arg(long = "max-connections", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_FLEET))]
    pub connections: Option<u32>,
    /// Connections from one address, such as a login node with a tunnel, or from one IPv6 /64 network [default: half of
    /// --max-connections]
    #[arg(long = "max-connections-per-address", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_FLEET))]
    pub connections_per_address: Option<u32>,
    /// Requests per second that one token may make besides its workers in session, or one address where tokens are not required; 0
    /// for no limit
    #[arg(long, default_value_t = 2000, value_name = "N")]
    pub rate_limit: u32,
    /// Requests per second that one worker in session may make; 0 for no limit [default: as --rate-limit]
    #[arg(long, value_name = "N")]
    pub worker_rate_limit: Option<u32>,
}

/// Maximum numbers of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionCapacity {
    pub(crate) total: usize,
    /// Maximum from one address, or one IPv6 network.
    pub(crate) per_address: usize,
}

/// Maximum numbers of requests per second; `None` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestRates {
    /// Maximum of a token, or of an address without tokens.
    pub(crate) per_peer: Option<u32>,
    /// Maximum of a worker in session.
    pub(crate) per_worker: Option<u32>,
}

impl LimitOptions {
    /// The usual limits, and none on rates: for a coordinator that only the programs of one process reach.
    pub fn without_rates() -> Self {
        Self {
            sessions: DEFAULT_SESSIONS,
            connections: None,
            connections_per_address: None,
            rate_limit: 0,
            worker_rate_limit: None,
        }
    }

    /// The limits on connections of a process that may open this many files. Half of them are for stores, datasets and logs.
    ///
    /// # Errors
    /// An option allows more connections than there can be.
    pub(crate) fn resolve_connections(&self, files: u64) -> Result<ConnectionCapacity, UserError> {
        let most = usize::try_from(files / 2).unwrap_or(usize::MAX);
        let total = match self.connections.map(|asked| asked as usize) {
            Some(asked) if asked > most => {
                let message = format!(
                    "--max-connections {asked}: expected at most {most}, half of the {files} files that this process may open: \
                     raise the hard limit of open files to {} (`ulimit -Hn`, or LimitNOFILE= of the service), or use a smaller \
                     number",
                    2 * asked
                );
                return Err(UserError::new(ErrorCode::BadInput, message));
            }
            Some(asked) => asked,
            None => most.min(DEFAULT_CONNECTIONS),
        };

        let per_address = match self.connections_per_address.map(|asked| asked as usize) {
            Some(asked) if asked > total => {
                let message = format!(
                    "--max-connections-per-address {asked}: expected at most {total}, which is --max-connections: use a smaller \
                     number, or raise that one"
                );
                return Err(UserError::new(ErrorCode::BadInput, message));
            }
            Some(asked) => asked,
            // A whole cluster may share one address, but half of the capacity stays for others.
            None => total.div_ceil(2),
        };

        Ok(ConnectionCapacity { total, per_address })
    }

    pub(crate) fn resolve_rates(&self) -> RequestRates {
        let per_worker = self.worker_rate_limit.unwrap_or(self.rate_limit);
        RequestRates {
            per_peer: Some(self.rate_limit).filter(|limit| *limit > 0),
            per_worker: Some(per_worker).filter(|limit| *limit > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::server::limits::options::*;

    fn asked(connections: Option<u32>, per_address: Option<u32>) -> LimitOptions {
        LimitOptions {
            connections,
            connections_per_address: per_address,
            ..LimitOptions::without_rates()
        }
    }

    #[test]
    fn connections_are_half_of_the_files_or_what_is_asked_for() {
        let capacity = |total, per_address| ConnectionCapacity { total, per_address };
        for (options, files, expected) in [
            (asked(None, None), 1024, capacity(512, 256)),
            (asked(None, None), 1 << 20, capacity(8192, 4096)),
            (asked(Some(20_000), None), 1 << 20, capacity(20_000, 10_000)),
            (asked(None, Some(8192)), 1 << 20, capacity(8192, 8192)),
            (asked(Some(3), Some(1)), 6, capacity(3, 1)),
        ] {
            let resolved = options.resolve_connections(files);
            assert_eq!(resolved.expect("there can be as many"), expected);
        }
    }

    #[test]
    fn more_connections_than_there_can_be_are_refused_by_the_name_of_the_option() {
        let refused = asked(Some(513), None).resolve_connections(1024);
        let message = refused.expect_err("too many files").message;
        let words = [
            "--max-connections 513:",
            "at most 512",
            "to 1026",
            "LimitNOFILE=",
        ];
        assert!(words.iter().all(|word| message.contains(word)), "{message}");

        let refused = asked(None, Some(513)).resolve_connections(1024);
        let message = refused.expect_err("more than in all").message;
        let words = ["--max-connections-per-address 513:", "at most 512"];
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }

    #[test]
    fn a_worker_may_ask_as_often_as_a_token_unless_the_option_says_otherwise() {
        let options = |rate_limit, worker_rate_limit| LimitOptions {
            rate_limit,
            worker_rate_limit,
            ..LimitOptions::without_rates()
        };
        for (options, per_peer, per_worker) in [
            (options(0, None), None, None),
            (options(7, None), Some(7), Some(7)),
            (options(7, Some(0)), Some(7), None),
            (options(0, Some(3)), None, Some(3)),
        ] {
            let expected = RequestRates {
                per_peer,
                per_worker,
            };
            assert_eq!(options.resolve_rates(), expected);
        }
    }
}
