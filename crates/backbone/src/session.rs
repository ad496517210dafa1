//! The encoder in ONNX Runtime: a padded batch in, one row a text out.

use std::sync::Arc;

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
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
        let session = session_builder(environment, intra_threads)
            .and_then(|mut builder| builder.commit_from_memory(model))
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

/// How every session is set up, for whoever compares with the server's.
///
/// Shapes differ from batch to batch, so memory patterns would only pile up; a pool of one thread needs no
/// spinning, and a larger one must leave the cores to the other sessions when it has nothing to do.
///
/// # Errors
/// ONNX Runtime refuses an option.
pub fn session_builder(environment: &Environment, intra_threads: usize) -> ort::Result<SessionBuilder> {
    Ok(Session::builder(environment)?
        .with_intra_threads(intra_threads.max(1))?
        .with_inter_threads(1)?
        .with_memory_pattern(false)?
        .with_intra_op_spinning(false)?
        .with_device_allocated_initializers()?)
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
    use std::path::{Path, PathBuf};

    use polyreward_domain::{Overflow, Prompt, TextForm};
    use serde_json::Value;

    use super::*;
    use crate::folder::BackboneFolder;
    use crate::runtime;
    use crate::tokenize::{EmbedInput, TextTokenizer};

    #[test]
    fn pooling_reads_only_what_is_not_masked() {
        let values = [9.0, 9.0, 1.0, 2.0, 3.0, 4.0, 9.0, 9.0]; // four tokens of two
        let mask = [0, 1, 1, 0];
        assert_eq!(*pool(Pooling::Cls, &values, &mask, 2), [1.0, 2.0]);
        assert_eq!(*pool(Pooling::Last, &values, &mask, 2), [3.0, 4.0]);
        assert_eq!(*pool(Pooling::Mean, &values, &mask, 2), [2.0, 3.0]);
        assert_eq!(*pool(Pooling::None, &[5.0, 6.0], &mask, 2), [5.0, 6.0]);
    }

    fn fixtures() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
    }

    fn golden_inputs(file: &str) -> Vec<EmbedInput> {
        let text = std::fs::read_to_string(fixtures().join(file)).unwrap();
        let items = serde_json::from_str::<Value>(&text).unwrap()["items"].clone();
        let input = |item: &Value| EmbedInput {
            form: TextForm::PromptResponse,
            prompt: Arc::new(serde_json::from_value::<Prompt>(item["prompt"].clone()).unwrap()),
            response: item["response"].as_str().unwrap().into(),
        };
        items.as_array().unwrap().iter().map(input).collect()
    }

    /// Every golden text alone gives what it gives in one run with all others and neighbours that fill the window,
    /// which no batch of least cost would put together; the largest difference is at most `1e-5`.
    fn neighbours_change_nothing(folder: &Path, golden: &str) {
        let folder = BackboneFolder::open(folder).unwrap();
        let tokenizer = TextTokenizer::open(&folder, folder.read_template().unwrap()).unwrap();
        let environment = runtime::environment(None).unwrap();
        let model = folder.read_model().unwrap();
        let mut encoder = Encoder::build(&environment, &model, folder.config(), 1).unwrap();
        let read = |input: &EmbedInput| tokenizer.tokenize(input, Overflow::Truncate).unwrap();
        let mut texts: Vec<TokenizedText> = golden_inputs(golden).iter().map(read).collect();
        let golden = texts.len();
        let long = |word: &str| EmbedInput {
            form: TextForm::Response,
            prompt: Arc::default(),
            response: format!("{word} ").repeat(folder.config().max_tokens).into(),
        };
        texts.extend(["river", "!", "12"].map(|word| read(&long(word))));
        assert!(texts[golden..].iter().all(|text| text.ids.len() == folder.config().max_tokens));
        assert!(texts[..golden].iter().any(|text| 2 * text.ids.len() < folder.config().max_tokens));
        let batch = encoder.pad(&texts.iter().collect::<Vec<_>>());
        let together = encoder.embed(&batch).unwrap();
        for (text, together) in texts.iter().zip(&together) {
            let alone = encoder.embed(&encoder.pad(&[text])).unwrap().remove(0);
            let differences = alone.iter().zip(&**together).map(|(a, b)| (a - b).abs());
            let largest = differences.fold(0.0, f32::max);
            assert!(largest <= 1e-5, "a text of {} tokens differs by {largest}", text.ids.len());
        }
    }

    #[test]
    fn a_small_backbones_text_is_the_same_beside_very_long_ones() {
        for name in ["tiny-encoder", "tiny-encoder-cls", "tiny-decoder"] {
            neighbours_change_nothing(&fixtures().join(name), &format!("{name}/golden.json"));
        }
    }

    #[test]
    fn a_text_of_minilm_in_float32_and_in_int8_is_the_same_beside_very_long_ones() {
        let cache = std::env::var_os("POLYREWARD_CACHE").expect("`make test` sets POLYREWARD_CACHE");
        for name in ["all-minilm-l6-v2-fp32", "all-minilm-l6-v2-int8"] {
            neighbours_change_nothing(&Path::new(&cache).join("backbones").join(name), "minilm-golden.json");
        }
    }
}
