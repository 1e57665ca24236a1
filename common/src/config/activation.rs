//! The functions that hidden layers apply to each number.

/// A function that a layer applies to each number behind its norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x
    Identity,
    /// max(x, 0)
    Relu,
    /// x where x > 0, and x/100 elsewhere.
    LeakyRelu,
    /// The hyperbolic tangent.
    Tanh,
    /// x·Φ(x) with the standard normal distribution function Φ (Hendrycks and Gimpel 2016), not its
    /// approximation by tanh.
    Gelu,
    /// x/(1 + e⁻ˣ) (Elfwing, Uchibe and Doya 2018).
    Silu,
    /// ln(1 + eˣ)
    Softplus,
}

/// The values of `model.activation`.
pub const ACTIVATIONS: [(&str, Activation); 7] = [
    ("relu", Activation::Relu),
    ("tanh", Activation::Tanh),
    ("gelu", Activation::Gelu),
    ("silu", Activation::Silu),
    ("leaky-relu", Activation::LeakyRelu),
    ("softplus", Activation::Softplus),
    ("identity", Activation::Identity),
];

impl Activation {
    /// Slope of a leaky ReLU below 0.
    pub const LEAKY_SLOPE: f64 = 0.01;

    /// Whether f(a·x) = a·f(x) for each a > 0.
    pub fn is_homogeneous(self) -> bool {
        matches!(self, Self::Identity | Self::Relu | Self::LeakyRelu)
    }
}
