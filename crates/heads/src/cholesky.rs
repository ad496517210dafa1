//! Small symmetric systems.

use ndarray::{Array1, Array2};

use crate::head::HeadError;

/// The factor `L` of a symmetric positive definite `A = L Lᵀ`; only the lower triangle of `A` is read.
#[derive(Debug)]
pub(crate) struct Cholesky {
    size: usize,
    /// `L`, row by row; what stands above the diagonal is not read.
    rows: Vec<f64>,
}

impl Cholesky {
    /// # Errors
    /// If the matrix is not positive definite, as when a number in it is not finite.
    pub(crate) fn of(a: Array2<f64>) -> Result<Self, HeadError> {
        let size = a.nrows();
        let mut rows: Vec<f64> = a.into_iter().collect();
        for i in 0..size {
            let (above, row) = rows.split_at_mut(i * size);
            for j in 0..i {
                let other = &above[j * size..j * size + size];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
            let pivot = row[i] - dot(&row[..i], &row[..i]);
            if !(pivot > 0.0 && pivot.is_finite()) {
                return Err(HeadError::NotFinite("a Hessian"));
            }
            row[i] = pivot.sqrt();
        }
        Ok(Self { size, rows })
    }

    /// `A⁻¹ b`.
    pub(crate) fn solve(&self, b: &Array1<f64>) -> Array1<f64> {
        let mut x = b.to_vec();
        self.solve_from(0, &mut x);
        x.into()
    }

    /// `A⁻¹ x` in place, for an `x` whose numbers before `first` are 0.
    fn solve_from(&self, first: usize, x: &mut [f64]) {
        for i in first..self.size {
            let row = &self.rows[i * self.size..];
            x[i] = (x[i] - dot(&row[first..i], &x[first..i])) / row[i];
        }
        for i in (0..self.size).rev() {
            let row = &self.rows[i * self.size..];
            x[i] /= row[i];
            let (before, from) = x.split_at_mut(i);
            for (x, l) in before.iter_mut().zip(row) {
                *x -= l * from[0];
            }
        }
    }

    /// `A⁻¹`, symmetric.
    pub(crate) fn inverse(&self) -> Array2<f64> {
        let mut inverse = Array2::eye(self.size);
        for (at, mut row) in inverse.rows_mut().into_iter().enumerate() {
            self.solve_from(at, row.as_slice_mut().expect("rows of a new matrix are contiguous"));
        }
        (&inverse + &inverse.t()) / 2.0
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn a_solution_solves() {
        let a = array![[4.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 2.0]];
        let factor = Cholesky::of(a.clone()).unwrap();
        let x = factor.solve(&array![1.0, 2.0, 3.0]);
        for (actual, expected) in a.dot(&x).iter().zip([1.0, 2.0, 3.0]) {
            assert!((actual - expected).abs() < 1e-12);
        }
        for (at, value) in a.dot(&factor.inverse()).indexed_iter() {
            assert!((value - f64::from(u8::from(at.0 == at.1))).abs() < 1e-12);
        }
        assert!(Cholesky::of(array![[1.0, 2.0], [2.0, 1.0]]).is_err());
    }
}
