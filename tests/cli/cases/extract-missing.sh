uckpt extract "$DATA/torch/pt_shapes/zip.pt" paramter -o p.npy
code=$?
ls
exit $code
