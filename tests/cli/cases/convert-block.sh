# A program's `convert` block names both namings; what else it says is not applied, and that is told.
cat > rules.ucl <<'UCL'
ucl 1
layout ours { "**" replicate }
map ours <-> theirs { "{x:**}" <-> "model.{x}" }
convert {
    from deepspeed as ours
    to   hdf5      as theirs
    dtype bf16
}
UCL
uckpt convert --spec rules.ucl "$DATA/deepspeed/zero2-dp3/ckpt" out.h5 && uckpt ls -a "out.h5::*/model.emb.weight"
