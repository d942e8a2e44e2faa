//! The decoder alone, so that it is built in seconds: `pt` uses nothing else of the crate.

#[path = "../../src"]
mod src {
    pub mod pt;
}

pub use src::pt;
