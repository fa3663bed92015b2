# Neither a file nor a shipped spec; what is near is named.
uckpt check none.ucl
echo "exit $?"
uckpt check megatron/lama
echo "exit $?"
uckpt check
echo "exit $?"
