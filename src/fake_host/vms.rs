//! Ready-made VMs of a [`FakeHost`], with the files of their VMMs and managers in /proc and /run.
//!
//! Descriptors, thread names and cgroups are from running QEMU 7.2 and libvirt 9.0 (cgroup v1), the
//! others from documentation and sources. A VM uses the TIDs `pid + 1 ..= pid + 10 + vcpus`: choose
//! PIDs at least 100 apart.

use super::files::domain::{domstatus, nova_metadata, scope};
use super::FakeHost;

/// A ready-made VM.
#[derive(Debug, Clone)]
pub struct FakeVm {
    /// PID of its VMM.
    pub pid: i32,
    /// TIDs of its vCPUs by index.
    pub vcpus: Vec<i32>,
}

/// Start time of every process; each thread starts one tick later.
pub const START: u64 = 5000;
/// UUID of a VM.
pub const UUID_A: &str = "aaaaaaaa-0000-4000-8000-000000000001";
/// UUID of another VM.
pub const UUID_B: &str = "bbbbbbbb-0000-4000-8000-000000000001";

impl FakeHost {
    /// A host with one VM of each kind, and two processes that are not VMs.
    pub fn menagerie() -> Self {
        let host = FakeHost::new();
        host.process(1, 1, &["/sbin/init"], "0::/init.scope");
        host.process(2, 1, &[], "0::/");
        host.qemu(1000, "hand", UUID_A, 2);
        host.libvirt_v1(1100, "old", UUID_A, 1);
        host.libvirt_v2(1200, "new-1", UUID_A, 1);
        host.openstack(1300, "instance-0000002a", "shop web", UUID_A, 1);
        host.kubevirt(1400, "shop", "db", UUID_A, 1);
        host.proxmox(1500, 100, "pve", UUID_A, 1);
        host.firecracker(1600, UUID_B, 1);
        host.cloud_hypervisor(1700, "/run/ch/cloudy.sock", 2);
        host.crosvm(1800, "chrome", 1);
        host.micro_vm(1900, "spin", UUID_B, 2);
        host
    }

    /// A process with the descriptors of one KVM VM and vCPU threads named by `comm`.
    pub fn vmm(
        &self,
        pid: i32,
        cmdline: &[&str],
        cgroup: &str,
        vcpus: u32,
        comm: impl Fn(u32) -> String,
    ) -> FakeVm {
        self.process(pid, START, cmdline, cgroup);
        self.fd(pid, 0, "/dev/null").fd(pid, 9, "/dev/kvm");
        self.fd(pid, 10, "anon_inode:kvm-vm");
        let mut tids = Vec::new();
        for n in 0..vcpus {
            let tid = pid + 10 + n as i32;
            self.fd(pid, 11 + n as i32, &format!("anon_inode:kvm-vcpu:{n}"));
            self.thread(pid, tid, &comm(n), START + 1 + u64::from(n));
            tids.push(tid);
        }
        FakeVm { pid, vcpus: tids }
    }

    fn any_qemu(&self, pid: i32, args: &[&str], cgroup: &str, vcpus: u32) -> FakeVm {
        let smp = vcpus.to_string();
        // Proxmox and Red Hat use other names: kvm, qemu-kvm.
        let program = if args.contains(&"-id") {
            "/usr/bin/kvm"
        } else {
            "/usr/bin/qemu-system-x86_64"
        };
        let mut cmdline = vec![program];
        cmdline.extend_from_slice(args);
        cmdline.extend(["-accel", "kvm", "-m", "64", "-smp", &smp]);
        let vm = self.vmm(pid, &cmdline, cgroup, vcpus, |n| format!("CPU {n}/KVM"));
        self.thread(pid, pid + 1, "call_rcu", START + 1);
        self.thread(pid, pid + 2, "IO mon_iothread", START + 1);
        self.thread(pid, pid + 3, "kvm-nx-lpage-re", START + 1);
        vm
    }

    /// QEMU started manually in a login session.
    pub fn qemu(&self, pid: i32, name: &str, uuid: &str, vcpus: u32) -> FakeVm {
        let name = format!("guest={name},debug-threads=on");
        let cgroup = "0::/user.slice/user-0.slice/session-1.scope\n";
        self.any_qemu(pid, &["-name", &name, "-uuid", uuid], cgroup, vcpus)
    }

    /// QEMU whose threads all have the process name.
    pub fn qemu_without_thread_names(&self, pid: i32, name: &str, vcpus: u32) -> FakeVm {
        let cmdline = ["/usr/bin/qemu-system-x86_64", "-name", name];
        let vm = self.vmm(pid, &cmdline, "0::/\n", vcpus, |_| {
            "qemu-system-x86_64".into()
        });
        self.thread(pid, pid + 1, "qemu-system-x86_64", START + 1);
        // The kernel's helper thread appears to be in the call of vCPU 0 forever.
        self.thread(pid, pid + 3, "kvm-nx-lpage-re", START);
        self.set(pid, pid + 3, |t| t.syscall = "16 0xb 0xae80 0x0 0x0".into());
        vm
    }

