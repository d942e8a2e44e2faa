// Words that several dashboards use: the causes of a slow VM.
local line(text) = std.strReplace(std.stripChars(text, '\n '), '\n', ' ');

{
  // Causes of kvm_vm:trouble:score, in the order of their columns.
  causes:: [
    {
      cause: 'delay',
      column: 'Delay',
      runbook: 'KvmVmCpuDelayHigh',
      verdict: line(|||
        vCPUs wait for a core that other threads use; the guest sees steal. See "Delay: waiting for a core".
      |||),
    },
    {
      cause: 'starved',
      column: 'Starved',
      runbook: 'KvmVcpuStarved',
      verdict: line(|||
        One vCPU waits far longer than its siblings: a busy thread shares its core. See KVM / vCPU.
      |||),
    },
    {
      cause: 'quota',
      column: 'Quota',
      runbook: 'KvmVmQuotaThrottled',
      verdict: line(|||
        The CPU quota throttles the VM: it needs more CPU than its quota allows. See "Quota throttling".
      |||),
    },
    {
      cause: 'memory_remote',
      column: 'Memory',
      runbook: 'KvmVmMemoryRemote',
      verdict: line(|||
        Its memory is on another NUMA node than its vCPUs. See "Memory by NUMA node".
      |||),
    },
    {
      cause: 'device_remote',
      column: 'Device',
      runbook: 'KvmVmDeviceRemote',
      verdict: line(|||
        A passed-through device is on another NUMA node than its vCPUs. See "Passed-through devices".
      |||),
    },
    {
      cause: 'cache',
      column: 'Cache',
      runbook: 'KvmVmCacheMissStorm',
      verdict: line(|||
        Far more cache misses than in the hour before: a neighbor may evict its data. See "Neighbors in its cache".
      |||),
    },
    {
      cause: 'smt',
      column: 'SMT',
      runbook: 'KvmVmSmtContention',
      verdict: line(|||
        Its vCPUs share cores with busy siblings while other cores of its nodes are idle. See "Time beside a busy
        sibling".
      |||),
    },
    {
      cause: 'throttling',
      column: 'Heat',
      runbook: 'KvmPackageThrottled',
      verdict: line(|||
        The package it runs on is too hot, and the hardware slows its cores down. See "Frequency and heat".
      |||),
    },
    {
      cause: 'exits',
      column: 'Exits',
      runbook: 'KvmVmExitStorm',
      verdict: line(|||
        It exits to the host so often that handling the exits takes the time. See "Exits by reason".
      |||),
    },
    {
      cause: 'cpi_week',
      column: 'CPI, week',
      runbook: 'KvmVmCpiAboveItsWeek',
      symptom: true,
      verdict: line(|||
        The guest needs more cycles per instruction than in its last week: a symptom, not a cause.
      |||),
    },
    {
      cause: 'cpi_peers',
      column: 'CPI, peers',
      runbook: 'KvmVmCpiAbovePeers',
      symptom: true,
      verdict: line(|||
        The guest needs more cycles per instruction than its peers: a symptom, not a cause.
      |||),
    },
  ],

  nothing:: 'No cause on the host: look inside the guest.',
  // A storm of misses becomes usual after half an hour, and its score falls, while the neighbor goes on.
  only_symptoms:: line(|||
    No cause on the host is over its limit. Look inside the guest, and for new neighbors in its cache.
  |||),
  unknown:: line(|||
    No score is known. The VM uses too little CPU to be judged, or the rules of alerts/recording.yaml are not loaded.
  |||),

  // The last sentence of a description.
  runbook(names):: 'Runbook: ' + std.join(', ', names) + '.',
  runbook_of_cause:: 'Runbook: that of the cause.',
}
