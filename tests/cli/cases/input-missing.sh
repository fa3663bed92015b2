uckpt inspect no-such-folder
