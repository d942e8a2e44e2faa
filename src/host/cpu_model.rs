//! The CPU model, from /proc/cpuinfo.
