# With --json a refusal is an object with a stable code.
uckpt inspect --json "$DATA/hostile/zip/trailing_junk.pt"
