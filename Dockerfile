# syntax=docker/dockerfile:1
# Build:  docker build -t vcpu-exporter --build-arg REVISION=$(git describe --always --dirty) .
# Run:    see README.md, "Docker". The exporter reads the host's processes, so the container shares the host's PID namespace.

FROM rust:1-bookworm AS build
WORKDIR /src
# .dockerignore admits only the files that the build needs.
COPY . .
# Without the demo and its embedded guests; --build-arg FEATURES= includes them.
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
# Default trusted certificates for OTLP pushes.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY deploy/vcpu-exporter.yml /etc/vcpu-exporter.yml
EXPOSE 9752
# Root in the container, because Docker gives --cap-add capabilities to no other user. With --cap-drop ALL, root has three
# capabilities; the exporter drops all others.
ENTRYPOINT ["vcpu-exporter", "--config", "/etc/vcpu-exporter.yml", "--web.listen-address=0.0.0.0:9752"]
CMD ["serve"]
