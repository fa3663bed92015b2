# A device that is not there ends it before the input is looked at; so does a word that names none.
for verb in convert plan "convert -n"; do
  uckpt $verb --device cuda:1023 no/such/input out.h5; echo "exit $?"
done
uckpt convert --device gpu no/such/input out.h5; echo "exit $?"
uckpt convert --json --device cuda:x no/such/input out.h5; echo "exit $?"
ls -A