    /// A libvirt domain on a host with cgroup v1 and without systemd.
    pub fn libvirt_v1(&self, pid: i32, name: &str, uuid: &str, vcpus: u32) -> FakeVm {
        let dir = format!("/machine/qemu-1-{name}.libvirt-qemu/emulator");
        let cgroup =
            format!("9:cpuset:{dir}\n8:cpu:{dir}\n7:memory:/machine/qemu-1-{name}.libvirt-qemu\n1:name=systemd:/\n");
        self.libvirt(pid, name, uuid, vcpus, &cgroup, "")
    }

    /// A libvirt domain on a host with systemd and cgroup v2.
    pub fn libvirt_v2(&self, pid: i32, name: &str, uuid: &str, vcpus: u32) -> FakeVm {
        self.libvirt(pid, name, uuid, vcpus, &systemd_scope(name), "")
    }

    /// A nova instance: a libvirt domain with nova's metadata of project `shop`, flavor `m1.small`
    /// and name `display_name`.
    pub fn openstack(
        &self,
        pid: i32,
        domain: &str,
        display_name: &str,
        uuid: &str,
        vcpus: u32,
    ) -> FakeVm {
        let metadata = nova_metadata(display_name, "m1.small", vcpus);
        self.libvirt(pid, domain, uuid, vcpus, &systemd_scope(domain), &metadata)
    }

    fn libvirt(
        &self,
        pid: i32,
        name: &str,
        uuid: &str,
        vcpus: u32,
        cgroup: &str,
        metadata: &str,
    ) -> FakeVm {
        let guest = format!("guest={},debug-threads=on", name.replace(',', ",,"));
        let vm = self.any_qemu(pid, &["-name", &guest, "-S", "-uuid", uuid], cgroup, vcpus);
        self.libvirt_xml(name, &domstatus(pid, name, uuid, &vm.vcpus, metadata));
        for (n, tid) in vm.vcpus.iter().enumerate() {
            let of_vcpu = cgroup.replace("/emulator", &format!("/vcpu{n}"));
            self.thread_cgroup(pid, *tid, of_vcpu);
        }
        vm
    }

    /// A KubeVirt VM: QEMU in a pod, without libvirt state on the host. The pod's uid is
    /// `6f1e2d3c-4b5a-4968-8776-655443322110`.
    pub fn kubevirt(
        &self,
        pid: i32,
        namespace: &str,
        name: &str,
        uuid: &str,
        vcpus: u32,
    ) -> FakeVm {
        let guest = format!("guest={namespace}_{name},debug-threads=on");
        let cgroup = "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod6f1e2d3c_4b5a_4968_8776_655443322110.slice/cri-containerd-2a.scope\n";
        self.any_qemu(pid, &["-name", &guest, "-uuid", uuid], cgroup, vcpus)
    }

    /// A Proxmox VE guest with this number.
    pub fn proxmox(&self, pid: i32, id: u32, name: &str, uuid: &str, vcpus: u32) -> FakeVm {
        let (id, name) = (id.to_string(), format!("{name},debug-threads=on"));
        let smbios = format!("type=1,uuid={uuid}");
        let cgroup = format!("0::/qemu.slice/{id}.scope\n");
        let args = ["-id", &id, "-name", &name, "-daemonize", "-smbios", &smbios];
        self.any_qemu(pid, &args, &cgroup, vcpus)
    }

    /// A Firecracker VM started by its jailer.
    pub fn firecracker(&self, pid: i32, id: &str, vcpus: u32) -> FakeVm {
        let cmdline = [
            "/firecracker",
            "--id",
            id,
            "--start-time-us",
            "1",
            "--api-sock",
            "/run/api.socket",
        ];
        let cgroup = format!("0::/firecracker/{id}\n");
        let vm = self.vmm(pid, &cmdline, &cgroup, vcpus, |n| format!("fc_vcpu {n}"));
        self.thread(pid, pid + 1, "fc_api", START + 1);
        vm
    }

    /// A Cloud Hypervisor VM with this API socket.
    pub fn cloud_hypervisor(&self, pid: i32, socket: &str, vcpus: u32) -> FakeVm {
        let cmdline = [
            "/usr/bin/cloud-hypervisor",
            "--api-socket",
            socket,
            "--cpus",
            "boot=2",
        ];
        let vm = self.vmm(pid, &cmdline, "0::/\n", vcpus, |n| format!("vcpu{n}"));
        self.thread(pid, pid + 1, "vmm", START + 1);
        vm
    }

    /// A crosvm VM.
    pub fn crosvm(&self, pid: i32, name: &str, vcpus: u32) -> FakeVm {
        let cmdline = [
            "/usr/bin/crosvm",
            "run",
            "--name",
            name,
            "--cpus",
            "2",
            "vmlinux",
        ];
        self.vmm(pid, &cmdline, "0::/\n", vcpus, |n| {
            format!("crosvm_vcpu{n}")
        })
    }

    /// A demo guest of the exporter.
    pub fn micro_vm(&self, pid: i32, name: &str, uuid: &str, vcpus: u32) -> FakeVm {
        let cmdline = [
            "/usr/bin/vcpu-exporter",
            "micro-vm",
            "--name",
            name,
            "--uuid",
            uuid,
        ];
        self.vmm(pid, &cmdline, "0::/\n", vcpus, |n| format!("CPU {n}/KVM"))
    }
}

fn systemd_scope(name: &str) -> String {
    format!("0::/{}/libvirt/emulator\n", scope(1, name))
}
