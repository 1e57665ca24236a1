//! The parameters of a network as one vector in logical order.

use std::ops::Range;

use ergodic_common::net::{Net, ParamRole};

/// The location of a parameter in the vector of all parameters in logical order.
pub(super) struct LocatedParam {
    layer: usize,
    role: ParamRole,
    pub(super) trained: bool,
    pub(super) range: Range<usize>,
}

/// Locates all parameters of a network, concatenated in logical order.
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

/// The range of the parameter with this role in a layer, if it has one.
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
