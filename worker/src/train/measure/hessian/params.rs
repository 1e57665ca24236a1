//! The parameters of a network as one vector in logical order.

use std::ops::Range;

use ergodic_common::net::{Net, ParamRole};

/// Where a parameter is in a vector of all parameters in logical order.
pub(super) struct LocatedParam {
    layer: usize,
    role: ParamRole,
    pub(super) trained: bool,
    pub(super) range: Range<usize>,
}

/// All parameters of a network, one after the other.
pub(super) fn locate_params(net: &Net) -> Vec<LocatedParam> {
    let mut from = 0;
    let mut located = Vec::new();
    for param in net.params() {
        located.push(LocatedParam {
            layer: param.layer,
            role: param.role,
            trained: param.trained,
            range: from..from + param.len,
        });
        from += param.len;
    }

    located
}

/// The range of the parameter that has this role in a layer, if there is one.
pub(super) fn find_range(
    params: &[LocatedParam],
    layer: usize,
    role: ParamRole,
) -> Option<Range<usize>> {
    params
        .iter()
        .find(|param| (param.layer, param.role) == (layer, role))
        .map(|param| param.range.clone())
}
