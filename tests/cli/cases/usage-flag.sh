uckpt inspect --no-such-flag "$DATA/torch/pt_shapes/zip.pt"
