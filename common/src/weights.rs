//! Weights as safetensors files in PyTorch's layout.
//!
//! Tensors are named as the network's parameters are, with the endings of PyTorch's modules:
//!
//! | here | in the file | shape there |
//! |---|---|---|
//! | `conv1.weight`, `[kernel, kernel, in, out]` | `conv1.weight` | `[out, in, kernel, kernel]` |
//! | `fc1.weight`, `[height · width · in, out]` | `fc1.weight` | `[out, in · height · width]` |
//! | `fc1.bias` | `fc1.bias` | `[out]` |
//! | `conv1.norm.scale`, `conv1.norm.shift` | `conv1.norm.weight`, `conv1.norm.bias` | `[out]` |
//! | running mean and variance of `conv1`'s batch norm | `conv1.norm.running_mean`, `conv1.norm.running_var` | `[out]` |
//!
//! Here channels come last, so that a linear layer after a flatten sees (height, width, channel); PyTorch's sees
//! (channel, height, width). Numbers are f32. An average over weights stands in the same file, under names that begin
//! with `average.`, and weights of a moment before the end under names that begin with `step300.`, after so many steps.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use crate::net::{Layer, LinearOp, Net, ParamRole};
use crate::spec_file::suggest::suggest_nearest;

/// The parameters and statistics of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// Values of each of [`Net::params`], in the layout of this program.
    pub params: Vec<Vec<f32>>,
    /// Running mean and variance of each layer with a batch norm, in layer order.
    pub statistics: Vec<[Vec<f32>; 2]>,
}

/// A file that cannot initialize a network, with a message for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WeightsError(pub String);

/// The prefix of the tensors of an average.
const AVERAGE_PREFIX: &str = "average.";
/// What the prefix of the tensors of a moment begins with.
const MOMENT_PREFIX: &str = "step";
/// The suffix of a counter of PyTorch's batch norms, which is ignored.
const BATCH_COUNTER_SUFFIX: &str = ".num_batches_tracked";
const STATISTIC_SUFFIXES: [&str; 2] = ["running_mean", "running_var"];

/// The layout of a tensor in a file.
struct TensorLayout {
    name: String,
    shape: Vec<usize>,
    /// Dimensions of a weight: input channels, kernel pixels and outputs. `None` for vectors.
    weight_dims: Option<(usize, usize, usize)>,
}

impl Weights {
    /// Encodes the file of these weights and, if given, of an average of the parameters. Equal
    /// weights give equal files.
    pub fn to_safetensors(&self, net: &Net, average: Option<&[Vec<f32>]>) -> Vec<u8> {
        let mut file = WeightsFile::new(net);
        file.put_last(self, average);
        file.encode()
    }

    /// Reads initial weights from a file. Running statistics that the file lacks are mean 0 and
    /// variance 1.
    ///
    /// # Errors
    /// The bytes are no such file, or a tensor is missing, unknown, not finite, or of another shape
    /// or type.
    pub fn from_safetensors(bytes: &[u8], net: &Net) -> Result<Self, WeightsError> {
        Self::read_moment(bytes, net, None)
    }

    /// Reads the weights that a trial kept after `step` steps, or its last ones, as [`Self::from_safetensors`] does.
    ///
    /// # Errors
    /// As for [`Self::from_safetensors`].
    pub fn read_moment(bytes: &[u8], net: &Net, step: Option<u64>) -> Result<Self, WeightsError> {
        let file = parse_file(bytes)?;
        let prefix = step.map_or_else(String::new, format_moment_prefix);
        let params = prefix_names(param_layouts(net), &prefix);
        let statistics = prefix_names(statistic_layouts(net), &prefix);
        check_tensor_names(&file, params.iter().chain(&statistics), step)?;
        let params = params
            .iter()
            .map(|stored| {
                stored
                    .read_numbers(&file)?
                    .ok_or_else(|| WeightsError(format!("the tensor '{}' is missing", stored.name)))
            })
            .collect::<Result<_, _>>()?;

        let statistics = statistics
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[mean, variance]| read_statistics(&file, mean, variance))
            .collect::<Result<_, _>>()?;
        Ok(Self { params, statistics })
    }
}

/// A file of weights that is being written.
pub struct WeightsFile {
    params: Vec<TensorLayout>,
    statistics: Vec<TensorLayout>,
    /// Shape and bytes of each tensor, by name.
    tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
}

impl WeightsFile {
    /// Creates a file without tensors, of a network.
    pub fn new(net: &Net) -> Self {
        Self {
            params: param_layouts(net),
            statistics: statistic_layouts(net),
            tensors: BTreeMap::new(),
        }
    }

