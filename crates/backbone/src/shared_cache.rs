//! A second level of the cache that processes share: what it does, and how an embedding is written down for it.

use std::fmt::Debug;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use crate::cache::{Encoded, Key};

/// Keeps values for other processes, as well as it can: whatever it cannot give is encoded again.
///
/// None of its methods fails or waits for long. A key tells nothing of its text but to who can guess the text.
#[async_trait]
pub trait SharedCache: Debug + Send + Sync {
    /// What is kept under each key, in their order; none where nothing is, or where it cannot be had in time. A value longer
    /// than `max_bytes` need not be whole, but is longer than that.
    async fn get(&self, keys: &[Key], max_bytes: usize) -> Vec<Option<Vec<u8>>>;

    /// Keeps a value some time later, if there is room.
    fn put(&self, key: Key, value: Vec<u8>);

    /// Removes values as soon as can be, also those whose [`put`](Self::put) still waits.
    fn remove(&self, keys: Vec<Key>);
}

/// The first byte of a value. Another layout gets another one.
const VERSION: u8 = 1;
/// Version, tokens, tokens before the cut, whether there was one.
const HEADER_BYTES: usize = 1 + 4 + 4 + 1;
const CHECKSUM_BYTES: usize = 8;

/// How long the value of an embedding of so many numbers is.
pub(crate) fn encoded_bytes(dim: usize) -> usize {
    HEADER_BYTES + 4 * dim + CHECKSUM_BYTES
}

/// Version, `tokens`, `full_tokens`, `truncated`, the numbers, and a checksum over the key and all of that; little-endian.
pub(crate) fn encode(key: &Key, encoded: &Encoded) -> Vec<u8> {
    let mut value = Vec::with_capacity(encoded_bytes(encoded.embedding.len()));
    let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX).to_le_bytes();
    value.push(VERSION);
    value.extend(count(encoded.tokens));
    value.extend(count(encoded.full_tokens));
    value.push(u8::from(encoded.truncated));
    value.extend(encoded.embedding.iter().flat_map(|number| number.to_le_bytes()));
    value.extend(checksum(key, &value));
    value
}

/// What [`encode`] wrote under this key; none where it cannot be that, or holds a number that is not finite.
pub(crate) fn decode(key: &Key, value: &[u8], dim: usize) -> Option<Encoded> {
    if value.len() != encoded_bytes(dim) {
        return None;
    }
    let (content, sum) = value.split_at(value.len() - CHECKSUM_BYTES);
    let (header, numbers) = content.split_at(HEADER_BYTES);
    if header[0] != VERSION || checksum(key, content) != *sum {
        return None;
    }
    let count = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize);
    let (tokens, full_tokens) = (count(&header[1..5])?, count(&header[5..9])?);
    let truncated = match header[9] {
        0 => false,
        1 => true,
        _ => return None,
    };
    let (numbers, _) = numbers.as_chunks::<4>();
    let embedding: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let finite = embedding.iter().all(|number| number.is_finite());
    finite.then(|| Encoded { embedding: embedding.into(), tokens, full_tokens, truncated })
}

/// Finds what was cut off, overwritten or put under another key; it is no defence against who may write.
fn checksum(key: &Key, content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::new().chain_update(key).chain_update(content).finalize();
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&digest[..CHECKSUM_BYTES]);
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: Key = [7; 32];

    fn encoded(numbers: &[f32]) -> Encoded {
        Encoded { embedding: numbers.into(), tokens: 3, full_tokens: 5, truncated: true }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_to_the_bit(
            numbers in prop::collection::vec(-1e30_f32..1e30, 0..64),
            tokens in 0_usize..1 << 20,
            cut in 0_usize..1 << 20,
        ) {
            let written = Encoded {
                embedding: numbers.as_slice().into(),
                tokens,
                full_tokens: tokens + cut,
                truncated: cut > 0,
            };
            let value = encode(&KEY, &written);
            prop_assert_eq!(value.len(), encoded_bytes(numbers.len()));
            prop_assert_eq!(decode(&KEY, &value, numbers.len()), Some(written));
        }

        #[test]
        fn a_value_with_another_byte_is_none(at in 0_usize..26, change in 1_u8..) {
            let mut value = encode(&KEY, &encoded(&[1.0, -2.0]));
            value[at] ^= change;
            prop_assert_eq!(decode(&KEY, &value, 2), None);
        }
    }

    #[test]
    fn a_value_of_another_key_length_or_dimension_is_none() {
        let value = encode(&KEY, &encoded(&[1.0, -2.0]));
        assert_eq!(decode(&[8; 32], &value, 2), None);
        assert_eq!((decode(&KEY, &value, 1), decode(&KEY, &value, 3)), (None, None));
        assert_eq!((decode(&KEY, &value[1..], 2), decode(&KEY, b"", 2)), (None, None));
    }

    #[test]
    fn a_number_that_is_not_finite_is_not_served() {
        for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(decode(&KEY, &encode(&KEY, &encoded(&[1.0, number])), 2), None);
        }
    }
}
