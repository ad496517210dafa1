//! Heads as bytes: hyper-parameters in JSON, weights in safetensors.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, ArrayD, IxDyn};
use polyreward_domain::HeadFamily;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    bt::BradleyTerry,
    head::{Head, HeadError, check_len},
    lore::Lore,
    micro::Micro,
    mlp::{Activation, Layer, Mlp},
    pal_a::PalA,
    pal_b::PalB,
    vpl::Vpl,
};

/// Features of the reference responses, beside a head's own weights.
const REFERENCE: &str = "reference_features";

/// Why bytes are not a head.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The bytes are not safetensors.
    #[error("the weights are not a safetensors file")]
    Format(#[source] safetensors::SafeTensorError),
    /// A tensor is missing, or not float32, or of another rank.
    #[error("tensor {name}: {detail}")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// The hyper-parameters are not those of the family.
    #[error("the hyper-parameters are not those of the head")]
    Hyperparameters(#[source] serde_json::Error),
    /// Weights that do not fit one another.
    #[error("the weights do not fit one another")]
    Head(#[from] HeadError),
}

/// Hyper-parameters and named arrays of a head.
#[derive(Debug, Clone, Default)]
pub struct Tensors {
    /// What is not an array.
    pub hyperparameters: Value,
    /// The weights by name.
    pub arrays: BTreeMap<String, ArrayD<f32>>,
}

impl Tensors {
    /// Adds an array.
    pub fn insert<D: ndarray::Dimension>(&mut self, name: &str, array: ndarray::Array<f32, D>) {
        self.arrays.insert(name.to_owned(), array.into_dyn());
    }

    /// No array yet; `hyperparameters` are plain fields.
    pub(crate) fn with(hyperparameters: &impl Serialize) -> Self {
        let hyperparameters = serde_json::to_value(hyperparameters).expect("plain fields serialise");
        Self { hyperparameters, arrays: BTreeMap::new() }
    }

    /// The hyper-parameters as the fields of a family.
    pub(crate) fn fields<T: DeserializeOwned>(&self) -> Result<T, WeightsError> {
        T::deserialize(&self.hyperparameters).map_err(WeightsError::Hyperparameters)
    }

    /// Adds the two arrays of a layer.
    pub(crate) fn insert_layer(&mut self, name: &str, layer: &Layer) {
        self.insert(&format!("{name}.weight"), layer.weight.clone());
        self.insert(&format!("{name}.bias"), layer.bias.clone());
    }

    /// Takes out the two arrays of a layer.
    pub(crate) fn take_layer(&mut self, name: &str) -> Result<Layer, WeightsError> {
        let weight = self.take_matrix(&format!("{name}.weight"))?;
        Ok(Layer { weight, bias: self.take_vector(&format!("{name}.bias"))? })
    }

    /// Adds the layers of a network, numbered from 0.
    pub(crate) fn insert_mlp(&mut self, name: &str, mlp: &Mlp) {
        for (at, layer) in mlp.layers().iter().enumerate() {
            self.insert_layer(&format!("{name}.{at}"), layer);
        }
    }

    /// Takes out the layers of a network, numbered from 0.
    pub(crate) fn take_mlp(&mut self, name: &str, activation: Activation) -> Result<Mlp, WeightsError> {
        let mut layers = vec![self.take_layer(&format!("{name}.0"))?];
        while self.arrays.contains_key(&format!("{name}.{}.weight", layers.len())) {
            layers.push(self.take_layer(&format!("{name}.{}", layers.len()))?);
        }
        Ok(Mlp::new(layers, activation)?)
    }

    /// Takes out a vector.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn take_vector(&mut self, name: &str) -> Result<Array1<f32>, WeightsError> {
        self.take(name)?.into_dimensionality().map_err(|_| rank(name, 1))
    }

    /// Takes out a matrix.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn take_matrix(&mut self, name: &str) -> Result<Array2<f32>, WeightsError> {
        self.take(name)?.into_dimensionality().map_err(|_| rank(name, 2))
    }

    fn take(&mut self, name: &str) -> Result<ArrayD<f32>, WeightsError> {
        self.arrays
            .remove(name)
            .ok_or_else(|| WeightsError::Tensor { name: name.to_owned(), detail: "is missing".into() })
    }
}

