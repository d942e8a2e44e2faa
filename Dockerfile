# syntax=docker/dockerfile:1
# Build:  docker build -t vcpu-exporter --build-arg REVISION=$(git describe --always --dirty) .
# Run:    see README.md, "Docker". It watches the host's processes, so it shares the host's PID namespace.

FROM rust:1-bookworm AS build
WORKDIR /src
# .dockerignore lets in what the build needs.
COPY . .
# Without the demo and its embedded guests; --build-arg FEATURES= builds them in.
ARG FEATURES=--no-default-features
ARG REVISION=unknown
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    VCPU_EXPORTER_REVISION="$REVISION" cargo build --release --locked $FEATURES --bin vcpu-exporter \
    && install -s target/release/vcpu-exporter /vcpu-exporter

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="vcpu-exporter" \
      org.opencontainers.image.description="Per-vCPU metrics of KVM virtual machines for Prometheus" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /vcpu-exporter /usr/local/bin/vcpu-exporter
# Whom pushes by OTLP trust, unless told otherwise.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY deploy/vcpu-exporter.yml /etc/vcpu-exporter.yml
EXPOSE 9752
# Root in the container, because Docker gives --cap-add to no other user; with --cap-drop ALL it is a root with
# three capabilities, and what else it is started with it drops.
ENTRYPOINT ["vcpu-exporter", "--config", "/etc/vcpu-exporter.yml", "--web.listen-address=0.0.0.0:9752"]
CMD ["serve"]
