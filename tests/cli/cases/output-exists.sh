# Without -f an existing file stays as it is; with -f it is replaced whole.
echo precious > out.h5
uckpt convert -q "$DATA/torch/pt_shapes/zip.pt" out.h5
echo "exit $?"
cat out.h5
uckpt convert -q -f "$DATA/torch/pt_shapes/zip.pt" out.h5
echo "exit $?"
head -c 4 out.h5 | tail -c 3
