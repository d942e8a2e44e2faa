//! All output, drawn from the newest snapshot: nothing here reads the host.

pub mod http;
pub mod negotiate;
pub mod otlp;
pub mod text;

mod buffers;
mod classic;
mod guard;
mod metrics;
mod runbooks;
mod site;
mod status;
pub mod view;

pub use http::{router, serve};
pub use site::App;
