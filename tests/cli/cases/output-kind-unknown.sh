uckpt convert -q "$DATA/torch/pt_shapes/zip.pt" out.banana
code=$?
ls
exit $code
