//! Divides descriptors between VMs when there are too few for all.
//!
//! Root's and the managers' VMs come first, and the users divide the rest max-min fairly: no user
//! gets less than another because of a later start or fewer vCPUs. An owner's VMs divide its share
//! in the same way, first the /proc files of scheduling, then counters. VMs that hold more than
//! their share when others start release the excess.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::{most, none_left};
use crate::discover::{Owner, VmKey};
use crate::engine::vcpu_sampler::VcpuSampler;
use crate::engine::{OpenError, Reason, ReasonCode, VcpuSource};

/// What descriptors are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum DescriptorKind {
    /// Files of /proc for scheduling, without which a vCPU has no series at all.
    Files,
    /// Hardware counters and other perf events.
    Counters,
}

impl DescriptorKind {
    /// The kind that source `n` needs; source 0 is sched.
    pub(in crate::engine) fn of_source(n: usize) -> Self {
        match n {
            0 => Self::Files,
            _ => Self::Counters,
        }
    }
}

/// The shares of all VMs.
#[derive(Debug, Default)]
pub(in crate::engine) struct Shares {
    vms: HashMap<VmKey, Share>,
    /// Maximum number of descriptors, if not derived from the process limit.
    most: Option<usize>,
    /// A VM got no descriptor within its share: others use more than expected.
    short: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Share {
    files: Room,
    counters: Room,
}

/// `may` is `usize::MAX` while there are enough for all.
#[derive(Debug, Clone, Copy, Default)]
struct Room {
    may: usize,
    held: usize,
}

impl Share {
    fn new(files: usize, counters: usize) -> Self {
        let room = |may| Room { may, held: 0 };
        let (files, counters) = (room(files), room(counters));
        Self { files, counters }
    }

    fn room(&mut self, kind: DescriptorKind) -> &mut Room {
        match kind {
            DescriptorKind::Files => &mut self.files,
            DescriptorKind::Counters => &mut self.counters,
        }
    }
}

impl Shares {
    /// Shares of at most `most` descriptors.
    #[cfg(test)]
    pub(in crate::engine) fn limited_to(most: usize) -> Self {
        Self {
            most: Some(most),
            ..Self::default()
        }
    }

    /// Checks whether a VM may open `wanted` more descriptors.
    ///
    /// # Errors
    /// The reason if it may not.
    pub(in crate::engine) fn admit(
        &mut self,
        vm: VmKey,
        kind: DescriptorKind,
        wanted: usize,
    ) -> Result<(), Reason> {
        let room = self.vms.entry(vm).or_default().room(kind);
        if wanted == 0 || room.held.saturating_add(wanted) <= room.may {
            Ok(())
        } else {
            Err(used_up(room.may))
        }
    }

    /// Records that a VM opened this many more.
    pub(in crate::engine) fn hold(&mut self, vm: VmKey, kind: DescriptorKind, opened: usize) {
        self.vms.entry(vm).or_default().room(kind).held += opened;
    }

    /// Records whether a source got no descriptor although the VM's share had room.
    pub(in crate::engine) fn note<T>(
        &mut self,
        opened: Result<T, OpenError>,
    ) -> Result<T, OpenError> {
        self.short |= matches!(&opened, Err(OpenError::Refused(why)) if why.code == ReasonCode::NoDescriptors);
        opened
    }

    /// Divides again after VMs started or ended: closes what exceeds a share, and retries what was
    /// refused.
    pub(in crate::engine) fn divide(
        &mut self,
        vcpu_samplers: &mut [VcpuSampler],
        sources: &[Box<dyn VcpuSource>],
        now: Instant,
    ) {
        let most = self.most.unwrap_or_else(most);
        self.divide_up(most, vcpu_samplers, sources, now);
    }

    /// Divides the number held now, if a VM was refused a descriptor within its share.
    pub(in crate::engine) fn divide_if_short(
        &mut self,
        vcpu_samplers: &mut [VcpuSampler],
        sources: &[Box<dyn VcpuSource>],
        now: Instant,
    ) {
        if self.short {
            let held = vcpu_samplers.iter().map(VcpuSampler::descriptors).sum();
            self.divide_up(held, vcpu_samplers, sources, now);
        }
    }

    fn divide_up(
        &mut self,
        most: usize,
        vcpu_samplers: &mut [VcpuSampler],
        sources: &[Box<dyn VcpuSource>],
        now: Instant,
    ) {
        self.short = false;
        let mut needs = sources.iter().map(|source| source.descriptors());
        let files = needs.next().unwrap_or(0);
        let wants = wants(vcpu_samplers, files, needs.sum());
        self.vms = shares(most, &wants).into_iter().collect();
        for vcpu_sampler in vcpu_samplers {
            let share = self.vms.entry(vcpu_sampler.vm.key).or_default();
            for kind in [DescriptorKind::Counters, DescriptorKind::Files] {
                let room = share.room(kind);
                let held = vcpu_sampler.held(kind);
                if room.held + held > room.may {
                    vcpu_sampler.release(kind, &used_up(room.may), now);
                } else {
                    room.held += held;
                }
            }
            vcpu_sampler.retry_descriptors();
        }
    }
}

fn used_up(share: usize) -> Reason {
    none_left(format!(
        "the VM has used its share of {share} file descriptors: the limit is too low for all VMs"
    ))
}

/// The number of descriptors that one VM needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Want {
    vm: VmKey,
    owner: Owner,
    files: usize,
    counters: usize,
}

