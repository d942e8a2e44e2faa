//! All output, drawn from the newest snapshot: nothing here reads the host.

pub mod http;
pub mod negotiate;
pub mod otlp;
pub mod text;

mod bodies;
mod buffers;
mod classic;
mod guard;
mod metrics;
mod runbooks;
mod server;
mod site;
mod status;
pub mod view;
mod workers;

pub use http::serve;
pub use site::App;
