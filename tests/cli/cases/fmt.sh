# Files are rewritten in place where that changes them, and keep their permissions; a second time changes nothing.
printf 'ucl 1 # one\nlayout   l over tp{ "a" [ o@tp,i ] \n"bb" replicate# two\n}' > a.ucl
uckpt check megatron/llama > /dev/null
chmod 640 a.ucl
ln -s a.ucl link.ucl
uckpt fmt link.ucl
echo "exit $?"
cat a.ucl
stat -c '%a %F' a.ucl link.ucl
uckpt fmt a.ucl link.ucl
echo "exit $?"
ls -A
