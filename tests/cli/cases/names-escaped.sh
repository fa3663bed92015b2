# Names from files never reach the terminal raw.
uckpt ls -a "$DATA/hostile/name/ansi_escape.pt"
uckpt convert -q "$DATA/hostile/name/dotdot.pt" out.h5 && uckpt ls -a out.h5
ls
