//! The numbers by which a tree's parts refer to each other.

use std::num::NonZeroU32;

/// Declares the number of an element of one of the tree's lists: its index and 1, so that an
/// `Option` of it takes no more than 4 bytes.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name(NonZeroU32);

        impl $name {
            /// The element at this index. `Tree::charge` bounds the lists to 32-bit numbers.
            pub(crate) fn at(index: usize) -> Self {
                let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
                Self(number.unwrap_or(NonZeroU32::MAX))
            }

            pub(crate) const fn index(self) -> usize {
                self.0.get() as usize - 1
            }

            /// The element with this number; none has 0.
            pub(super) fn new(number: u32) -> Option<Self> {
                NonZeroU32::new(number).map(Self)
            }

            pub(super) const fn get(self) -> u32 {
                self.0.get()
            }
        }
    };
}

id! {
    /// Which inode of a tree.
    InodeId
}
id! {
    /// Which directory entry of a tree.
    DentryId
}

/// The root directory's inode.
pub(crate) const ROOT: InodeId = InodeId(NonZeroU32::MIN);
