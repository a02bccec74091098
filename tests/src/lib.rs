//! Holds the integration tests in `tests/it`; the library itself is empty.
