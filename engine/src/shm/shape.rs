//! What lies where in the structures of the mapping, so that two builds of which that is not the same never share one
//! (P13).

use super::segment::Shared;

/// What lies where in a structure; in words for [`Debug`](std::fmt::Debug).
#[derive(Debug)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// Its size.
    pub size: usize,
    /// Its fields: name, offset, and what lies there.
    pub fields: &'static [(&'static str, usize, &'static Shape)],
}

/// The shape of a field.
pub const fn shape_of<S, T: Shared>(_: fn(&S) -> &T) -> &'static Shape {
    T::SHAPE
}

/// The [`Shape`] of a structure of this size: all its fields, else it does not compile, those with a number at that
/// offset.
macro_rules! shape {
    ($type:ident, $size:literal: $($($at:literal)? $field:ident),+ $(,)?) => {{
        #[cfg(not(loom))]
        const _: () = {
            assert!(size_of::<$type>() == $size);
            $($(assert!(std::mem::offset_of!($type, $field) == $at);)?)+
        };
        const _: fn(&$type) = |$type { $($field: _),+ }| ();
        &$crate::shm::Shape {
            name: stringify!($type),
            size: size_of::<$type>(),
            fields: &[$((
                stringify!($field),
                std::mem::offset_of!($type, $field),
                $crate::shm::shape_of(|it: &$type| &it.$field),
            )),+],
        }
    }};
}
pub(crate) use shape;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, AtomicU64};

    #[test]
    fn p13_a_structure_whose_fields_change_places_has_another_shape() {
        // Failure: a build in which two words have changed places joins the mapping of one in which they have not.
        let first = {
            #[repr(C)]
            struct S {
                a: AtomicU64,
                b: [AtomicU32; 2],
            }
            const SHAPE: &Shape = shape!(S, 16: 0 a, 8 b);
            format!("{SHAPE:?}")
        };
        let second = {
            #[repr(C)]
            struct S {
                b: [AtomicU32; 2],
                a: AtomicU64,
            }
            const SHAPE: &Shape = shape!(S, 16: b, a);
            format!("{SHAPE:?}")
        };
        let third = {
            #[repr(C)]
            struct S {
                a: AtomicU64,
                b: AtomicU64,
            }
            const SHAPE: &Shape = shape!(S, 16: a, b);
            format!("{SHAPE:?}")
        };
        assert_ne!(first, second, "places");
        assert_ne!(first, third, "types");
    }
}
