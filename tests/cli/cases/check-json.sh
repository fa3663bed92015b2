# The same for programs, on stdout; exit codes as without --json.
printf 'ucl 1\nlayout l over tp { "a" [o@pt] }\n' > bad.ucl
uckpt check --json bad.ucl
echo "exit $?"
uckpt check --json megatron/llama
echo "exit $?"
uckpt check --json none.ucl
echo "exit $?"
