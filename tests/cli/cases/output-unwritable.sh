# A folder in which nobody, not even root, can make files.
uckpt convert -q "$DATA/torch/pt_shapes/zip.pt" /proc/out.h5
