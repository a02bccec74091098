//! The stages together: through the built binaries, and through the tools that people open artifacts with.

mod arrow_tools;
mod bench;
mod faults;
mod kill;
mod smoke;
