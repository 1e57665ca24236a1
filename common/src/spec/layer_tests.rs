//! What lists of layers, activations and biases mean, and what is said of those that mean nothing.

use crate::Spec;
use crate::config::{Activation, TrialConfig};
use crate::ids::{CellIndex, DatasetHash};
use crate::net::{ActivationShape, Layer, LinearOp, Net, ParamRole, Pool};
use crate::spec::source::SpecSource;
use crate::spec_file::grammar::LAYERS_GRAMMAR;
use crate::weights::Weights;

const HEAD: &str = "{ linear = \"classes\" }";

/// A sweep with this model, on images of 32×32×3.
fn source(model: &str, rest: &str, settings: &[&str]) -> SpecSource {
    let text = format!(
        "name = \"t\"\n[model]\n{model}\n[data]\ndataset = \"cifar10\"\n[train]\nsteps = 3\nbatch_size = 12\nlr = 0.1\n{rest}"
    );
    SpecSource {
        file: "sweep.toml".into(),
        text,
        settings: settings.iter().map(|s| (*s).to_owned()).collect(),
        ..SpecSource::default()
    }
    .with_settings_of_axes()
}

fn listed(layers: &str) -> String {
    format!("kind = \"layers\"\nlayers = [\n{layers}\n]")
}

fn read_with(model: &str, rest: &str, settings: &[&str]) -> Spec {
    Spec::read_new(&source(model, rest, settings))
        .unwrap_or_else(|error| panic!("{model} {rest} {settings:?}: {error}"))
}

fn configs(spec: &Spec) -> Vec<TrialConfig> {
    spec.grid
        .iter()
        .map(|cell| spec.grid.resolve_config(cell).expect("a cell resolves"))
        .collect()
}

fn config(model: &str) -> TrialConfig {
    configs(&read_with(model, "", &[])).remove(0)
}

fn net(model: &str) -> Net {
    Net::from_config(&config(model)).expect("a network")
}

fn refusal(model: &str, rest: &str, settings: &[&str]) -> String {
    Spec::read_new(&source(model, rest, settings))
        .err()
        .map_or_else(
            || format!("accepted: {model} {rest}"),
            |error| error.to_string(),
        )
}

fn layer<'a>(net: &'a Net, name: &str) -> &'a Layer {
    let found = net.layers.iter().find(|layer| layer.name == name);
    found.unwrap_or_else(|| panic!("no layer {name}: {net:?}"))
}

fn shape(height: usize, width: usize, channels: usize) -> ActivationShape {
    ActivationShape {
        height,
        width,
        channels,
    }
}

/// Layers of a residual network of 20 layers, block by block.
fn preresnet_layers() -> String {
    let mut text = "{ name = \"stem\", conv = 16 },\n".to_owned();
    let mut stream = "stem.sum".to_owned();
    let mut read = "stem".to_owned();
    for block in 1..=9 {
        let width = [16, 32, 64][(block - 1) / 3];
        let stride = if block == 4 || block == 7 { 2 } else { 1 };
        text += &format!(
            "{{ name = \"block{block}.conv1\", conv = {width}, stride = {stride}, from = \"{read}.out\" }},\n"
        );
        if stride == 2 {
            text += &format!(
                "{{ name = \"block{block}.shortcut\", conv = {width}, kernel = 1, stride = 2, from = \"block{block}.conv1.in\" }},\n"
            );
            stream = format!("block{block}.shortcut.sum");
        }
        text += &format!(
            "{{ name = \"block{block}.conv2\", conv = {width}, from = \"block{block}.conv1.out\", add = \"{stream}\" }},\n"
        );
        read = format!("block{block}.conv2");
        stream = format!("{read}.sum");
    }
    text + "{ pool = \"global-avg\" },\n{ linear = \"classes\", bias = false },"
}

