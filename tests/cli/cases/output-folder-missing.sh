uckpt convert -q "$DATA/torch/pt_shapes/zip.pt" nowhere/out.h5
