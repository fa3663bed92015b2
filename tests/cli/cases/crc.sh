# A flipped bit is found by its checksum; --no-crc takes the bytes as they are.
uckpt convert -q "$DATA/hostile/zip/crc_data.pt" out.h5
echo "exit $?"
uckpt convert -q --no-crc "$DATA/hostile/zip/crc_data.pt" out.h5
echo "exit $?"
