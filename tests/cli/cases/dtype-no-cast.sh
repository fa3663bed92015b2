# --dtype is named as the way out only where it casts.
uckpt convert -q "$DATA/torch/pt_dtypes/zip.pt" out.safetensors
echo "exit $?"
