# To a file with a line of answer, or as bytes to standard output.
set -e
uckpt extract "$DATA/torch/pt_shapes/zip.pt" parameter -o p.npy
uckpt extract "$DATA/torch/pt_shapes/zip.pt" parameter -o - > q.npy
cmp p.npy q.npy
head -c 6 p.npy | tail -c 5