    /// Adds the last weights of a trial and, if given, the average of its parameters.
    pub fn put_last(&mut self, weights: &Weights, average: Option<&[Vec<f32>]>) {
        self.put_weights("", weights);
        for (stored, numbers) in self.params.iter().zip(average.unwrap_or_default()) {
            stored.put_numbers(AVERAGE_PREFIX, numbers, &mut self.tensors);
        }
    }

    /// Adds the weights after `step` steps.
    pub fn put_moment(&mut self, step: u64, weights: &Weights) {
        self.put_weights(&format_moment_prefix(step), weights);
    }

    fn put_weights(&mut self, prefix: &str, weights: &Weights) {
        let params = self.params.iter().zip(&weights.params);
        let statistics = self
            .statistics
            .iter()
            .zip(weights.statistics.iter().flatten());
        for (stored, numbers) in params.chain(statistics) {
            stored.put_numbers(prefix, numbers, &mut self.tensors);
        }
    }

    /// Encodes the file. Equal weights give equal files.
    pub fn encode(&self) -> Vec<u8> {
        serialize_tensors(&self.tensors)
    }
}

/// The steps before the end after which a file has weights, in ascending order.
///
/// # Errors
/// The bytes are no file of weights.
pub fn list_moments(bytes: &[u8]) -> Result<Vec<u64>, WeightsError> {
    let file = parse_file(bytes)?;
    let names = file.names();
    let mut steps: Vec<u64> = names.iter().filter_map(|name| moment_of(name)).collect();
    steps.sort_unstable();
    steps.dedup();
    Ok(steps)
}

/// The file of the weights that a file has of one moment, under the names that networks start from: after `step` steps, or the
/// last ones. `None` if it has none.
///
/// # Errors
/// The bytes are no file of weights.
pub fn extract_moment(bytes: &[u8], step: Option<u64>) -> Result<Option<Vec<u8>>, WeightsError> {
    let file = parse_file(bytes)?;
    let prefix = step.map_or_else(String::new, format_moment_prefix);
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        if moment_of(&name) == step
            && let Some(name) = name.strip_prefix(&prefix)
        {
            tensors.insert(
                name.to_owned(),
                (view.shape().to_vec(), view.data().to_vec()),
            );
        }
    }
    Ok((!tensors.is_empty()).then(|| serialize_tensors(&tensors)))
}

fn parse_file(bytes: &[u8]) -> Result<SafeTensors<'_>, WeightsError> {
    SafeTensors::deserialize(bytes).map_err(|e| {
        WeightsError(format!(
            "this is no safetensors file, or a damaged one ({e})"
        ))
    })
}

fn serialize_tensors(tensors: &BTreeMap<String, (Vec<usize>, Vec<u8>)>) -> Vec<u8> {
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (
            name,
            view.expect("a tensor has as many numbers as its shape says"),
        )
    });
    serialize(views, None).expect("names and shapes of a network fit into a header")
}

fn format_moment_prefix(step: u64) -> String {
    format!("{MOMENT_PREFIX}{step}.")
}

/// The number of steps that the name of a tensor begins with, if it is one of a moment.
fn moment_of(name: &str) -> Option<u64> {
    let (step, _) = name.strip_prefix(MOMENT_PREFIX)?.split_once('.')?;
    step.parse().ok()
}

fn prefix_names(mut layouts: Vec<TensorLayout>, prefix: &str) -> Vec<TensorLayout> {
    for stored in &mut layouts {
        stored.name.insert_str(0, prefix);
    }
    layouts
}

/// Running mean and variance of a norm; 0 and 1 if the file lacks them.
fn read_statistics(
    file: &SafeTensors<'_>,
    mean: &TensorLayout,
    variance: &TensorLayout,
) -> Result<[Vec<f32>; 2], WeightsError> {
    let means = mean.read_numbers_or(file, 0.0)?;
    let variances = variance.read_numbers_or(file, 1.0)?;
    if variances.iter().any(|variance| *variance < 0.0) {
        return Err(variance.error("holds a negative variance"));
    }

    Ok([means, variances])
}

impl TensorLayout {
    fn with_len(name: String, len: usize) -> Self {
        Self {
            name,
            shape: vec![len],
            weight_dims: None,
        }
    }

