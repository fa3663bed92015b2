# All that is wrong is said at once, on stderr, with carets.
cat > bad.ucl <<'UCL'
ucl 1
layout l over tp {
    "layers.{i}.fc1.weight"  [(gate: f@tp | up: f@pt), h]
}
map l <-> m {
    "layers.{i}.fc1.weight" [(gate: f | up: f), h]
        <-> gate: "h.{i}.gate" [f, h], up: "h.{i}.up" [f, hidden]
}
UCL
uckpt check bad.ucl
