//! What lists of layers, activations and biases mean, and what is said of those that mean nothing.

use crate::Spec;
use crate::config::{Activation, TrialConfig};
use crate::ids::DatasetHash;
use crate::net::{ActivationShape, Layer, LinearOp, Net, ParamRole, Pool};
use crate::spec::source::SpecSource;
use crate::spec_file::grammar::LAYERS_GRAMMAR;
use crate::weights::Weights;

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

#[test]
fn wrong_layers_are_named_with_line_and_remedy() {
    let a = "{ name = \"a\", conv = 8 },\n";
    let head = "{ linear = \"classes\" }";
    let many = "{ conv = 1 },".repeat(1000);
    for (layers, words) in [
        (
            "".to_owned(),
            ["model.layers: the last layer", "end the list with"],
        ),
        (
            format!("{a}{{ linear = 10 }}"),
            [
                "sweep.toml:6: model.layers[1]: the last layer",
                "{ linear = \"classes\" }",
            ],
        ),
        (
            format!("{head},\n{a}"),
            ["sweep.toml:5: model.layers[0].linear", "stands last"],
        ),
        (
            format!("{a}{head},\n{head}"),
            ["sweep.toml:6: model.layers[1].linear", "stands last"],
        ),
        (
            format!("{a}{head},\n{{ pool = \"max2\" }}"),
            ["model.layers[1].linear", "stands last"],
        ),
        (
            format!("{a}7, {head}"),
            ["sweep.toml:6: model.layers[1]: expected a table", "found 7"],
        ),
        (
            format!("{a}{{ linear = \"clases\" }}"),
            ["model.layers[1].linear", "did you mean 'classes'?"],
        ),
        (
            format!("{{ conv = 8, kernl = 3 }},\n{head}"),
            [
                "sweep.toml:5: model.layers[0].kernl",
                "did you mean 'kernel'?",
            ],
        ),
        (
            format!("{{ cnv = 8 }},\n{head}"),
            ["model.layers[0].cnv", "did you mean 'conv'?"],
        ),
        (
            format!("{{ name = \"a\" }},\n{head}"),
            [
                "model.layers[0]: expected conv = channels",
                "linear = width",
            ],
        ),
        (
            format!("{{ conv = 8, linear = 8 }},\n{head}"),
            ["model.layers[0].linear", "remove one of conv and linear"],
        ),
        (
            format!("{{ conv = 8, pool = \"max2\" }},\n{head}"),
            ["model.layers[0].pool", "an item of its own"],
        ),
        (
            format!("{{ pool = \"max\" }},\n{head}"),
            ["model.layers[0].pool", "did you mean 'max2'?"],
        ),
        (
            format!("{{ pool = \"max2\", name = \"p\" }},\n{head}"),
            ["model.layers[0].name", "unknown key 'name'"],
        ),
        (
            format!("{{ linear = 8, kernel = 3 }},\n{head}"),
            ["model.layers[0].kernel", "convolutions only"],
        ),
        (
            format!("{{ conv = 0 }},\n{head}"),
            ["model.layers[0].conv", ">= 1"],
        ),
        (
            format!("{{ conv = 8, kernel = 3, padding = 3 }},\n{head}"),
            ["model.layers[0].padding", "choose at most 2"],
        ),
        (
            format!("{{ conv = 8, kernel = 35, padding = 1 }},\n{head}"),
            ["model.layers[0].kernel: a kernel of 35×35", "34×34"],
        ),
        (
            format!("{{ conv = 8, activation = \"rely\" }},\n{head}"),
            ["model.layers[0].activation", "did you mean 'relu'?"],
        ),
        (
            format!("{{ conv = 8, norm = \"bach\" }},\n{head}"),
            ["model.layers[0].norm", "did you mean 'batch'?"],
        ),
        (
            format!("{{ conv = 8, groups = 2 }},\n{head}"),
            ["model.layers[0].groups", "norm = \"group\" only"],
        ),
        (
            format!("{{ conv = 8, ghost_size = 2 }},\n{head}"),
            ["model.layers[0].ghost_size", "norm = \"ghost-batch\" only"],
        ),
        (
            format!("{{ conv = 9, norm = \"group\", groups = 2 }},\n{head}"),
            [
                "model.layers[0].groups: the 9 channels of conv1",
                "2 equal groups",
            ],
        ),
        (
            format!("{{ conv = 9, norm = \"group\" }},\n{head}"),
            ["sweep.toml:5: model.layers[0].groups", "8 equal groups"],
        ),
        (
            format!("{{ conv = 8, bias = true }},\n{head}"),
            ["model.layers[0].bias", "norm = \"none\""],
        ),
        (
            format!("{a}{{ conv = 8, norm = \"ghost-batch\", ghost_size = 4 }}, {head}"),
            [
                "model.layers[1].norm",
                "the norm batch, and this one ghost-batch 4",
            ],
        ),
        (
            format!(
                "{{ conv = 8, norm = \"ghost-batch\", ghost_size = 5 }}, {{ conv = 8, norm = \"none\" }}, {head}"
            ),
            [
                "sweep.toml:5: model.layers[0].ghost_size",
                "a batch of 12 images cannot be cut into ghost batches of 5",
            ],
        ),
        (
            format!(
                "{{ conv = 8, norm = \"ghost-batch\" }}, {{ conv = 8, norm = \"none\" }}, {head}"
            ),
            [
                "sweep.toml:5: model.layers[0].ghost_size",
                "a batch of 12 images cannot be cut into ghost batches of",
            ],
        ),
        (
            format!("{a}{{ name = \"a\", conv = 8 }},\n{head}"),
            [
                "sweep.toml:6: model.layers[1].name",
                "model.layers[0] is called 'a' as well",
            ],
        ),
        (
            format!("{{ name = \"conv2\", conv = 8 }}, {{ conv = 8 }}, {head}"),
            ["model.layers[1].name", "give one of them another name"],
        ),
        (
            format!("{{ name = \"head\", conv = 8 }}, {head}"),
            ["model.layers[0].name", "is called 'head'"],
        ),
        (
            format!("{a}{{ name = \"out\", linear = \"classes\" }}"),
            ["model.layers[1].name", "is called 'head'"],
        ),
        (
            format!("{{ name = \"a b\", conv = 8 }}, {head}"),
            ["model.layers[0].name", "expected a letter"],
        ),
        (
            format!("{{ name = \"7\", conv = 8 }}, {head}"),
            ["model.layers[0].name", "expected a letter"],
        ),
        (
            format!("{{ name = \"a.norm\", conv = 8 }}, {head}"),
            ["model.layers[0].name", "files of weights"],
        ),
        (
            format!("{{ name = \"step3.a\", conv = 8 }}, {head}"),
            ["model.layers[0].name", "files of weights"],
        ),
        (
            format!("{{ name = \"step3\", conv = 8 }}, {head}"),
            ["model.layers[0].name", "files of weights"],
        ),
        (
            format!("{{ name = \"average\", conv = 8 }}, {head}"),
            ["model.layers[0].name", "files of weights"],
        ),
        (
            format!("{{ name = \"norms\", conv = 8 }}, {head}"),
            ["model.layers[0].name", "a factor for all norms"],
        ),
        (
            format!(
                "{{ name = \"pool1\", conv = 8 }}, {{ pool = \"max2\" }}, {{ pool = \"max2\" }}, {head}"
            ),
            ["model.layers[0].name", "choose another name"],
        ),
        (
            format!(
                "{a}{{ conv = 8, add = \"a.out\" }}, {{ name = \"conv2.shortcut\", conv = 8 }}, {head}"
            ),
            ["model.layers[2].name", "choose another name"],
        ),
        (
            format!(
                "{a}{{ name = \"encoder\", conv = 8 }}, {{ conv = 8, from = \"encodr.out\" }}, {head}"
            ),
            ["model.layers[2].from", "did you mean 'encoder'?"],
        ),
        (
            format!("{a}{{ conv = 8, add = \"b.out\" }}, {{ name = \"b\", conv = 8 }}, {head}"),
            ["model.layers[1].add", "name an earlier layer"],
        ),
        (
            format!("{{ conv = 8, add = \"b.out\" }}, {head}"),
            ["model.layers[0].add", "no layer before the first"],
        ),
        (
            format!("{a}{{ name = \"b\", conv = 8, from = \"b.in\" }}, {head}"),
            ["model.layers[1].from", "name an earlier layer"],
        ),
        (
            format!("{a}{{ name = \"b\", conv = 8, add = \"b.out\" }}, {head}"),
            ["model.layers[1].add", "name an earlier layer"],
        ),
        (
            format!("{a}{{ conv = 8, from = \"a\" }}, {head}"),
            ["model.layers[1].from", "such as \"a.out\", found 'a'"],
        ),
        (
            format!("{a}{{ conv = 8, add = \"a.norm\" }}, {head}"),
            ["model.layers[1].add", "with .in, .out or .sum"],
        ),
        (
            format!("{a}{{ conv = 8, from = \"a.sum\" }}, {head}"),
            ["model.layers[1].from", "add = \"a.sum\""],
        ),
        (
            format!(
                "{a}{{ name = \"b\", conv = 8, add = \"a.sum\" }}, {{ conv = 8, add = \"a.sum\" }}, {head}"
            ),
            [
                "model.layers[2].add: b adds the sum of a already",
                "\"b.sum\"",
            ],
        ),
        (
            format!("{a}{{ conv = 16, add = \"a.sum\" }}, {head}"),
            [
                "model.layers[1].add: the sum of a has the shape 32×32×8",
                "conv2 32×32×16",
            ],
        ),
        (
            format!(
                "{{ name = \"a\", conv = 8, stride = 2 }}, {{ conv = 8, kernel = 7, padding = 0, add = \"a.out\" }}, {head}"
            ),
            [
                "model.layers[1].add: what is added has the shape 16×16×8",
                "10×10×8",
            ],
        ),
        (
            format!("{a}{{ linear = 8, add = \"a.out\" }}, {head}"),
            ["model.layers[1].add", "1×1×8"],
        ),
        (
            format!("{a}{{ conv = 8, from = \"a.in\" }}, {head}"),
            ["model.layers[0].conv: no layer reads a", "remove a"],
        ),
        (
            format!(
                "{a}{{ name = \"s\", conv = 8, norm = \"layer\" }}, {{ conv = 8, from = \"a.out\", add = \"s.sum\" }}, {head}"
            ),
            ["model.layers[1].norm", "no layer reads 's.out'"],
        ),
        (
            format!(
                "{a}{{ name = \"s\", conv = 8, activation = \"tanh\" }}, {{ conv = 8, from = \"a.out\", add = \"s.sum\" }}, {head}"
            ),
            ["model.layers[1].activation", "no layer reads 's.out'"],
        ),
        (
            format!(
                "{a}{{ name = \"s\", conv = 8 }}, {{ pool = \"max2\" }}, {{ conv = 8, from = \"a.out\", add = \"s.sum\" }}, {head}"
            ),
            ["model.layers[2].pool", "no layer reads 's.out'"],
        ),
        (
            format!("{a}{{ linear = \"classes\", norm = \"layer\" }}"),
            ["model.layers[1].norm", "has no norm"],
        ),
        (
            format!("{a}{{ linear = \"classes\", activation = \"tanh\" }}"),
            ["model.layers[1].activation", "as they are"],
        ),
        (
            format!(
                "{}{head}",
                "{ conv = 4, stride = 2 }, { pool = \"max2\" }, ".repeat(3)
            ),
            ["model.layers[5].pool: a pool of 2×2 pixels", "1×1×4"],
        ),
        (
            format!("{{ linear = 65536 }}, {{ linear = 65536 }}, {head}"),
            ["model.layers[1].linear", "at most 4294967296"],
        ),
        (
            format!("{many}{head}"),
            ["model.layers: 1001 layers are too many", "1000"],
        ),
    ] {
        let message = refusal(&listed(&layers), "", &[]);
        let shown: String = layers.chars().take(200).collect();
        for word in words {
            assert!(message.contains(word), "{shown}\n{message}\nlacks {word}");
        }
        let line = message.strip_prefix("sweep.toml:").unwrap_or_default();
        let has_line = line.starts_with(|c: char| c.is_ascii_digit());
        assert!(has_line, "{shown}\n{message}");
    }
}

