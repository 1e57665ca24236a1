//! `ergodic-worker --version`.

use std::sync::LazyLock;

use ergodic_common::build_facts::BuildFacts;
use ergodic_common::trial::CPU_F32;
use ergodic_proto::PROTOCOL_VERSION;

/// The version in its long form.
pub(super) static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let features = [
        ("cuda", cfg!(feature = "cuda")),
        ("failpoints", cfg!(feature = "failpoints")),
    ];
    let features = features.into_iter().filter(|(_, is_on)| *is_on);
    let features: Vec<&str> = features.map(|(name, _)| name).collect();

    #[cfg(feature = "cuda")]
    let cuda = format!("cuda-f32/{}", crate::device::NUMERICS_VERSION);
    #[cfg(feature = "cuda")]
    let numerics = [CPU_F32, &cuda];
    #[cfg(not(feature = "cuda"))]
    let numerics = [CPU_F32];

    BuildFacts {
        revision: option_env!("ERGODIC_GIT_REVISION").unwrap_or_default(),
        date: option_env!("ERGODIC_GIT_DATE").unwrap_or_default(),
        target: env!("ERGODIC_TARGET"),
        is_static: cfg!(target_feature = "crt-static"),
        protocol: PROTOCOL_VERSION,
        schemas: &[],
        numerics: &numerics,
        features: &features,
    }
    .format_version()
});
