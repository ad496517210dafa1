//! PAL-A under training in the forms that the paper's code has: plain distances, mixtures of inputs that are projected.

use candle_core::{Tensor, Var};
use ndarray::{Array2, ArrayView2, Axis, concatenate};
use polyreward_heads::{Distance, Head, IdealPoint, PalA, PalAParameters, Trunk};
use rand_chacha::ChaCha8Rng;

use super::{Common, Network, Prediction, Setting, concentrations};
use crate::{
    config::PalAConfig,
    episode::{Step, curved_margins, moderated},
    error::TrainingError,
    network::{Parameters, data, gelu, gelu_slope, matrix, number, vector},
};

/// Where the scale starts of distances whose square is not taken: a unit of distance is a unit of reward.
const FIRST_SCALE: f64 = 1.0;
/// And of squared ones, as where margins are linear.
const FIRST_SQUARED_SCALE: f64 = 0.05;
/// About how far from the origin prototypes start that are mixed among latents: well outside of what texts fill, where even
/// plain distances tell directions apart.
const FIRST_LENGTH: f64 = 10.0;
/// Keeps the slope of a root finite.
const SHORTEST_SQUARE: f64 = 1e-12;

/// `-s d(h, a) + q`, `a` a person's point among the texts' latents.
#[derive(Debug)]
pub(crate) struct CurvedPalANetwork<'a> {
    common: Common<'a>,
    prototypes: Var,
    log_scale: Var,
    log_alpha: Var,
    config: PalAConfig,
}

impl<'a> CurvedPalANetwork<'a> {
    pub(crate) fn new(setting: &Setting<'a>, rng: &mut ChaCha8Rng) -> Result<Self, TrainingError> {
        let mut common = Common::new(setting, rng)?;
        let config = setting.config.pal_a.clone();
        let prototypes = setting.size(config.prototypes, 3, 32);
        // Prototypes that are projected stand among the inputs, whose numbers have a variance of 1.
        let (width, deviation) = match config.ideal_point {
            IdealPoint::MixturePoints => {
                let width = common.latent_len()?;
                (width, FIRST_LENGTH / (width as f64).sqrt())
            }
            IdealPoint::ProjectedMixture => (common.reader.width(), 1.0),
        };
        let first_scale = match config.distance {
            Distance::Squared => FIRST_SQUARED_SCALE,
            Distance::Plain => FIRST_SCALE,
        };
        let parameters = &mut common.parameters;
        let of_people = parameters.normal(&[prototypes, width], deviation, rng)?;
        let log_scale = parameters.scales(vec![first_scale.ln() as f32])?;
        let alpha = (config.concentration / prototypes as f64).ln() as f32;
        let log_alpha = parameters.scales(vec![alpha; prototypes])?;
        Ok(Self { common, prototypes: of_people, log_scale, log_alpha, config })
    }

    /// People's points `[B * R, H]` at weights `[B * R, K]`, and their derivatives, `[B * R or 1, K, H]`.
    fn points(&self, weights: &Tensor) -> Result<(Tensor, Tensor), TrainingError> {
        if self.config.ideal_point == IdealPoint::MixturePoints {
            return Ok((weights.matmul(&self.prototypes)?, self.prototypes.unsqueeze(0)?));
        }
        let mixed = self.prototypes.matmul(&self.common.hidden.weight)?;
        let before = weights.matmul(&mixed)?.broadcast_add(&self.common.hidden.bias)?;
        let slopes = gelu_slope(&before)?.unsqueeze(1)?.broadcast_mul(&mixed.unsqueeze(0)?)?;
        Ok((gelu(&before)?, slopes))
    }