#[test]
fn keys_that_a_pool_lacks_are_no_axes() {
    let model = listed(
        "{ name = \"a\", conv = 8 }, { pool = \"max2\" }, { linear = 20 }, { linear = \"classes\" }",
    );
    for key in ["width", "conv", "kernel", "name"] {
        let axis = format!("[grid]\n\"model.layers.1.{key}\" = [4, 6]\n");
        let message = refusal(&model, &axis, &[]);
        let words = format!(
            "layer 1 is a pool and has no {key}: name a convolution or a matrix, such as model.layers.a.{key}, or set \
             model.layers.1.pool"
        );
        assert!(message.starts_with("sweep.toml:14: "), "{message}");
        assert!(message.contains(&words), "{message}");
    }
    let setting = refusal(&model, "", &["model.layers.1.width=4"]);
    assert!(
        setting.contains("layer 1 is a pool and has no width"),
        "{setting}"
    );

    let axis = "[grid]\n\"model.layers.1.pool\" = [\"max2\", \"avg2\"]\n";
    assert_eq!(configs(&read_with(&model, axis, &[])).len(), 2);
    let message = refusal(&model, "[grid]\n\"model.layers.7.width\" = [4, 6]\n", &[]);
    assert!(message.contains("there is no layer '7'"), "{message}");
}

