//! Parameters, their optimiser and the few operations that candle lacks or does slowly.
//!
//! All randomness comes from the caller's generator, since candle's own on the CPU cannot be seeded.

use candle_core::{
    CpuStorage, CustomOp1, CustomOp3, DType, Device, Layout, Result as TensorResult, Shape, Tensor, Var,
    backprop::GradStore,
};
use ndarray::{Array1, Array2};
use polyreward_heads::Layer;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use crate::error::TrainingError;

/// Decay of AdamW's first moment.
const FIRST_DECAY: f32 = 0.9;
/// Decay of AdamW's second moment.
const SECOND_DECAY: f32 = 0.99;
/// Keeps AdamW's division finite.
const EPSILON: f32 = 1e-8;
/// The gradient's norm at most.
const LARGEST_NORM: f64 = 1.0;
/// Scalars that set a scale learn this much faster than weights, and do not decay.
const SCALE_RATE: f64 = 10.0;

/// A trained tensor and AdamW's moments of it.
#[derive(Debug)]
struct Parameter {
    var: Var,
    rate: f64,
    decays: bool,
    first: Vec<f32>,
    second: Vec<f32>,
}

/// All that is trained of a network.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    all: Vec<Parameter>,
    steps: i32,
}

impl Parameters {
    fn add(&mut self, values: Vec<f32>, shape: &[usize], scale: bool) -> Result<Var, TrainingError> {
        let count = values.len();
        let var = Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)?;
        self.all.push(Parameter {
            var: var.clone(),
            rate: if scale { SCALE_RATE } else { 1.0 },
            decays: !scale,
            first: vec![0.0; count],
            second: vec![0.0; count],
        });
        Ok(var)
    }

    /// Weights drawn from `N(0, deviation^2)`.
    pub(crate) fn normal(
        &mut self,
        shape: &[usize],
        deviation: f64,
        rng: &mut impl Rng,
    ) -> Result<Var, TrainingError> {
        let count = shape.iter().product();
        self.add((0..count).map(|_| (deviation * standard_normal(rng)) as f32).collect(), shape, false)
    }

    /// Weights that start at 0.
    pub(crate) fn zeros(&mut self, shape: &[usize]) -> Result<Var, TrainingError> {
        self.add(vec![0.0; shape.iter().product()], shape, false)
    }

    /// Numbers that set a scale.
    pub(crate) fn scales(&mut self, values: Vec<f32>) -> Result<Var, TrainingError> {
        let count = values.len();
        self.add(values, &[count], true)
    }

    /// One step of AdamW on the clipped gradient (Loshchilov and Hutter, arXiv:1711.05101).
    pub(crate) fn update(
        &mut self,
        gradients: &GradStore,
        learning_rate: f64,
        weight_decay: f64,
    ) -> Result<(), TrainingError> {
        self.steps += 1;
        let gradients = self
            .all
            .iter()
            .map(|parameter| match gradients.get(&parameter.var) {
                Some(gradient) => gradient.flatten_all()?.to_vec1::<f32>(),
                None => Ok(vec![0.0; parameter.first.len()]),
            })
            .collect::<TensorResult<Vec<_>>>()?;
        let square: f64 = gradients.iter().flatten().map(|g| f64::from(*g).powi(2)).sum();
        let clip = (LARGEST_NORM / (square.sqrt() + 1e-6)).min(1.0) as f32;
        let first_bias = 1.0 - FIRST_DECAY.powi(self.steps);
        let second_bias = 1.0 - SECOND_DECAY.powi(self.steps);
        for (parameter, gradient) in self.all.iter_mut().zip(gradients) {
            let rate = (learning_rate * parameter.rate) as f32;
            let keep = if parameter.decays { 1.0 - rate * weight_decay as f32 } else { 1.0 };
            let mut values = parameter.var.flatten_all()?.to_vec1::<f32>()?;
            let moments = parameter.first.iter_mut().zip(&mut parameter.second);
            for ((value, g), (first, second)) in values.iter_mut().zip(gradient).zip(moments) {
                let g = g * clip;
                *first = FIRST_DECAY * *first + (1.0 - FIRST_DECAY) * g;
                *second = SECOND_DECAY * *second + (1.0 - SECOND_DECAY) * g * g;
                let step = (*first / first_bias) / ((*second / second_bias).sqrt() + EPSILON);
                *value = *value * keep - rate * step;
            }
            parameter.var.set(&Tensor::from_vec(values, parameter.var.dims(), &Device::Cpu)?)?;
        }
        Ok(())
    }
}

