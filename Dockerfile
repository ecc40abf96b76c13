# The images of netsplit for a registry of yours:
#
#   docker build --target netsplit      --tag registry.example/netsplit:0.1.0 .
#   docker build --target netsplit-node --tag registry.example/netsplit-node:0.1.0 .
#
# `make images` makes the same two as archives, without Docker.

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends clang libclang-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# Compiled output is kept between builds, so that RocksDB is compiled once.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --release --locked --workspace --bins && install -D -t /out target/release/netsplit target/release/netsplit-node
# The keeper of nodes runs in images of others, too: with everything it needs in itself.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo rustc --release --locked --package netsplit-keeper --bin netsplit-keeper --target-dir target/static \
        -- -C target-feature=+crt-static \
    && install -D -t /out target/static/release/netsplit-keeper

# glibc, libgcc and libstdc++, and nothing else; runs as uid 65532.
FROM gcr.io/distroless/cc-debian12:nonroot AS netsplit-node
COPY --from=build /out/netsplit-node /netsplit-node
USER 65532:65532
ENTRYPOINT ["/netsplit-node"]

FROM gcr.io/distroless/cc-debian12:nonroot AS netsplit
COPY --from=build /out/netsplit /out/netsplit-keeper /
USER 65532:65532
ENTRYPOINT ["/netsplit"]
