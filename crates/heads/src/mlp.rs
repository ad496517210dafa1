//! Small dense networks, forward only; training happens elsewhere and must agree to 1e-5.

use ndarray::{Array1, Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::head::{HeadError, check_len};

/// What stands between two layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// `max(0, t)`.
    Relu,
    /// `t` where positive, else `0.2 t` (VPL).
    LeakyRelu,
    /// `0.5 t (1 + erf(t / sqrt 2))`, the exact form.
    Gelu,
    /// `tanh t`.
    Tanh,
}

impl Activation {
    /// The function's value.
    pub fn apply(self, t: f32) -> f32 {
        match self {
            Self::Relu => t.max(0.0),
            Self::LeakyRelu => {
                if t > 0.0 {
                    t
                } else {
                    0.2 * t
                }
            }
            Self::Gelu => 0.5 * t * (1.0 + libm::erf(f64::from(t) * std::f64::consts::FRAC_1_SQRT_2) as f32),
            Self::Tanh => t.tanh(),
        }
    }
}

/// An affine map, `x -> x Wᵀ + b`.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// `[out, in]`.
    pub weight: Array2<f32>,
    /// `[out]`.
    pub bias: Array1<f32>,
}

impl Layer {
    /// `[N, in]` to `[N, out]`.
    pub fn forward(&self, x: ArrayView2<'_, f32>) -> Array2<f32> {
        x.dot(&self.weight.t()) + &self.bias
    }

    /// Checks that the layer reads rows of a length, fits itself and is finite.
    pub(crate) fn check(&self, what: &'static str, input_len: usize) -> Result<(), HeadError> {
        check_len(what, input_len, self.weight.ncols())?;
        check_len("bias of a layer", self.weight.nrows(), self.bias.len())?;
        if self.weight.iter().chain(&self.bias).all(|w| w.is_finite()) {
            Ok(())
        } else {
            Err(HeadError::NotFinite("a weight"))
        }
    }
}

/// Affine layers with an activation between each two; the last has none.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    layers: Vec<Layer>,
    activation: Activation,
}

impl Mlp {
    /// A network of at least one layer.
    ///
    /// # Errors
    /// If there is no layer, or the sizes of two neighbours do not fit, or a weight is not finite.
    pub fn new(layers: Vec<Layer>, activation: Activation) -> Result<Self, HeadError> {
        if layers.is_empty() {
            return Err(HeadError::Parameter { name: "layers", detail: "there is none".into() });
        }
        for layer in &layers {
            layer.check("input of a layer", layer.weight.ncols())?;
        }
        for pair in layers.windows(2) {
            check_len("input of a layer", pair[0].weight.nrows(), pair[1].weight.ncols())?;
        }
        Ok(Self { layers, activation })
    }

    /// Length of an input row.
    pub fn input_len(&self) -> usize {
        self.layers[0].weight.ncols()
    }

    /// Length of an output row.
    pub fn output_len(&self) -> usize {
        self.layers[self.layers.len() - 1].weight.nrows()
    }

    /// The layers, first to last.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// What stands between them.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// `[N, in]` to `[N, out]`.
    ///
    /// # Errors
    /// If the rows have another length.
    pub fn forward(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>, HeadError> {
        check_len("an input row", self.input_len(), x.ncols())?;
        let mut output = self.layers[0].forward(x);
        for layer in &self.layers[1..] {
            output.mapv_inplace(|t| self.activation.apply(t));
            output = layer.forward(output.view());
        }
        Ok(output)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ndarray::array;

    use super::*;

    /// The shared projector of the PAL specification's golden checks, with `activation` between its layers.
    pub(crate) fn golden_projector(activation: Activation) -> Mlp {
        let layer = |weight, bias| Layer { weight, bias };
        Mlp::new(
            vec![
                layer(array![[0.5, -0.3], [0.2, 0.8]], array![0.1, -0.2]),
                layer(array![[0.7, 0.4], [-0.6, 0.9]], array![0.0, 0.05]),
                layer(array![[1.0, -0.5], [0.3, 0.6]], array![-0.1, 0.2]),
            ],
            activation,
        )
        .unwrap()
    }

    #[test]
    fn the_projector_agrees_with_golden_g1() {
        // PAL specification G1 (float64 numpy): residual relu and plain gelu at x = (1, 2); tolerance 1e-5.
        let x = array![[1.0_f32, 2.0]];
        let relu = golden_projector(Activation::Relu).forward(x.view()).unwrap() + &x;
        let gelu = golden_projector(Activation::Gelu).forward(x.view()).unwrap();
        for (actual, expected) in relu.iter().chain(&gelu).zip([0.795, 3.286, -0.309_713, 1.111_680]) {
            assert!((actual - expected).abs() < 1e-5, "{actual} {expected}");
        }
        assert!((Activation::Gelu.apply(-0.5) + 0.154_269).abs() < 1e-6);
        assert!((Activation::Gelu.apply(1.0) - 0.841_345).abs() < 1e-6);
    }

    #[test]
    fn layers_that_do_not_fit_are_refused() {
        let layer =
            |rows, columns| Layer { weight: Array2::zeros((rows, columns)), bias: Array1::zeros(rows) };
        assert!(Mlp::new(vec![], Activation::Relu).is_err());
        assert!(Mlp::new(vec![layer(3, 2), layer(1, 4)], Activation::Relu).is_err());
        assert!(Mlp::new(vec![layer(3, 2), layer(1, 3)], Activation::Relu).is_ok());
    }
}