#[test]
fn fields_of_other_kinds_are_no_fields_of_lists() {
    let list = listed("{ conv = 8 }, { linear = \"classes\" }");
    for (model, words) in [
        (
            "kind = \"layers\"".to_owned(),
            "model.layers: which layers?",
        ),
        (
            "kind = \"layers\"\nlayers = 3".to_owned(),
            "model.layers: expected a list",
        ),
        (
            "kind = \"cnn4\"\nlayers = []".to_owned(),
            "model.layers: this belongs to kind = \"layers\" only",
        ),
        (
            "kind = \"toy\"\nactivation = \"tanh\"".to_owned(),
            "model.activation: this belongs to kind = \"mlp\"",
        ),
        (
            "kind = \"cnn4\"\nactivation = \"tnh\"".to_owned(),
            "model.activation: unknown value 'tnh', did you mean 'tanh'?",
        ),
        (
            "kind = \"cnn4\"\nbias = 1".to_owned(),
            "model.bias: expected true or false",
        ),
        (
            format!("{list}\nwidth = 8"),
            "model.width: this belongs to kind",
        ),
        (
            format!("{list}\nnorm = \"none\"\naffine = true"),
            "model.affine",
        ),
        (
            format!("{list}\ninit = {{ zero_residual = true }}"),
            "model.init.zero_residual: kind = \"layers\"",
        ),
        (
            format!("{list}\ninit = {{ layers = {{ conv2 = 2 }} }}"),
            "model.init.layers: the model has no layer 'conv2', did you mean 'conv1'?",
        ),
        (
            format!("{list}\nnorm = \"layer\"").replace("{ conv = 8 }", "{ linear = 1 }"),
            "model.norm: this norm subtracts",
        ),
    ] {
        let message = refusal(&model, "", &[]);
        assert!(message.contains(words), "{model}\n{message}");
    }

    let shortcut = listed(
        "{ name = \"a\", conv = 8, add = \"a.in\" }, { name = \"b\", conv = 8, add = \"b.in\" }, { linear = \"classes\" }",
    );
    let message = refusal(
        &format!("{shortcut}\ninit = {{ layers = {{ \"b.shortcut\" = 2 }} }}"),
        "",
        &[],
    );
    assert!(message.contains("no layer 'b.shortcut'"), "{message}");
    let message = refusal(
        &shortcut,
        "[measure]\nmetrics = [\"weight_norm_sq[b.shortcut]\"]\n",
        &[],
    );
    assert!(message.contains("a layer 'b.shortcut'"), "{message}");
    let scaled = format!(
        "{shortcut}\nfixed_head = true\ninit = {{ layers = {{ \"a.shortcut\" = 2, b = 3 }} }}"
    );
    assert!(!layer(&net(&scaled), "head").trained);
}

