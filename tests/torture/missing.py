"""Every file removed in turn, and files of other runs added: named, exit 1, nothing written. Where the rules of a format say
that a file does not matter, the output is byte for byte the same, and of an added file a warning says that it was not read.

DISPENSABLE and STRANGERS list what does not matter, and why; whatever is not listed has to be refused.
"""
import functools
import os
import re
import shutil

import fixtures
import tool

# (fixture, file, reason) of files that may go. A warning names them where `warns` is its text.
DISPENSABLE = [
    (r"deepspeed/.*", r"latest(_universal)?", "the only tag there is", "there is no `latest`"),
    (r"torch/megatron_.*", r"latest_checkpointed_iteration\.txt", "the only iteration there is", "latest_checkpointed_iteration"),
    (r"torch/dcp_hf_writer_consolidated/ckpt", r"sharded/.*", "the consolidated files beside it are read", ""),
    (r"deepspeed/universal-zero1-dp2/ckpt", r".*/zero/(flags|inv_freq|pos|seen|head\.weight)/fp32\.pt",
     "a buffer, a frozen or a tied weight, which the model file has", ""),
]
# Without these the tensors are the same, and one object less is kept.
SETTINGS = re.compile(r"(generation_)?config\.json")
# What a refusal says that cannot name the file, as nothing says what it was called.
SAYS = [
    (r".*", r".*\.safetensors\.index\.json", r"an index `\*\.safetensors\.index\.json`"),
    (r"torch/st_dtypes/model", r"model\.safetensors", r"the folder is empty"),
]

ZERO = "deepspeed/zero2-dp3/ckpt/global_step4/"
DEEPSPEED = [
    # (source in tests/data, name, reason why it may lie there; None: it must be refused)
    (ZERO + "zero_pp_rank_2_mp_rank_00_optim_states.pt", "zero_pp_rank_9_mp_rank_00_optim_states.pt", "more ranks than the run had"),
    (ZERO + "mp_rank_00_model_states.pt", "mp_rank_07_model_states.pt", "more ranks than the run had"),
    ("deepspeed/zero3-dp2/ckpt/global_step4/zero_pp_rank_1_mp_rank_00_model_states.pt",
     "zero_pp_rank_9_mp_rank_00_model_states.pt", "more ranks than the run had"),
    ("deepspeed/pipe-pp2-dp2/ckpt/global_step3/layer_02-model_00-model_states.pt", "layer_09-model_00-model_states.pt",
     "no pipeline"),
    ("deepspeed/moe-ep2-zero2-dp2/ckpt/global_step3/layer_0_expert_0_mp_rank_00_model_states.pt",
     "layer_5_expert_3_mp_rank_00_model_states.pt", "no such layer of experts"),
    ("deepspeed/moe-ep2-nozero-dp2/ckpt/global_step3/expp_rank_0_mp_rank_00_optim_states.pt",
     "expp_rank_7_mp_rank_00_optim_states.pt", "ZeRO's files hold the experts"),
    ("deepspeed/bf16-zero3-dp2/ckpt/global_step4/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
     "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt", None),
]
ANYWHERE = [
    ("torch/pt_views/zip.pt", "random.pt", "no name of the format"),
    ("torch/st_dtypes/model/model.safetensors", "other.safetensors", "no name of the format"),
    ("torch/dcp_fsdp1_flat_param/ckpt/__1_0.distcp", "__9_0.distcp", "no file that `.metadata` names"),
]
# (fixture, added name, what happens instead, why)
OTHERWISE = [
    (r"deepspeed/moe-ep2-nozero-dp2/ckpt", r"bf16_zero_.*", r"refused: zero_pp_rank_\d+_mp_rank_00", "half a ZeRO optimizer"),
    (r"deepspeed/moe-ep2-nozero-dp2/ckpt", r"zero_pp_rank_9_.*optim.*", r"taken: zero_pp_rank_9",
     "the stage and the ranks in the layout's comment are read off it, nothing else"),
    (r"deepspeed/moe-ep2-nozero-dp2/ckpt", r"expp_rank_7.*", r"refused: expp_rank_7", "one more optimizer of experts"),
    (r"deepspeed/(universal.*|.*-dp1.*)", r"bf16_zero_pp_rank_1_.*", r"warned: bf16_zero_pp_rank_1_", "one more than there are ranks"),
    (r"deepspeed/.*", r"bf16_zero_pp_rank_1_.*", r"refused: .*(claim to be rank|bf16_zero_pp_rank_1|zero_pp_rank_)", "a rank's second file"),
    (r"deepspeed/pipe-pp2-dp2/ckpt", r"layer_09.*", r"taken: layer_09", "a frozen layer looks the same: it is taken, and said"),
    (r"deepspeed/pipe-pp2-tp2-dp1/ckpt", r"layer_09.*", r"refused: .*rules", "it fits no rule of the other ranks"),
    (r"torch/dcp_hf_writer_sharded/ckpt", r"other\.safetensors", r"refused: .*9 files", "no telling which are meant"),
]


