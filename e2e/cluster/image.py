#!/usr/bin/env python3
"""Writes an OCI image archive without a registry or a container engine; `ctr images import` and `kind load` read it.

One layer, not compressed: the fastest to import. The same input gives the same bytes, wherever and whenever it is made.
With --libraries, each program brings the shared libraries that it loads here, and nothing else.
"""

import argparse
import hashlib
import io
import json
import os
import platform
import subprocess
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", help="archive to write")
    parser.add_argument("name", help="image reference, with a tag")
    parser.add_argument("files", nargs="+", metavar="FROM=TO", help="a file and its place in the image")
    parser.add_argument("--entry", required=True, help="program that the image runs")
    parser.add_argument("--user", default="", help="UID:GID that it runs as (default: root)")
    parser.add_argument("--libraries", action="store_true", help="add the shared libraries that the files load")
    return parser.parse_args()


def libraries(program):
    """Where the loader finds the shared libraries of a program: {place in the image: file here}."""
    found = {}
    for line in subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout.splitlines():
        name, _, target = line.strip().rpartition("=> ")
        path = target.split(" (")[0].strip()
        if path == "not found":
            raise SystemExit(f"{program} needs {name.strip()}, which is not installed")
        if path.startswith("/"):
            found[path] = os.path.realpath(path)
    return found


def layer(files):
    """A tar of {place: bytes or path}: parents first, sorted, root's, without times."""
    folders = set()
    for place in files:
        parent = os.path.dirname(place.lstrip("/"))
        while parent:
            folders.add(parent)
            parent = os.path.dirname(parent)
    # Where a pod mounts things into a root that cannot be written.
    folders.update({"dev", "etc", "proc", "sys", "tmp", "run"})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in sorted(folders):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        for place, source in sorted(files.items()):
            if isinstance(source, str):
                mode = 0o755 if os.access(source, os.X_OK) else 0o644
                with open(source, "rb") as file:
                    source = file.read()
            else:
                mode = 0o644
            entry = tarfile.TarInfo(place.lstrip("/"))
            entry.size, entry.mode = len(source), mode
            tar.addfile(entry, io.BytesIO(source))
    return buffer.getvalue()


def digest(data):
    return hashlib.sha256(data).hexdigest()


def descriptor(kind, data, **more):
    return {"mediaType": kind, "digest": "sha256:" + digest(data), "size": len(data), **more}


def main():
    options = arguments()
    files = {
        "/etc/passwd": b"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n",
        "/etc/group": b"root:x:0:\nnonroot:x:65532:\n",
        "/etc/nsswitch.conf": b"hosts: files dns\n",
    }
    for pair in options.files:
        source, _, place = pair.partition("=")
        files[place] = source
        if options.libraries:
            files.update(libraries(source))
    machine = platform.machine()
    target = {"architecture": ARCHITECTURES.get(machine, machine), "os": "linux"}

    content = layer(files)
    config = json.dumps({
        **target,
        "created": "1970-01-01T00:00:00Z",
        "config": {"Entrypoint": [options.entry], "User": options.user, "WorkingDir": "/", "Env": ["PATH=/"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest(content)]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "e2e/cluster/image.py"}],
    }).encode()
    kind = "application/vnd.oci.image."
    manifest = json.dumps({
        "schemaVersion": 2,
        "mediaType": kind + "manifest.v1+json",
        "config": descriptor(kind + "config.v1+json", config),
        "layers": [descriptor(kind + "layer.v1.tar", content)],
    }).encode()
    names = {"io.containerd.image.name": options.name, "org.opencontainers.image.ref.name": options.name.rpartition(":")[2]}
    index = json.dumps({
        "schemaVersion": 2,
        "mediaType": kind + "index.v1+json",
        "manifests": [descriptor(kind + "manifest.v1+json", manifest, platform=target, annotations=names)],
    }).encode()

    parts = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
    parts.update({"blobs/sha256/" + digest(data): data for data in (content, config, manifest)})
    whole = options.out + ".new"
    with tarfile.open(whole, "w") as tar:
        for name, data in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    os.replace(whole, options.out)
    print(f"{options.name}  {len(content) / 2**20:.1f} MiB  {options.out}")


if __name__ == "__main__":
    main()
