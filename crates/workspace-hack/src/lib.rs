//! Nothing but the features of its dependencies; see `Cargo.toml`.
