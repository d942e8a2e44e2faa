//! All output, drawn from the newest snapshot.
