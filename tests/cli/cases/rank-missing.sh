cp -r "$DATA/deepspeed/zero2-dp3/ckpt" ckpt
rm ckpt/global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt
uckpt convert -q ckpt out.h5
code=$?
ls
exit $code
