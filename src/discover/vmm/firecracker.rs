//! Firecracker; its jailer passes `--id` on.

use super::{Identity, Invocation, Vmm, PLAIN};

/// The id of a microVM started without `--id` (src/firecracker/src/main.rs).
const DEFAULT_ID: &str = "anonymous-instance";

pub(super) const VMM: Vmm = Vmm {
    name: "firecracker",
    runs: |program, _| program.starts_with("firecracker"),
    // src/vmm/src/vstate/vcpu.rs
    vcpu: Some(("fc_vcpu ", "")),
    // The main thread does the devices' I/O.
    iothread: Some(|_| false),
    telling: true,
    // src/firecracker/src/api_server_adapter.rs; absent with --no-api.
    own: |comm| comm == "fc_api",
    identity,
    ..PLAIN
};

/// `--id`, else the path of the API socket or the configuration.
fn identity(invocation: &Invocation<'_>) -> Identity {
    let id = invocation.option("--id").filter(|id| *id != DEFAULT_ID);
    let of_path = |option| invocation.name_of_path(invocation.option(option)?);
    let name = id.map(str::to_owned);
    Identity {
        name: name
            .or_else(|| of_path("--api-sock"))
            .or_else(|| of_path("--config-file")),
        // Ids are often UUIDs; anything else is dropped later.
        uuid: id.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::identity;

    #[test]
    fn the_id_is_the_name_unless_it_is_the_default() {
        let name = |line: &[u8]| identity(line).name;
        assert_eq!(name(b"/firecracker\0--id\0web-1").as_deref(), Some("web-1"));
        assert_eq!(name(b"/firecracker\0--id=anonymous-instance"), None);
        assert_eq!(name(b"/firecracker\0--no-api"), None);
    }

    #[test]
    fn without_an_id_a_path_names_the_vm() {
        let name = |line: &[u8]| identity(line).name;
        let line = b"/firecracker\0--api-sock\0/var/lib/vms/web/firecracker.socket";
        assert_eq!(name(line).as_deref(), Some("web"));
        let line = b"/firecracker\0--no-api\0--config-file\0/etc/vms/db.json";
        assert_eq!(name(line).as_deref(), Some("db"));
        assert_eq!(
            name(b"/firecracker\0--api-sock\0/run/firecracker.socket"),
            None
        );
    }
}
