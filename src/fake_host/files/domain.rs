//! libvirt's run-time state of a domain, nova's metadata in it, and the domain's cgroup.

/// /run/libvirt/qemu/NAME.xml of a running domain. Texts are inserted unescaped: see [`escape`].
pub fn domstatus(pid: i32, name: &str, uuid: &str, vcpus: &[i32], metadata: &str) -> String {
    let threads: String = vcpus
        .iter()
        .enumerate()
        .map(|(n, tid)| format!("    <vcpu id='{n}' pid='{tid}'/>\n"))
        .collect();
    format!(
        "<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE.\n-->\n\
         <domstatus state='running' reason='booted' pid='{pid}'>\n  <vcpus>\n{threads}  </vcpus>\n  \
         <domain type='kvm' id='1'>\n    <name>{name}</name>\n    <uuid>{uuid}</uuid>\n{metadata}\n  \
         </domain>\n</domstatus>\n"
    )
}

/// nova's metadata, of project `shop`. Texts are inserted unescaped.
pub fn nova_metadata(display_name: &str, flavor: &str, vcpus: u32) -> String {
    format!(
        r#"<metadata>
  <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
    <nova:package version="27.1.0"/>
    <nova:name>{display_name}</nova:name>
    <nova:creationTime>2026-11-01 10:00:00</nova:creationTime>
    <nova:flavor name="{flavor}">
      <nova:memory>2048</nova:memory>
      <nova:vcpus>{vcpus}</nova:vcpus>
    </nova:flavor>
    <nova:owner>
      <nova:user uuid="3e1c0b2f0d6b4c5e9a4b8f2f6a1d7c00">ann</nova:user>
      <nova:project uuid="9f8e7d6c5b4a39281706f5e4d3c2b1a0">shop</nova:project>
    </nova:owner>
  </nova:instance>
</metadata>"#
    )
}

/// The scope of a domain on a host with systemd and cgroup v2. The name is escaped as in
/// systemd.unit(5) ("String escaping for inclusion in unit names").
pub fn scope(number: u32, name: &str) -> String {
    let escaped: String = name
        .bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b':' => {
                char::from(b).to_string()
            }
            _ => format!("\\x{b:02x}"),
        })
        .collect();
    format!("machine.slice/machine-qemu\\x2d{number}\\x2d{escaped}.scope")
}

/// Escapes text for XML elements and attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&apos;")
}
