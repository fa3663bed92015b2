uckpt