fn rank(name: &str, rank: usize) -> WeightsError {
    WeightsError::Tensor { name: name.to_owned(), detail: format!("is not an array of rank {rank}") }
}

/// A head read from bytes.
#[derive(Debug)]
pub struct LoadedHead {
    /// The head.
    pub head: Box<dyn Head>,
    /// Features `[M, F]` of the reference responses behind the `win_rate` scale.
    pub reference_features: Array2<f32>,
}

/// A head as bytes of a safetensors file, and its hyper-parameters; equal heads give equal bytes.
///
/// # Errors
/// If the reference features are not the head's.
pub fn write_head(
    head: &dyn Head,
    reference_features: &Array2<f32>,
) -> Result<(Value, Vec<u8>), WeightsError> {
    check_len("reference features", head.feature_len(), reference_features.ncols())?;
    let Tensors { hyperparameters, mut arrays } = head.tensors();
    arrays.insert(REFERENCE.to_owned(), reference_features.clone().into_dyn());
    let bytes: BTreeMap<&String, (Vec<usize>, Vec<u8>)> = arrays
        .iter()
        .map(|(name, array)| {
            let data = array.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name, (array.shape().to_vec(), data))
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, (shape, data))| Ok((name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(WeightsError::Format)?;
    let file = safetensors::serialize(views, None).map_err(WeightsError::Format)?;
    Ok((hyperparameters, file))
}

/// Reads a head back; every shape is checked.
///
/// # Errors
/// See [`WeightsError`].
pub fn read_head(
    family: HeadFamily,
    hyperparameters: &Value,
    bytes: &[u8],
) -> Result<LoadedHead, WeightsError> {
    let mut tensors = Tensors { hyperparameters: hyperparameters.clone(), arrays: read_arrays(bytes)? };
    let reference_features = tensors.take_matrix(REFERENCE)?;
    let head: Box<dyn Head> = match family {
        HeadFamily::Bt => Box::new(BradleyTerry::from_tensors(&mut tensors)?),
        HeadFamily::Lore => Box::new(Lore::from_tensors(&mut tensors)?),
        HeadFamily::PalA => Box::new(PalA::from_tensors(&mut tensors)?),
        HeadFamily::PalB => Box::new(PalB::from_tensors(&mut tensors)?),
        HeadFamily::Vpl => Box::new(Vpl::from_tensors(&mut tensors)?),
        HeadFamily::Micro => Box::new(Micro::from_tensors(&mut tensors)?),
    };
    if let Some(name) = tensors.arrays.keys().next() {
        return Err(WeightsError::Tensor { name: name.clone(), detail: "is not one of this head's".into() });
    }
    check_len("reference features", head.feature_len(), reference_features.ncols())?;
    if reference_features.nrows() == 0 {
        return Err(WeightsError::Tensor { name: REFERENCE.into(), detail: "has no row".into() });
    }
    Ok(LoadedHead { head, reference_features })
}

fn read_arrays(bytes: &[u8]) -> Result<BTreeMap<String, ArrayD<f32>>, WeightsError> {
    let file = SafeTensors::deserialize(bytes).map_err(WeightsError::Format)?;
    let mut arrays = BTreeMap::new();
    for (name, view) in file.iter() {
        let wrong = |detail: &str| WeightsError::Tensor { name: name.to_owned(), detail: detail.to_owned() };
        if view.dtype() != Dtype::F32 {
            return Err(wrong("is not float32"));
        }
        let (floats, _) = view.data().as_chunks::<4>();
        let values: Vec<f32> = floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if values.iter().any(|x| !x.is_finite()) {
            return Err(wrong("holds a number that is not finite"));
        }
        let array = ArrayD::from_shape_vec(IxDyn(view.shape()), values)
            .map_err(|_| wrong("has data of another length than its shape"))?;
        arrays.insert(name.to_owned(), array);
    }
    Ok(arrays)
}