/// A norm of one layer is looked at as one of all is.
#[test]
fn a_norm_of_one_layer_has_more_than_one_number() {
    let one =
        "{ conv = 8, norm = \"none\" }, { linear = 8, norm = \"batch\" }, { linear = \"classes\" }";
    let model = format!("{}\nnorm = \"none\"", listed(one));
    let message = refusal(&model, "", &["train.batch_size=1"]);
    assert!(
        message.contains("train.batch_size") && message.contains("in the layer fc1"),
        "{message}"
    );
    let noisy = refusal(&model, "", &["train.added_noise={ images = 1, pairs = 2 }"]);
    assert!(noisy.contains("train.added_noise.images"), "{noisy}");
    read_with(&model, "", &["train.batch_size=2"]);

    for (norm, key) in [
        ("norm = \"layer\"", "norm"),
        ("norm = \"group\", groups = 1", "groups"),
        ("norm = \"ghost-batch\", ghost_size = 1", "ghost_size"),
    ] {
        let own = format!("{{ conv = 8 }}, {{ linear = 1, {norm} }}, {{ linear = \"classes\" }}");
        let model = format!("{}\nnorm = \"none\"", listed(&own));
        let message = refusal(&model, "", &[]);
        assert!(
            message.contains(&format!("model.layers[1].{key}: "))
                && message.contains("in the layer fc1"),
            "{message}"
        );
    }
}