    /// Distances `[B, P, R]` of one side's latents `[B, P, H]` from people's points `[B, R, H]`, and their derivatives by
    /// the weights, `[B, P, R, K]`, through those of the points, `[B, R, K, H]`.
    fn distances(
        &self,
        latents: &Tensor,
        points: &Tensor,
        point_slopes: &Tensor,
    ) -> Result<(Tensor, Tensor), TrainingError> {
        let (people, draws, width, hidden) = point_slopes.dims4()?;
        let places = latents.dim(1)?;
        let between = latents.matmul(&points.transpose(1, 2)?.contiguous()?)?;
        let lengths = points.sqr()?.sum(2)?.unsqueeze(1)?;
        let squares = latents.sqr()?.sum_keepdim(2)?.broadcast_add(&lengths)?;
        let squares = (squares - between.affine(2.0, 0.0)?)?;
        let (distances, by_away) = match self.config.distance {
            Distance::Squared => (squares.clone(), squares.affine(0.0, 2.0)?),
            Distance::Plain => {
                let distances = (squares.clamp(0.0, f64::INFINITY)? + SHORTEST_SQUARE)?.sqrt()?;
                let by_away = distances.recip()?;
                (distances, by_away)
            }
        };
        let flat = point_slopes.reshape((people, draws * width, hidden))?;
        let of_texts = latents.matmul(&flat.transpose(1, 2)?.contiguous()?)?;
        let of_texts = of_texts.reshape((people, places, draws, width))?;
        let of_points = point_slopes.broadcast_mul(&points.unsqueeze(2)?)?.sum(3)?.unsqueeze(1)?;
        let away = of_points.broadcast_sub(&of_texts)?;
        Ok((distances, away.broadcast_mul(&by_away.unsqueeze(3)?)?))
    }
}

/// Features as the head has them: latents and a quality, of which one side has the difference and the other none.
fn features(latents: ArrayView2<'_, f32>, quality: Array2<f32>) -> Array2<f32> {
    concatenate![Axis(1), latents, quality]
}

impl Network for CurvedPalANetwork<'_> {
    fn parameters(&mut self) -> &mut Parameters {
        &mut self.common.parameters
    }

    fn predict(&self, step: &Step, rng: &mut ChaCha8Rng) -> Result<Prediction, TrainingError> {
        let seen = self.common.see(step, rng)?;
        let (people, places, draws) = (step.people, step.places, step.draws);
        let sides = [&step.chosen, &step.rejected].map(|side| seen.latent.index_select(side, 0));
        let [chosen, rejected] = sides;
        let (chosen, rejected) = (chosen?, rejected?);
        let quality = vector(&seen.quality)?.insert_axis(Axis(1));
        let none = Array2::zeros(quality.dim());
        let states = step.states(
            self.head()?.as_ref(),
            [&features(matrix(&chosen)?.view(), quality), &features(matrix(&rejected)?.view(), none)],
        )?;

        let log_alpha = concentrations(&self.log_alpha)?;
        let width = log_alpha.dim(0)?;
        let hidden = self.common.latent_len()?;
        let chosen = chosen.reshape((people, places, hidden))?;
        let rejected = rejected.reshape((people, places, hidden))?;
        let quality = seen.quality.reshape((people, places, 1))?;
        let scale = self.log_scale.exp()?;
        let all = data(vec![1.0; people * draws], &[people * draws, 1, 1])?;
        let margins = |weights: &Tensor| -> Result<(Tensor, Tensor), TrainingError> {
            let (points, slopes) = self.points(&weights.reshape((people * draws, width))?)?;
            let points = points.reshape((people, draws, hidden))?;
            let slopes = slopes.broadcast_mul(&all)?.reshape((people, draws, width, hidden))?;
            let (to_chosen, by_chosen) = self.distances(&chosen, &points, &slopes)?;
            let (to_rejected, by_rejected) = self.distances(&rejected, &points, &slopes)?;
            let closer = (to_rejected - to_chosen)?.broadcast_mul(&scale)?;
            Ok((closer.broadcast_add(&quality)?, (by_rejected - by_chosen)?.broadcast_mul(&scale)?))
        };
        let (mean, variance) = curved_margins(step, &states, &margins, &log_alpha, self.config.label_noise)?;
        Ok(moderated(&mean, &variance)?.into())
    }

    fn trunk(&self) -> Result<Trunk, TrainingError> {
        self.common.trunk()
    }

    fn head(&self) -> Result<Box<dyn Head>, TrainingError> {
        Ok(Box::new(PalA::new(PalAParameters {
            trunk: self.common.trunk()?,
            prototypes: matrix(&self.prototypes)?,
            scale: number(&self.log_scale)?.exp(),
            alpha: vector(&concentrations(&self.log_alpha)?)?.mapv(|a| f64::from(a).exp()),
            label_noise: self.config.label_noise,
            distance: self.config.distance,
            ideal_point: self.config.ideal_point,
        })?))
    }
}
