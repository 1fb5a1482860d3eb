//! The loadable extension.