#[test]
fn layers_are_settings_and_axes() {
    let model = listed(
        "{ name = \"a\", conv = 8 },\n{ conv = 16 },\n{ linear = 20 },\n{ linear = \"classes\" }",
    );
    let widths = |rest: &str, settings: &[&str]| -> Vec<Vec<usize>> {
        let spec = read_with(&model, rest, settings);
        let nets = configs(&spec).into_iter().map(|config| {
            let net = Net::from_config(&config).expect("a network");
            net.layers[..3].iter().map(|l| l.output.channels).collect()
        });
        nets.collect()
    };

    for name in ["a.width", "a.conv", "0.width", "0.conv"] {
        let axis = format!("[grid]\n\"model.layers.{name}\" = [4, 6]\n");
        assert_eq!(widths(&axis, &[]), [[4, 16, 20], [6, 16, 20]], "{name}");
        let unquoted = axis.replace('"', "");
        assert_eq!(widths(&unquoted, &[]).len(), 2, "{name}");
        let setting = format!("model.layers.{name}=5");
        assert_eq!(widths("", &[&setting]), [[5, 16, 20]], "{name}");
        // However the axis calls it.
        for other in ["a.width", "0.conv"] {
            let axis = format!("[grid]\n\"model.layers.{other}\" = [4, 6]\n");
            assert_eq!(widths(&axis, &[&setting]), [[5, 16, 20]], "{name} {other}");
        }
    }

    let both = "[grid]\n\"model.layers.conv2.width\" = { linear = [2, 4], points = 3 }\n[derive]\n\"model.layers.fc1.width\" = \"2 * model.layers.conv2.width\"\n";
    assert_eq!(widths(both, &[]), [[8, 2, 4], [8, 3, 6], [8, 4, 8]]);
    let cases = "[case]\nsmall = { model.layers.a.width = 2, w = 3 }\nlarge = { \"model.layers.0.width\" = \"2 * w\", w = 5 }\n[derive]\n\"model.layers.2.width\" = \"w\"\n";
    assert_eq!(widths(cases, &[]), [[2, 16, 3], [10, 16, 5]]);

    let scales = "[scale.small]\nmodel.layers.a.width = 3\n[scale.odd]\n\"model.layers.1.kernel\" = 5\nmodel.layers.fc1.width = 7\n\
                  [scale.wrong]\nmodel.layers.b.width = 3\n";
    assert_eq!(widths(scales, &["scale=small"]), [[3, 16, 20]]);
    assert_eq!(widths(scales, &["scale=odd"]), [[8, 16, 7]]);
    let message = refusal(&model, scales, &["scale=wrong"]);
    assert!(
        message.contains("model.layers.b.width: there is no layer 'b', known: a, conv2"),
        "{message}"
    );

    let spec = read_with(
        &model,
        "[grid]\n\"model.layers.a.activation\" = [\"relu\", \"tanh\"]\n\"model.layers.1.kernel\" = [3, 5]\n",
        &[],
    );
    assert_eq!(spec.grid.cell_count(), 4);
    assert_eq!(spec.min_grammar(), LAYERS_GRAMMAR);
    let whole = "[grid]\n\"model.layers\" = [[{ linear = 3 }, { linear = \"classes\" }], [{ linear = \"classes\" }]]\n";
    assert_eq!(configs(&read_with(&model, whole, &[])).len(), 2);
    assert_eq!(
        widths(
            "",
            &[
                "model.layers=[{ conv = 1 }, { conv = 2 }, { conv = \"1 + 2\" }, { linear = \"classes\" }]"
            ]
        ),
        [[1, 2, 3]]
    );
}

#[test]
fn numbers_of_layers_can_be_expressions() {
    let model =
        listed("{ name = \"a\", conv = \"w\" },\n{ conv = \"2 * w\" },\n{ linear = \"classes\" }");
    let spec = read_with(&model, "[grid]\nw = [2, 3]\n", &[]);
    let nets = configs(&spec);
    let widths = nets.iter().map(|config| {
        let net = Net::from_config(config).expect("a network");
        (net.layers[0].output.channels, net.layers[1].output.channels)
    });
    assert_eq!(widths.collect::<Vec<_>>(), [(2, 4), (3, 6)]);
    assert_eq!(spec.grid.class_count(), 2);

    // An axis decides over the expression of the file.
    let axis = "[grid]\nw = [2, 3]\n\"model.layers.a.width\" = [7]\n";
    let nets = configs(&read_with(&model, axis, &[]));
    assert!(nets.iter().all(|c| {
        Net::from_config(c).expect("a network").layers[0]
            .output
            .channels
            == 7
    }));
}

