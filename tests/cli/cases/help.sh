# Every verb explains itself with exit 0, and begins with examples.
set -e
uckpt --help | grep -q 'uckpt convert'
for verb in inspect ls convert plan extract check infer fmt devices; do
  uckpt $verb --help | grep -q "uckpt $verb"
done