/// A normal variable by Box and Muller.
fn standard_normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// An affine map under training, `x W + b`; the weight is `[in, out]`.
#[derive(Debug)]
pub(crate) struct Affine {
    pub(crate) weight: Var,
    pub(crate) bias: Var,
}

impl Affine {
    /// Weights from `N(0, gain^2 / inputs)`, biases 0.
    pub(crate) fn new(
        parameters: &mut Parameters,
        (inputs, outputs): (usize, usize),
        gain: f64,
        rng: &mut impl Rng,
    ) -> Result<Self, TrainingError> {
        let weight = parameters.normal(&[inputs, outputs], gain / (inputs as f64).sqrt(), rng)?;
        Ok(Self { weight, bias: parameters.zeros(&[1, outputs])? })
    }

    /// Of a tensor that gradients flow through.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, TrainingError> {
        Ok(x.matmul(&self.weight)?.broadcast_add(&self.bias)?)
    }

    /// Of inputs that are data: no gradient is computed for them.
    pub(crate) fn forward_data(&self, x: &Tensor) -> Result<Tensor, TrainingError> {
        Ok(times(x, &self.weight)?.broadcast_add(&self.bias)?)
    }

    /// `x W` alone.
    pub(crate) fn times_data(x: &Tensor, weight: &Tensor) -> Result<Tensor, TrainingError> {
        Ok(times(x, weight)?)
    }

    /// As the heads have it.
    pub(crate) fn layer(&self) -> Result<Layer, TrainingError> {
        Ok(Layer { weight: transposed(&self.weight)?, bias: vector(&self.bias)? })
    }
}

/// A tensor of rank 2, transposed, as a matrix.
pub(crate) fn transposed(tensor: &Tensor) -> Result<Array2<f32>, TrainingError> {
    matrix(&tensor.t()?)
}

/// A tensor of rank 2 as a matrix.
pub(crate) fn matrix(tensor: &Tensor) -> Result<Array2<f32>, TrainingError> {
    let shape = tensor.dims2()?;
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(Array2::from_shape_vec(shape, values).expect("a tensor holds as many values as its shape says"))
}

/// All numbers of a tensor.
pub(crate) fn vector(tensor: &Tensor) -> Result<Array1<f32>, TrainingError> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?.into())
}

/// A tensor of data.
pub(crate) fn data(values: Vec<f32>, shape: &[usize]) -> Result<Tensor, TrainingError> {
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// Sets about a share of numbers to 0 and scales the others so that the mean stays; the share is in 256ths.
pub(crate) fn drop_out(values: &mut [f32], rate: f32, rng: &mut ChaCha8Rng) {
    let below = (rate * 256.0).round().clamp(0.0, 255.0) as u8;
    if below == 0 {
        return;
    }
    let kept = 256.0 / (256.0 - f32::from(below));
    let mut bytes = [0_u8; 1024];
    for chunk in values.chunks_mut(bytes.len()) {
        rng.fill_bytes(&mut bytes[..chunk.len()]);
        for (value, byte) in chunk.iter_mut().zip(bytes) {
            *value *= if byte < below { 0.0 } else { kept };
        }
    }
}

/// A hidden layer with some units left out.
pub(crate) fn thinned(hidden: &Tensor, rate: f32, rng: &mut ChaCha8Rng) -> Result<Tensor, TrainingError> {
    if rate == 0.0 {
        return Ok(hidden.clone());
    }
    let mut mask = vec![1.0; hidden.elem_count()];
    drop_out(&mut mask, rate, rng);
    Ok((hidden * data(mask, hidden.dims())?)?)
}

/// `x W` for data `x`.
fn times(x: &Tensor, weight: &Tensor) -> TensorResult<Tensor> {
    weight.apply_op1(DataTimes { x: x.clone() })
}

/// The product with a constant on the left; candle's own would compute the constant's gradient too, which is as much
/// work again.
struct DataTimes {
    x: Tensor,
}

impl CustomOp1 for DataTimes {
    fn name(&self) -> &'static str {
        "data-times"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> TensorResult<(CpuStorage, Shape)> {
        let weight = Tensor::from_slice(contiguous(storage, layout)?, layout.shape(), &Device::Cpu)?;
        let product = self.x.matmul(&weight)?;
        let shape = product.shape().clone();
        Ok((CpuStorage::F32(product.flatten_all()?.to_vec1()?), shape))
    }

    fn bwd(&self, _weight: &Tensor, _result: &Tensor, gradient: &Tensor) -> TensorResult<Option<Tensor>> {
        Ok(Some(self.x.t()?.matmul(gradient)?))
    }
}

fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> TensorResult<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((from, to))) => Ok(&values[from..to]),
        _ => Err(candle_core::Error::RequiresContiguous { op: "custom" }.bt()),
    }
}

