//! Hardware counters of each vCPU, guest and host apart.

pub mod counters;
