# One recipe for each part of tests/run, which runs them without just too: tests/run fmt clippy

[private]
default:
    @{{ just_executable() }} --list --unsorted

# all checks, as in CI
all *options:
    tests/run {{ options }}

# what the other checks need: packages, receivers of OTLP, promtool, the driver of the browser, jsonnet
tools:
    tests/run tools

# the formatting is rustfmt's
fmt:
    tests/run fmt

# clippy finds nothing, with and without the demo
clippy:
    tests/run clippy

# the documentation builds without warnings
doc:
    tests/run doc

# the oldest compiler of Cargo.toml compiles it
oldest:
    tests/run oldest

# cargo-deny accepts all dependencies
deny:
    tests/run deny

# the dashboards have Grafana's types
types:
    tests/run types

# unit, integration and e2e
tests:
    tests/run tests

# tests inside the library, the program and the documentation
unit:
    tests/run unit

# test programs, except e2e and hosts
integration:
    tests/run integration

# real guests, a real Prometheus, Alertmanager and browser
e2e:
    tests/run e2e

# emulated hosts
hosts:
    tests/run hosts
