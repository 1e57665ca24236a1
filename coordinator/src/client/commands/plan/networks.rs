//! The networks of a sweep, layer by layer.

use ergodic_common::Spec;
use ergodic_common::config::{ACTIVATIONS, Activation};
use ergodic_common::net::{ActivationShape, Layer, LinearOp, Net, NormScope, NormSpec, Pool};
use ergodic_common::number_format::format_count;
use serde_json::{Value, json};

use crate::client::render::{TextColumn, render_described_rows};

/// Maximum number of networks that are shown.
const MAX_NETWORKS: usize = 3;
/// Maximum number of layers of a network that are shown one by one.
const MAX_LAYERS: usize = 40;
/// Number of last layers that are shown of a network with more layers.
const LAST_LAYERS: usize = 4;

/// The columns that are there only if a layer has something to say in them.
const OPTIONAL: [&str; 5] = ["reads", "adds", "norm", "activation", "pool"];

/// What is said of a layer, by column.
type LayerRow = Vec<(&'static str, Value)>;

/// Networks of a sweep that differ in more than their weights.
pub(super) struct PlannedNetworks {
    /// The first networks, each with a cell that has it.
    networks: Vec<(String, Net)>,
    /// Whether there are more.
    has_more: bool,
    /// Whether outputs are those of a regression, and not of classes.
    has_targets: bool,
}

/// Finds the networks of a sweep, one cell of each shape class.
pub(super) fn find_networks(spec: &Spec) -> PlannedNetworks {
    let grid = &spec.grid;
    let has_targets = grid.has_targets();
    let mut networks: Vec<(String, Net)> = Vec::new();
    for class in grid.kept_classes() {
        let cell = grid.class_cell_at(class, 0);
        let config = grid.resolve_config(cell).ok();
        let Some(net) = config.as_ref().and_then(Net::from_config) else {
            continue;
        };
        if networks.iter().any(|(_, known)| *known == net) {
            continue;
        }

        if networks.len() == MAX_NETWORKS {
            return PlannedNetworks {
                networks,
                has_more: true,
                has_targets,
            };
        }
        networks.push((grid.describe_cell(cell), net));
    }
    PlannedNetworks {
        networks,
        has_more: false,
        has_targets,
    }
}

/// Describes the networks for people.
pub(super) fn describe_networks(planned: &PlannedNetworks) -> String {
    let mut out = String::new();
    for (cell, net) in &planned.networks {
        let (parameters, _) = net.param_counts();
        let of_cell = match planned.networks.len() {
            1 => String::new(),
            _ => format!(" of the cell {cell}"),
        };
        out += &format!(
            "network{of_cell}: images of {}, {}, {}\n",
            describe_shape(net.input),
            describe_outputs(planned, net),
            format_count(parameters, "parameter")
        );
        out += &render_layers(net);
    }

    if planned.has_more {
        out += "  … and further networks in other cells\n";
    }
    out
}

/// `10 classes`, or `2 targets`
fn describe_outputs(planned: &PlannedNetworks, net: &Net) -> String {
    match planned.has_targets {
        true => format_count(net.classes as u64, "target"),
        false => format!("{} classes", net.classes),
    }
}

/// The networks as JSON.
pub(super) fn networks_to_json(planned: &PlannedNetworks) -> Vec<Value> {
    let outputs = match planned.has_targets {
        true => "targets",
        false => "classes",
    };
    let networks = planned.networks.iter();
    networks
        .map(|(cell, net)| {
            let sizes = count_parameters(net);
            let layers = sizes.iter().enumerate().map(|(at, size)| {
                let entries = describe_layer(net, at, *size).into_iter();
                entries
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect::<serde_json::Map<_, _>>()
            });
            json!({
                "cell": cell,
                "input": describe_shape(net.input),
                (outputs): net.classes,
                "parameters": sizes.iter().sum::<usize>(),
                "layers": layers.collect::<Vec<_>>(),
            })
        })
        .collect()
}

fn render_layers(net: &Net) -> String {
    let count = net.layers.len();
    let first = match count <= MAX_LAYERS {
        true => count,
        false => MAX_LAYERS - LAST_LAYERS,
    };
    let sizes = count_parameters(net);
    let shown = (0..count).filter(|at| *at < first || at + LAST_LAYERS >= count);
    let mut rows: Vec<LayerRow> = shown.map(|at| describe_layer(net, at, sizes[at])).collect();
    drop_empty_columns(&mut rows);

    let columns = rows.first().map_or(Vec::new(), |row| {
        row.iter().map(|(name, _)| layer_column(name)).collect()
    });
    let rows: Vec<Vec<Value>> = rows
        .into_iter()
        .map(|row| row.into_iter().map(|(_, value)| value).collect())
        .collect();
    let hidden = count - rows.len();
    let note = match hidden {
        0 => String::new(),
        _ => format!("  ({hidden} layers before the last {LAST_LAYERS} are left out)\n"),
    };
    render_described_rows(columns, &rows) + &note
}

/// Drops the columns in which no layer has something to say.
fn drop_empty_columns(rows: &mut [LayerRow]) {
    for optional in OPTIONAL {
        let is_said = rows
            .iter()
            .flatten()
            .any(|(name, value)| *name == optional && !value.is_null());
        if !is_said {
            rows.iter_mut()
                .for_each(|row| row.retain(|(name, _)| *name != optional));
        }
    }
}

/// Number of parameters of each layer.
fn count_parameters(net: &Net) -> Vec<usize> {
    let mut sizes = vec![0; net.layers.len()];
    for param in net.params() {
        sizes[param.layer] += param.len;
    }
    sizes
}

fn layer_column(name: &str) -> TextColumn {
    match name {
        "layer" | "map" => TextColumn::label(name, 3),
        "output" | "parameters" => TextColumn::figure(name, 2),
        _ => TextColumn::figure(name, 1),
    }
}

/// What there is to say of a layer, by column; null for nothing.
fn describe_layer(net: &Net, at: usize, parameters: usize) -> LayerRow {
    let layer = &net.layers[at];
    let name_of = |at: usize| net.layers[at].name.clone();
    let follows_previous = layer.source.map(|source| source + 1) == (at > 0).then_some(at);
    let reads = layer.source.map_or("image".to_owned(), name_of);
    let pool = describe_pool(layer.pool);

    vec![
        ("#", json!(at)),
        ("layer", json!(layer.name)),
        ("map", json!(describe_map(layer))),
        ("reads", json!((!follows_previous).then_some(reads))),
        ("adds", json!(layer.add.map(name_of))),
        ("norm", json!(layer.norm.map(describe_norm))),
        ("activation", json!(describe_activation(layer.activation))),
        ("pool", json!(pool)),
        ("output", json!(describe_shape(layer.activation_shape()))),
        ("parameters", json!(parameters)),
    ]
}

fn describe_map(layer: &Layer) -> String {
    let outputs = layer.output.channels;
    match layer.linear_op {
        LinearOp::Linear => format!("linear {outputs}"),
        LinearOp::Identity => "none".to_owned(),
        LinearOp::Conv {
            kernel,
            stride,
            padding,
        } => {
            let usual = (kernel - 1) / 2;
            let stride = match stride {
                1 => String::new(),
                _ => format!(" stride {stride}"),
            };
            let padding = match padding == usual {
                true => String::new(),
                false => format!(" padding {padding}"),
            };
            format!("conv {outputs} {kernel}×{kernel}{stride}{padding}")
        }
    }
}

fn describe_norm(norm: NormSpec) -> String {
    match norm.scope {
        NormScope::Batch => "batch".to_owned(),
        NormScope::GhostBatch(size) => format!("ghost-batch {size}"),
        NormScope::Groups(1) => "layer".to_owned(),
        NormScope::Groups(groups) => format!("group {groups}"),
    }
}

fn describe_activation(activation: Activation) -> Option<&'static str> {
    let word = ACTIVATIONS.iter().find(|(_, known)| *known == activation);
    word.map(|(word, _)| *word)
        .filter(|_| activation != Activation::Identity)
}

fn describe_pool(pool: Pool) -> Option<&'static str> {
    match pool {
        Pool::None => None,
        Pool::Max2 => Some("max2"),
        Pool::Average2 => Some("avg2"),
        Pool::Average => Some("global-avg"),
    }
}

fn describe_shape(shape: ActivationShape) -> String {
    format!("{}×{}×{}", shape.height, shape.width, shape.channels)
}
