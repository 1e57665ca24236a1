//! `ergodic --version`.

use std::sync::LazyLock;

use ergodic_common::build_facts::BuildFacts;
use ergodic_common::trial::CPU_F32;
use ergodic_proto::PROTOCOL_VERSION;

use crate::store::{postgres, sqlite};

/// The version in its long form.
pub(super) static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let features = [
        ("sql", cfg!(feature = "sql")),
        ("failpoints", cfg!(feature = "failpoints")),
    ];
    let features = features.into_iter().filter(|(_, is_on)| *is_on);
    let features: Vec<&str> = features.map(|(name, _)| name).collect();

    BuildFacts {
        revision: option_env!("ERGODIC_GIT_REVISION").unwrap_or_default(),
        date: option_env!("ERGODIC_GIT_DATE").unwrap_or_default(),
        target: env!("ERGODIC_TARGET"),
        is_static: cfg!(target_feature = "crt-static"),
        protocol: PROTOCOL_VERSION,
        schemas: &[
            ("SQLite", sqlite::SCHEMA_VERSION),
            ("PostgreSQL", postgres::SCHEMA_VERSION),
        ],
        numerics: &[CPU_F32],
        features: &features,
    }
    .format_version()
});