#[test]
fn wrong_paths_of_layers_are_named_with_a_remedy() {
    let model = listed("{ name = \"enc\", conv = 8 },\n{ conv = 16 },\n{ linear = \"classes\" }");
    let plain = "kind = \"cnn4\"";
    let axis = |name: &str| format!("[grid]\n\"model.layers.{name}\" = [4, 6]\n");
    for (model, rest, setting, words) in [
        (
            model.as_str(),
            axis("emc.width"),
            "",
            "there is no layer 'emc', did you mean 'enc'?",
        ),
        (&model, axis("7.width"), "", "there is no layer '7'"),
        (&model, axis("enc"), "", "name a key of the layer"),
        (&model, axis("enc.widht"), "", "unknown key 'widht'"),
        (
            &model,
            axis("enc.width").replace("4, 6", "0, 6"),
            "",
            "grid.model.layers.enc.width: expected a whole number >= 1",
        ),
        (
            &model,
            axis("enc.kernel").replace("4, 6", "3, 999"),
            "",
            "grid.model.layers.enc.kernel: expected a whole number",
        ),
        (
            &model,
            axis("enc.width") + "\"model.layers.0.conv\" = [1]\n",
            "",
            "sets the same field",
        ),
        (
            &model,
            axis("enc.width") + "\"model.layers\" = [[{ linear = \"classes\" }]]\n",
            "",
            "sets the same field",
        ),
        (
            &model,
            axis("enc.width") + "[derive]\n\"model.layers.0.width\" = \"3\"\n",
            "",
            "axis of [grid] as well",
        ),
        (
            &model,
            axis("enc.width") + "[case]\nA = { model.layers.0.width = 3 }\n",
            "",
            "keep one of the two",
        ),
        (
            &model,
            String::new(),
            "model.layers.emc.width=3",
            "--set model.layers.emc.width=3: model.layers.emc.width: there is no layer 'emc'",
        ),
        (
            &model,
            String::new(),
            "model.layers.enc.padding=3",
            "model.layers[0].padding: with 3 zeros",
        ),
        (
            plain,
            String::new(),
            "model.layers.enc.width=3",
            "the file has no list model.layers",
        ),
        (
            plain,
            axis("enc.width"),
            "",
            "the file has no list model.layers",
        ),
        (
            &model,
            "[grid]\n\"model.activation\" = [\"relu\", \"rele\"]\n".to_owned(),
            "",
            "did you mean 'relu'?",
        ),
        (
            &model,
            "[grid]\n\"model.layers.conv2.bias\" = [true, false]\n".to_owned(),
            "",
            "a layer with a norm has no bias",
        ),
    ] {
        let settings: &[&str] = if setting.is_empty() { &[] } else { &[setting] };
        let message = refusal(model, &rest, settings);
        assert!(
            message.contains(words),
            "{rest} {setting}\n{message}\nlacks {words}"
        );
    }
}

/// A sweep with the scale `small`, which is chosen.
fn refusal_at_scale(scale: &str, rest: &str) -> String {
    let rest = format!("{rest}\n[scale.small]\n{scale}\n");
    refusal(&listed(TWO_LAYERS), &rest, &["scale=small"])
}

const TWO_LAYERS: &str =
    "{ name = \"a\", conv = 8 }, { name = \"b\", conv = 8 }, { linear = \"classes\" }";
const AXIS_OF_LISTS: &str = "[grid]\n\"model.layers\" = [[{ name = \"b\", conv = 8 }, { linear = \"classes\" }], [{ linear = \"classes\" }]]\n";

#[test]
fn a_derived_number_of_a_layer_is_of_no_varied_list() {
    let derive = "[derive]\n\"model.layers.b.width\" = \"2 * batch_size\"\n";
    let case = "[case.x]\n\"model.layers\" = [{ name = \"b\", conv = 8 }, { linear = \"classes\" }]\n[case.y]\nlr = 0.2\n";
    for (rest, words) in [
        (AXIS_OF_LISTS, "model.layers is an axis of [grid] as well"),
        (case, "case.x.model.layers"),
        (
            "[grid]\n\"model.layers.1.width\" = [4, 8]\n",
            "is an axis of [grid] as well",
        ),
    ] {
        let message = refusal(&listed(TWO_LAYERS), &format!("{rest}{derive}"), &[]);
        assert!(
            message.contains("derive.model.layers.b.width")
                && message.contains(words)
                && message.contains("keep one of the two"),
            "{rest}\n{message}"
        );
    }

    let other = format!("[grid]\n\"model.layers.0.width\" = [4, 8]\n{derive}");
    read_with(&listed(TWO_LAYERS), &other, &[]);
}

#[test]
fn keys_of_layers_in_a_scale_are_not_overridden() {
    let scale = "\"model.layers.a.width\" = 4";
    let case = "[case.x]\n\"model.layers.0.width\" = 16\n[case.y]\nlr = 0.2\n";
    for (rest, words) in [
        (
            "[derive]\n\"model.layers.a.width\" = \"2 * batch_size\"\n",
            "decides this field in every cell",
        ),
        (case, "decides this field in its cells"),
        (AXIS_OF_LISTS, "grid.model.layers decides this field"),
    ] {
        let message = refusal_at_scale(scale, rest);
        assert!(
            message.contains("model.layers.a.width") && message.contains(words),
            "{rest}\n{message}"
        );
    }

    let set = refusal(
        &listed(TWO_LAYERS),
        AXIS_OF_LISTS,
        &["model.layers.a.width=4"],
    );
    assert!(
        set.contains("grid.model.layers decides this field"),
        "{set}"
    );

    let unknown = refusal_at_scale("\"model.layers.aa.width\" = 4", "");
    assert!(
        unknown.contains("there is no layer 'aa', did you mean 'a'?"),
        "{unknown}"
    );

    let axis = format!("[grid]\n\"model.layers.0.width\" = [8, 16]\n[scale.small]\n{scale}\n");
    let spec = read_with(&listed(TWO_LAYERS), &axis, &["scale=small"]);
    let widths: Vec<usize> = configs(&spec)
        .iter()
        .map(|config| {
            Net::from_config(config).expect("a network").layers[0]
                .output
                .channels
        })
        .collect();
    assert_eq!(widths, [4]);
}

