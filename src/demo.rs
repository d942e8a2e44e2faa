//! Embedded KVM guests.
