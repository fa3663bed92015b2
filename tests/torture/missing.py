"""Every file removed in turn, and files of other runs added: named, exit 1, nothing written; or the output is the same.

What may be missing is listed in DISPENSABLE with the reason; what may be added in LEFT_OVER.
"""
import functools
import os
import re
import shutil

import fixtures
import tool

# (fixtures, file, reason): without it the output is byte for byte the same.
DISPENSABLE = [
    (r"deepspeed/.*", r"latest(_universal)?", "the only tag folder is the checkpoint", False),
]