#[test]
fn factors_are_of_layers_with_parameters() {
    let model = listed(&format!("{{ pool = \"avg2\" }}, {TWO_LAYERS}"));
    let message = refusal(&model, "lr_on = { pool1 = 0.5 }", &[]);
    assert!(
        message.contains("train.lr_on") && message.contains("the layer 'pool1' has no parameters"),
        "{message}"
    );
    read_with(&model, "lr_on = { a = 0.5 }", &[]);
}

#[test]
fn a_fixed_head_has_no_trained_shortcut() {
    let layers = "{ name = \"a\", linear = 8 }, { linear = \"classes\", add = \"a.out\" }";
    let model = format!("{}\nfixed_head = true", listed(layers));
    let message = refusal(&model, "", &[]);
    assert!(
        message.contains("model.layers[1].add: model.fixed_head")
            && message.contains("head.shortcut"),
        "{message}"
    );
    read_with(&listed(layers), "", &[]);
}

#[test]
fn cells_that_are_the_same_network_are_refused() {
    let model =
        listed("{ conv = 8, activation = \"tanh\", norm = \"none\" },\n{ linear = \"classes\" }");
    for axis in [
        "\"model.activation\" = [\"relu\", \"gelu\"]",
        "\"model.norm\" = [\"batch\", \"layer\"]",
        "\"model.bias\" = [true]\n\"model.layers.0.kernel\" = [\"3\", \"1 + 2\"]",
        "\"model.layers\" = [[{ conv = 8 }, { linear = \"classes\" }], [{ conv = 8, kernel = 3 }, { linear = \"classes\" }]]",
    ] {
        let message = refusal(&model, &format!("[grid]\n{axis}\n"), &[]);
        assert!(
            message.contains("same trial") || message.contains("expected a whole number"),
            "{axis}\n{message}"
        );
    }
    let linear = "kind = \"mlp\"\nhidden = []\nnorm = \"none\"";
    let message = refusal(
        linear,
        "[grid]\n\"model.activation\" = [\"relu\", \"gelu\"]\n",
        &[],
    );
    assert!(message.contains("same trial"), "{message}");
}

#[test]
fn layers_exist_since_a_version_of_the_grammar() {
    let list = listed("{ conv = 8 }, { linear = \"classes\" }");
    for model in [
        list.as_str(),
        "kind = \"cnn4\"\nactivation = \"tanh\"",
        "kind = \"cnn4\"\nbias = true",
    ] {
        let mut earlier = source(model, "", &[]);
        earlier.grammar = LAYERS_GRAMMAR - 1;
        let message = Spec::read_stored(&earlier).expect_err(model).to_string();
        assert!(
            message.contains("since version 5 of the grammar"),
            "{message}"
        );
        assert_eq!(read_with(model, "", &[]).min_grammar(), LAYERS_GRAMMAR);
    }
    assert_eq!(read_with("kind = \"cnn4\"", "", &[]).min_grammar(), 1);
    let case = "[case.A.model]\nkind = \"layers\"\nlayers = [{ linear = \"classes\" }]\n[case.B.model]\nkind = \"mlp\"\n";
    assert_eq!(
        read_with("kind = \"cnn4\"", case, &[]).min_grammar(),
        LAYERS_GRAMMAR
    );
    let axis = "[grid]\n\"model.activation\" = [\"relu\", \"gelu\"]\n";
    assert_eq!(
        read_with("kind = \"cnn4\"", axis, &[]).min_grammar(),
        LAYERS_GRAMMAR
    );
}

