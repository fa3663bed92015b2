uckpt explode "$DATA/torch/pt_shapes/zip.pt"
