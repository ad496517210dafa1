//! Mini-batch training with candle: what every head's fit shares. All randomness comes from the caller's generator,
//! since candle's own on the CPU cannot be seeded.

use candle_core::{Device, Tensor, Var};
use ndarray::{Array2, ArrayView2};
use rand::{Rng, RngExt};

use crate::error::TrainingError;

/// A variable with entries uniform in `(-bound, bound)`.
pub(crate) fn uniform(shape: (usize, usize), bound: f32, rng: &mut impl Rng) -> Result<Var, TrainingError> {
    let values: Vec<f32> = (0..shape.0 * shape.1).map(|_| rng.random_range(-bound..bound)).collect();
    Ok(Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)?)
}

/// A matrix as a tensor.
pub(crate) fn tensor(rows: ArrayView2<'_, f32>) -> Result<Tensor, TrainingError> {
    Ok(Tensor::from_iter(rows.iter().copied(), &Device::Cpu)?.reshape(rows.dim())?)
}

/// A tensor of rank 2 as a matrix.
pub(crate) fn matrix(tensor: &Tensor) -> Result<Array2<f32>, TrainingError> {
    let shape = tensor.dims2()?;
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(Array2::from_shape_vec(shape, values).expect("a tensor holds as many values as its shape says"))
}

/// A dropout mask: 0 with probability `rate`, else `1 / (1 - rate)`.
pub(crate) fn dropout_mask(
    shape: (usize, usize),
    rate: f32,
    rng: &mut impl Rng,
) -> Result<Tensor, TrainingError> {
    let kept = 1.0 / (1.0 - rate);
    let values: Vec<f32> =
        (0..shape.0 * shape.1).map(|_| if rng.random::<f32>() < rate { 0.0 } else { kept }).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// `ln(1 + e^-t)`, elementwise, without overflow.
pub(crate) fn softplus_negative(t: &Tensor) -> Result<Tensor, TrainingError> {
    let tail = (t.abs()?.neg()?.exp()? + 1.0)?.log()?;
    Ok((t.neg()?.relu()? + tail)?)
}

/// Mean of `s [c l(t) + (1 - c) l(-t)]` with `l` the logistic loss; all `[B]`.
pub(crate) fn bradley_terry_loss(
    margins: &Tensor,
    strengths: &Tensor,
    confidences: &Tensor,
) -> Result<Tensor, TrainingError> {
    let right = (confidences * softplus_negative(margins)?)?;
    let wrong = ((1.0 - confidences)? * softplus_negative(&margins.neg()?)?)?;
    Ok(((right + wrong)? * strengths)?.mean_all()?)
}

/// A random order of `0..len`.
pub(crate) fn shuffled(len: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    for at in (1..len).rev() {
        order.swap(at, rng.random_range(0..=at));
    }
    order
}
