#!/usr/bin/env python3
"""without_info.py CKPT OUT: the checkpoint without its `universal_checkpoint_info`, which is called otherwise then."""
import os
import shutil
import sys
import zipfile

INFO, HIDDEN = b"universal_checkpoint_info", b"universal_checkpoint_gone"


def hide(path):
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data.replace(INFO, HIDDEN) if name.endswith("/data.pkl") else data)


def main(source, target):
    shutil.copytree(source, target)
    for folder, _, files in os.walk(target):
        for name in files:
            if name.endswith("model_states.pt"):
                os.chmod(os.path.join(folder, name), 0o644)
                hide(os.path.join(folder, name))


if __name__ == "__main__":
    main(*sys.argv[1:])
