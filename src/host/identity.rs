//! Identity of the machine for inventories and dashboards.

use std::path::Path;

use super::roots::Roots;

/// Host name, machine id and kernel; `None` if unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Host name.
    pub name: Option<String>,
    /// machine-id(5): 32 hexadecimal digits, constant for the life of the installation.
    pub id: Option<String>,
    /// Release of the running kernel.
    pub kernel: Option<String>,
}

impl Identity {
    /// Reads the identity. In a container the name is the container's unless it shares the host's
    /// UTS namespace; the id is that of the host whose processes are visible.
    pub fn read(roots: &Roots) -> Self {
        let line = |path: &Path| {
            let text = roots.read_text(path).ok()?;
            let text = text.trim();
            (!text.is_empty() && text != "(none)").then(|| text.to_owned())
        };
        let kernel = roots.proc.join("sys/kernel");
        // Process 1 is in the host's file system even if the exporter is in a container.
        let id = line(&roots.proc.join("1/root/etc/machine-id"));
        let id = id.or_else(|| line(Path::new("/etc/machine-id")));
        let is_id = |id: &String| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        Self {
            name: line(&kernel.join("hostname")),
            id: id.filter(is_id),
            kernel: line(&kernel.join("osrelease")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_by_name_id_and_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        let file = |path: &str, text: &str| {
            let path = roots.proc.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        file("sys/kernel/hostname", "kvm-07\n");
        file("sys/kernel/osrelease", "6.12.0\n");
        file(
            "1/root/etc/machine-id",
            "0123456789abcdef0123456789abcdef\n",
        );
        let identity = Identity::read(&roots);
        assert_eq!(identity.name.as_deref(), Some("kvm-07"));
        assert_eq!(identity.kernel.as_deref(), Some("6.12.0"));
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(identity.id.as_deref(), Some(id));
        file("1/root/etc/machine-id", "uninitialized\n");
        file("sys/kernel/hostname", "(none)\n");
        let identity = Identity::read(&roots);
        assert_eq!((identity.name, identity.id), (None, None));
    }
}