/// `e^t`, to about `1e-7` of itself: `2^n 2^f` with a polynomial for `|f| <= 1/2`. Unlike the library's it is inlined, and
/// loops over it become vector instructions.
#[inline]
fn exp(t: f32) -> f32 {
    // Adding and subtracting this rounds to a whole number.
    const ROUNDING: f32 = 12_582_912.0;
    let t = t.clamp(-87.0, 88.0) * std::f32::consts::LOG2_E;
    let whole = (t + ROUNDING) - ROUNDING;
    let f = t - whole;
    let power = 1.540_353e-4;
    let power = power * f + 1.333_355_8e-3;
    let power = power * f + 9.618_129e-3;
    let power = power * f + 5.550_411e-2;
    let power = power * f + 2.402_265_1e-1;
    let power = power * f + 6.931_472e-1;
    let power = power * f + 1.0;
    power * f32::from_bits((((whole as i32) + 127) << 23) as u32)
}

/// `0.5 t (1 + erf(t / sqrt 2))`, to about `1e-7`.
pub(crate) fn gelu(t: &Tensor) -> Result<Tensor, TrainingError> {
    let slope = |t: f32| {
        let (cdf, bell) = normal_cdf(t);
        cdf + t * bell * 0.398_942_3
    };
    Ok(t.contiguous()?.apply_op1(Pointwise { value: |t: f32| t * normal_cdf(t).0, slope })?)
}

/// The derivative of [`gelu`], with its own.
pub(crate) fn gelu_slope(t: &Tensor) -> Result<Tensor, TrainingError> {
    let value = |t: f32| {
        let (cdf, bell) = normal_cdf(t);
        cdf + t * bell * 0.398_942_3
    };
    let slope = |t: f32| normal_cdf(t).1 * 0.398_942_3 * (2.0 - t * t);
    Ok(t.contiguous()?.apply_op1(Pointwise { value, slope })?)
}

/// `1 / (1 + e^-t)`.
pub(crate) fn sigmoid(t: &Tensor) -> Result<Tensor, TrainingError> {
    let slope = |t: f32| {
        let p = 1.0 / (1.0 + exp(-t.abs()));
        p * (1.0 - p)
    };
    Ok(t.contiguous()?.apply_op1(Pointwise { value: |t: f32| 1.0 / (1.0 + exp(-t)), slope })?)
}

/// `ln(1 + e^t)`.
pub(crate) fn softplus(t: &Tensor) -> Result<Tensor, TrainingError> {
    let value = |t: f32| t.max(0.0) + exp(-t.abs()).ln_1p();
    Ok(t.contiguous()?.apply_op1(Pointwise { value, slope: |t: f32| 1.0 / (1.0 + exp(-t)) })?)
}

/// `Phi(t)`, the standard normal distribution function, and `e^(-t^2 / 2)`; Abramowitz and Stegun 7.1.26, within `1e-7`.
#[inline]
fn normal_cdf(t: f32) -> (f32, f32) {
    let bell = exp(-0.5 * t * t);
    let k = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * t.abs());
    let series = 1.061_405_429 * k - 1.453_152_027;
    let series = ((series * k + 1.421_413_741) * k - 0.284_496_736) * k + 0.254_829_592;
    let tail = 0.5 * series * k * bell;
    (if t >= 0.0 { 1.0 - tail } else { tail }, bell)
}

/// A function of each number by itself, and its derivative; one pass each way.
struct Pointwise<V, S> {
    value: V,
    slope: S,
}

