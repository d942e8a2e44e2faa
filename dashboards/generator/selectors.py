"""Pieces of PromQL that several dashboards use."""

HOSTS = 'job=~"$job",instance=~"$instance"'
HOST = 'job="$job",instance="$instance"'
VM = HOST + ',vm="$vm"'
VCPU = VM + ',vcpu=~"$vcpu"'

# By core without its node, as joins need it.
CORE_DEMAND = f"max by (job, instance, package, core) (kvm_host_core:demand:rate5m{{{HOST}}})"

# Which last-level cache a core belongs to.
LLC = f"""max by (job, instance, package, core, llc) (kvm_host_cpu_info{{{HOST},online="true"}})"""

# Each VM's cores' worth of time in each last-level cache of the host.
TIME_BY_LLC = f"""\
sum by (job, instance, vm, llc) (
  kvm_vm:time_by_core:rate5m{{{HOST},core!=""}}
    * on (job, instance, package, core) group_left (llc) {LLC}
)"""


# Cache misses a second of each VM's guest.
MISSES = f'sum by (job, instance, vm) (kvm_vcpu:cache_misses:rate5m{{{HOST},mode="guest"}})'


def padded(expr, to, label):
    """With `label` in the label `to`, filled up to three digits, so that names sort as numbers do."""
    for digits, zeros in (("[0-9]", "00"), ("[0-9]{2}", "0"), ("[0-9]{3,}", "")):
        expr = f'label_replace({expr}, "{to}", "{zeros}$1", "{label}", "({digits})")'
    return expr


def by_core(expr, how="max"):
    """One series for each core, sorted by node, package and core: PLACE is its name."""
    return f"{how} by (numa_node, package, padded_core) (\n  {padded(expr, 'padded_core', 'core')}\n)"


# It begins with a letter: a heat map sorts names that begin with a number by that number alone.
PLACE = "N{{numa_node}} P{{package}} C{{padded_core}}"


def worst(count, on, selector):
    """The series that were highest at some time of what is shown. topk alone picks others at every step."""
    return f"{selector}\n  and on ({on}) topk({count}, max_over_time({selector}[$__range] @ end()))"


def worst_of(count, on, expr):
    """The same of an expression."""
    return f"({expr})\n  and on ({on}) topk({count}, max_over_time(({expr})[$__range:$__interval] @ end()))"