#[test]
fn activations_and_biases_are_those_of_the_file() {
    let deep = net(
        "kind = \"mlp\"\nhidden = { width = 8, depth = 5 }\nnorm = \"none\"\nactivation = \"identity\"\nbias = false",
    );
    assert!(
        deep.layers
            .iter()
            .all(|l| l.activation == Activation::Identity && !l.bias)
    );
    assert_eq!(deep.layers.len(), 6);
    let biases = |model: &str| -> Vec<String> {
        let params = net(model).params().into_iter();
        let biases = params.filter(|param| param.role == ParamRole::Bias);
        biases.map(|param| param.name).collect()
    };
    assert_eq!(biases("kind = \"cnn4\"\nbias = true"), ["head.bias"]);
    assert_eq!(
        biases("kind = \"cnn4\"").len()
            + biases("kind = \"cnn4\"\nnorm = \"none\"\nbias = false").len(),
        0
    );
    assert_eq!(biases("kind = \"cnn4\"\nnorm = \"none\"").len(), 5);

    let list = listed(
        "{ conv = 8 }, { conv = 8, norm = \"none\" }, { conv = 8, norm = \"none\", bias = true }, { linear = \"classes\" }",
    );
    assert_eq!(biases(&list), ["conv2.bias", "conv3.bias", "head.bias"]);
    assert_eq!(biases(&format!("{list}\nbias = false")), ["conv3.bias"]);
    assert_eq!(
        biases(&format!("{list}\nbias = true")),
        ["conv2.bias", "conv3.bias", "head.bias"]
    );
    let tanh = net(&format!("{list}\nactivation = \"tanh\""));
    let word = |name: &str| layer(&tanh, name).activation;
    assert_eq!(
        [word("conv1"), word("conv2"), word("head")],
        [Activation::Tanh, Activation::Tanh, Activation::Identity]
    );
}

#[test]
fn scale_invariance_is_claimed_where_it_is_true() {
    let normed = |layers: &str| -> Vec<String> {
        let params = net(&listed(layers)).params().into_iter();
        let normed = params.filter(|param| param.normed);
        normed
            .map(|param| param.name.replace(".weight", ""))
            .collect()
    };
    let head = "{ linear = \"classes\" }";
    let all = normed(&preresnet_layers());
    assert_eq!(all.len(), 21, "{all:?}");

    // An output, which the norm before it keeps from growing, is added to the map.
    let post = "{ name = \"a\", conv = 8 }, { name = \"b\", conv = 8, add = \"b.in\" }, { name = \"c\", conv = 8 },";
    assert_eq!(normed(&format!("{post}{head}")), ["a", "c"]);
    let reduced =
        "{ name = \"a\", conv = 8 }, { name = \"b\", conv = 16, stride = 2, add = \"b.in\" },";
    assert_eq!(
        normed(&format!("{reduced}{head}")),
        ["a", "b.shortcut", "b"]
    );
    let stream = "{ name = \"a\", conv = 8 }, { name = \"b\", conv = 8, add = \"a.sum\" },";
    assert_eq!(normed(&format!("{stream}{head}")), ["a", "b"]);
    // Part of the stream is an output, or goes on without a norm.
    let mixed = "{ name = \"a\", conv = 8, add = \"a.in\" }, { name = \"b\", conv = 8, add = \"a.sum\" }, { name = \"c\", conv = 8 },";
    assert_eq!(
        normed(&format!("{mixed}{head}")),
        ["a.shortcut", "a", "b", "c"]
    );
    let image = "{ name = \"a\", conv = 3, add = \"a.in\" }, { name = \"b\", conv = 3, add = \"a.sum\" }, { name = \"c\", conv = 8 },";
    assert_eq!(normed(&format!("{image}{head}")), ["c"]);
    let read = "{ name = \"a\", conv = 8, norm = \"none\", bias = false }, { name = \"b\", conv = 8, add = \"a.sum\" }, { name = \"c\", conv = 8 },";
    assert_eq!(normed(&format!("{read}{head}")), ["c"]);
    let biased = "{ name = \"a\", conv = 8 }, { name = \"s\", conv = 8, bias = true }, { name = \"b\", conv = 8, from = \"a.out\", add = \"s.sum\" },";
    assert_eq!(normed(&format!("{biased}{head}")), ["a"]);
    let unbiased = biased.replace(", bias = true", "");
    assert_eq!(normed(&format!("{unbiased}{head}")), ["a", "s", "b"]);
    // A sum of three maps, which has one factor; p has no bias by itself.
    let three = "{ name = \"p\", conv = 8 }, { name = \"q\", conv = 8, from = \"p.in\", add = \"p.sum\" }, { name = \"r\", conv = 8, from = \"p.in\", add = \"q.sum\" },";
    assert_eq!(normed(&format!("{three}{head}")), ["p", "q", "r"]);
    let summed = net(&listed(&format!("{three}{head}")));
    assert!(
        ["p", "q", "r"]
            .iter()
            .all(|name| !layer(&summed, name).bias)
    );
    let biased = three.replace(
        "conv = 8 }, { name = \"q\"",
        "conv = 8, bias = true }, { name = \"q\"",
    );
    assert!(normed(&format!("{biased}{head}")).is_empty());
    let bare = "{ name = \"a\", conv = 8, norm = \"none\" }, { name = \"b\", conv = 8 },";
    assert_eq!(normed(&format!("{bare}{head}")), ["b"]);
}
