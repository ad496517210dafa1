//! Cursor pages: `?cursor=&limit=`, answered with `next_cursor`.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{extract::query_parameters, problem::Problem};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;
/// Characters of a cursor; ours are shorter.
const MAX_CURSOR_CHARS: usize = 4096;

/// Which page is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page<const N: usize> {
    /// The key of the last entry of the page before, part by part.
    pub after: Option<[String; N]>,
    /// Entries of a page.
    pub limit: usize,
}

impl<const N: usize> Page<N> {
    /// Reads `cursor` and `limit`; no other parameter may stand there.
    ///
    /// # Errors
    /// A cursor that none of our pages gave, a limit out of range.
    pub fn of(query: Option<&str>) -> Result<Self, Problem> {
        let [cursor, limit] = query_parameters(query, ["cursor", "limit"])?;
        let after = cursor.map(|cursor| read::<N>(&cursor).ok_or_else(bad_cursor)).transpose()?;
        let limit = match limit.map(|limit| limit.parse::<usize>()) {
            None => DEFAULT_LIMIT,
            Some(Ok(limit)) if (1..=MAX_LIMIT).contains(&limit) => limit,
            Some(_) => {
                let detail = format!("is a whole number from 1 to {MAX_LIMIT}");
                return Err(Problem::parameters(vec![("limit", detail)]));
            }
        };
        Ok(Self { after, limit })
    }

    /// The entries of this page out of one more than it holds, and the cursor of the next one.
    pub fn cut<T>(
        &self,
        mut entries: Vec<T>,
        key: impl FnOnce(&T) -> [String; N],
    ) -> (Vec<T>, Option<String>) {
        let more = entries.len() > self.limit;
        entries.truncate(self.limit);
        let next = entries.last().filter(|_| more).map(|last| write(&key(last)));
        (entries, next)
    }
}

/// What is said of a cursor that none of our pages gave.
pub(crate) fn bad_cursor() -> Problem {
    Problem::parameters(vec![("cursor", "is not the next_cursor of a page of this list".to_owned())])
}

fn write<const N: usize>(key: &[String; N]) -> String {
    let json = serde_json::to_vec(key.as_slice()).expect("texts are JSON");
    BASE64_URL_SAFE_NO_PAD.encode(json)
}

fn read<const N: usize>(cursor: &str) -> Option<[String; N]> {
    let bytes = (cursor.len() <= MAX_CURSOR_CHARS).then(|| BASE64_URL_SAFE_NO_PAD.decode(cursor).ok())??;
    serde_json::from_slice::<Vec<String>>(&bytes).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_the_next_one_begins() {
        let page = Page::<2>::of(Some("limit=2")).unwrap();
        let key = |n: &i32| ["a/ä".to_owned(), n.to_string()];
        let (entries, next) = page.cut(vec![1, 2, 3], key);
        assert_eq!(entries, [1, 2]);
        let next = Page::<2>::of(Some(&format!("cursor={}", next.unwrap()))).unwrap();
        assert_eq!(next.after, Some(["a/ä".to_owned(), "2".to_owned()]));
        assert_eq!(page.cut(vec![1, 2], key), (vec![1, 2], None));
    }

    #[test]
    fn a_cursor_of_somebody_elses_making_is_refused_by_name() {
        for bad in ["cursor=x", "cursor=", "cursor=W10", "cursor=bnVsbA", "limit=0", "limit=1001", "limit=-1"]
        {
            assert!(Page::<1>::of(Some(bad)).is_err(), "{bad}");
        }
        assert!(Page::<1>::of(Some(&format!("cursor={}", "A".repeat(5000)))).is_err());
    }
}