    /// A weight: `[height, width, in, out]` in memory, `[out, in, height, width]` in the file.
    fn from_layer(name: String, layer: &Layer) -> Self {
        let inputs = layer.input.channels;
        let outputs = layer.output.channels;
        let (height, width) = match layer.linear_op {
            LinearOp::Conv { kernel, .. } => (kernel, kernel),
            LinearOp::Linear | LinearOp::Identity => (layer.input.height, layer.input.width),
        };
        let shape = match layer.linear_op {
            LinearOp::Conv { .. } => vec![outputs, inputs, height, width],
            LinearOp::Linear | LinearOp::Identity => vec![outputs, inputs * height * width],
        };

        Self {
            name,
            shape,
            weight_dims: Some((inputs, height * width, outputs)),
        }
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The index in memory of the number at index `at` in the file.
    fn memory_index(&self, at: usize) -> usize {
        let Some((inputs, pixels, outputs)) = self.weight_dims else {
            return at;
        };
        let out = at / (inputs * pixels);
        let rest = at % (inputs * pixels);
        let input = rest / pixels;
        let pixel = rest % pixels;
        (pixel * inputs + input) * outputs + out
    }

    /// Adds the tensor with these numbers, which are in the order of memory.
    fn put_numbers(
        &self,
        prefix: &str,
        numbers: &[f32],
        tensors: &mut BTreeMap<String, (Vec<usize>, Vec<u8>)>,
    ) {
        let bytes = (0..self.len())
            .flat_map(|at| numbers[self.memory_index(at)].to_le_bytes())
            .collect();
        tensors.insert(
            format!("{prefix}{}", self.name),
            (self.shape.clone(), bytes),
        );
    }

    fn error(&self, problem: &str) -> WeightsError {
        WeightsError(format!("the tensor '{}' {problem}", self.name))
    }

    fn read_numbers_or(
        &self,
        file: &SafeTensors<'_>,
        initial: f32,
    ) -> Result<Vec<f32>, WeightsError> {
        let numbers = self.read_numbers(file)?;
        Ok(numbers.unwrap_or_else(|| vec![initial; self.len()]))
    }

    /// Reads the tensor into the order of memory; `None` if the file has none of this name.
    fn read_numbers(&self, file: &SafeTensors<'_>) -> Result<Option<Vec<f32>>, WeightsError> {
        let Ok(tensor) = file.tensor(&self.name) else {
            return Ok(None);
        };
        if tensor.dtype() != Dtype::F32 {
            return Err(self.error(&format!("holds {:?}; expected F32", tensor.dtype())));
        }

        if tensor.shape() != self.shape {
            return Err(self.error(&format!(
                "has the shape {:?}; expected {:?}",
                tensor.shape(),
                self.shape
            )));
        }

        let mut numbers = vec![0.0; self.len()];
        for (at, bytes) in tensor.data().as_chunks::<4>().0.iter().enumerate() {
            numbers[self.memory_index(at)] = f32::from_le_bytes(*bytes);
        }

        if numbers.iter().any(|x| !x.is_finite()) {
            return Err(self.error("holds a number that is not finite"));
        }

        Ok(Some(numbers))
    }
}

/// Tells why the weights of one network do not fit another, if they do not: by the first tensor that is missing, unknown or of
/// another shape.
pub fn describe_misfit(kept: &Net, net: &Net) -> Option<String> {
    let kept = all_layouts(kept);
    let wanted = all_layouts(net);
    let params = param_layouts(net).len();
    for (at, stored) in wanted.iter().enumerate() {
        let same_name = kept.iter().find(|other| other.name == stored.name);
        match same_name {
            Some(other) if other.shape != stored.shape => {
                let (found, expected) = (&other.shape, &stored.shape);
                return Some(format!(
                    "the tensor '{}' has the shape {found:?}; expected {expected:?}",
                    stored.name
                ));
            }
            None if at < params => return Some(format!("the tensor '{}' is missing", stored.name)),
            // Statistics that are not there begin as those of new networks do.
            None | Some(_) => {}
        }
    }

    let mut kept = kept.iter();
    let unknown = kept.find(|other| wanted.iter().all(|stored| stored.name != other.name));
    unknown.map(|other| format!("the network has no tensor '{}'", other.name))
}

fn all_layouts(net: &Net) -> Vec<TensorLayout> {
    let params = param_layouts(net).into_iter();
    params.chain(statistic_layouts(net)).collect()
}

/// Checks that the tensors of one moment, or the last ones, are among the known ones.
fn check_tensor_names<'a>(
    file: &SafeTensors<'_>,
    known: impl Iterator<Item = &'a TensorLayout>,
    step: Option<u64>,
) -> Result<(), WeightsError> {
    let known: Vec<&str> = known.map(|stored| stored.name.as_str()).collect();
    let mut names = file.names();
    names.sort_unstable();
    let unknown = names.iter().find(|name| {
        !known.contains(*name)
            && moment_of(name) == step
            && !name.starts_with(AVERAGE_PREFIX)
            && !name.ends_with(BATCH_COUNTER_SUFFIX)
    });
    match unknown {
        None => Ok(()),
        Some(name) => Err(WeightsError(format!(
            "the model has no tensor '{name}', {}",
            suggest_nearest(name, known)
        ))),
    }
}

