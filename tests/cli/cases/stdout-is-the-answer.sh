# stdout holds one line of answer and stderr the progress, whatever the style; with -q there is neither.
for style in auto plain json none; do
  uckpt convert --progress $style "$DATA/deepspeed/zero1-dp2/ckpt" $style.h5 2> $style.err > $style.out || exit
  wc -l < $style.out
done
wc -c < none.err