impl<V, S> CustomOp1 for Pointwise<V, S>
where
    V: Fn(f32) -> f32,
    S: Fn(f32) -> f32,
{
    fn name(&self) -> &'static str {
        "pointwise"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> TensorResult<(CpuStorage, Shape)> {
        let values = contiguous(storage, layout)?.iter().map(|t| (self.value)(*t)).collect();
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _result: &Tensor, gradient: &Tensor) -> TensorResult<Option<Tensor>> {
        let args = arg.flatten_all()?.to_vec1::<f32>()?;
        let mut values = gradient.flatten_all()?.to_vec1::<f32>()?;
        for (value, arg) in values.iter_mut().zip(args) {
            *value *= (self.slope)(arg);
        }
        Ok(Some(Tensor::from_vec(values, arg.dims(), &Device::Cpu)?))
    }
}

/// `leaky_relu(chosen + user) - leaky_relu(rejected + user)` of VPL's decoder, every place `[B * P, H]` with every
/// episode's user `[B * R, H]`, as `[B * P * R, H]`; one pass each way, where tensor operations would make a dozen.
pub(crate) fn bent_margins(
    chosen: &Tensor,
    rejected: &Tensor,
    users: &Tensor,
    [places, draws]: [usize; 2],
) -> Result<Tensor, TrainingError> {
    let op = Bent { places, draws, slopes: false };
    Ok(chosen.contiguous()?.apply_op3(&rejected.contiguous()?, &users.contiguous()?, op)?)
}

/// The slopes of [`bent_margins`] in the users, as constants.
pub(crate) fn bent_slopes(
    chosen: &Tensor,
    rejected: &Tensor,
    users: &Tensor,
    [places, draws]: [usize; 2],
) -> Result<Tensor, TrainingError> {
    let op = Bent { places, draws, slopes: true };
    let (chosen, rejected) = (chosen.detach().contiguous()?, rejected.detach().contiguous()?);
    Ok(chosen.apply_op3_no_bwd(&rejected, &users.detach().contiguous()?, &op)?)
}

#[inline]
fn leaky_slope(t: f32) -> f32 {
    if t > 0.0 { 1.0 } else { 0.2 }
}

struct Bent {
    places: usize,
    draws: usize,
    slopes: bool,
}

impl Bent {
    /// Calls with the row of the result, of the place and of the user.
    fn rows(&self, places: usize, mut f: impl FnMut(usize, usize, usize)) {
        for place in 0..places {
            for draw in 0..self.draws {
                f(place * self.draws + draw, place, place / self.places * self.draws + draw);
            }
        }
    }
}

impl CustomOp3 for Bent {
    fn name(&self) -> &'static str {
        "bent"
    }

    fn cpu_fwd(
        &self,
        chosen: &CpuStorage,
        chosen_layout: &Layout,
        rejected: &CpuStorage,
        rejected_layout: &Layout,
        users: &CpuStorage,
        users_layout: &Layout,
    ) -> TensorResult<(CpuStorage, Shape)> {
        let (places, width) = chosen_layout.shape().dims2()?;
        let chosen = contiguous(chosen, chosen_layout)?;
        let rejected = contiguous(rejected, rejected_layout)?;
        let users = contiguous(users, users_layout)?;
        let mut result = Vec::with_capacity(places * self.draws * width);
        self.rows(places, |_, place, user| {
            let sides = chosen[place * width..][..width].iter().zip(&rejected[place * width..][..width]);
            let both = sides.zip(&users[user * width..][..width]);
            if self.slopes {
                result.extend(both.map(|((c, r), u)| leaky_slope(c + u) - leaky_slope(r + u)));
            } else {
                result.extend(both.map(|((c, r), u)| {
                    let (c, r) = (c + u, r + u);
                    c * leaky_slope(c) - r * leaky_slope(r)
                }));
            }
        });
        Ok((CpuStorage::F32(result), (places * self.draws, width).into()))
    }

    fn bwd(
        &self,
        chosen: &Tensor,
        rejected: &Tensor,
        users: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> TensorResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (places, width) = chosen.dims2()?;
        let numbers = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        let (c, r, u, g) = (numbers(chosen)?, numbers(rejected)?, numbers(users)?, numbers(gradient)?);
        let (mut of_c, mut of_r, mut of_u) = (vec![0.0; c.len()], vec![0.0; r.len()], vec![0.0; u.len()]);
        self.rows(places, |row, place, user| {
            let (row, place, user) = (row * width, place * width, user * width);
            let g = &g[row..row + width];
            let (c, r, u) = (&c[place..place + width], &r[place..place + width], &u[user..user + width]);
            let of_c = &mut of_c[place..place + width];
            let of_r = &mut of_r[place..place + width];
            let of_u = &mut of_u[user..user + width];
            for at in 0..width {
                let up = g[at] * leaky_slope(c[at] + u[at]);
                let down = g[at] * leaky_slope(r[at] + u[at]);
                of_c[at] += up;
                of_r[at] -= down;
                of_u[at] += up - down;
            }
        });
        let tensor = |values: Vec<f32>, like: &Tensor| Tensor::from_vec(values, like.dims(), &Device::Cpu);
        Ok((Some(tensor(of_c, chosen)?), Some(tensor(of_r, rejected)?), Some(tensor(of_u, users)?)))
    }
}

