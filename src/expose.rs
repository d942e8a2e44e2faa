//! Outputs. All of them use the latest snapshot; none reads the host.

mod html;
pub(crate) mod http;
pub mod negotiate;
pub mod otlp;
pub mod text;

mod bodies;
mod buffers;
mod guard;
mod metrics;
mod query;
mod runbooks;
mod server;
mod site;
mod status;
mod workers;

pub use http::serve;
pub use site::App;
