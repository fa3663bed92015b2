uckpt convert -j 0 "$DATA/torch/pt_shapes/zip.pt" out.h5
