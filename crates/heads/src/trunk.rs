//! The part that every head has: a latent for a text, and how good the text is to everybody.

use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use crate::{
    head::{HeadError, TextEmbeddings, check_len},
    input::{FormCard, TextInput},
    mlp::{Activation, Layer},
    weights::{Tensors, WeightsError},
};

/// `h = gelu(hidden(x))` and `q = population(h)`, the common quality: what of a reward does not depend on who reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Trunk {
    /// What it reads, `Dx` numbers.
    pub input: TextInput,
    /// `Dx` to `H`; without it `h = x`.
    pub hidden: Option<Layer>,
    /// `H` to 1.
    pub population: Layer,
}

/// Texts as a [`Trunk`] sees them.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// `x`, `[N, Dx]`.
    pub input: Array2<f32>,
    /// `h`, `[N, H]`.
    pub latent: Array2<f32>,
    /// `q`, `[N]`.
    pub quality: Array1<f32>,
}

/// What of a [`Trunk`] stands in the hyper-parameters.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrunkCard {
    inputs: Vec<FormCard>,
    /// Width of the hidden layer; 0 is none.
    hidden: usize,
}

impl Trunk {
    /// `H`, the length of the latent.
    pub fn latent_len(&self) -> usize {
        self.hidden.as_ref().map_or(self.input.width(), |layer| layer.bias.len())
    }

    /// The latent of inputs `[N, Dx]`, `[N, H]`.
    pub(crate) fn latent(&self, input: &Array2<f32>) -> Array2<f32> {
        match &self.hidden {
            Some(layer) => layer.forward(input.view()).mapv_into(|t| Activation::Gelu.apply(t)),
            None => input.clone(),
        }
    }

    pub(crate) fn encode(&self, texts: &TextEmbeddings<'_>) -> Result<Encoded, HeadError> {
        let input = self.input.apply(texts)?;
        let latent = self.latent(&input);
        let quality = self.population.forward(latent.view()).column(0).to_owned();
        Ok(Encoded { input, latent, quality })
    }

    pub(crate) fn check(&self) -> Result<(), HeadError> {
        self.input.check()?;
        if let Some(layer) = &self.hidden {
            layer.check("the hidden layer's input", self.input.width())?;
        }
        self.population.check("the population's input", self.latent_len())?;
        check_len("the population's output", 1, self.population.bias.len())
    }

    pub(crate) fn card(&self) -> TrunkCard {
        let hidden = self.hidden.as_ref().map_or(0, |layer| layer.bias.len());
        TrunkCard { inputs: self.input.card(), hidden }
    }

    pub(crate) fn insert(&self, tensors: &mut Tensors) {
        self.input.insert(tensors, "trunk.input");
        if let Some(layer) = &self.hidden {
            tensors.insert_layer("trunk.hidden", layer);
        }
        tensors.insert_layer("trunk.population", &self.population);
    }

    pub(crate) fn take(tensors: &mut Tensors, card: &TrunkCard) -> Result<Self, WeightsError> {
        let input = TextInput::take(tensors, "trunk.input", &card.inputs)?;
        let hidden = if card.hidden == 0 { None } else { Some(tensors.take_layer("trunk.hidden")?) };
        if let Some(layer) = &hidden {
            check_len("the hidden layer", card.hidden, layer.bias.len())?;
        }
        Ok(Self { input, hidden, population: tensors.take_layer("trunk.population")? })
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use polyreward_domain::TextForm;

    use super::*;
    use crate::input::FormInput;

    #[test]
    fn inputs_are_unit_length_centred_and_scaled_form_by_form() {
        let form = |form, scale| FormInput { form, mean: array![0.1, 0.2], scale };
        let input = TextInput { forms: vec![form(TextForm::Response, 0.5), form(TextForm::Prompt, 2.0)] };
        let (response, prompt) = (array![[3.0_f32, 4.0], [0.0, 0.0]], array![[0.0_f32, 2.0], [1e30, 0.0]]);
        let texts = TextEmbeddings::default()
            .with(TextForm::Response, response.view())
            .with(TextForm::Prompt, prompt.view());
        let x = input.apply(&texts).unwrap();
        let expected = array![[1.0, 1.2, -0.05, 0.4], [-0.2, -0.4, 0.45, -0.1]];
        assert!(x.iter().zip(&expected).all(|(a, b): (&f32, &f32)| (a - b).abs() < 1e-6), "{x}");
        assert_eq!((input.width(), input.embedding_dim()), (4, 2));

        let few = array![[0.0_f32, 2.0]];
        assert!(input.apply(&texts.with(TextForm::Prompt, few.view())).is_err());
        let twice = TextInput { forms: vec![form(TextForm::Prompt, 1.0), form(TextForm::Prompt, 1.0)] };
        assert!(twice.check().is_err() && input.check().is_ok());
        assert!(TextInput { forms: vec![form(TextForm::Prompt, 0.0)] }.check().is_err());
        assert!(TextInput { forms: vec![] }.check().is_err());
    }
}
