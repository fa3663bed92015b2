# `-o -` prints what a file would hold, and makes no file of that name.
uckpt plan "$DATA/torch/pt_shapes/zip.pt" out.h5 -o - > plan.json
uckpt plan --json "$DATA/torch/pt_shapes/zip.pt" out.h5 | cmp - plan.json && echo same plan
uckpt sum -q "$DATA/torch/pt_shapes/zip.pt" -o - > sums.txt
uckpt sum -q "$DATA/torch/pt_shapes/zip.pt" | cmp - sums.txt && echo same sums
test -e ./- || echo no file
uckpt convert -q "$DATA/torch/pt_shapes/zip.pt" out.h5 --manifest -
echo "exit $?"
test -e ./- || echo no file