impl Want {
    fn all(&self) -> usize {
        self.files.saturating_add(self.counters)
    }
}

fn wants(vcpu_samplers: &[VcpuSampler], files: usize, counters: usize) -> Vec<Want> {
    let vms = vcpu_samplers.chunk_by(|a, b| a.vm.key == b.vm.key);
    let want = |vcpu_samplers: &[VcpuSampler]| Want {
        vm: vcpu_samplers[0].vm.key,
        owner: vcpu_samplers[0].vm.owner,
        files: files.saturating_mul(vcpu_samplers.len()),
        counters: counters.saturating_mul(vcpu_samplers.len()),
    };
    vms.map(want).collect()
}

/// Each VM's share of `most` descriptors.
fn shares(most: usize, wants: &[Want]) -> Vec<(VmKey, Share)> {
    let sum = |wants: &[Want]| wants.iter().map(Want::all).sum::<usize>();
    if sum(wants) <= most {
        let all = Share::new(usize::MAX, usize::MAX);
        return wants.iter().map(|want| (want.vm, all)).collect();
    }
    let mut owners: BTreeMap<Owner, Vec<Want>> = BTreeMap::new();
    for want in wants {
        owners.entry(want.owner).or_default().push(*want);
    }
    let host = owners.remove(&Owner::Host).unwrap_or_default();
    let left = most.saturating_sub(sum(&host));
    let users: Vec<usize> = owners.values().map(|wants| sum(wants)).collect();
    let users = owners.values().zip(fair(left, &users));
    let of_users = users.flat_map(|(wants, share)| among(share, wants));
    among(most, &host).into_iter().chain(of_users).collect()
}

/// The shares of one owner's VMs: files first.
fn among(most: usize, wants: &[Want]) -> Vec<(VmKey, Share)> {
    let files: Vec<usize> = wants.iter().map(|want| want.files).collect();
    let files = fair(most, &files);
    let left = most - files.iter().sum::<usize>();
    let counters: Vec<usize> = wants.iter().map(|want| want.counters).collect();
    let counters = fair(left, &counters);
    let share =
        |((want, files), counters): ((&Want, usize), usize)| (want.vm, Share::new(files, counters));
    wants.iter().zip(files).zip(counters).map(share).collect()
}

/// Max-min fair: a want below an equal part is granted, and the others divide the rest.
fn fair(most: usize, wants: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by_key(|n| wants[*n]);
    let mut shares = vec![0; wants.len()];
    let mut left = most;
    for (done, n) in order.iter().enumerate() {
        shares[*n] = wants[*n].min(left / (wants.len() - done));
        left -= shares[*n];
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn want(pid: i32, owner: Owner, vcpus: usize) -> Want {
        let (start_time, ordinal) = (0, 0);
        Want {
            vm: VmKey {
                pid,
                start_time,
                ordinal,
            },
            owner,
            files: 4 * vcpus,
            counters: 10 * vcpus,
        }
    }

    fn divided(most: usize, wants: &[Want]) -> Vec<(usize, usize)> {
        let shares: HashMap<VmKey, Share> = shares(most, wants).into_iter().collect();
        let share = |want: &Want| shares[&want.vm];
        let shares = wants.iter().map(share);
        shares.map(|s| (s.files.may, s.counters.may)).collect()
    }

    const ALL: usize = usize::MAX;

    #[test]
    fn enough_for_all_sets_no_bound() {
        let wants = [want(1, Owner::Host, 2), want(2, Owner::User(None), 3)];
        assert_eq!(divided(70, &wants), [(ALL, ALL); 2]);
        assert_eq!(divided(69, &wants), [(8, 20), (12, 29)]);
    }

    #[test]
    fn user_with_very_many_vcpus_takes_none_from_others() {
        let (hog, other) = (Owner::User(Some(1)), Owner::User(Some(2)));
        let mut wants: Vec<Want> = (0..8).map(|pid| want(pid, hog, 1000)).collect();
        wants.push(want(8, other, 4));
        wants.push(want(9, Owner::Host, 100));
        let shares = divided(20_000, &wants);
        assert_eq!(shares[8..], [(16, 40), (400, 1000)]);
        let of_hog: usize = shares[..8]
            .iter()
            .map(|(files, counters)| files + counters)
            .sum();
        assert_eq!(of_hog, 20_000 - 56 - 1400);
        assert!(shares[..8]
            .iter()
            .all(|(files, counters)| *files >= 2300 && *counters == 0));
    }

    #[test]
    fn vms_of_one_owner_share_as_owners_do() {
        let wants = [want(1, Owner::Host, 100), want(2, Owner::Host, 1)];
        assert_eq!(divided(500, &wants), [(400, 86), (4, 10)]);
    }

    proptest! {
        #[test]
        fn shares_are_fair_and_never_more_than_there_is(
            most in 0..200usize, wants in prop::collection::vec(0..60usize, 1..9)
        ) {
            let shares = fair(most, &wants);
            let sum: usize = shares.iter().sum();
            prop_assert_eq!(sum, most.min(wants.iter().sum()));
            let largest = shares.iter().max().copied().unwrap_or(0);
            for (share, want) in shares.iter().zip(&wants) {
                prop_assert!(share == want || *share + 1 >= largest);
            }
        }
    }
}
