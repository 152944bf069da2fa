//! A table of things that epoll and timers name: a name that outlived its thing finds nothing.

/// Names an entry; its index and how often its place was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// The place.
    pub index: u32,
    /// How often the place was used, within 24 bits.
    pub generation: u32,
}

const GENERATION_MASK: u32 = 0xff_ffff;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// The table. It never shrinks; places are used again.
#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Table<T> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds an entry, made from its name.
    pub fn insert(&mut self, make: impl FnOnce(Id) -> T) -> Id {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                value: None,
            });
            (self.slots.len() - 1) as u32
        });
        let mut id = Id {
            index,
            generation: 0,
        };
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.generation = (slot.generation + 1) & GENERATION_MASK;
            id.generation = slot.generation;
            slot.value = Some(make(id));
        }
        id
    }

    /// The entry of a name.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.value
            .as_mut()
            .filter(|_| slot.generation == id.generation)
    }

    /// The entry of a name, to look at.
    #[must_use]
    pub fn get(&self, id: Id) -> Option<&T> {
        let slot = self.slots.get(id.index as usize)?;
        slot.value
            .as_ref()
            .filter(|_| slot.generation == id.generation)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let value = slot.value.take()?;
        self.free.push(id.index);
        Some(value)
    }

    /// All entries, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let id = Id {
                index: index as u32,
                generation: slot.generation,
            };
            slot.value.as_ref().map(|value| (id, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_dies_with_its_entry() {
        let mut table = Table::default();
        let first = table.insert(|_| 'a');
        assert_eq!(table.remove(first), Some('a'));
        let second = table.insert(|_| 'b');
        assert_eq!(first.index, second.index);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get_mut(second), Some(&mut 'b'));
        assert_eq!(table.len(), 1);
    }
}
