//! Lists whose number of elements has a limit: many short elements are small on the wire and large
//! in memory.

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Most elements of any list that people write.
pub const MAX_LIST: usize = 4096;

/// Deserialises a list of at most `LIMIT` elements. One that says itself how long it is is refused
/// before its first element.
pub(crate) fn list<'de, D, T, const LIMIT: usize>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    from.deserialize_seq(Elements::<T, LIMIT>(PhantomData))
}

struct Elements<T, const LIMIT: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const LIMIT: usize> Visitor<'de> for Elements<T, LIMIT> {
    type Value = Vec<T>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "a list of at most {LIMIT} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let len = elements.size_hint().unwrap_or(0);
        if len > LIMIT {
            return Err(A::Error::invalid_length(len, &self));
        }
        // As many as it says: growing would take up to twice the memory.
        let mut list = Vec::with_capacity(len);
        while let Some(element) = elements.next_element()? {
            if list.len() >= LIMIT {
                return Err(A::Error::invalid_length(list.len() + 1, &self));
            }
            list.push(element);
        }
        Ok(list)
    }
}
