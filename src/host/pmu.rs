//! PMUs and their event formats, from sysfs.