/// Each row at unit length.
pub(crate) fn unit_rows(t: &Tensor) -> Result<Tensor, TrainingError> {
    let last = t.rank() - 1;
    let length = (t.sqr()?.sum_keepdim(last)? + 1e-12)?.sqrt()?;
    Ok(t.broadcast_div(&length)?)
}

/// `ln sum exp` over the last dimension, kept.
pub(crate) fn log_softmax(t: &Tensor) -> Result<Tensor, TrainingError> {
    let last = t.rank() - 1;
    let centred = t.broadcast_sub(&t.detach().max_keepdim(last)?)?;
    let total = centred.exp()?.sum_keepdim(last)?.log()?;
    Ok(centred.broadcast_sub(&total)?)
}

/// A number.
pub(crate) fn number(t: &Tensor) -> Result<f64, TrainingError> {
    Ok(f64::from(t.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn var(values: &[f32], shape: &[usize]) -> Var {
        Var::from_tensor(&data(values.to_vec(), shape).unwrap()).unwrap()
    }

    /// Gradients of a weighted sum of `f`'s results against central differences of step 1e-2; tolerance 2e-3, as sums are in
    /// single precision.
    fn check_gradient(inputs: &[(&[f32], &[usize])], f: impl Fn(&[Tensor]) -> Tensor) {
        let total = |inputs: &[Tensor]| {
            let result = f(inputs).flatten_all().unwrap();
            let weights = (0..result.elem_count()).map(|at| (at as f32 * 0.7).sin()).collect();
            let weights = data(weights, &[result.elem_count()]).unwrap();
            (result * weights).unwrap().sum_all().unwrap()
        };
        let vars: Vec<Var> = inputs.iter().map(|(values, shape)| var(values, shape)).collect();
        let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let gradients = total(&tensors).backward().unwrap();
        for (which, (values, shape)) in inputs.iter().enumerate() {
            let exact = vector(gradients.get(&vars[which]).unwrap()).unwrap();
            for at in 0..values.len() {
                let moved = |by: f32| {
                    let mut values = values.to_vec();
                    values[at] += by;
                    let mut tensors = tensors.clone();
                    tensors[which] = data(values, shape).unwrap();
                    number(&total(&tensors)).unwrap()
                };
                let numeric = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                assert!(
                    (numeric - f64::from(exact[at])).abs() < 2e-3,
                    "{which} {at}: {numeric} {}",
                    exact[at]
                );
            }
        }
    }

    const POINTS: [f32; 9] = [-9.0, -3.1, -1.2, -0.4, 0.05, 0.3, 1.1, 2.7, 8.0];

    #[test]
    fn pointwise_functions_have_the_values_of_double_precision() {
        let t = data(POINTS.to_vec(), &[9]).unwrap();
        let wide = POINTS.map(f64::from);
        let check = |actual: Tensor, expected: [f64; 9]| {
            for (actual, expected) in vector(&actual).unwrap().iter().zip(expected) {
                assert!((f64::from(*actual) - expected).abs() < 2e-6, "{actual} {expected}");
            }
        };
        check(sigmoid(&t).unwrap(), wide.map(|t| 1.0 / (1.0 + (-t).exp())));
        check(softplus(&t).unwrap(), wide.map(|t| t.exp().ln_1p()));
        check(gelu(&t).unwrap(), wide.map(|t| f64::from(polyreward_heads::Activation::Gelu.apply(t as f32))));
    }

    #[test]
    fn pointwise_functions_have_their_gradients() {
        for f in [sigmoid, softplus, gelu, gelu_slope] {
            check_gradient(&[(&POINTS, &[9])], |inputs| f(&inputs[0]).unwrap());
        }
    }

    #[test]
    fn a_product_with_data_has_its_gradient() {
        let x = data((0..12).map(|at| (at as f32).cos()).collect(), &[4, 3]).unwrap();
        let weight = [0.3, -0.2, 0.5, 0.7, -0.9, 0.1];
        check_gradient(&[(&weight, &[3, 2])], |inputs| Affine::times_data(&x, &inputs[0]).unwrap());
    }

    #[test]
    fn the_mixtures_loss_and_its_gradients_agree_with_golden_g7() {
        // PAL and MiCRo specification G7 (float64 numpy): two triples, three heads; tolerance 2e-6.
        let deltas = var(&[0.90, 0.54, -0.72, 1.55, 0.21, -1.24], &[2, 3]);
        // V h + c of the two prompts.
        let logits = var(&[0.3, -0.38, 0.62, 0.03, 0.65, -0.82], &[2, 3]);
        let log_weights = log_softmax(logits.as_tensor()).unwrap();
        let weights = log_weights.exp().unwrap();
        let mixed = (&weights * sigmoid(deltas.as_tensor()).unwrap()).unwrap().sum(1).unwrap();
        let loss = mixed.log().unwrap().mean_all().unwrap().neg().unwrap();
        let entropy = (weights * log_weights).unwrap().sum(1).unwrap().mean_all().unwrap();
        let near = |actual: &[f32], expected: &[f64]| {
            for (actual, expected) in actual.iter().zip(expected) {
                assert!((f64::from(*actual) - expected).abs() < 2e-6, "{actual} {expected}");
            }
        };
        near(&[number(&loss).unwrap() as f32, number(&entropy).unwrap() as f32], &[0.594_487, -0.987_678]);
        // With the paper's weight of the regulariser.
        let both = number(&loss).unwrap() + 0.5 * number(&entropy).unwrap();
        assert!((both - 0.100_647).abs() < 2e-6, "{both}");
        let gradients = loss.backward().unwrap();
        let of = |var: &Var| vector(gradients.get(var).unwrap()).unwrap().to_vec();
        near(&of(&logits), &[-0.066_492, -0.020_159, 0.086_651, -0.059_639, 0.019_237, 0.040_401]);
        near(&of(&deltas), &[-0.069_337, -0.039_764, -0.102_319, -0.037_080, -0.118_007, -0.019_100]);
        let regular = entropy.affine(0.5, 0.0).unwrap().backward().unwrap();
        let of_router = vector(regular.get(&logits).unwrap()).unwrap();
        near(&of_router.to_vec(), &[-0.002_891, -0.031_331, 0.034_222, -0.018_269, 0.053_715, -0.035_446]);
    }

    #[test]
    fn the_first_step_agrees_with_golden_g4() {
        // PAL specification G4: the gradient of the loss by the weights' logits, and where AdamW's first step takes them.
        let mut parameters = Parameters::default();
        let logits = parameters.add(vec![0.3, -0.5], &[2], false).unwrap();
        let gradient = data(vec![-0.085_260, 0.085_260], &[2]).unwrap();
        let loss = (logits.as_tensor() * gradient).unwrap().sum_all().unwrap();
        parameters.update(&loss.backward().unwrap(), 5e-3, 0.0).unwrap();
        for (actual, expected) in vector(&logits).unwrap().iter().zip([0.305, -0.505]) {
            assert!((actual - expected).abs() < 1e-6, "{actual} {expected}");
        }
    }

    #[test]
    fn bent_margins_have_their_gradients() {
        // Two people of two places, three episodes each, two hidden units; no value within a step of the kink.
        let places: Vec<f32> = (0..8).map(|at| (at as f32 * 1.3).sin()).collect();
        let others: Vec<f32> = (0..8).map(|at| (at as f32 * 0.9 + 1.0).cos()).collect();
        let users: Vec<f32> = (0..12).map(|at| (at as f32 * 0.53 + 0.04).sin()).collect();
        check_gradient(&[(&places, &[4, 2]), (&others, &[4, 2]), (&users, &[6, 2])], |inputs| {
            bent_margins(&inputs[0], &inputs[1], &inputs[2], [2, 3]).unwrap()
        });
    }
}
