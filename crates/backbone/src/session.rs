//! The encoder in ONNX Runtime: a padded batch in, one row a text out.

use std::sync::Arc;

use ort::environment::Environment;
use ort::session::Session;
use ort::value::{TensorElementType, TensorRef};

use crate::batch::PaddedBatch;
use crate::error::BackboneError;
use crate::folder::{BackboneConfig, PaddingSide, Pooling};
use crate::tokenize::TokenizedText;

/// What a worker needs of an encoder.
pub(crate) trait Embed: Send {
    /// One row a text, in order; the error says what failed and never quotes a text.
    fn embed(&mut self, batch: &PaddedBatch) -> Result<Vec<Arc<[f32]>>, String>;

    /// The arrays of a batch as this encoder wants them.
    fn pad(&self, texts: &[&TokenizedText]) -> PaddedBatch;
}

/// One session; it runs on the thread that calls it.
#[derive(Debug)]
pub(crate) struct Encoder {
    session: Session,
    inputs: Vec<ModelInput>,
    output: String,
    dim: usize,
    pooling: Pooling,
    padding_side: PaddingSide,
}

/// What a graph may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ModelInput {
    InputIds,
    AttentionMask,
    TokenTypeIds,
    PositionIds,
}

impl ModelInput {
    const ALL: [Self; 4] = [Self::InputIds, Self::AttentionMask, Self::TokenTypeIds, Self::PositionIds];

    fn name(self) -> &'static str {
        match self {
            Self::InputIds => "input_ids",
            Self::AttentionMask => "attention_mask",
            Self::TokenTypeIds => "token_type_ids",
            Self::PositionIds => "position_ids",
        }
    }

    fn cells(self, batch: &PaddedBatch) -> &[i64] {
        match self {
            Self::InputIds => &batch.input_ids,
            Self::AttentionMask => &batch.attention_mask,
            Self::TokenTypeIds => &batch.token_type_ids,
            Self::PositionIds => &batch.position_ids,
        }
    }
}

impl Encoder {
    /// Builds a session and checks that it takes and gives what `backbone.json` says.
    pub fn build(
        environment: &Environment,
        model: &[u8],
        config: &BackboneConfig,
        intra_threads: usize,
    ) -> Result<Self, BackboneError> {
        let session = start_session(environment, model, intra_threads)
            .map_err(|error| BackboneError::Session(error.to_string()))?;
        let inputs = session
            .inputs()
            .iter()
            .map(|input| {
                let known = ModelInput::ALL.into_iter().find(|known| known.name() == input.name());
                known.filter(|_| input.dtype().tensor_type() == Some(TensorElementType::Int64)).ok_or_else(
                    || {
                        let (name, dtype) = (input.name(), input.dtype());
                        BackboneError::Session(format!("its input {name} ({dtype}) is not one we can give"))
                    },
                )
            })
            .collect::<Result<Vec<_>, _>>()?;
        for needed in [ModelInput::InputIds, ModelInput::AttentionMask] {
            if !inputs.contains(&needed) {
                return Err(BackboneError::Session(format!("it has no input {}", needed.name())));
            }
        }
        let names: Vec<&str> = session.outputs().iter().map(ort::value::Outlet::name).collect();
        if !names.contains(&config.output.as_str()) {
            let (wanted, names) = (&config.output, names.join(", "));
            return Err(BackboneError::Session(format!("it has no output {wanted}, only {names}")));
        }
        Ok(Self {
            session,
            inputs,
            output: config.output.clone(),
            dim: config.dim,
            pooling: config.pooling,
            padding_side: config.padding_side,
        })
    }
}

/// Shapes differ from batch to batch, so memory patterns would only pile up; a pool of one thread needs no
/// spinning, and a larger one must leave the cores to the other sessions when it has nothing to do.
fn start_session(environment: &Environment, model: &[u8], intra_threads: usize) -> ort::Result<Session> {
    Session::builder(environment)?
        .with_intra_threads(intra_threads.max(1))?
        .with_inter_threads(1)?
        .with_memory_pattern(false)?
        .with_intra_op_spinning(false)?
        .with_device_allocated_initializers()?
        .commit_from_memory(model)
}

impl Embed for Encoder {
    fn embed(&mut self, batch: &PaddedBatch) -> Result<Vec<Arc<[f32]>>, String> {
        let shape = [batch.texts, batch.width];
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let tensor =
                TensorRef::from_array_view((shape, input.cells(batch))).map_err(|error| error.to_string())?;
            inputs.push((input.name(), tensor));
        }
        let outputs = self.session.run(inputs).map_err(|error| error.to_string())?;
        let output = outputs.get(&self.output).ok_or("the output is missing")?;
        let (shape, values) = output.try_extract_tensor::<f32>().map_err(|error| error.to_string())?;
        let shape: Vec<usize> = shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
        let expected: &[usize] = match self.pooling {
            Pooling::None => &[batch.texts, self.dim],
            Pooling::Mean | Pooling::Cls | Pooling::Last => &[batch.texts, batch.width, self.dim],
        };
        if shape != expected {
            return Err(format!("the output has shape {shape:?}, not {expected:?}"));
        }
        let row_len = values.len() / batch.texts;
        Ok((0..batch.texts)
            .map(|row| pool(self.pooling, &values[row * row_len..][..row_len], batch.mask(row), self.dim))
            .collect())
    }

    fn pad(&self, texts: &[&TokenizedText]) -> PaddedBatch {
        PaddedBatch::new(texts, self.padding_side, 0) // any id does where the mask is 0
    }
}

/// One text's embedding from its rows of `[S, D]`, or of `[D]` where the model pools by itself.
fn pool(pooling: Pooling, values: &[f32], mask: &[i64], dim: usize) -> Arc<[f32]> {
    let token = |at: Option<usize>| values[at.unwrap_or(0) * dim..][..dim].into();
    match pooling {
        Pooling::None => values.into(),
        Pooling::Cls => token(mask.iter().position(|seen| *seen == 1)),
        Pooling::Last => token(mask.iter().rposition(|seen| *seen == 1)),
        Pooling::Mean => {
            let mut sum = vec![0.0_f32; dim];
            for (row, _) in values.chunks_exact(dim).zip(mask).filter(|(_, seen)| **seen == 1) {
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
            let tokens = mask.iter().sum::<i64>().max(1) as f32;
            sum.into_iter().map(|sum| sum / tokens).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_reads_only_what_is_not_masked() {
        let values = [9.0, 9.0, 1.0, 2.0, 3.0, 4.0, 9.0, 9.0]; // four tokens of two
        let mask = [0, 1, 1, 0];
        assert_eq!(*pool(Pooling::Cls, &values, &mask, 2), [1.0, 2.0]);
        assert_eq!(*pool(Pooling::Last, &values, &mask, 2), [3.0, 4.0]);
        assert_eq!(*pool(Pooling::Mean, &values, &mask, 2), [2.0, 3.0]);
        assert_eq!(*pool(Pooling::None, &[5.0, 6.0], &mask, 2), [5.0, 6.0]);
    }
}
