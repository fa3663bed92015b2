# A file with a payload can be looked at; converting it is refused.
uckpt inspect "$DATA/hostile/pickle/reduce_os_system.pt"
uckpt convert "$DATA/hostile/pickle/reduce_os_system.pt" out.h5
code=$?
ls
exit $code