#[test]
fn the_networks_that_there_are_can_be_written_as_layers() {
    let cnn4 = "{ conv = 8 },\n{ conv = 16, stride = 2 },\n{ conv = 32, stride = 2 },\n{ conv = 32, stride = 2 },\n\
                { linear = \"classes\", bias = false }";
    let mlp = "{ linear = 40 }, { linear = 30 }, { linear = \"classes\" }";
    let vgg = "{ conv = 4 }, { pool = \"max2\" },\n{ conv = 8 }, { pool = \"max2\" },\n\
               { conv = 16 }, { conv = 16 }, { pool = \"max2\" },\n{ conv = 32 }, { conv = 32 }, { pool = \"max2\" },\n\
               { conv = 32 }, { conv = 32 }, { pool = \"max2\" },\n{ linear = \"classes\", bias = false }";
    for (kind, layers, more) in [
        ("kind = \"cnn4\"\nwidth = 8", cnn4, ""),
        (
            "kind = \"cnn4\"\nwidth = 8",
            cnn4,
            "affine = true\nfixed_head = true",
        ),
        ("kind = \"mlp\"\nhidden = [40, 30]", mlp, "norm = \"none\""),
        (
            "kind = \"mlp\"\nhidden = [40, 30]",
            mlp,
            "norm = \"none\"\nactivation = \"tanh\"",
        ),
        (
            "kind = \"vgg\"\nwidth = 4",
            vgg,
            "norm = \"group\"\ngroups = 2",
        ),
        ("kind = \"preresnet\"", &preresnet_layers(), ""),
    ] {
        let [known, written] =
            [kind.to_owned(), listed(layers)].map(|model| net(&format!("{model}\n{more}")));
        assert_eq!(known.params(), written.params(), "{kind}");
        assert_eq!(known, written, "{kind}");
    }
}

#[test]
fn identities_of_networks_from_before_stay() {
    let config = config("kind = \"cnn4\"\nwidth = 4");
    let expected = "ModelConfig { kind: Cnn4 { width: 4 }, norm: Batch, norm_eps: 1e-5, affine: false, fixed_head: false, init: \
                    KaimingNormal, init_file: None, init_scale: 1.0, layer_scales: [], zero_residual: false }";
    assert_eq!(format!("{:?}", config.model), expected);
    let paths: Vec<&str> = config
        .model
        .identity_fields()
        .iter()
        .map(|(path, _)| *path)
        .collect();
    assert_eq!(
        paths,
        [
            "model.kind",
            "model.width",
            "model.norm",
            "model.norm_eps",
            "model.affine",
            "model.fixed_head",
            "model.init.scheme",
            "model.init.scale"
        ]
    );

    // What is written is what is there without.
    let spec = read_with("kind = \"cnn4\"\nwidth = 4", "", &[]);
    let hash = |model: &str| spec.compute_cell_hash(&self::config(model), DatasetHash::NONE);
    let plain = hash("kind = \"cnn4\"\nwidth = 4");
    for same in ["activation = \"relu\"", "bias = false"] {
        assert_eq!(
            hash(&format!("kind = \"cnn4\"\nwidth = 4\n{same}")),
            plain,
            "{same}"
        );
    }
    for other in ["activation = \"gelu\"", "bias = true"] {
        assert_ne!(
            hash(&format!("kind = \"cnn4\"\nwidth = 4\n{other}")),
            plain,
            "{other}"
        );
    }
}

#[test]
fn a_list_is_the_same_trial_however_it_is_written() {
    let plain = listed("{ conv = 8 }, { pool = \"max2\" }, { linear = \"classes\" }");
    let same = [
        "{ name = \"conv1\", conv = 8, kernel = 3, stride = 1, padding = 1, bias = false }, { pool = \"max2\" }, { linear = \"classes\" }",
        "{ conv = 8, norm = \"batch\", activation = \"relu\" }, { pool = \"max2\" }, { name = \"head\", linear = \"classes\", bias = true }",
        "{ conv = 8 }, { pool = \"max2\" }, { linear = \"classes\", from = \"conv1.out\" }",
    ];
    let other = [
        "{ conv = 8, kernel = 5 }, { pool = \"max2\" }, { linear = \"classes\" }",
        "{ conv = 8 }, { pool = \"avg2\" }, { linear = \"classes\" }",
        "{ name = \"a\", conv = 8 }, { pool = \"max2\" }, { linear = \"classes\" }",
        "{ conv = 8, norm = \"layer\" }, { pool = \"max2\" }, { linear = \"classes\" }",
        "{ conv = 8, activation = \"silu\" }, { pool = \"max2\" }, { linear = \"classes\" }",
        "{ conv = 8 }, { pool = \"max2\" }, { linear = \"classes\", bias = false }",
    ];
    let fields = |model: &str| config(model).identity_fields();
    for layers in same {
        assert_eq!(fields(&plain), fields(&listed(layers)), "{layers}");
    }
    for layers in other {
        assert_ne!(fields(&plain), fields(&listed(layers)), "{layers}");
    }

    let text = fields(&plain);
    let of_layers = text.iter().find(|(path, _)| *path == "model.layers");
    assert_eq!(
        of_layers.map(|(_, text)| text.as_str()),
        Some(
            "conv1 conv 8 kernel 3 stride 1 padding 1 from image norm batch relu max2; \
             head linear classes from conv1.out bias norm none identity"
        )
    );
    // The defaults of a list stand in its layers.
    let activation = |word: &str| fields(&format!("{plain}\nactivation = \"{word}\""));
    assert_eq!(activation("relu"), text);
    assert_ne!(activation("tanh"), text);
}