def matching(table, fixture, name):
    return next((row for row in table if re.fullmatch(row[0], fixture.name) and re.fullmatch(row[1], name)), None)


def convert(source, scratch):
    out = scratch.file("out.h5")
    return out, tool.run("convert", "--no-sync", "-j", "1", source, out)


def check_removed(fixture, name):
    with tool.Scratch() as scratch:
        source = fixture.copy(scratch.file("in"))
        os.remove(os.path.join(source, name))
        before = scratch.left()
        out, result = convert(source, scratch)
        if row := matching(DISPENSABLE, fixture, name):
            problems = result.problems()
            if result.code != 0:
                return problems + [f"exit {result.code} without a file that may go: {result.error.strip()[:200]}"]
            if row[3] not in result.error:
                problems.append(f"no warning with {row[3]!r}")
            return problems + fixtures.same_tree(out, fixtures.reference(fixture))
        if SETTINGS.fullmatch(name) and result.code == 0:
            weights = scratch.file("out.safetensors")
            again = tool.run("convert", *fixtures.QUIET, source, weights)
            same = again.code == 0 and fixtures.safetensors(weights) == fixtures.safetensors(fixture.expected)
            return [] if same else ["other tensors without it"]
        problems = fixtures.refusal_problems(result, (1,), scratch.path, before)
        said = matching(SAYS, fixture, name)
        # A rank's folder is named where all of it is missing.
        names = [os.path.basename(name), *(part for part in name.split("/") if part.startswith("mp_rank_"))]
        if not (re.search(said[2], result.error) if said else any(n in result.error for n in names)):
            problems.append(f"not named: {result.error.strip()[:200]}")
        return problems


def check_added(fixture, where, name, reason):
    """`where` is what to copy from; the file may lie there if there is a reason."""
    with tool.Scratch() as scratch:
        source = fixture.copy(scratch.file("in"))
        shutil.copyfile(where, os.path.join(source, name))
        before, base = scratch.left(), os.path.basename(name)
        out, result = convert(source, scratch)
        row = matching(OTHERWISE, fixture, base)
        fate, _, text = (row[2] if row else f"warned: {re.escape(base)}" if reason else f"refused: {re.escape(base)}").partition(": ")
        if fate == "refused":
            problems = fixtures.refusal_problems(result, (1,), scratch.path, before)
        else:
            problems = result.problems()
            if result.code != 0:
                return problems + [f"exit {result.code}, expected a warning: {result.error.strip()[:200]}"]
            if fate == "warned":
                problems += fixtures.same_tree(out, fixtures.reference(fixture))
        if not re.search(text, result.error):
            problems.append(f"not named: {result.error.strip()[:200]}")
        return problems


def folders_with_data(fixture):
    """Where a run writes its files: the tag, the iteration."""
    found = {os.path.dirname(name) for name in fixture.files() if name.endswith((".pt", ".distcp", ".safetensors"))}
    return sorted(f for f in found if "/zero/" not in f and f != "sharded")


def additions(fixture):
    folder = folders_with_data(fixture)[0]
    for source, name, reason in ANYWHERE + (DEEPSPEED if fixture.kind == "deepspeed" else []):
        at = os.path.join(folder, name)
        if not os.path.exists(os.path.join(fixture.path, at)):
            yield os.path.join(tool.DATA, source), at, reason
    # A data file of its own under another rank's number.
    own = [name for name in fixture.files() if name.endswith(".distcp")]
    if own:
        name = re.sub(r"__(\d+)_", lambda m: f"__{int(m[1]) + 17}_", own[-1])
        yield os.path.join(fixture.path, own[-1]), name, "no file that `.metadata` names"


def run(tally, options):
    jobs = []
    for fixture in fixtures.shipped():
        if not fixture.is_folder():
            continue
        fixtures.reference(fixture)
        names = fixture.files()
        if not options.long:   # of the hundred folders of a universal checkpoint a few
            names = [n for n in names if "/zero/" not in n or n.count("/") < 3 or re.search(r"/zero/(aux|emb|flags|pos|head)", n)]
        for name in names:
            jobs.append((f"missing {fixture.name} {name}", functools.partial(check_removed, fixture, name)))
        for where, name, reason in additions(fixture):
            jobs.append((f"added {fixture.name} {name}", functools.partial(check_added, fixture, where, name, reason)))
    tally.report_all(jobs)
