//! The decoder alone, which builds in seconds: `pt` uses nothing else of the crate.

#[path = "../../src"]
mod src {
    pub mod pt;
}

pub use src::pt;