#[test]
fn outputs_that_are_added_get_a_shortcut() {
    let net = net(&listed(
        "{ name = \"a\", conv = 8 },\n{ name = \"b\", conv = 8, add = \"a.out\" },\n\
         { name = \"c\", conv = 16, stride = 2, kernel = 5, add = \"c.in\", norm = \"none\", activation = \"tanh\" },\n\
         { pool = \"avg2\" },\n{ linear = \"classes\" }",
    ));
    let names: Vec<&str> = net.layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(names, ["a", "b.shortcut", "b", "c.shortcut", "c", "head"]);

    let same = layer(&net, "b.shortcut");
    assert_eq!(
        (same.linear_op, same.source, same.bias, same.norm),
        (LinearOp::Identity, Some(0), false, None)
    );
    assert_eq!(layer(&net, "b").add, Some(1));
    let reduced = layer(&net, "c.shortcut");
    let map = LinearOp::Conv {
        kernel: 1,
        stride: 2,
        padding: 0,
    };
    assert_eq!(
        (
            reduced.linear_op,
            reduced.source,
            reduced.output,
            reduced.bias
        ),
        (map, Some(2), shape(16, 16, 16), true)
    );
    let c = layer(&net, "c");
    assert_eq!(
        (c.bias, c.activation, c.pool, c.activation_shape()),
        (true, Activation::Tanh, Pool::Average2, shape(8, 8, 16))
    );

    // Layers without a map have no parameters, and no tensors in files of weights.
    assert!(
        net.params()
            .iter()
            .all(|param| !param.name.starts_with("b.shortcut"))
    );
    let numbers = net
        .params()
        .iter()
        .map(|param| vec![0.5; param.len])
        .collect();
    let normed = net.layers.iter().filter(|layer| layer.norm.is_some());
    let statistics = normed.map(|l| [vec![0.5; l.output.channels], vec![0.5; l.output.channels]]);
    let weights = Weights {
        params: numbers,
        statistics: statistics.collect(),
    };
    let file = weights.to_safetensors(&net, None);
    assert_eq!(Weights::from_safetensors(&file, &net), Ok(weights));
}

#[test]
fn pools_stand_where_a_layer_has_no_room_for_them() {
    let net = net(&listed(
        "{ pool = \"avg2\" },\n{ name = \"a\", conv = 8 },\n{ pool = \"max2\" }, { pool = \"max2\" },\n\
         { name = \"b\", conv = 8 }, { pool = \"max2\" },\n{ name = \"c\", conv = 8, from = \"b.in\", add = \"b.sum\" },\n\
         { name = \"d\", conv = 8, stride = 2, add = \"b.out\" },\n{ pool = \"global-avg\" }, { linear = \"classes\" }",
    ));
    let found: Vec<(&str, LinearOp, Pool)> = net
        .layers
        .iter()
        .map(|layer| (layer.name.as_str(), layer.linear_op, layer.pool))
        .collect();
    let conv = LinearOp::Conv {
        kernel: 3,
        stride: 1,
        padding: 1,
    };
    let half = LinearOp::Conv {
        kernel: 3,
        stride: 2,
        padding: 1,
    };
    assert_eq!(
        found,
        [
            ("pool1", LinearOp::Identity, Pool::Average2),
            ("a", conv, Pool::Max2),
            ("pool2", LinearOp::Identity, Pool::Max2),
            ("b", conv, Pool::None),
            ("pool3", LinearOp::Identity, Pool::Max2),
            ("c", conv, Pool::None),
            ("d.shortcut", LinearOp::Identity, Pool::None),
            ("d", half, Pool::Average),
            ("head", LinearOp::Linear, Pool::None),
        ]
    );
}
