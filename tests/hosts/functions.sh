# What the scripts of the emulated hosts are written with.

# section NAME COMMAND...: its output, for the test to ask for by name.
section() {
    local name=$1
    shift
    echo "@@ $name"
    "$@"
    echo "@@ end"
}

# start_vm NAME LOAD VCPUS: a micro-VM; returns when its vCPUs run.
start_vm() {
    mkfifo "/tmp/$1.in" "/tmp/$1.out"
    # Opened for both, so that neither end waits and the guest never reads an end.
    vcpu-exporter micro-vm --control --name "$1" --load "$2" --vcpus "$3" \
        0<>"/tmp/$1.in" 1<>"/tmp/$1.out" &
    echo $! >"/tmp/$1.pid"
    read -r ready <"/tmp/$1.out"
}

# ask NAME COMMAND...: gives a micro-VM a command and prints its answer.
ask() {
    local name=$1 answer
    shift
    echo "$*" >"/tmp/$name.in"
    read -r answer <"/tmp/$name.out"
    echo "$answer"
}

# start_exporter [CONFIGURATION]: ticks every 100 ms and looks for VMs every second unless the
# configuration says otherwise; returns when it serves. $exporter is its process.
start_exporter() {
    local usual="sampling: {tick: 100ms, inventory: 1s}"
    echo "${1-$usual}" >/tmp/exporter.yml
    vcpu-exporter serve --config /tmp/exporter.yml 2>/tmp/exporter.log &
    exporter=$!
    until wget -q -O /dev/null http://127.0.0.1:9752/metrics 2>/dev/null; do
        kill -0 "$exporter" 2>/dev/null || {
            cat /tmp/exporter.log
            return 1
        }
        usleep 50000
    done
}

stop_exporter() {
    kill "$exporter"
    wait "$exporter"
}

scrape() {
    wget -q -O - http://127.0.0.1:9752/metrics
}

# scrape_until PATTERN: the first scrape with a line that matches; fails after 60 s.
scrape_until() {
    local left=300
    until scrape >/tmp/scrape && grep -Eq "$1" /tmp/scrape; do
        left=$((left - 1))
        [ $left -gt 0 ] || {
            cat /tmp/scrape >&2
            echo "nothing there matches $1" >&2
            return 1
        }
        usleep 200000
    done
    cat /tmp/scrape
}

ticks() {
    scrape | sed -n 's/^kvm_exporter_ticks_total \([0-9]*\).*/\1/p'
}

# scrape_anew: a scrape whose tick began after this.
scrape_anew() {
    # One tick may have been under way already.
    local wanted=$(($(ticks) + 2))
    while [ "$(ticks)" -lt "$wanted" ]; do usleep 50000; done
    scrape
}

# sandwich VM NAME: the section NAME is a scrape made while the micro-VM stands still; NAME.before
# and NAME.after are its own account of just before and just after.
sandwich() {
    section "$2.before" ask "$1" stats
    kill -STOP "$(cat "/tmp/$1.pid")"
    section "$2" scrape_anew
    kill -CONT "$(cat "/tmp/$1.pid")"
    section "$2.after" ask "$1" stats
}