fn param_layouts(net: &Net) -> Vec<TensorLayout> {
    net.params()
        .into_iter()
        .map(|param| {
            let layer = &net.layers[param.layer];
            match param.role {
                ParamRole::Weight => TensorLayout::from_layer(param.name, layer),
                ParamRole::Bias => TensorLayout::with_len(param.name, param.len),
                ParamRole::NormScale => {
                    TensorLayout::with_len(format!("{}.norm.weight", layer.name), param.len)
                }
                ParamRole::NormShift => {
                    TensorLayout::with_len(format!("{}.norm.bias", layer.name), param.len)
                }
            }
        })
        .collect()
}

fn statistic_layouts(net: &Net) -> Vec<TensorLayout> {
    net.layers
        .iter()
        .filter(|l| l.norm.is_some_and(|norm| norm.has_running_statistics()))
        .flat_map(|layer| {
            STATISTIC_SUFFIXES.map(|suffix| {
                TensorLayout::with_len(
                    format!("{}.norm.{suffix}", layer.name),
                    layer.output.channels,
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::TrialConfig;
    use crate::spec_file::node;
    use crate::weights::*;

    fn net(model: &str) -> Net {
        let tree = node::parse_document(&format!(
            "[data]\ndataset = \"cifar10\"\n[model]\n{model}\n[train]\nsteps = 1\nbatch_size = 1\nlr = 0.1\n"
        ));
        let config = TrialConfig::from_table(
            &tree.expect("valid TOML"),
            &[],
            crate::spec_file::grammar::ReadingMode::for_stored(crate::spec_file::grammar::GRAMMAR),
        )
        .expect("a valid config");

        Net::from_config(&config).expect("a network")
    }

    /// Different numbers everywhere.
    fn numbered(net: &Net) -> Weights {
        let mut next = 0.0;
        let mut numbers = |len: usize| -> Vec<f32> {
            (0..len)
                .map(|_| {
                    next += 1.0;
                    next
                })
                .collect()
        };
        let params = net.params().iter().map(|p| numbers(p.len)).collect();

        let normed = net
            .layers
            .iter()
            .filter(|l| l.norm.is_some_and(|n| n.has_running_statistics()));
        let statistics = normed
            .map(|l| [numbers(l.output.channels), numbers(l.output.channels)])
            .collect();
        Weights { params, statistics }
    }

    #[test]
    fn weights_come_back_from_their_file() {
        for model in [
            "kind = \"cnn4\"\nwidth = 3\naffine = true",
            "kind = \"mlp\"\nhidden = [5, 3]\nnorm = \"none\"",
            "kind = \"preresnet\"\ndepth = 8",
            "kind = \"vgg\"\nwidth = 2\nnorm = \"layer\"\naffine = true",
        ] {
            let net = net(model);
            let weights = numbered(&net);
            assert_eq!(
                Weights::from_safetensors(&weights.to_safetensors(&net, None), &net),
                Ok(weights.clone()),
                "{model}"
            );

            let with_average = weights.to_safetensors(&net, Some(&weights.params));
            assert_eq!(Weights::from_safetensors(&with_average, &net), Ok(weights));
        }
    }

    #[test]
    fn the_file_has_pytorchs_names_shapes_and_order() {
        let net = net("kind = \"cnn4\"\nwidth = 2\naffine = true");
        let weights = numbered(&net);
        let bytes = weights.to_safetensors(&net, None);
        let file = SafeTensors::deserialize(&bytes).expect("a file");
        let mut names = file.names();
        names.sort_unstable();

        let of_conv = [
            "norm.bias",
            "norm.running_mean",
            "norm.running_var",
            "norm.weight",
            "weight",
        ];
        let convs = (1..=4).flat_map(|i| of_conv.map(|ending| format!("conv{i}.{ending}")));
        assert_eq!(
            names,
            convs.chain(["head.weight".to_owned()]).collect::<Vec<_>>()
        );

        let shape = |name: &str| file.tensor(name).expect("it is there").shape().to_vec();
        assert_eq!(
            (shape("conv2.weight"), shape("head.weight")),
            (vec![4, 2, 3, 3], vec![10, 4 * 4 * 8])
        );

        // conv2.weight[o = 3, i = 1, h = 2, w = 0] is number ((2·3 + 0)·2 + 1)·4 + 3 here.
        let number = |name: &str, at: usize| {
            let bytes = file.tensor(name).expect("it is there").data()[4 * at..][..4]
                .try_into()
                .expect("4 bytes");
            f32::from_le_bytes(bytes)
        };
        assert_eq!(
            number("conv2.weight", ((3 * 2 + 1) * 3 + 2) * 3),
            weights.params[3][55]
        );

        // head.weight[o = 9, (c = 5, h = 1, w = 2)] is number ((1·4 + 2)·8 + 5)·10 + 9.
        assert_eq!(
            number("head.weight", ((9 * 8 + 5) * 4 + 1) * 4 + 2),
            weights.params[12][539]
        );
    }

    /// What is told of two networks is what their files come to.
    #[test]
    fn networks_misfit_exactly_where_a_file_of_one_is_refused_for_the_other() {
        let models = [
            "kind = \"mlp\"\nhidden = [5, 3]\nnorm = \"none\"",
            "kind = \"mlp\"\nhidden = [5, 4]\nnorm = \"none\"",
            "kind = \"mlp\"\nhidden = [5]\nnorm = \"none\"",
            "kind = \"mlp\"\nhidden = [5, 3]\nnorm = \"layer\"",
            "kind = \"mlp\"\nhidden = [5, 3]\nnorm = \"batch\"",
            "kind = \"mlp\"\nhidden = [5, 3]\nnorm = \"batch\"\naffine = true",
            "kind = \"mlp\"\nhidden = [5, 3]\nnorm = \"layer\"\naffine = true",
            "kind = \"cnn4\"\nwidth = 2\nnorm = \"group\"\ngroups = 2",
            "kind = \"cnn4\"\nwidth = 2\nnorm = \"batch\"",
        ];
        for kept in models.map(net) {
            let file = numbered(&kept).to_safetensors(&kept, None);
            for starting in models.map(net) {
                let refusal = Weights::from_safetensors(&file, &starting).err();
                let misfit = describe_misfit(&kept, &starting);
                assert_eq!(
                    misfit.is_some(),
                    refusal.is_some(),
                    "{misfit:?} and {refusal:?}: {kept:?} to {starting:?}"
                );
            }
        }
    }

    #[test]
    fn files_that_do_not_fit_are_refused_by_tensor() {
        let net = net("kind = \"mlp\"\nhidden = [4]");
        let refused = |numbers: &[(&str, Vec<usize>, f32)]| {
            let data: Vec<(String, Vec<usize>, Vec<u8>)> = numbers
                .iter()
                .map(|(name, shape, x)| {
                    (
                        name.to_string(),
                        shape.clone(),
                        x.to_le_bytes().repeat(shape.iter().product()),
                    )
                })
                .collect();
            let views = data.iter().map(|(name, shape, bytes)| {
                (
                    name,
                    TensorView::new(Dtype::F32, shape.clone(), bytes).expect("consistent"),
                )
            });
            let bytes = serialize(views, None).expect("small");

            Weights::from_safetensors(&bytes, &net)
                .map(|_| ())
                .map_err(|e| e.0)
        };

        let fc1 = ("fc1.weight", vec![4, 3072], 0.5);
        let head = ("head.weight", vec![10, 4], 0.5);
        assert_eq!(refused(&[fc1.clone(), head.clone()]), Ok(()));
        assert_eq!(
            refused(&[
                fc1.clone(),
                head.clone(),
                ("fc1.norm.num_batches_tracked", vec![1], 1.0)
            ]),
            Ok(())
        );

        for (tensors, words) in [
            (vec![fc1.clone()], "'head.weight' is missing"),
            (
                vec![("fc1.weight", vec![3072, 4], 0.5), head.clone()],
                "expected [4, 3072]",
            ),
            (
                vec![("fc1.weight", vec![4, 3072], f32::NAN), head.clone()],
                "not finite",
            ),
            (
                vec![
                    fc1.clone(),
                    head.clone(),
                    ("fc1.norm.running_var", vec![4], -1.0),
                ],
                "'fc1.norm.running_var' holds a negative",
            ),
            (
                vec![fc1, head, ("fc2.weight", vec![1], 0.5)],
                "no tensor 'fc2.weight'",
            ),
        ] {
            let error = refused(&tensors).expect_err(words);
            assert!(error.contains(words), "{error}");
        }

        assert!(Weights::from_safetensors(b"nothing of this kind", &net).is_err());
    }
}
