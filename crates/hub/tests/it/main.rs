//! Fetching, against a server on the loopback device that plays the hub.

mod fetch;
mod server;
