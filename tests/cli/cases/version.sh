uckpt --version
